"""`--grid HxW`: tokens whose order cannot be learnt, laid out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

from fourier_probe import cli
from fourier_probe.errors import PointError
from fourier_probe.probe.measuring import Listen
from fourier_probe.probe.points import find_points
from fourier_probe.probe.survey import survey
from fourier_probe.results.analysis import analyze
from fourier_probe.runtime.messages import listening


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.mlp(self.norm(x))
        return out


class Indexed(nn.Module):
    """Tokens that go through an index, in rows all the same, behind a class token."""

    def __init__(self, *, order: bool = True) -> None:
        super().__init__()
        self.patches, self.blocks, self.order = nn.Conv2d(3, 8, 4, 4), nn.Sequential(Block(), Block()), order

    def forward(self, images: Tensor) -> Tensor:
        x = self.patches(images).flatten(2).transpose(1, 2)
        if self.order:
            x = torch.cat([torch.zeros(len(x), 1, 8), x], 1)[:, torch.arange(x.shape[1] + 1)]
        out: Tensor = self.blocks(x).mean(1)
        return out


FILE = """
import sys
sys.path.insert(0, {folder!r})
from test_grid_by_hand import Indexed

def net(num_classes=10):
    return Indexed()
"""
IMAGES = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))


def test_the_grid_is_taken_where_it_cannot_be_learnt_and_recorded() -> None:
    torch.manual_seed(0)
    model = Indexed()
    assert len(survey(model, IMAGES).coverage.unread) == 2
    found = survey(model, IMAGES, grid=(6, 8))
    assert [(p.name, p.layout.grid, p.layout.prefix) for p in found.points] == [
        ("stem", (6, 8), 1),
        ("blocks.0", (6, 8), 1),
        ("blocks.1", (6, 8), 1),
    ]
    assert set(found.coverage.evidence.values()) == {"hand"} and not found.coverage.warnings()
    result = analyze(model, [IMAGES], listen=Listen(grid=(6, 8)))
    assert result.coverage is not None and result.coverage.evidence["blocks.1"] == "hand"
    with torch.no_grad():
        tokens = model.blocks[0](torch.cat([torch.zeros(2, 1, 8), model.patches(IMAGES).flatten(2).mT], 1))[:, 1:]
    maps = tokens.mT.reshape(2, 8, 6, 8).double()
    expected = (torch.fft.fft2(maps).abs() + 1e-6).log().mean((0, 1))[0, 0]
    assert result.points[1].log_amplitude[0] == pytest.approx(float(expected), abs=1e-5)


def test_the_check_of_places_sees_a_wrong_grid() -> None:
    torch.manual_seed(0)
    images = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    assert not survey(Indexed(), images, grid=(12, 16)).coverage.warnings()
    found = survey(Indexed(), images, grid=(8, 24))
    assert found.coverage.self_check is not None and found.coverage.self_check.misplaced


def test_a_grid_that_fits_nothing_is_an_error_and_without_tokens_a_note() -> None:
    with pytest.raises(PointError, match=r"--grid 3x4: no tokens .* sequences of 49; .* fits 12 tokens, or up to 32"):
        find_points(Indexed(), IMAGES, grid=(3, 4))
    with pytest.raises(PointError, match="nothing whose order was learnt"):  # known to be 6 x 8
        find_points(Indexed(order=False), IMAGES, grid=(4, 12))
    notes: list[str] = []
    with listening(notes.append):
        find_points(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), IMAGES, grid=(6, 8))
    assert notes == ["--grid 6x8 is not used: Sequential has no sequences of tokens."]


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["points", "analyze", "compare", "heatmap"])
def test_every_verb_takes_it(verb: str, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(FILE.format(folder=str(Path(__file__).parent)))
    target = f"{file}:net"
    more = [] if verb == "points" else ["--data", "bundled", "--images", "10", "--out", str(tmp_path / "out")]
    more += ["--stride", "16", "--points", "blocks.0"] if verb == "heatmap" else []
    targets = [target] * (2 if verb == "compare" else 1)
    size = ["--img-size", "32"]
    done = CliRunner().invoke(cli.group, [verb, *targets, *more, *size, "--grid", "8x8"])
    assert done.exit_code == 0, done.output
    bad = CliRunner().invoke(
        cli.group, [verb, *targets, *more, *size, "--grid", "3x5", *([] if verb == "points" else ["--force"])]
    )
    assert bad.exit_code == 1 and "--grid 3x5" in bad.output and "Traceback" not in bad.output
