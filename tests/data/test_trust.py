"""What a file may say about data: row 25, with webdataset's shell within reach."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner, Result
from PIL import Image

from fourier_probe import cli
from fourier_probe.checkpoints import save
from fourier_probe.data import open_data, trust
from fourier_probe.data.trust import NamedData, data_of, fingerprint
from fourier_probe.errors import DataError

VERBS = {
    "analyze": ["analyze", "x.pt"],
    "compare": ["compare", "x.pt", "timm:cifar_resnet8"],
    "heatmap": ["heatmap", "x.pt", "--stride", "16"],
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.group, [*arguments, *(["--out", "out"] if "--out" not in arguments else [])])


def foreign(data: str, key: str = "args") -> None:
    model = timm.create_model("cifar_resnet8")
    torch.save({"state_dict": model.state_dict(), "arch": "cifar_resnet8", key: {"data": data}}, "x.pt")


def ours(data: str, **more: Any) -> None:
    model = timm.create_model("cifar_resnet8")
    values = {"state_dict": model.state_dict(), "arch": "cifar_resnet8", "model_args": {}, "config": {"data": data}}
    save(Path("x.pt"), {**values, **more})


def npz(path: Path, count: int = 8) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32), dtype=np.uint8)
    np.savez(path, test_images=images, test_labels=np.arange(count) % 2, train_images=images,
             train_labels=np.arange(count) % 2)  # fmt: skip
    return path


def photos(root: Path) -> Path:
    for name in ("cat", "dog"):
        (root / name).mkdir(parents=True)
        Image.new("RGB", (8, 8), (name == "cat" and "red") or "blue").save(root / name / "1.png")
    return root


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("FOURIER_PROBE_DATA", raising=False)


@pytest.mark.parametrize("key", ["args", "hyper_parameters", "config"])
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.filterwarnings("ignore")
def test_no_command_of_a_file_is_run(verb: str, key: str) -> None:
    """The real fault: webdataset is installed, and its `pipe:` hands the rest to a shell."""
    pytest.importorskip("webdataset")
    foreign("wds/x:pipe:touch ran; echo #", key)
    result = run(*VERBS[verb])
    assert not Path("ran").exists()
    assert result.exit_code == 1 and "never run" in result.output and "Traceback" not in result.output


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
def test_nothing_that_a_file_names_is_made_read_or_downloaded(verb: str) -> None:
    photos(Path("photos"))
    npz(Path("mine.npz"))
    before = {path.name for path in Path().iterdir()}
    for data in ("torch/cifar100:any/dir", "torch/cifar100", "hfds/a/b", "wds/x:http://127.0.0.1:9/{0..3}.tar",
                 "photos", "mine.npz", "/etc", "~/x", "-x", "gone.npz"):  # fmt: skip
        foreign(data)
        result = run(*VERBS[verb])
        assert result.exit_code == 1, (data, result.output)
        assert f"was trained on {data}" in result.output and f"pass --data {data} if you trust it" in result.output
        assert {path.name for path in Path().iterdir()} == {*before, "x.pt"}, data


@pytest.mark.parametrize(
    "source", ["wds/x:pipe:touch ran", "wds/x:PIPE:touch ran", "WDS/x:a::Pipe:touch ran", "pipe:ls"]
)
def test_pipe_is_refused_from_the_command_line_and_in_plans_too(source: str) -> None:
    with pytest.raises(DataError, match="never run"):
        open_data(source)
    result = run("analyze", "timm:cifar_resnet8", "--data", source)
    assert result.exit_code == 1 and "never run" in result.output
    result = run("train", "--model", "cifar_resnet8", "--data", source)
    assert result.exit_code == 1 and "never run" in result.output
    Path("plan.toml").write_text(f'[shared]\nmodel = "cifar_resnet8"\ndata = {json.dumps(source)}\n')
    result = CliRunner().invoke(cli.group, ["sweep", "plan.toml", "--dry-run", "--out", "study"])
    assert result.exit_code == 1 and "never run" in result.output
    assert not Path("ran").exists()


@pytest.mark.slow
def test_a_run_folder_reads_its_own_data_again_and_no_other() -> None:
    """Both kinds of local source; changed data, a moved name and a link are not what the run read."""
    pytest.importorskip("webdataset")
    for source in (npz(Path("mine.npz")), photos(Path("photos"))):
        name, options = f"run-{source.stem}", "--epochs 1 --val-split 0 --batch-size 4 --workers 0 --img-size 16"
        trained = run("train", "--model", "cifar_resnet8", "--data", str(source), *options.split(), "--out", name)
        assert trained.exit_code == 0, trained.output
        record = json.loads(Path(name, "config.json").read_text())
        assert record["data_fingerprint"]["kind"] == ("npz" if source.suffix else "folder")
        again = run("analyze", name, "--out", "again", "--force", "--img-size", "16")
        assert again.exit_code == 0, again.output
        same = "unchanged since" if source.suffix else "of the same files by name and size"
        assert f"was trained on {source}, {same}: it is read again" in again.output
    resumed = run("train", "--out", "run-mine", "--resume")
    assert resumed.exit_code == 0, resumed.output
    with Path("mine.npz").open("r+b") as file:
        file.seek(200)
        file.write(b"\x00\x01\x02")
    Image.new("RGB", (9, 9)).save("photos/cat/2.png")
    for name in ("run-mine", "run-photos"):
        for arguments in (["analyze", name], ["train", "--resume", "--out", name]):
            changed = run(*arguments)
            assert changed.exit_code == 1 and "it has changed since" in changed.output, changed.output
    record = json.loads(Path("run-mine/config.json").read_text())
    record["config"]["data"] = "wds/x:pipe:touch ran; echo #"
    Path("run-mine/config.json").write_text(json.dumps(record))
    assert "never run" in run("train", "--resume", "--out", "run-mine").output
    record["config"]["data"] = "torch/cifar100:any/dir"
    Path("run-mine/config.json").write_text(json.dumps(record))
    assert "pass --data torch/cifar100:any/dir if you trust it" in run("train", "--resume", "--out", "run-mine").output
    assert not Path("ran").exists() and not Path("any").exists()


def test_a_resumed_run_makes_and_fetches_only_what_is_named_again() -> None:
    Path("evil.py").write_text("import pathlib\npathlib.Path('ran').touch()\ndef make(**_): ...\n")
    config: dict[str, Any] = {"data": "bundled", "model": "evil.py:make"}
    Path("run").mkdir()
    for change, advice in (
        ({}, "pass --model evil.py:make"),
        ({"model": "cifar_resnet8", "model_args": {"checkpoint_path": "x.pth"}}, "pass the --model-arg options"),
        ({"model": "resnet18", "pretrained": True}, "pass --pretrained"),
    ):
        Path("run/config.json").write_text(json.dumps({"config": {**config, **change}}))
        result = run("train", "--resume", "--out", "run")
        assert result.exit_code == 1 and advice in result.output, result.output
    assert not Path("ran").exists()


@pytest.mark.slow
def test_a_checkpoint_of_ours_needs_the_fingerprint() -> None:
    npz(Path("mine.npz"))
    ours("mine.npz")  # of an older version
    result = run("analyze", "x.pt")
    assert result.exit_code == 1 and "pass --data mine.npz if you trust it" in result.output
    ours("planted:far")
    assert run("analyze", "x.pt", "--images", "4").exit_code == 0
    foreign("planted:far")
    result = run("analyze", "x.pt", "--images", "4", "--force", "--json")
    assert '"source": "planted:far"' in result.output
    ours("/etc", data_fingerprint={"kind": "folder", "files": 10**9, "bytes": 1, "sha256": "0"})
    result = run("analyze", "x.pt", "--out", "other")
    assert result.exit_code == 1 and "pass --data /etc if you trust it" in result.output
    for odd in ([], {"kind": 3}, "x", {"kind": "npz", "files": 1, "bytes": "1", "sha256": ""}):
        assert trust.read_fingerprint(odd) is None


def test_a_fingerprint_follows_no_link_and_lists_a_bounded_part(monkeypatch: pytest.MonkeyPatch) -> None:
    root = photos(Path("photos"))
    whole = fingerprint("photos/")
    assert whole is not None and (whole.kind, whole.files) == ("folder", 2)
    (root / ".DS_Store").touch()
    assert fingerprint("photos") == whole
    Path("link").symlink_to("photos")
    os.mkfifo("fifo.npz")
    assert [fingerprint(name) for name in ("link", "fifo.npz", "gone", "x" * 5000, "~nobody", "a\0b", "")] == [None] * 7
    named = NamedData("link", "x.pt", True, whole)
    with pytest.raises(DataError, match="links"):
        data_of(None, named)
    assert data_of("wds/x", named) == "wds/x"
    monkeypatch.setattr(trust, "ENTRIES", 4)  # photos' three entries and one in cat/; not dog/
    part = fingerprint("photos")
    assert part is not None and part.files == 1
    monkeypatch.setattr(trust, "ENTRIES", 2)
    assert fingerprint("photos") is None
    monkeypatch.setattr(trust, "ENTRIES", 100)
    (root / "cat" / "2.png").symlink_to("1.png")
    assert fingerprint("photos") is None
