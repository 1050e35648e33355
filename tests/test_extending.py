"""docs/extending.md runs as it stands, from outside the package; what a plug-in gives is recorded, and never loaded."""

from __future__ import annotations

import json
import re
import shlex
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
from fourier_probe.registry import RegistryError

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


def test_help_needs_no_torch() -> None:
    code = "import sys; from fourier_probe.cli import group; group(['--help'], standalone_mode=False); "
    assert run("-c", code + "print('torch' in sys.modules)").endswith("False\n")


@pytest.fixture(autouse=True)
def _registries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources.SOURCES, "_entries", dict(sources.SOURCES._entries))
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
