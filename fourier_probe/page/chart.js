"use strict";
// One chart: plain SVG with curves that can be pointed at and walked along. No library, no network.

const T95 = JSON.parse(document.getElementById("data").textContent).quantile; // standard errors of a 95 % interval
const SVG = "http://www.w3.org/2000/svg", HTML = "http://www.w3.org/1999/xhtml";
const SHAPES = new Set(["svg", "g", "path", "line", "rect", "circle", "text", "title"]);

function make(name, attributes = {}, ...children) {
  const node = document.createElementNS(SHAPES.has(name) ? SVG : HTML, name);
  for (const [key, value] of Object.entries(attributes)) if (known(value)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
function known(value) { return value !== null && value !== undefined; }
function minus(text) { return text.replace("-", "−"); }

function show(value, error) {
  const digits = known(error) && error > 0 ? Math.min(6, Math.max(2, 1 - Math.floor(Math.log10(T95 * error)))) : 3;
  const extreme = (number) => Math.abs(number) >= 1e4 || (number && Math.abs(number) < 1e-3);
  const form = (number) => minus(extreme(number) ? number.toExponential(2) : number.toFixed(digits));
  return form(value) + (known(error) ? ` ± ${form(T95 * error)}` : "");
}

// --- scales -------------------------------------------------------------------------------------------------------

function ticks(low, high, count) {
  const raw = (high - low) / count, size = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((each) => each * size).find((each) => each >= raw * 0.999);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)), out = [];
  for (let at = Math.ceil(low / step - 1e-9); at * step <= high + step * 1e-9; at++) {
    out.push([at * step, minus((at * step).toFixed(digits))]);
  }
  return out;
}
function decades(low, high) {
  const out = [];
  for (let at = low; at <= high * 1.01; at *= 10) {
    out.push([at, at > 0.009 && at < 1e4 ? `${+at.toPrecision(1)}` : minus(at.toExponential(0))]);
  }
  return out;
}
function wholes(low, high, count) {
  return ticks(low, high, count).filter(([at]) => Number.isInteger(at)).map(([at]) => [at, `${at}`]);
}

// The ends of the y axis: whole decades where it is logarithmic, else what there is and a little more.
function range({ y, series, rule }) {
  const values = rule ? [rule.y] : [];
  for (const { points, mark, band, bars } of series) {
    if (known(mark)) values.push(mark);
    for (const { y: at, e } of points) {
      if (known(at)) values.push(at, ...(known(e) && (band || bars) ? [at - T95 * e, at + T95 * e] : []));
    }
  }
  const usable = y.log ? values.filter((value) => value > 0) : values;
  if (!usable.length) usable.push(y.log ? 0.1 : 0, 1);
  const low = y.min ?? Math.min(...usable), high = y.max ?? Math.max(...usable);
  if (y.log) return [10 ** Math.floor(Math.log10(low)), 10 ** Math.ceil(Math.log10(high * 1.0001))];
  if (y.robust && usable.length > 20) { // a loss that exploded does not flatten all the others
    const sorted = [...usable].sort((a, b) => a - b), most = sorted[Math.floor(0.97 * (sorted.length - 1))];
    if (high > low + 3 * (most - low)) return [low - 0.05 * (most - low), most + 0.1 * (most - low)];
  }
  const pad = (high - low || Math.abs(high) || 1) * 0.05;
  return [known(y.min) ? low : low - pad, known(y.max) ? high : high + pad];
}

// --- drawing ------------------------------------------------------------------------------------------------------
// A chart is told what it shows:
//   title, caption, cls        of the figure
//   x {label, min, max, ticks} y {label, log, min, max}
//   series                     [{points: [{x, y, e, open}], tip(point), cls | color, dash, opacity, line, dots, bars,
//                              band, mark, silent}]: `mark` is a level in the right margin, `open` points stand apart
//   rule {y, label}            a level across; `lines` are places along x
//   spans [{from, to, cls}]    shades; `lanes` [{cls, spans, marks}] are strips below the axis

const charts = new WeakMap(); // box -> what it shows, and what can be pointed at
const HELP = "Arrow keys left and right go along a curve, up and down to another curve.";
const observer = new ResizeObserver((found) => found.forEach(({ target }) => {
  if (target.isConnected && Math.abs(target.clientWidth - charts.get(target).width) > 1) draw(target);
}));

function plot(host, specs, empty = "") {
  for (const old of host.querySelectorAll(".plot")) observer.unobserve(old);
  const boxes = specs.map((spec) => {
    const box = make("div", { class: "plot", tabindex: 0, role: "group", "aria-label": `${spec.title}. ${HELP}` });
    charts.set(box, { spec });
    box.addEventListener("pointermove", (event) => point(box, event));
    box.addEventListener("pointerdown", (event) => point(box, event));
    box.addEventListener("pointerleave", () => highlight(box, null));
    box.addEventListener("keydown", (event) => walk(box, event));
    box.addEventListener("focus", () => {
      if (box.matches(":focus-visible")) highlight(box, charts.get(box).hits[0] ?? null, true);
    });
    box.addEventListener("blur", () => highlight(box, null));
    return box;
  });
  host.replaceChildren(...specs.map(({ caption, cls }, at) => {
    const swatch = cls ? [make("span", { class: `swatch ${cls}` }), " "] : [];
    return make("figure", {}, ...(caption ? [make("figcaption", {}, ...swatch, caption)] : []), boxes[at]);
  }));
  if (!boxes.length) host.append(make("p", { class: "empty" }, empty));
  boxes.forEach((box) => { draw(box); observer.observe(box); });
}

// On paper a chart is as wide as half the page, or all of it where it stands alone.
addEventListener("beforeprint", () => document.querySelectorAll(".plot").forEach((box) => {
  draw(box, box.closest(".charts").querySelectorAll(".plot").length > 1 ? 330 : 690);
}));
addEventListener("afterprint", () => document.querySelectorAll(".plot").forEach((box) => draw(box)));

function draw(box, width = Math.max(box.clientWidth, 240)) {
  const state = charts.get(box), { spec } = state, lanes = spec.lanes ?? [];
  const place = { width, left: 46, right: spec.series.some(({ mark }) => known(mark)) ? 18 : 8, top: 30, lane: 9 };
  place.inner = Math.round(Math.min(390, Math.max(225, width * 0.58)));
  place.bottom = place.top + place.inner + lanes.length * place.lane;
  place.height = place.bottom + 44;
  [place.low, place.high] = range(spec);
  const scale = spec.y.log ? (y) => Math.log10(Math.max(y, place.low)) : (y) => y;
  const share = (y) => (scale(y) - scale(place.low)) / (scale(place.high) - scale(place.low));
  place.X = (x) => place.left + ((x - spec.x.min) / (spec.x.max - spec.x.min)) * (width - place.left - place.right);
  place.Y = (y) => place.top + place.inner * (1 - share(y));

  const viewBox = `0 0 ${width} ${place.height}`;
  const svg = make("svg", { viewBox, role: "img", "aria-label": spec.title }, make("title", {}, spec.title));
  drawFrame(svg, spec, place);
  lanes.forEach((lane, at) => drawLane(svg, lane, place.top + place.inner + 2 + at * place.lane, place));
  const hits = [], groups = spec.series.map((series, at) => drawSeries(series, at, hits, spec, place));
  svg.append(...groups);
  box.replaceChildren(svg);
  Object.assign(state, { width: box.clientWidth, height: place.height, hits, groups, svg, current: null });
}

function drawFrame(svg, spec, { width, height, left, right, top, inner, bottom, low, high, X, Y }) {
  const text = (x, y, anchor, string) => svg.append(make("text", { x, y, "text-anchor": anchor }, string));
  const line = (cls, x1, x2, y1, y2) => svg.append(make("line", { class: cls, x1, x2, y1, y2 }));
  for (const { from, to, cls } of spec.spans ?? []) {
    svg.append(make("rect", { class: cls, x: X(from), y: top, width: X(to) - X(from), height: inner }));
  }
  for (const [at, label] of spec.y.log ? decades(low, high) : ticks(low, high, inner / 52)) {
    line("grid", left, width - right, Y(at), Y(at));
    text(left - 8, Y(at) + 4, "end", label);
  }
  (spec.x.ticks ?? wholes(spec.x.min, spec.x.max, width / 90)).forEach(([at, label], k) => {
    if (width < 380 && k % 2) return;
    line("axis", X(at), X(at), bottom, bottom + 4);
    text(X(at), bottom + 17, "middle", label);
  });
  line("axis", left, width - right, top + inner, top + inner);
  for (const at of spec.lines ?? []) line("switch", X(at), X(at), top, top + inner);
  text(0, 12, "start", spec.y.label);
  text((left + width - right) / 2, height - 6, "middle", spec.x.label);
  if (spec.rule) {
    line("rule", left, width - right, Y(spec.rule.y), Y(spec.rule.y));
    text(width - right, Y(spec.rule.y) - 5, "end", spec.rule.label);
  }
}

function drawLane(svg, { cls, spans, marks }, y, { width, left, right, lane, X }) {
  const height = lane - 2, middle = y + height / 2;
  svg.append(make("rect", { class: "ground", x: left, y, width: width - left - right, height }));
  for (const span of spans ?? []) {
    svg.append(make("rect", { class: span.cls, x: X(span.from), y, width: X(span.to) - X(span.from), height }));
  }
  for (const at of marks ?? []) {
    svg.append(make("line", { class: `tick ${cls}`, x1: X(at), x2: X(at), y1: y, y2: y + height }));
  }
  svg.append(make("circle", { class: `whose ${cls}`, cx: left - 8, cy: middle, r: 3 }));
}

// One curve as a group; adds what can be pointed at to `hits`.
function drawSeries(series, index, hits, spec, { width, right, top, X, Y }) {
  const style = series.color ? `--c: ${series.color}` : null;
  const group = make("g", { class: `series ${series.cls ?? ""}`, style, "stroke-opacity": series.opacity });
  const there = series.points.filter(({ y }) => known(y) && !(spec.y.log && y <= 0) && !(spec.y.robust && Y(y) < top));
  const closed = there.filter(({ open }) => !open);
  const at = (x, y) => `${X(x).toFixed(1)},${Y(y).toFixed(1)}`;
  if (series.band && closed.length > 1 && closed.every(({ e }) => known(e))) {
    const above = closed.map(({ x, y, e }) => at(x, y + T95 * e));
    const below = closed.map(({ x, y, e }) => at(x, y - T95 * e)).reverse();
    const opacity = spec.series.length > 6 ? 0.08 : 0.17;
    group.append(make("path", { class: "band", opacity, d: `M${[...above, ...below].join("L")}Z` }));
  }
  if (series.line !== false) {
    let d = "", pen = "M";
    for (const each of series.points) {
      if (each.open) continue;
      const drawn = there.includes(each);
      if (drawn) d += pen + at(each.x, each.y);
      pen = drawn ? "L" : "M";
    }
    group.append(make("path", { d, "stroke-dasharray": series.dash || null }));
  }
  for (const each of there) {
    const cx = X(each.x), cy = Y(each.y), seen = series.dots || closed.length < 3;
    if (series.bars && known(each.e)) {
      const [y1, y2] = [-1, 1].map((sign) => Y(each.y + sign * T95 * each.e));
      group.append(make("line", { class: "bar", x1: cx, x2: cx, y1, y2 }));
    }
    if (each.open || seen) group.append(make("circle", { class: each.open ? "open" : "dot", cx, cy, r: 3.2 }));
    if (!series.silent) hits.push({ group: index, each, cx, cy });
  }
  if (known(series.mark)) {
    group.append(make("path", { class: "mark", d: `M${width - right + 3},${Y(series.mark)}l7,-3.5v7Z` }));
  }
  return group;
}

// --- pointing -----------------------------------------------------------------------------------------------------

function point(box, event) {
  const bounds = box.getBoundingClientRect(), x = event.clientX - bounds.left, y = event.clientY - bounds.top;
  let best = null, least = 48 ** 2; // pixels
  for (const hit of charts.get(box).hits) {
    const distance = (hit.cx - x) ** 2 + (hit.cy - y) ** 2;
    if (distance < least) [best, least] = [hit, distance];
  }
  highlight(box, best);
}

function walk(box, event) {
  const { hits, current, groups } = charts.get(box);
  if (!hits.length) return;
  if (event.key === "Escape") { highlight(box, null); return; }
  const from = current ?? hits[0], own = hits.filter(({ group }) => group === from.group), at = own.indexOf(from);
  const along = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: own.length - 1 }[event.key];
  const across = { ArrowUp: 1, ArrowDown: -1 }[event.key];
  let next = null;
  if (known(along)) next = own[Math.min(Math.max(along, 0), own.length - 1)];
  else if (!across) return;
  else {
    const away = (hit) => Math.abs(hit.cx - from.cx);
    for (let group = from.group + across; group >= 0 && group < groups.length && !next; group += across) {
      const there = hits.filter((hit) => hit.group === group);
      next = there.reduce((best, hit) => (!best || away(hit) < away(best) ? hit : best), null);
    }
  }
  event.preventDefault();
  highlight(box, next ?? from, true);
}

function highlight(box, hit, aloud = false) {
  const state = charts.get(box);
  if (state.current === hit) return;
  state.current = hit;
  box.querySelectorAll(".ring, .tip").forEach((node) => node.remove());
  state.groups.forEach((group, at) => group.classList.toggle("on", Boolean(hit) && at === hit.group));
  box.classList.toggle("busy", Boolean(hit));
  if (!hit) return;
  state.svg.append(make("circle", { class: "ring", cx: hit.cx, cy: hit.cy, r: 5 }));
  const [head, about, ...values] = state.spec.series[hit.group].tip(hit.each);
  const lines = values.map((value) => make("strong", {}, value));
  const tip = make("div", { class: "tip" }, make("b", {}, head), make("span", {}, about), ...lines);
  box.append(tip);
  settle(tip, hit, box.getBoundingClientRect().left, state.height);
  if (aloud) document.getElementById("live").textContent = [head, about, ...values].join(", ");
}

// Beside the point where the window has room, else above or below it.
function settle(tip, { cx, cy }, from, height) {
  const { offsetWidth: wide, offsetHeight: high } = tip, gap = 14, room = document.documentElement.clientWidth - from;
  const middle = Math.max(0, Math.min(cy - high / 2, height - high));
  const [left, top] = cx + gap + wide < room ? [cx + gap, middle]
    : cx - gap - wide > -from ? [cx - gap - wide, middle]
      : [Math.max(0, Math.min(cx - wide / 2, room - wide - gap)), cy > high + gap ? cy - high - gap : cy + gap];
  Object.assign(tip.style, { left: `${left}px`, top: `${top}px` });
}
