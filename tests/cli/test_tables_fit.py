"""What every verb prints fits 80 columns, and no word of a table is broken."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

import fourier_probe as fp
from fourier_probe.cli import COMMANDS, group, printing

WIDTH = 80
PLAN = """
[shared]
epochs = 2
batch_size = 8
model_args = {width = 2}
[axes]
model = ["cifar_resnet8"]
schedule = ["none", "linear"]
seed = [0, 1]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two checkpoints whose names are long, and the analyses of both."""
    folder = tmp_path_factory.mktemp("made")
    for name, model in (("a_convolutional_network_with_a_long_name", "cifar_resnet8"), ("vit", "cifar_vit_patch4")):
        size = {"width": 4} if "resnet" in model else {"embed_dim": 24, "depth": 2, "num_heads": 2}
        network = fp.create(model, num_classes=10, in_chans=1, **size)
        args = {"num_classes": 10, "in_chans": 1, **size}
        torch.save({"state_dict": network.state_dict(), "arch": model, "model_args": args}, folder / f"{name}.pt")
        fp.analyze(folder / f"{name}.pt", "bundled", images=24, self_check=False, out=folder / name, cka=True)
    (folder / "plan.toml").write_text(PLAN)
    return folder


CNN, VIT = "a_convolutional_network_with_a_long_name", "vit"
CALLS = {
    "analyze": ["{}/vit.pt", "--images", "24", "--attention", "--kernels", "--tokens", "--cka", "--no-self-check"],
    "points": ["{}/vit.pt", "--no-self-check"],
    "models": ["convnextv2_atto*"],
    "compare": [f"{{}}/{CNN}", "{}/vit", "--cnn", f"{{}}/{CNN}", "--vit", "{}/vit"],
    "report": ["{}/vit", "-o", "page.html"],
    "figures": ["--list"],
    "train": ["--model", "cifar_resnet8", "--model-arg", "width=4", "--data-scale", "0.01", "--epochs", "1"],
    "validate": ["{}/vit.pt", "--images", "24", "--lesions"],
    "sweep": ["{}/plan.toml", "--dry-run"],
    "schedule": ["--model", "cifar_resnet8"],
    "heatmap": ["{}/vit.pt", f"{{}}/{CNN}.pt", "--images", "12", "--bands", "2"],
}


def test_every_verb_is_here() -> None:
    assert set(CALLS) == set(COMMANDS) - {"demo"}  # trains for a minute; its table is of the same function


@pytest.mark.parametrize("verb", CALLS)
def test_what_a_verb_prints_fits(verb: str, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))
    cells: list[str] = []
    table = printing.table

    def noted(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        cells.extend([*columns, *(cell for row in rows for cell in row)])
        table(title, columns, rows)

    monkeypatch.setattr(printing, "table", noted)
    done = CliRunner().invoke(group, [verb, *(word.format(made) for word in CALLS[verb])])
    assert done.exit_code == 0, done.output
    lines = [line for line in done.stdout.splitlines() if not line.startswith("written to ")]
    assert [line for line in lines if len(line) > WIDTH] == []
    whole = {word for line in lines for word in line.split()}
    words = {word for cell in cells for word in cell.split() if len(word) <= WIDTH // 2}
    assert words <= whole, words - whole


@pytest.mark.parametrize("width", [40, 80, 133])
def test_a_table_of_anything_fits(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    names = [
        "timm:vit_small_patch14_reg4_dinov2.lvd142m",
        "stages.3.blocks.26.token_mixer.projection+attention",
        "x" * 90,
    ]
    columns = ["target", "mean over the steps of it", "timm_vit_large_patch14_clip_quickgelu_224", "shows"]
    printing.table(
        "a title", columns, [[name, "-0.116 ± 0.003", "7", "a sentence of many words " * 5] for name in names]
    )
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= width
    assert "-0.116 ± 0.003" in out and not re.search(r"\bsent$|\bwor$", out, re.MULTILINE)
    for piece in ("timm:vit_small_patch14_reg4_dinov2." if width > 70 else "patch14_", "token_mixer.", "sentence"):
        assert piece in out
