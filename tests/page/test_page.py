"""The report page without a browser: what is gathered, what is in the page, and what bad input does."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
import scipy.stats
from click.testing import CliRunner, Result

from fourier_probe import cli
from fourier_probe.errors import ResultError, TrainingError
from fourier_probe.page import LIMIT, Entry, gather, page, render
from fourier_probe.page.payload import THINNINGS, payload
from fourier_probe.page.tables import MANY, reliance_text
from fourier_probe.probe.definition import Definition
from fourier_probe.results.intervals import Interval
from fourier_probe.results.records import LeftOut
from fourier_probe.results.reliance import LesionRecord, RelianceRecord
from fourier_probe.results.spectra import Spectra
from fourier_probe.runtime.messages import listening

Save = Callable[..., Path]


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.group, ["report", *map(str, arguments)])


def data_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    return json.loads(found[1])  # type: ignore[no-any-return]


def entries_of(*paths: Path) -> list[Entry]:
    return gather([str(path) for path in paths])


class Tags(HTMLParser):
    """Every tag that was opened and not closed, every attribute, and the text of the summary table."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.scripts = 0
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += attrs
        self.scripts += tag == "script"
        if tag not in ("meta", "link", "input", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


# --- the page ---


def test_the_page_is_whole_and_asks_for_nothing(save_result: Save, tmp_path: Path) -> None:
    result = run(save_result("a"), save_result("b", seed=1, attention=True), "-o", "out/report.html")
    assert result.exit_code == 0, result.output
    assert "2 targets on 24 images of noise" in result.stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.html"]
    html = (tmp_path / "out" / "report.html").read_text()
    tags = Tags(html)
    assert tags.open == [] and tags.scripts == 2
    links = [value or "" for name, value in tags.attributes if name in ("src", "href", "data", "action")]
    assert all(link.startswith(("#", "data:image/png;base64,")) or link == "data:," for link in links)
    assert "default-src 'none'" in html and "@import" not in html and "url(" not in html
    assert "{{" not in html
    assert 30_000 < len(re.sub('base64,[^"]*', "", html).encode()) < 150_000 and len(html.encode()) < 300_000


def test_what_was_compared_is_in_the_html_itself(save_result: Save) -> None:
    html = render(entries_of(save_result("a"), save_result("b", source="timm:vit", seed=3)))
    body = re.sub(r"<script.*?</script>|<style.*?</style>", "", html, flags=re.DOTALL)
    for text in ("resnet18 and vit", "24 images of noise (test split)", "ln(|F|+1e-6)", "no window", "true axis"):
        assert text in body
    summary = re.search(r'<table id="summary-table">.*?</table>', body, re.DOTALL)
    assert summary and summary[0].count("<tr") == 3 and "25.0%" in summary[0] and "±" in summary[0]
    assert "Schedule" not in summary[0]  # no target has one
    assert "0" * 63 + "3" in body  # the digest of the file
    assert "<noscript>" in body


def test_the_model_with_its_arguments_and_the_epoch_of_a_constant_schedule(save_run: Save) -> None:
    run = save_run("a", schedule="constant", model_args={"split": "attention", "num_classes": 10})
    summary = re.search(r'<table id="summary-table">.*?</table>', render(entries_of(run)), re.DOTALL)
    assert summary and ">constant at 2<" in summary[0]
    assert "</span>net split=attention, constant at 2<" in summary[0]


def test_the_numbers_are_those_of_the_result(save_result: Save) -> None:
    folder = save_result("a")
    result = Spectra.load(folder)
    data = data_of(render(entries_of(folder)))
    shown = data["targets"][0]["points"][1]
    point = result.points[1]
    assert data["axes"][shown["f"]] == pytest.approx(point.frequency.tolist(), rel=1e-4)
    assert shown["delta"] == pytest.approx(point.delta.tolist(), rel=1e-4)
    assert shown["stderr"] == pytest.approx(point.stderr.tolist(), rel=1e-2)
    assert shown["density"] == pytest.approx(point.log_density.tolist(), rel=1e-4)  # type: ignore[union-attr]
    assert shown["hfd_share"][0] == pytest.approx(point.scalars["hfd_share"], rel=1e-4)
    assert shown["usable"] == point.usable == 4
    assert [each["stream"] for each in data["targets"][0]["points"]] == [True, True, True, False, True]
    assert data["view"] == {"quantity": "log_density", "at": 1, "label": "log density at r = 1.00"}  # 8x8 and 4x4
    assert shown["high"][0] == pytest.approx(point.log_density[-1], rel=1e-4)  # type: ignore[index]
    assert shown["high_white"] == 0


def test_maps_of_one_grid_are_shown_by_delta_and_of_several_by_what_needs_no_grid(save_result: Save) -> None:
    several = save_result("several")
    html = render(entries_of(several))
    assert "Maps have different grids (8x8, 4x4)" in html and "Log density at r = 1.00, last point" in html
    result = Spectra.load(several)
    result.points = [point for point in result.points if point.grid == (8, 8)]
    result.save(several.parent / "one")
    html = render(entries_of(several.parent / "one"))
    assert "Every map is 8x8" in html and "Δ at 0.75π, last point" in html
    assert data_of(html)["view"]["quantity"] == "delta"


def test_an_interval_of_the_table_and_of_the_charts_is_as_many_standard_errors(save_result: Save) -> None:
    t95 = scipy.stats.t.ppf(0.975, Definition().groups - 1)
    html = render(entries_of(folder := save_result("a")))
    assert data_of(html)["quantile"] == pytest.approx(t95, rel=1e-4)
    error = Spectra.load(folder)["down"].log_density_stderr[-1]  # type: ignore[index]
    assert re.findall(r'<span class="aside">± ([0-9.]+)</span>', html) == [f"{t95 * error:.2f}"]


def test_the_same_results_give_the_same_bytes(save_result: Save, tmp_path: Path) -> None:
    folders = save_result("a"), save_result("b", seed=1)
    for name in ("one.html", "two.html"):
        assert run(*folders, "-o", name).exit_code == 0
    assert (tmp_path / "one.html").read_bytes() == (tmp_path / "two.html").read_bytes()


def test_names_cannot_become_html(make_result: Callable[..., Spectra], tmp_path: Path) -> None:
    evil = '</script><script>alert(1)</script><!--<img src=x onerror="alert(2)">'
    result = make_result(f"timm:{evil}", arch=evil, data=evil, model_args={evil: evil}, attention=True)
    result.points[0].name = result.versions["torch"] = evil
    result.attention[0] = msgspec.structs.replace(result.attention[0], name=evil)
    result.excluded = [LeftOut(evil, evil)]
    result.save(tmp_path / "evil")
    html = render(entries_of(tmp_path / "evil"), title=evil)
    tags = Tags(html)
    assert tags.scripts == 2 and tags.open == []
    assert not [name for name, _ in tags.attributes if name.startswith("on")]
    assert data_of(html)["targets"][0]["label"] == evil


def test_names_are_the_same_in_the_tables_and_in_the_charts(make_result: Callable[..., Spectra]) -> None:
    """The script finds rows and filters by them; and shows them, so that no mark reverses a line."""
    count = MANY + 1  # from here on there are menus
    results = [make_result("a.pt", arch=f"net\u202e\x1b{k % 2}", schedule="linear\0", seed=k) for k in range(count)]
    results[0].points[1].name = "b\u202e0"
    html = render([Entry(f"label {k}", None, result) for k, result in enumerate(results)])
    assert "\u202e" not in html
    shown = data_of(html)
    models = {f"net\\u202e\\x1b{k}" for k in range(2)}
    assert models == {target["facets"]["Model"] for target in shown["targets"]}
    assert models == set(re.findall(r'<option value="(net[^"]*)">', html))
    assert shown["targets"][0]["points"][1]["name"] == "b\\u202e0"


def test_few_images_have_no_intervals(save_result: Save) -> None:
    html = render(entries_of(save_result("few", images=6)))
    data = data_of(html)
    assert all("stderr" not in point for point in data["targets"][0]["points"])
    assert data["targets"][0]["points"][0]["high"][1] is None
    assert "NaN" not in json.dumps(data)
    summary = re.search(r'<table id="summary-table">.*?</table>', html, re.DOTALL)
    assert summary and "±" not in summary[0] and "nan" not in summary[0]


def test_a_result_of_the_diagonal_alone_has_no_density(save_result: Save) -> None:
    html = render(entries_of(save_result("all"), save_result("fast", metrics="diagonal", seed=2)))
    full, fast = data_of(html)["targets"]
    assert "density" in full["points"][0] and "density" not in fast["points"][0]
    assert "hfd_share" not in fast["points"][0]


def test_points_without_a_frequency_are_named(make_result: Callable[..., Spectra]) -> None:
    result = make_result()
    result.points[-1].usable = 1
    entry = Entry("net", Path("x"), result)
    assert "left out: down of net." in render([entry])
    assert "and so left out" not in render([Entry("net", Path("x"), make_result())])


def test_sections_without_content_are_hidden(save_result: Save, save_run: Save) -> None:
    plain = render(entries_of(save_result("a")))
    full = render(entries_of(save_run("run", attention=True)))
    for section in ("attention", "training"):
        assert re.search(rf'<section id="{section}"[^>]* hidden>', plain)
        assert not re.search(rf'<section id="{section}"[^>]* hidden>', full)


def test_a_page_of_twenty_networks_stays_small(large_result: Callable[[int, int, int], Spectra]) -> None:
    entries = [Entry(f"network {seed}", Path("x"), large_result(seed, 50, 56)) for seed in range(20)]
    html = render(entries)
    assert len(html.encode()) < LIMIT / 2
    assert data_of(html)["thinned"] == ""


def test_a_page_that_would_be_too_large_is_thinned_and_says_so(
    large_result: Callable[[int, int, int], Spectra], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = [Entry(f"network {seed}", Path("x"), large_result(seed, 40, 224)) for seed in range(3)]
    whole = len(render(entries).encode())
    monkeypatch.setattr(page, "LIMIT", whole // 2)
    html = render(entries)
    assert "at most 33 of their frequencies" in re.sub(r"<script.*", "", html, flags=re.DOTALL)
    shown = data_of(html)["targets"][0]["points"][0]
    axis = data_of(html)["axes"][shown["f"]]
    assert shown["usable"] == 33 and len(axis) == 34
    assert axis[0] == 0 and axis[-1] == 1 and axis[-2] == pytest.approx(111 / 112, rel=1e-4)

    monkeypatch.setattr(page, "LIMIT", 125_000)
    least = data_of(render(entries))
    assert {"high", "delta"} <= set(least["targets"][0]["points"][0])
    assert all(point["stream"] for target in least["targets"] for point in target["points"])
    monkeypatch.setattr(page, "LIMIT", 66_000)
    with pytest.raises(ResultError, match="name fewer results"):
        render(entries)


# --- what was named ---


def test_a_run_brings_its_curves(save_run: Save) -> None:
    entry = entries_of(save_run("study/prs"))[0]
    training = data_of(render([entry]))["targets"][0]["training"]
    assert entry.label == "net"  # what it is, not where it lies
    assert training["epoch"] == [1, 2, 3, 4] and training["switches"] == [[3, 1]]
    assert training["curves"]["val_loss"] == [2.1, 1.9, 1.7, 1.5]
    assert "test_loss" not in training["curves"]


def test_a_run_that_was_not_analyzed_shows_its_last_probe(save_run: Save) -> None:
    entry = entries_of(save_run("run", analyzed=False, epochs=(5, 10)))[0]
    assert entry.result.target.epoch == 10


def test_a_folder_of_runs_and_results(save_run: Save, save_result: Save, tmp_path: Path) -> None:
    save_run("all/one")
    save_run("all/bare", analyzed=False)
    save_result("all/other", source="timm:vit")
    remarks: list[str] = []
    with listening(remarks.append):
        entries = gather([str(tmp_path / "all"), str(tmp_path / "all" / "one")])  # the second is there already
    assert [entry.label for entry in entries] == ["net", "vit"]
    assert len(remarks) == 1 and "bare" in remarks[0]
    assert "left out" in run("all").stderr


def test_targets_of_one_name_are_told_apart(save_result: Save) -> None:
    paths = [
        save_result("a", weights="untrained"),
        save_result("b", weights="raw", data_scale=0.1, seed=1),
        save_result("c", weights="raw", data_scale=0.1, seed=2),
        save_result("d", weights="raw", data_scale=0.1, seed=2),
    ]
    labels = [entry.label for entry in entries_of(*paths)]
    assert labels[0] == "resnet18, untrained"
    assert labels[1] == "resnet18, raw, seed 1"
    assert labels[2:] == ["resnet18, raw, seed 2 #1", "resnet18, raw, seed 2 #2"]


# --- bad input ---


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["nothing"], "there is no file or folder nothing"),
        (["timm:resnet18"], "run `fourier-probe analyze timm:resnet18`"),
        (["empty"], "holds neither a run nor a result"),
        (["bare"], "the run .*bare has no spectra"),
        (["runs"], r"holds no analyzed run \(of 1\)"),
        (["good", "other-images"], "cannot be compared: images"),
        (["damaged"], "is damaged, Input data was truncated"),
        (["cut"], r"missing required field `delta` - at `\$.points"),
        (["uneven"], r"`delta` has 4 values and `frequency` 5 - at `\$.points"),
        (["hollow"], "no probe points"),
        (["odd-target"], r"Expected `object`, got `array` - at `\$.target`"),
        (["odd-attention"], r"missing required field `grid` - at `\$.attention"),
        (["weights.pt"], "is no saved result"),
        (["broken-log"], "metrics.csv, line 2: val_loss is 'what': expected a number"),
    ],
)
def test_bad_input_is_named_and_leaves_the_old_page(
    names: list[str], message: str, save_result: Save, save_run: Save, tmp_path: Path
) -> None:
    good = save_result("good")
    (tmp_path / "empty").mkdir()
    (tmp_path / "weights.pt").write_bytes(b"x")
    save_run("bare", analyzed=False)
    save_run("runs/bare", analyzed=False)
    (save_run("broken-log") / "metrics.csv").write_text("epoch,val_loss\n0,what\n")
    save_result("other-images", digest="others", seed=1)
    whole = (good / "spectra.json").read_text()
    changes: dict[str, Callable[[dict[str, Any]], Any]] = {
        "cut": lambda value: value["points"][0].pop("delta"),
        "uneven": lambda value: value["points"][0]["delta"].pop(),
        "hollow": lambda value: value["points"].clear(),
        "odd-target": lambda value: value.update(target=["what"]),
        "odd-attention": lambda value: value.update(attention=[{"name": "attn"}]),
    }
    for name, change in changes.items():
        value = json.loads(whole)
        change(value)
        (tmp_path / name).mkdir()
        (tmp_path / name / "spectra.json").write_text(json.dumps(value))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "spectra.json").write_text(whole[: len(whole) // 2])

    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "report.html").write_text("old")
    result = run(*names, "-o", "pages/report.html", "--force")
    assert result.exit_code == 1
    assert re.search(message, result.stderr)
    assert result.stdout == ""
    assert [path.name for path in (tmp_path / "pages").iterdir()] == ["report.html"]
    assert (tmp_path / "pages" / "report.html").read_text() == "old"


def test_a_damaged_log_of_conversions(save_run: Save) -> None:
    folder = save_run("run")
    (folder / "conversions.csv").write_text("layer,epoch\nlayer1,soon\n")
    with pytest.raises(TrainingError, match=r"conversions.csv, line 2: epoch is 'soon': expected a whole number"):
        render(entries_of(folder))


def test_nothing_is_overwritten_unasked(save_result: Save, tmp_path: Path) -> None:
    folder = save_result("a")
    (tmp_path / "report[1].html").write_text("mine")
    refused = run(folder, "-o", "report[1].html")
    assert refused.exit_code == 1 and "--force" in refused.stderr
    assert (tmp_path / "report[1].html").read_text() == "mine"
    assert run(folder, "-o", "report[1].html", "--force").exit_code == 0
    assert "is a folder" in run(folder, "-o", ".").stderr


def test_gates_never_stand_without_reliance(make_result: Callable[..., Spectra]) -> None:
    plain, relied = make_result(attention=True), make_result(attention=True, seed=1)
    change = Interval(-0.5, -0.6, -0.4)
    lesions = [
        LesionRecord(
            layer=layer, half=half, test="exchanged", top1=0.2, loss=1.0, top1_change=change, loss_change=change
        )
        for layer in ("block.0.attn", "all layers")
        for half in ("content", "positional")
    ]
    relied.reliance = RelianceRecord(images=24, top1=0.7, lesions=lesions)
    entries = [Entry("plain", None, plain), Entry("relied", None, relied)]
    none, shown = payload(entries, THINNINGS[0])["targets"]
    assert none["reliance"] is None
    assert [layer["name"] for layer in shown["reliance"]["layers"]] == ["block.0.attn", "all layers"]
    assert shown["reliance"]["layers"][1]["content"] == [50, 10]  # points lost, half of the interval
    text = reliance_text(entries)
    assert "A gate is no measure of reliance" in text and "It was not measured of plain:" in text
    assert "not measured" not in reliance_text(entries[1:])
    assert reliance_text([Entry("without gates", None, make_result())]) == ""
    assert "A gate is no measure of reliance" in render(entries[:1])
