// What the report shows: spectra, depth profiles, attention, training; its table and its theme.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);
const everything = data.targets.map((_, index) => index);
const inOrder = (set) => [...set].sort((a, b) => a - b);
const several = data.targets.length > 1;
const titled = (target, name) => (several ? `${target.label} · ${name}` : name);

const pi = (value) => (value === 0 ? "0" : `${+value.toFixed(3)}π`);
const FREQUENCIES = [[0, "0"], [0.25, "0.25π"], [0.5, "0.5π"], [0.75, "0.75π"], [1, "π"]];
const QUARTERS = [[0, "0"], [0.25, "0.25"], [0.5, "0.5"], [0.75, "0.75"], [1, "1"]];
const OPS = { // without a prototype: an op of a file may be called "constructor"
  __proto__: null, attention: "attention", mlp: "MLP", conv: "convolution", downsample: "subsampling", embed: "embedding",
};
const ALIKE = "white noise, same mean and variance";
const opName = (op) => OPS[op] ?? op;

// --- colours ------------------------------------------------------------------------------------------------------

const COLORS = 7, DASHES = ["", "7 3", "2 3"]; // of targets: classes t0 to t6 of the style, then the same dashed
const dashOf = (index) => Math.floor(index / COLORS) % DASHES.length;
const look = (index) => ({ cls: `t${index % COLORS}`, dash: DASHES[dashOf(index)] });
const swatchOf = (index) => `t${index % COLORS} d${dashOf(index)}`; // the swatch is dashed where the curve is

// plasma, shallow dark to deep bright; without the end that vanishes on the paper
const PLASMA = ["0d0887", "4c02a1", "7e03a8", "a92395", "cc4778", "e56b5d", "f89540", "fdc527", "f0f921"].map(
  (hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));
function plasma(t) {
  const at = Math.min(Math.max(t, 0), 1) * (PLASMA.length - 1), left = Math.min(Math.floor(at), PLASMA.length - 2);
  const mixed = PLASMA[left].map((low, k) => Math.round(low + (PLASMA[left + 1][k] - low) * (at - left)));
  return `rgb(${mixed.join(" ")})`;
}
const both = CSS.supports("color", "light-dark(red, red)");
function depthColor(depth) {
  const light = plasma(0.86 * depth);
  return both ? `light-dark(${light}, ${plasma(0.28 + 0.72 * depth)})` : light;
}

// --- filters: what the menus above the summary leave ---------------------------------------------------------------

const MOST = 8; // curves or targets that are drawn before anybody asks for more
const FACETS = ["Model", "Schedule", "Data"];
const redraws = []; // what is drawn anew when a filter changes
const left = new Set(everything);
const firstFew = (indices) => {
  const seen = new Set(), distinct = indices.filter((index) => {
    const { group } = data.targets[index], again = seen.has(group);
    seen.add(group);
    return !again;
  });
  return new Set((distinct.length > 1 ? distinct : indices).slice(0, MOST)); // one seed of each group first
};

function setUpFilters() {
  const menus = [...document.querySelectorAll("#filters select")];
  const apply = () => {
    left.clear();
    everything.filter((index) => menus.every(({ value, dataset }) =>
      !value || data.targets[index].facets[dataset.facet] === value)).forEach((index) => left.add(index));
    const groups = new Set([...left].map((index) => data.targets[index].group));
    document.querySelectorAll("#summary-table tbody tr").forEach((row) => { row.hidden = !left.has(+row.dataset.target); });
    document.querySelectorAll("#groups-table tbody tr").forEach((row) => { row.hidden = !groups.has(row.dataset.group); });
    byId("filtered").textContent = left.size < everything.length ? `${left.size} of ${everything.length} results` : "";
    redraws.forEach((redraw) => redraw());
  };
  menus.forEach((menu) => menu.addEventListener("change", apply));
}

// --- picking ------------------------------------------------------------------------------------------------------

function check(label, checked, change, ...before) {
  const box = make("input", { type: "checkbox" });
  box.checked = checked;
  box.addEventListener("change", () => change(box.checked));
  return make("label", {}, box, ...before, make("span", {}, label));
}
function toggle(set, value, on) { if (on) set.add(value); else set.delete(value); }

// Checkboxes for some targets; `picked` is the set of their indices, changed in place.
function picker(host, all, picked, change) {
  const indices = all.filter((index) => left.has(index));
  const labels = indices.map((index) => check(data.targets[index].label, picked.has(index), (on) => {
    toggle(picked, index, on);
    change();
  }, make("span", { class: `swatch ${swatchOf(index)}`, "aria-hidden": "true" })));
  host.setAttribute("role", "group");
  host.setAttribute("aria-label", "Targets");
  host.replaceChildren(...labels);
  host.hidden = all.length < 2;
  host.classList.toggle("many", indices.length > 2 * MOST);
  const buttons = [["All", true], ["None", false]].map(([label, on]) => {
    const button = make("button", { type: "button", class: "all" }, label);
    button.addEventListener("click", () => {
      indices.forEach((index) => toggle(picked, index, on));
      labels.forEach((each) => { each.querySelector("input").checked = on; });
      change();
    });
    return button;
  });
  if (indices.length > 2) host.append(make("span", { class: "both" }, ...buttons));
}
function options(select, entries) {
  select.replaceChildren(...entries.map(([value, label]) => make("option", { value }, label)));
}
// Of several explanations under a chart, the one that fits what it shows.
function explain(host, which) {
  for (const each of host.children) each.hidden = each.dataset.of !== which;
}

// --- spectra ------------------------------------------------------------------------------------------------------

const state = { targets: firstFew(everything), preset: "stream", custom: everything.map(() => new Set()) };

function chosen(index, preset = byId("layers").value) {
  const { points } = data.targets[index], all = points.map((_, at) => at);
  const stream = all.filter((at) => points[at].stream);
  if (preset === "custom") return inOrder(state.custom[index]);
  if (preset === "stream") return stream;
  if (preset === "branches") return all.filter((at) => !points[at].stream);
  if (preset === "last") return stream.filter((at) => points[at].high).slice(-1);
  if (preset !== "three") return stream.filter((at) => `op:${points[at].op}` === preset);
  const last = stream.length - 1;
  return [...new Set([0, Math.floor(last / 2), last])].map((at) => stream[at]);
}

// From a preset to layers picked one by one: what the preset showed is where picking starts.
function startPicking() {
  byId("layers").value = "custom";
  if (state.preset === "custom") return;
  everything.forEach((index) => { state.custom[index] = new Set(chosen(index, state.preset)); });
  state.preset = "custom";
}

function layerLists() {
  byId("layer-lists").replaceChildren(...inOrder(state.targets).map((index) => {
    const target = data.targets[index], now = new Set(chosen(index));
    const boxes = target.points.map((each, at) => {
      const label = check(each.name, now.has(at), (on) => {
        startPicking();
        toggle(state.custom[index], at, on);
        spectra({ lists: false }); // the box that was clicked stays, and keeps its focus
      }, make("span", { class: "swatch", style: `--c: ${depthColor(each.depth)}`, "aria-hidden": "true" }));
      label.append(make("span", { class: "aside" }, `${opName(each.op)} ${each.grid}`));
      return label;
    });
    return make("fieldset", {}, make("legend", {}, target.label), make("div", {}, ...boxes));
  }));
}

function curve(index, at, style) {
  const target = data.targets[index], each = target.points[at], quantity = byId("quantity").value;
  const radial = quantity !== "delta";
  const [axis, values, errors] = radial
    ? [each[quantity] && data.axes[each.r], each[quantity], each[`${quantity}_stderr`]]
    : [data.axes[each.f], each.delta, each.stderr];
  const points = (axis ?? []).map((x, k) => ({ x, y: values[k], e: errors?.[k], open: !radial && k >= each.usable }));
  const about = `${opName(each.op)}, ${each.grid}, ${each.channels} channels, depth ${each.depth.toFixed(2)}`;
  const white = !radial && known(each.white) ? [`${ALIKE}: ${show(each.white)}`] : [];
  return {
    points, band: byId("bands").checked, mark: radial ? null : each.white, ...style,
    tip: ({ x, y, e, open }) => {
      const value = radial ? `r = ${x}: ${show(y, e)}` : `f = ${pi(x)}${open ? " (Nyquist)" : ""}: Δ = ${show(y, e)}`;
      return [titled(target, each.name), about, value, ...white];
    },
  };
}

function overlaid(shown) {
  const series = shown.flatMap(([index, picks]) => picks.map((at) => {
    const opacity = picks.length > 1 ? 0.3 + 0.7 * data.targets[index].points[at].depth : null;
    return curve(index, at, { ...look(index), opacity });
  }));
  return [{ title: `Spectra of ${shown.length} targets, ${series.length} curves`, series }];
}

function panels(shown) {
  return shown.map(([index, picks]) => {
    const { label, points } = data.targets[index];
    const series = picks.map((at) => curve(index, at, { color: depthColor(points[at].depth) }));
    return { title: `Spectra of ${label}, ${series.length} layers`, series, caption: label, cls: swatchOf(index) };
  });
}

function spectra({ lists = true } = {}) {
  const quantity = byId("quantity").value, radial = quantity !== "delta", layout = byId("layout").value;
  const label = { delta: "Δ log amplitude (nats)", density: "ln power density / mean (nats)" };
  const shown = inOrder(state.targets).map((index) => [index, chosen(index)]).filter(([, picks]) => picks.length);
  const single = shown.every(([, picks]) => picks.length === 1);
  const overlay = shown.length > 1 && (layout === "overlay" || (layout === "auto" && single));
  const white = known(data.white) ? { y: data.white, label: "white noise, zero mean" } : null;
  const specs = (overlay ? overlaid : panels)(shown).map((spec) => ({
    ...spec,
    series: spec.series.filter(({ points }) => points.some(({ y }) => known(y))),
    x: radial
      ? { label: "Radial frequency (1: Nyquist of the shorter axis)", min: 0, max: 1.02, ticks: QUARTERS }
      : { label: "Frequency per axis (rad/sample)", min: 0, max: 1.02, ticks: FREQUENCIES },
    y: { label: label[quantity] ?? Object.fromEntries(data.profiles)[quantity] },
    rule: quantity === "density" ? { y: 0, label: "white noise" } : radial ? null : white,
  })).filter(({ series }) => series.length);
  if (specs.length > 1) { // one scale for all panels
    const ends = specs.map(range);
    const min = Math.min(...ends.map(([low]) => low)), max = Math.max(...ends.map(([, high]) => high));
    for (const { y } of specs) Object.assign(y, { min, max });
  }
  plot(byId("spectra-charts"), specs, "Nothing to draw. Pick a target, and layers it has and that were measured so.");
  spectraLegend(specs, overlay, single);
  explain(byId("spectra-note"), quantity);
  if (lists) layerLists();
}

function spectraLegend(specs, overlay, single) {
  const some = (test) => specs.some(({ series }) => series.some(test));
  const key = (sign, label) => make("span", {}, make("i", { "aria-hidden": "true" }, sign), label);
  const stops = [0, 0.25, 0.5, 0.75, 1].map(depthColor);
  const ramp = make("span", { class: "ramp", style: `background: linear-gradient(90deg, ${stops})` });
  const colors = overlay
    ? make("span", {}, single ? "colour: target" : "colour: target; deeper layers are stronger")
    : make("span", {}, "shallow", ramp, "deep");
  const open = some(({ points }) => points.some((each) => each.open)), marked = some(({ mark }) => known(mark));
  byId("spectra-legend").replaceChildren(colors, ...(open ? [key("○", "Nyquist bin")] : []),
    ...(marked ? [key("◂", "white noise of the same mean and variance")] : []));
}

function setUpSpectra() {
  const points = data.targets.flatMap((target) => target.points);
  const ops = [...new Set(points.filter((each) => each.stream && each.op !== "embed").map(({ op }) => op))];
  const branches = points.some((each) => !each.stream) ? [["branches", "Branches"]] : [];
  options(byId("layers"), [
    ["stream", "All of the stream"], ["three", "First, middle, last"], ["last", "Last"],
    ...ops.map((op) => [`op:${op}`, `After ${opName(op)}`]), ...branches, ["custom", "Picked one by one"],
  ]);
  byId("quantity").append(...data.profiles.map(([value, label]) => make("option", { value }, label)));
  byId("quantity").querySelector("[value=density]").disabled = !points.some((each) => each.density);
  if (data.view.quantity === "log_density") byId("quantity").value = "density"; // maps of several sizes
  byId("bands").disabled = !points.some((each) => each.stderr);
  byId("layout").closest("label").hidden = !several;
  for (const id of ["quantity", "layout", "bands"]) byId(id).addEventListener("change", () => spectra());
  byId("layers").addEventListener("change", ({ target }) => {
    if (target.value === "custom") {
      startPicking();
      byId("layer-details").open = true;
    } else state.preset = target.value;
    spectra();
  });
  if (several && state.targets.size > 3) { byId("layers").value = "last"; state.preset = "last"; } // a curve each
  const again = (first) => {
    if (!first) state.targets = firstFew([...left]);
    picker(byId("spectra-targets"), everything, state.targets, () => spectra());
    spectra();
  };
  redraws.push(() => again(false));
  again(true);
}

// --- depth profiles -----------------------------------------------------------------------------------------------

const METRICS = [
  ["high", `${data.view.label} (nats)`], ["hfd_share", "HFD share"], ["slope", "Spectral slope"],
  ["variance", "Variance over positions"], ["token_cosine", "Cosine between positions"],
  ...data.metrics, // that are not of the package
];
const WHITE = { high: "high_white", hfd_share: "hfd_share_white" }; // the level of white noise on the same map
const streamOf = (index) => data.targets[index].points.filter((each) => each.stream);

const INPUT = -0.08; // where the images themselves stand, left of depth 0

// What attention and subsampling steps span, from the step before to the step.
function shades(points) {
  return points.flatMap(({ depth: to, op: cls }, at) => {
    const from = at ? points[at - 1].depth : 0;
    return ["attention", "downsample"].includes(cls) && to > from ? [{ from, to, cls }] : [];
  });
}

// Student's t, two-sided 95 %, by degrees of freedom from 1.
const T_SEEDS = [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228];
const tSeeds = (count) => T_SEEDS[Math.min(count - 1, T_SEEDS.length) - 1];

// The groups of what is picked, each as one curve: mean over seeds, and a standard error that gives its interval.
function overSeeds(shown, metric) {
  const groups = Map.groupBy ? Map.groupBy(shown, (index) => data.targets[index].group) : shown.reduce((map, index) => {
    const { group } = data.targets[index];
    return map.set(group, [...(map.get(group) ?? []), index]);
  }, new Map());
  return [...groups].map(([group, indices], at) => ({
    ...look(at), dots: true, bars: true,
    points: streamOf(indices[0]).map((each) => {
      const values = indices.map((index) => streamOf(index).find(({ name }) => name === each.name)?.[metric]?.[0]);
      const there = values.filter(known);
      if (!there.length) return { x: each.depth, y: null };
      const y = mean(there), spread = there.reduce((sum, value) => sum + (value - y) ** 2, 0);
      const half = there.length > 1 ? tSeeds(there.length) * Math.sqrt(spread / (there.length - 1) / there.length) : null;
      return { x: each.depth, y, e: half === null ? null : half / T95, each, n: there.length };
    }),
    tip: ({ y, e, each, n }) => [group, `${each.name}, ${opName(each.op)}, ${n} seed${n > 1 ? "s" : ""}`, show(y, e)],
    group,
  }));
}

function depth(picked) {
  const metric = byId("depth-metric").value, name = Object.fromEntries(METRICS)[metric], white = WHITE[metric];
  if (byId("depth-seeds").checked) {
    const series = overSeeds(inOrder(picked), metric);
    const some = series.some(({ points }) => points.some(({ y }) => known(y)));
    plot(byId("depth-chart"), some ? [{
      title: `${name} against depth, ${series.length} groups`, series, lanes: [],
      x: { label: "Normalized depth", min: 0, max: 1, ticks: QUARTERS }, y: { label: name, log: metric === "variance" },
    }] : [], "Nothing to draw. Pick a target that this was measured of.");
    byId("depth-legend").replaceChildren(...series.map(({ group }, at) => make("span", {},
      make("span", { class: `swatch ${swatchOf(at)}` }), group)));
    explain(byId("depth-note"), "seeds");
    return;
  }
  const shown = inOrder(picked), single = shown.length === 1;
  const series = shown.map((index) => ({
    ...look(index), dots: true, bars: true,
    points: streamOf(index).map((each) => ({ x: each.depth, y: each[metric]?.[0], e: each[metric]?.[1], each })),
    tip: ({ y, e, each }) => [
      titled(data.targets[index], each.name), `${opName(each.op)}, ${each.grid}, depth ${each.depth.toFixed(2)}`,
      `${name}: ${show(y, e)}`,
      ...(white && known(each[white]) ? [`${metric === "high" && data.view.quantity === "delta" ? ALIKE : "white noise"}: ${show(each[white])}`] : []),
    ],
  }));
  const images = shown.filter((index) => known(data.targets[index].input?.[metric]?.[0]));
  series.push(...images.map((index) => {
    const { input } = data.targets[index], [y, e] = input[metric];
    const apart = metric === "high" && !input.alike; // delta on another grid: read against white noise there
    return {
      ...look(index), line: false, dots: true, bars: true,
      points: [{ x: INPUT, y: apart ? null : y, e }],
      tip: () => [`The images, as ${data.targets[index].label} saw them`, input.grid, `${name}: ${show(y, e)}`,
        ...(white && known(input[white]) ? [`white noise: ${show(input[white])}`] : [])],
    };
  }).filter(({ points }) => known(points[0].y)));
  const left = series.some(({ points }) => points[0]?.x === INPUT);
  if (single && white) {
    const measured = streamOf(shown[0]).filter((each) => each[metric]);
    const points = measured.map((each) => ({ x: each.depth, y: each[white] }));
    series.unshift({ cls: "t6", dash: "4 4", silent: true, points });
  }
  const lanes = shown.map((index) => ({ cls: look(index).cls, spans: shades(streamOf(index)) }));
  const some = series.some(({ points }) => points.some(({ y }) => known(y)));
  plot(byId("depth-chart"), some ? [{
    title: `${name} against depth, ${shown.length} target${single ? "" : "s"}`, series,
    x: { label: "Normalized depth", min: left ? 1.5 * INPUT : 0, max: 1,
      ticks: left ? [[INPUT, "input"], ...QUARTERS] : QUARTERS },
    y: { label: name, log: metric === "variance" },
    rule: metric === "slope" ? { y: 0, label: "white noise" } : null,
    spans: single ? lanes[0].spans : [], lanes: single || lanes.length > 8 ? [] : lanes,
  }] : [], "Nothing to draw. Pick a target that this was measured of.");
  const used = new Set(lanes.flatMap(({ spans }) => spans.map(({ cls }) => cls)));
  const keys = [["attention", "attention step"], ["downsample", "subsampling step"]].filter(([cls]) => used.has(cls));
  byId("depth-legend").replaceChildren(
    ...keys.map(([cls, label]) => make("span", {}, make("span", { class: `key ${cls}` }), label)),
    ...(single && white ? [make("span", {}, "dashed: white noise")] : []));
  const noted = [...byId("depth-note").children].some((each) => each.dataset.of === metric);
  explain(byId("depth-note"), noted ? metric : "other");
}

function setUpDepth() {
  let picked = firstFew(everything);
  const points = data.targets.flatMap((target) => target.points);
  options(byId("depth-metric"), METRICS.filter(([name]) => points.some((each) => known(each[name]?.[0]))));
  const groups = new Set(data.targets.map(({ group }) => group));
  const seeds = byId("depth-seeds");
  seeds.closest("label").hidden = groups.size === everything.length;
  byId("depth-metric").addEventListener("change", () => depth(picked));
  const again = () => {
    const chosen = inOrder(left), few = new Set([...groups].filter((group) =>
      chosen.some((index) => data.targets[index].group === group)).slice(0, MOST));
    picked = seeds.checked ? new Set(chosen.filter((index) => few.has(data.targets[index].group))) : firstFew(chosen);
    picker(byId("depth-targets"), everything, picked, () => depth(picked));
    depth(picked);
  };
  seeds.addEventListener("change", again);
  redraws.push(again);
  seeds.checked = !seeds.closest("label").hidden && everything.length > MOST;
  again();
}

// --- attention and training ---------------------------------------------------------------------------------------

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

function attentionSeries(index, field, alone) {
  const target = data.targets[index];
  const layers = target.attention.map((layer, at) => ({ ...layer, x: at + 1 })).filter((layer) => layer[field]);
  const tip = ({ layer, y, head }) => [
    titled(target, layer.name), `${head ? `head ${head}` : "mean"} of ${layer[field].length} heads`,
    field === "distance" ? `${show(y)} pixels; ${show(layer.uniform)} if it were uniform` : `gate ${show(y)}`,
  ];
  const heads = layers.flatMap((layer) => layer[field].map((y, at) => ({ x: layer.x, y, layer, head: at + 1 })));
  const means = layers.map((layer) => ({ x: layer.x, y: mean(layer[field]), layer }));
  const uniform = layers.map((layer) => ({ x: layer.x, y: layer.uniform }));
  return layers.length ? [
    ...(field === "distance" && alone ? [{ cls: "t6", dash: "4 4", silent: true, points: uniform }] : []),
    { ...look(index), points: means, tip }, { ...look(index), line: false, dots: true, points: heads, tip },
  ] : [];
}

// Top-1 lost with one half of the gated attention taken from another image, layer by layer, all layers last.
function relianceSeries(index, half) {
  const target = data.targets[index], of = target.reliance;
  if (!of) return [];
  const points = of.layers.filter((layer) => layer[half]).map((layer, at) => (
    { x: at + 1, y: layer[half][0], e: known(layer[half][1]) ? layer[half][1] / T95 : null, layer }));
  return [{ ...look(index), points, dots: true, line: false, bars: true, tip: ({ layer, y, e }) => [
    titled(target, layer.name), `${half} half from another image: top-1 ${show(100 * of.top1)} % less ${show(y, e)} points`,
    `${of.images} images`,
  ] }];
}

function attention(picked) {
  const shown = inOrder(picked), most = Math.max(1, ...shown.map((index) => data.targets[index].attention.length));
  const lesioned = Math.max(1, ...shown.map((index) => data.targets[index].reliance?.layers.length ?? 1));
  const kinds = [["distance", "Mean attention distance (pixels)"], ["gate", "Gate (1: positional)", 1]];
  plot(byId("attention-charts"), kinds.map(([field, label, max]) => ({
    title: label, series: shown.flatMap((index) => attentionSeries(index, field, shown.length === 1)),
    x: { label: "Attention layer", min: 0.5, max: most + 0.5 }, y: { label, min: 0, max },
  })).concat(["content", "positional"].map((half) => ({
    title: `Top-1 lost, ${half} half exchanged (points)`, series: shown.flatMap((index) => relianceSeries(index, half)),
    x: { label: "Gated layer; the last: all layers", min: 0.5, max: lesioned + 0.5 }, y: { label: "Percentage points" },
  }))).filter(({ series }) => series.length), "Nothing to draw. Pick a target.");
}

const SPLITS = [["val", "validation"], ["train", "training"], ["test", "test"]];

function trainingSeries(index, kind, label) {
  const { label: name, training: { epoch, curves, switches } } = data.targets[index], now = byId("training-split").value;
  return SPLITS.filter(([split]) => split === now && curves[`${split}_${kind}`]).map(([split, said]) => ({
    ...look(index), points: curves[`${split}_${kind}`].map((y, at) => ({ x: epoch[at], y })),
    tip: ({ x, y }) => {
      const recast = switches.filter(([at]) => at === x).map(([, count]) => `${count} recast before this epoch`);
      return [name, `${said}, epoch ${x}`, `${label}: ${show(y)}`, ...recast];
    },
  }));
}

function training(picked) {
  const shown = inOrder(picked), epochs = shown.flatMap((index) => data.targets[index].training.epoch);
  const marks = (index) => data.targets[index].training.switches.map(([epoch]) => epoch);
  const recast = shown.filter((index) => marks(index).length);
  const lanes = recast.map((index) => ({ cls: look(index).cls, marks: marks(index) }));
  const [min, max] = [Math.min(...epochs), Math.max(...epochs, Math.min(...epochs) + 1)];
  plot(byId("training-charts"), [["loss", "Loss (nats)"], ["acc", "Top-1 accuracy", 0]].map(([kind, label, low]) => ({
    title: `${label} against epoch`, series: shown.flatMap((index) => trainingSeries(index, kind, label)),
    x: { label: "Epoch", min, max }, y: { label, min: low, robust: kind === "loss" }, lanes: lanes.length <= 8 ? lanes : [],
    lines: shown.length === 1 ? marks(shown[0]) : [],
  })).filter(({ series }) => series.length), "Nothing to draw. Pick a run.");
}

function setUp(name, has, redraw) {
  const indices = everything.filter((index) => has(data.targets[index]));
  if (!indices.length) return;
  const again = () => {
    const picked = firstFew(indices.filter((index) => left.has(index)));
    picker(byId(`${name}-targets`), indices, picked, () => redraw(picked));
    redraw(picked);
    return picked;
  };
  redraws.push(again);
  again();
}

function setUpTraining() {
  const runs = data.targets.filter(({ training: run }) => run);
  const has = (split) => runs.some(({ training: { curves } }) => curves[`${split}_loss`] || curves[`${split}_acc`]);
  options(byId("training-split"), SPLITS.filter(([split]) => has(split)).map(([split, said]) => [split, `${said} images`]));
  byId("training-split").addEventListener("change", () => redraws.at(-1)());
  setUp("training", (target) => target.training, training);
}

// --- the table and the theme --------------------------------------------------------------------------------------

function setUpTable(table) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    heads.forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    const numeric = head.classList.contains("number");
    const order = (a, b) => (numeric ? a - b : a.localeCompare(b, "en", { numeric: true })) * sign;
    body.append(...[...body.rows].sort((...rows) => {
      const [a, b] = rows.map((row) => row.cells[column].dataset.value);
      return !a || !b ? !a - !b : order(a, b); // what is unknown comes last, both ways
    }));
  }));
}

function setUpTheme(button) {
  const system = matchMedia("(prefers-color-scheme: dark)"), root = document.documentElement;
  const isDark = () => (root.dataset.theme ?? (system.matches ? "dark" : "light")) === "dark";
  const say = () => {
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
  };
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; say(); });
  system.addEventListener("change", say);
  say();
}

setUpTheme(byId("theme"));
for (const id of ["summary-table", "groups-table"]) if (byId(id)) setUpTable(byId(id));
if (data.targets.length) { // else the page is of validations and heat maps alone
  setUpFilters();
  setUpSpectra();
  setUpDepth();
  setUp("attention", (target) => target.attention.length, attention);
  setUpTraining();
}
