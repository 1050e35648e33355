"""The report page in a real headless Chromium: it draws, picking works, and the console stays silent."""

from __future__ import annotations

import html as html_module
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import fourier_probe as fp
from fourier_probe.page import Entry, gather, render
from fourier_probe.results.spectra import Spectra

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="no chromium or google-chrome here: apt-get install chromium, as .ci/run does"
)
Save = Callable[..., Path]
CANARY = "the console is heard"

HELPERS = """
const q = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const set = (id, value) => { const node = q(id); node.value = value; node.dispatchEvent(new Event("change")); };
const count = (selector) => all(selector).length;
const key = (node, name) => node.dispatchEvent(new KeyboardEvent("keydown", { key: name, cancelable: true }));
const text = (node) => node && node.innerText;
"""


def dom(page: str, folder: Path, *, width: int = 1200) -> tuple[str, list[str]]:
    """The document after its scripts have run, and what was said on the console."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "page.html"
    path.write_text(page)
    options = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--enable-logging=stderr"),
        *(f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", "--virtual-time-budget=10000"),
    ]
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, *options, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def drive(page: str, script: str, folder: Path, *, width: int = 1200) -> dict[str, Any]:
    """Let a script loose on the page; returns what it put into `out`, once nothing but it was heard on the console."""
    driver = (
        f'<pre id="out"></pre><script>const out = {{}};\n(() => {{ {HELPERS}\n{script} }})();\n'
        f'document.getElementById("out").textContent = JSON.stringify(out);\nconsole.error("{CANARY}");</script>'
    )
    open_page = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)  # it lets only page.js run
    found, console = dom(open_page.replace("</body>", f"{driver}</body>"), folder, width=width)
    assert len(console) == 1 and CANARY in console[0], console
    result = re.search(r'<pre id="out">(.*?)</pre>', found, re.DOTALL)
    assert result
    return json.loads(html_module.unescape(result[1]))  # type: ignore[no-any-return]


@pytest.fixture
def page(save_result: Callable[..., Path], save_run: Callable[..., Path]) -> str:
    """Two results and a run, with attention and training."""
    named = save_result("a"), save_result("b", source="timm:vit", seed=1, attention=True), save_run("prs", seed=2)
    return render(gather([str(path) for path in named]))


def test_the_page_as_written_draws_and_says_nothing(page: str, tmp_path: Path) -> None:
    found, console = dom(page, tmp_path)  # with its own content security policy
    assert console == []
    body = re.sub(r"<script.*?</script>|base64,[^\"]*", "", found, flags=re.DOTALL)
    assert (
        body.count('class="plot"') == 3 + 1 + 2 + 2
    )  # panels of spectra, depth, distance and gates, loss and accuracy
    assert body.count('role="img"') == 8 and "<title>Spectra of resnet18, 4 layers</title>" in body
    assert "NaN" not in body and "undefined" not in body and "Infinity" not in body


def test_targets_and_layers_are_picked(page: str, tmp_path: Path) -> None:
    found = drive(
        page,
        """
        const curves = () => [count("#spectra-charts .plot"), count("#spectra-charts .series")];
        out.start = curves();
        q("#spectra-targets input").click();
        out.without = curves();
        all("#spectra-targets button")[0].click();
        out.all = curves();
        for (const value of ["three", "last", "op:attention", "branches"]) {
          set("#layers", value);
          out[value] = curves();
        }
        set("#layers", "custom"); out.custom = curves();
        set("#layers", "stream");
        q("#layer-details").open = true;
        const box = q("#layer-lists input"); box.focus(); box.click();
        out.one_less = curves(); out.kept = document.activeElement === box; out.select = q("#layers").value;
        set("#layers", "stream"); set("#layout", "overlay"); out.overlay = curves();
        set("#layout", "auto"); set("#quantity", "density");
        out.density = curves(); out.note = text(q("#spectra-note"));
        q("#bands").click(); out.bands = count("#spectra-charts .band");
        all("#spectra-targets button")[1].click(); out.none = text(q("#spectra-charts"));
        """,
        tmp_path,
    )
    assert found["start"] == [3, 12] and found["without"] == [2, 8] and found["all"] == [3, 12]
    assert found["three"] == [3, 9] and found["last"] == [1, 3] and found["branches"] == [1, 3]
    assert found["op:attention"] == [1, 3] and found["custom"] == [1, 3]
    assert found["one_less"] == [3, 11] and found["kept"] and found["select"] == "custom"
    assert found["overlay"] == [1, 12] and found["density"] == [3, 12]
    assert "Power at each radius" in found["note"] and "Nyquist bin" not in found["note"]
    assert found["bands"] == 0 and "Nothing to draw" in found["none"]


def test_pointing_and_keys_give_values(page: str, tmp_path: Path) -> None:
    found = drive(
        page,
        """
        out.quantity = q("#quantity").value; set("#quantity", "delta");
        const box = q("#spectra-charts .plot"), end = q(".series .open", box).getBoundingClientRect();
        const at = { clientX: end.x + end.width / 2, clientY: end.y + end.height / 2 };
        box.dispatchEvent(new PointerEvent("pointermove", at));
        out.nyquist = text(q(".tip", box)); out.dimmed = box.matches(".busy") && count(".series.on") === 1;
        box.dispatchEvent(new PointerEvent("pointerleave"));
        out.left = count(".tip");
        box.focus(); key(box, "ArrowRight"); key(box, "ArrowRight");
        out.right = text(q(".tip", box)); out.said = text(q("#live"));
        key(box, "ArrowUp"); out.up = text(q(".tip", box));
        key(box, "End"); out.end = text(q(".tip", box));
        key(box, "Escape"); out.escaped = count(".tip");
        const depth = q("#depth-chart .plot"); key(depth, "End"); out.depth = text(q(".tip", depth));
        const loss = q("#training-charts .plot"); key(loss, "Home"); key(loss, "ArrowRight"); key(loss, "ArrowRight");
        out.loss = text(q(".tip", loss));
        """,
        tmp_path,
    )
    assert found["quantity"] == "density"  # grids differ
    assert "stem" in found["nyquist"] and "f = 1π (Nyquist)" in found["nyquist"] and "±" in found["nyquist"]
    assert found["dimmed"] and found["left"] == 0 and found["escaped"] == 0
    assert "resnet18 · stem" in found["right"] and "f = 0.5π" in found["right"]
    assert found["said"].split(", ")[0] == "resnet18 · stem"
    assert "block.0+attn" in found["up"] and "Nyquist" in found["end"]
    assert "down" in found["depth"] and "log density at r = 1.00" in found["depth"]
    assert "epoch 3" in found["loss"] and "1 recast" in found["loss"]


def test_the_table_sorts_and_the_theme_turns(page: str, tmp_path: Path) -> None:
    found = drive(
        page,
        """
        const order = () => all("#summary-table tbody th").map((cell) => cell.textContent);
        const heads = all("#summary-table thead button"), seed = heads.find((each) => each.textContent === "Seed");
        seed.click(); seed.click(); out.down = order();
        heads[0].click(); out.names = order();
        out.aria = all("[aria-sort]").map((each) => [each.textContent, each.getAttribute("aria-sort")]);
        const paper = () => getComputedStyle(document.body).backgroundColor;
        out.light = paper(); q("#theme").click(); out.dark = paper(); q("#theme").click(); out.again = paper();
        const widths = () => all(".plot svg").map((svg) => svg.viewBox.baseVal.width);
        dispatchEvent(new Event("beforeprint")); out.printed = widths();
        dispatchEvent(new Event("afterprint")); out.shown = widths();
        out.metrics = all("#depth-metric option").map(({ value }) => {
          set("#depth-metric", value);
          return count("#depth-chart .series");
        });
        """,
        tmp_path,
    )
    assert found["down"] == ["net", "vit", "resnet18"] and found["names"] == ["net", "resnet18", "vit"]
    assert found["aria"] == [["Target", "ascending"]]
    assert found["light"] == found["again"] == "rgb(255, 255, 255)" != found["dark"]
    assert found["printed"] == [330] * 3 + [690] + [330] * 4 and max(found["shown"]) > 1000
    assert found["metrics"] == [3] * 5


def test_nothing_is_wider_than_a_narrow_window(page: str, tmp_path: Path) -> None:
    found = drive(page, "out.over = document.documentElement.scrollWidth - window.innerWidth;", tmp_path, width=500)
    assert found["over"] <= 0


def test_hostile_names_stay_text(make_result: Callable[..., Spectra], tmp_path: Path) -> None:
    evil = '</script><script>out.hacked = 1</script><img src=x onerror="out.hacked = 2">'
    result = make_result(f"timm:{evil}", arch=evil)
    result.points[0].name = evil
    entry = Entry(evil, tmp_path, result)
    script = 'const box = q(".plot"); key(box, "Home"); out.tip = text(q(".tip", box)); out.images = count("img");'
    found = drive(render([entry]), script, tmp_path)
    assert found["images"] == 0 and "hacked" not in found
    assert evil in found["tip"]


def test_what_is_missing_breaks_nothing(save_result: Callable[..., Path], tmp_path: Path) -> None:
    fast = save_result("fast", metrics="diagonal"), save_result("few", images=6, source="timm:few")
    script = """
        out.options = all("#quantity option").map(({ disabled }) => disabled);
        for (const { value } of all("#layers option")) set("#layers", value);
        set("#layers", "stream"); set("#quantity", "density"); out.panels = count("#spectra-charts .plot");
        """
    for each, disabled, panels in zip(fast, (True, False), (0, 1), strict=True):
        found = drive(render(gather([str(each)])), script, tmp_path / each.name / "browser")
        assert found["options"] == [False, disabled] and found["panels"] == panels


def test_twenty_networks_are_drawn(large_result: Callable[[int, int, int], Spectra], tmp_path: Path) -> None:
    entries = [Entry(f"network {seed}", Path("x"), large_result(seed, 50, 56)) for seed in range(20)]
    script = """
      out.first = count("#spectra-charts .series"); out.depth = count("#depth-chart .series");
      set("#layers", "stream"); all("#spectra-targets button")[0].click(); out.panels = count("#spectra-charts .plot");
    """
    assert drive(render(entries), script, tmp_path) == {"first": 8, "depth": 8, "panels": 20}


def test_seeds_are_one_curve_and_filters_leave_what_they_say(save_result: Save, tmp_path: Path) -> None:
    folders = [
        save_result(f"{arch}-{scale}-{seed}", source="last.pt", arch=arch, data_scale=scale, seed=seed)
        for arch in ("net", "vit") for scale in (0.1, 1.0) for seed in range(4)
    ]  # fmt: skip
    script = """
      out.groups = all("#groups-table tbody th").map(text); out.curves = count("#depth-chart .series");
      out.bars = count("#depth-chart .bar") > 0; out.rows = all("#summary-table tbody tr").length;
      set('[data-facet="Model"]', "vit"); set('[data-facet="Data"]', "10 %");
      out.left = all("#summary-table tbody tr").filter((row) => !row.hidden).length; out.said = text(q("#filtered"));
      out.after = count("#depth-chart .series"); out.boxes = count("#spectra-targets input");
      q("#depth-seeds").click(); out.each = count("#depth-chart .series");
    """
    found = drive(render(gather(folders)), script, tmp_path)
    assert found["groups"] == ["net, 10 % of the data", "net", "vit, 10 % of the data", "vit"]
    assert (found["curves"], found["bars"], found["rows"]) == (4, True, 16)
    assert (found["left"], found["said"]) == (4, "4 of 16 results")
    assert (found["after"], found["boxes"], found["each"]) == (1, 4, 4)


def test_a_page_without_analyses_is_silent_and_has_its_theme(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    page = fp.report(fp.heatmap(net, [(torch.rand(4, 3, 8, 8), torch.arange(4) % 3)], bands=2))
    script = "out.themes = [text(q('#theme'))]; q('#theme').click(); out.themes.push(text(q('#theme')));"
    found = drive(page.html, f"{script} out.images = count('img');", tmp_path)
    assert sorted(found["themes"]) == ["Dark", "Light"] and found["images"] == 2
