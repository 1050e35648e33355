"""docs/extending.md runs as it stands, from outside the package; what a plug-in gives is recorded, and never loaded."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import fourier_probe as fp
from fourier_probe import plugins
from fourier_probe.checkpoints import read, readers, save
from fourier_probe.data import sources, trust
from fourier_probe.errors import CheckpointError, DataError
from fourier_probe.probe.registered import METRICS, TAKEN
from fourier_probe.registry import RegistryError
from fourier_probe.results.forms import PointForm
from fourier_probe.results.point import PointSpectrum
from fourier_probe.runtime.messages import ProbeNote
from fourier_probe.trace.blocks import BLOCKS

TEXT = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
SECTIONS = {part.partition("\n")[0]: part for part in TEXT.split("\n## ")[1:]}


def blocks(section: str) -> tuple[str, str, str, list[str]]:
    """Name and text of the plug-in, the lines of Python, the words of the command."""
    name, plugin = re.findall(r"```python file=(\S+)\n(.*?)```", section, re.S)[0]
    (python,) = re.findall(r"```python\n(.*?)```", section, re.S)
    (shell,) = re.findall(r"```sh\n(.*?)```", section, re.S)
    return name, plugin, python, shlex.split(shell.replace("\\\n", " "))


def run(*words: str) -> str:
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("section", SECTIONS)
def test_each_example_runs_in_python_and_on_the_command_line(section: str, tmp_path: Path) -> None:
    name, plugin, python, words = blocks(SECTIONS[section])
    Path(name).write_text(plugin)
    assert words[0] == "fourier-probe"
    if section == "A figure":
        fp.train(model="cifar_resnet8", data="planted", train_images=64, epochs=1, out="one")
    Path("script.py").write_text(plugin + "\n" + python)
    run("script.py")
    run("-m", "fourier_probe", *words[1:])
    out = Path(words[words.index("--out") + 1])
    if section == "A figure":
        assert (out / "accuracy.csv").read_text().startswith("run,top1")
        assert (out / "accuracy.png").exists() and Path("figures-py/accuracy.csv").exists()
        return
    if section == "A metric":
        check_metric(out)
    if section == "A block rule":
        assert [point.name for point in fp.Spectra.load(out).points] == ["stem", "1", "2", "3"]
    recorded = json.loads((out / ("config.json" if section == "A schedule" else "spectra.json")).read_text())
    assert recorded["versions"][f"plugin {name}"] and len(recorded["versions"][f"plugin {name}"]) == 64
    if section == "A schedule":
        assert set(recorded["plan"]["schedule"]["epochs"].values()) == {1}
        script = ["-m", "fourier_probe", "train", "--out", str(out), "--resume"]
        done = subprocess.run([sys.executable, *script], capture_output=True, text=True)
        assert f"which is not loaded: pass --plugin {name}" in done.stderr and "Traceback" not in done.stderr
        assert (
            "not loaded"
            not in subprocess.run([sys.executable, *script, "--plugin", name], capture_output=True, text=True).stderr
        )


def check_metric(out: Path) -> None:
    """It stands in every file and table, equal in both processes, and is shown here, where nobody has registered it."""
    value = json.loads((out / "spectra.json").read_text())
    assert value["scalars"]["cross"]["label"] == "power on the axes" and "diagonal_excess" in value["profiles"]
    last = value["points"][-1]
    assert 0 < last["cross"] < 1 and last["stderr_of"]["cross"] > 0
    assert len(last["profiles"]["diagonal_excess"]["stderr"]) == len(last["radial"]["radius"])
    assert (out / "metrics.png").exists() and Path("cross-py/metrics.pdf").exists() and Path("cross.png").exists()
    rows = list(csv.DictReader((out / "spectra.csv").read_text().splitlines()))
    assert [row["value"] for row in rows if row["metric"] == "cross"][-1] == str(last["cross"])
    rings = [row for row in rows if row["metric"] == "diagonal_excess" and row["point"] == last["name"]]
    assert [float(row["frequency"]) for row in rings] == last["radial"]["radius"]
    assert "cross" not in METRICS
    spectra = fp.Spectra.load(out)
    table = spectra.table()
    assert {"power on the axes", "power on the axes ± 95 %"} < set(table.columns)
    assert any(str(name).startswith("diagonal over all directions at r") for name in table.columns)
    spectra.plot("metrics")
    fp.report([out], out="page.html")
    page = Path("page.html").read_text()
    assert '["scalar:cross","power on the axes","Share of power on the two axes' in page
    assert '"radial:diagonal_excess":[' in page and '<p data-of="scalar:cross" hidden>' in page
    comparison = fp.compare([out, out], labels=["a", "b"])
    assert "metrics" in comparison.figures() and (comparison.to_frame()["metric"] == "cross").any()
    comparison.plot("metrics")


def test_help_needs_no_torch() -> None:
    code = "import sys; from fourier_probe.cli import group; group(['--help'], standalone_mode=False); "
    assert run("-c", code + "print('torch' in sys.modules)").endswith("False\n")


@pytest.fixture(autouse=True)
def _registries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources.SOURCES, "_entries", dict(sources.SOURCES._entries))
    monkeypatch.setattr(BLOCKS, "_entries", dict(BLOCKS._entries))
    monkeypatch.setattr(METRICS, "_entries", dict(METRICS._entries))
    monkeypatch.setattr(readers.READERS, "_entries", dict(readers.READERS._entries))


def test_a_source_that_fails_or_gives_something_else_is_named() -> None:
    @fp.register_source("broken")
    def broken(request: fp.SourceRequest) -> fp.ImageSet:
        if request.argument:
            return "no images"  # type: ignore[return-value]
        raise ValueError("no disk")

    with pytest.raises(DataError, match="'broken' fails: ValueError: no disk"):
        fp.open_data("broken")
    with pytest.raises(DataError, match="'broken' gave str: expected an ImageSet"):
        fp.open_data("broken:x")
    with pytest.raises(DataError, match="Did you mean broken"):
        fp.open_data("brokn")
    with pytest.raises(RegistryError, match="a data source 'bundled' already"):
        fp.register_source("bundled")(broken)


def test_a_source_of_a_plugin_is_never_opened_because_a_file_names_it() -> None:
    opened = []

    @fp.register_source("secret", matches=lambda source: source.endswith(".h5"))
    def secret(request: fp.SourceRequest) -> fp.ImageSet:
        opened.append(request.source)
        return fp.ImageSet("another name", "train", pixels=np.zeros((2, 4, 4, 1), np.uint8))

    with pytest.raises(DataError, match="not opened because a file says so"):
        trust.data_of(None, trust.NamedData("x.h5", "last.pt", ours=True))
    assert not opened
    images = fp.open_data("x.h5", "val")
    assert (images.source, images.split, opened) == ("x.h5", "val", ["x.h5"])


def test_readers_see_plain_values_and_their_tensors_are_checked() -> None:
    @fp.register_reader("odd", recognise=lambda values: "odd" in values)
    def odd(values: readers.Values) -> fp.CheckpointContents:
        if isinstance(values["odd"], int):
            raise KeyError("weights")
        return fp.CheckpointContents({"w": values["odd"]}, arch="resnet18")

    torch.save({"odd": torch.ones(2)}, "good.pt")
    good = read("good.pt")
    assert (good.format, good.arch, list(good.state)) == ("odd", "resnet18", ["w"])
    assert list(good.payload) == ["odd"]
    torch.save({"odd": 0}, "fails.pt")
    with pytest.raises(CheckpointError, match="reader 'odd' fails: KeyError"):
        read("fails.pt")
    torch.save({"odd": "text"}, "text.pt")
    with pytest.raises(CheckpointError, match="is a str, expected a tensor"):
        read("text.pt")
    save(Path("ours.pt"), {"state_dict": {"w": torch.ones(2)}, "odd": 0, "arch": "resnet18", "model_args": {}})
    assert read("ours.pt").format == "fourier-probe"
    with pytest.raises(RegistryError, match="'timm' already"):
        fp.register_reader("timm", recognise=lambda values: True)


def test_plugins_that_changed_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_loaded", {"/a/mine.py": "1" * 64})
    assert plugins.versions() == {"plugin mine.py": "1" * 64}
    assert plugins.differing({"plugin mine.py": "1" * 64, "torch": "2"}) == ""
    assert "another version of the plug-in mine.py" in plugins.differing({"plugin mine.py": "2" * 64})


def analyzed(metric: object, **options: object) -> fp.Spectra:
    """One small analysis with a metric that is registered for it alone."""
    fp.register_metric("mine", **options)(metric)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU())
    return fp.analyze(model, [torch.randn(20, 1, 8, 8, generator=generator) for _ in range(3)], images=None)


def test_means_ratios_and_estimates_have_their_values_and_intervals() -> None:
    def mean(request: fp.MetricRequest) -> torch.Tensor:
        return request.deviation.square().mean((1, 2, 3))

    def ratio(request: fp.MetricRequest) -> fp.Ratio:
        power = request.power
        return fp.Ratio((power * request.high).sum((1, 2, 3)), power.sum((1, 2, 3)))

    def norms(request: fp.MetricRequest) -> dict[str, torch.Tensor]:
        """Like ac_dc."""
        return {"a": request.deviation.square().sum((1, 2, 3)) * 64, "b": request.maps.sum((2, 3)).square().sum(1)}

    def density(request: fp.MetricRequest) -> fp.Ratio:
        power = request.power.sum(1)
        return fp.Ratio(request.ring_means(power), power.sum((1, 2))[:, None].expand(-1, len(request.radii)) / 63)

    for metric, same, options in (
        (mean, "variance", {}),
        (ratio, "hfd_share_pooled", {"unit": "1"}),
        (norms, "ac_dc", {"estimate": lambda sums, grid: np.sqrt(sums["a"] / sums["b"])}),
    ):
        spectra = analyzed(metric, **options)
        for point in spectra.points:
            assert point.scalars["mine"] == pytest.approx(point.scalars[same], rel=1e-5), same
            assert point.stderr_of["mine"] == pytest.approx(point.stderr_of[same], rel=1e-3), same
    spectra = analyzed(density, kind="radial")
    point = spectra.points[-1]
    assert np.log(point.profiles["mine"].value) == pytest.approx(point.log_density, abs=1e-5)
    assert point.profiles["mine"].stderr / point.profiles["mine"].value == pytest.approx(
        point.log_density_stderr, rel=0.02
    )


def test_a_metric_that_fails_is_named() -> None:
    for metric, options, message in (
        (lambda request: 1 / 0, {}, "metric 'mine' fails: ZeroDivisionError"),
        (lambda request: "text", {}, "gave str: expected a tensor"),
        (lambda request: {"a": request.maps.mean((1, 2, 3))}, {}, "gave dict: expected a tensor"),
        (lambda request: request.maps.mean(0), {}, r"gave \(1, 8, 8\): expected \(20,\)"),
        (
            lambda request: request.maps.mean((1, 2, 3)),
            {"kind": "radial"},
            r"expected \(20, 4\), a number per image and",
        ),
        (lambda request: {"a": request.maps.mean((1, 2, 3))}, {"estimate": lambda sums, grid: sums["b"]}, "KeyError"),
        (lambda request: {"a": request.maps.mean(1)}, {"estimate": lambda sums, grid: sums["a"]}, r"gave \(1, 8, 8\)"),
    ):
        with pytest.raises(fp.ResultError, match=message):
            analyzed(metric, **options)
    for name, message in (("hfd_share", "already, from fourier_probe"), ("depth", "has 'depth'"), ("a.b", "cannot be")):
        with pytest.raises(RegistryError, match=message):
            fp.register_metric(name)(len)  # type: ignore[type-var]
    with pytest.raises(RegistryError, match="expected 'scalar' or 'radial'"):
        fp.register_metric("x", kind="vector")  # type: ignore[arg-type]


def test_a_metric_that_is_not_finite_has_no_value_and_the_point_stays() -> None:
    with pytest.warns(ProbeNote, match="'mine' is not finite"):
        spectra = analyzed(lambda request: request.maps.mean((1, 2, 3)).log() * float("nan"))
    assert np.isnan(spectra.points[-1].scalars["mine"]) and np.isfinite(spectra.points[-1].scalars["variance"])
    spectra.save("nan")
    assert json.loads(Path("nan/spectra.json").read_text())["points"][-1]["mine"] is None
    assert np.isnan(fp.Spectra.load("nan").points[-1].scalars["mine"])


def test_names_that_a_point_has_are_all_refused() -> None:
    assert {*PointForm.__struct_fields__, *PointSpectrum.__dataclass_fields__} <= TAKEN


def test_ranks_of_torchrun_merge_a_metric_of_a_plugin() -> None:
    name, plugin, _, words = blocks(SECTIONS["A metric"])
    Path(name).write_text(plugin)
    run("-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", *("fourier_probe", *words[1:-1], "two"))
    run("-m", *("fourier_probe", *words[1:-1], "one"))
    one, two = (fp.Spectra.load(folder).points[-1] for folder in ("one", "two"))
    assert two.scalars["cross"] == pytest.approx(one.scalars["cross"], rel=1e-6)
    assert two.profiles["diagonal_excess"].value == pytest.approx(one.profiles["diagonal_excess"].value, rel=1e-6)


BOTH = """
import fourier_probe as fp
from fourier_probe.errors import TrainingError

@fp.register_metric("loud", label="mean square")
def loud(request: fp.MetricRequest):
    return request.maps.square().mean((1, 2, 3))

@fp.register_schedule("last-only", summary="the last layer alone")
def last_only(request: fp.ScheduleRequest) -> fp.PRSSchedule:
    return fp.PRSSchedule({request.layers[-1]: 1})
"""
TINY = {
    "model": "cifar_resnet8", "model_args": {"width": 4}, "data": "planted", "train_images": 32, "epochs": 2,
    "batch_size": 16, "workers": 0, "device": "cpu", "threads": 1, "probe_every": 1, "probe_images": 20,
    "checkpoint_every": 1,
}  # fmt: skip


def loud(file: Path) -> list[float]:
    return [point["loud"] for point in json.loads(file.read_text())["points"]]


@pytest.mark.slow
def test_a_metric_and_a_schedule_are_there_in_the_children_of_a_sweep_and_after_resume() -> None:
    Path("both.py").write_text(BOTH)
    plan = {"shared": TINY, "axes": {"schedule": ["none", "last-only"]}, "analyze": {"images": 20}}
    Path("plan.json").write_text(json.dumps(plan))
    run("-m", "fourier_probe", "sweep", "plan.json", "--plugin", "both.py", "--out", "study")
    folders = [path.parent for path in Path("study").glob("*/config.json")]
    assert len(folders) == 2
    for folder in folders:
        files = [folder / "spectra.json", *sorted((folder / "spectra").glob("epoch-*.json"))]
        assert len(files) == 4 and all(value > 0 for file in files for value in loud(file))
        config = json.loads((folder / "config.json").read_text())
        assert config["versions"]["plugin both.py"]
    (own,), (plain,) = ([f for f in folders if ("last-only" in f.name) == mine] for mine in (True, False))
    assert len(json.loads((own / "config.json").read_text())["plan"]["schedule"]["epochs"]) == 1
    # As if it had been stopped after its first epoch, which it shares with the other, before the layer converts.
    before = loud(own / "spectra" / "epoch-002.json")
    shutil.copy(plain / "epoch-001.pt", own / "last.pt")
    (own / "spectra" / "epoch-002.json").unlink()
    run("-m", "fourier_probe", "train", "--out", str(own), "--resume", "--plugin", "both.py")
    assert loud(own / "spectra" / "epoch-002.json") == pytest.approx(before, rel=1e-5)
    assert len((own / "conversions.csv").read_text().splitlines()) == 2
