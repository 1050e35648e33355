"""Mean 2-D spectra: the numbers against numpy, the panels, their scales, one to twenty-five layers, branches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from fourier_probe import cli
from fourier_probe.errors import ResultError
from fourier_probe.models import create
from fourier_probe.plots import maps
from fourier_probe.plots.maps import centred, maps_figure
from fourier_probe.probe.measuring import Listen
from fourier_probe.results.analysis import analyze
from fourier_probe.results.parts import maps_frame
from fourier_probe.results.spectra import Spectra


def images(size: int = 8) -> torch.Tensor:
    return torch.randn(40, 3, size, size, generator=torch.Generator().manual_seed(1)) + 1


def chain(layers: int) -> Spectra:
    torch.manual_seed(0)
    parts = [part for _ in range(layers) for part in (nn.Conv2d(3, 3, 3, padding=1), nn.ReLU())]
    return analyze(nn.Sequential(*parts), [images()], listen=Listen(maps=True, self_check=False))


def panels(spectra: Spectra, **options: str) -> list[object]:
    return [ax for ax in maps_figure([spectra], ["net"], **options).axes if ax.get_images()]  # type: ignore[arg-type]


def test_maps_and_their_errors_equal_numpy() -> None:
    spectra = chain(1)
    point, x = spectra["input"], images().double().numpy()
    each = np.fft.fftshift(np.log(np.abs(np.fft.fft2(x)) + 1e-6).mean(1), axes=(1, 2))  # per image
    assert point.map == pytest.approx(each.mean(0), abs=1e-5)
    counts, group = point.sums["count"], _groups(len(x))
    partial = np.array([each[group != g].mean(0) for g in range(20)])
    assert set(counts) == {2.0}
    error = np.sqrt(19 / 20 * ((partial - partial.mean(0)) ** 2).sum(0))
    assert point.map_stderr == pytest.approx(error, abs=1e-5)
    frame = maps_frame(spectra)
    assert len(frame) == 2 * 64 and list(frame.columns) == ["point", "fy", "fx", "log_amplitude", "stderr"]
    dc = frame[(frame.point == "input") & (frame.fy == 0) & (frame.fx == 0)]
    assert dc.log_amplitude.item() == pytest.approx(each.mean(0)[4, 4], abs=1e-5)
    assert frame.fx.min() == -1 and frame.fx.max() == 0.75


def _groups(count: int) -> np.ndarray:
    from fourier_probe.probe.groups import group_of

    return group_of(np.arange(count), None, 20)


@pytest.mark.slow
@pytest.mark.parametrize("layers", [1, 7, 25])
def test_a_panel_per_point_however_many(layers: int) -> None:
    spectra = chain(layers)
    axes = panels(spectra)
    assert len(axes) == layers + 1  # the images first
    assert axes[0].get_title().startswith("input\n8x8")
    norms = {(ax.get_images()[0].norm.vmin, ax.get_images()[0].norm.vmax) for ax in axes}
    assert len(norms) == 1
    shown = np.asarray(axes[1].get_images()[0].get_array())
    assert shown[:8, :8] == pytest.approx(centred(spectra.points[0]))  # DC in the middle; Nyquist again at the end
    assert np.array_equal(shown[0], shown[8]) and axes[1].get_xlim() == (-1, 1)
    own = panels(spectra, scale="panel")
    assert len({ax.get_images()[0].norm.vmax for ax in own}) > len(own) / 2
    width, height = maps_figure([spectra], ["net"]).get_size_inches()
    assert width <= 8 and height <= 9


def test_branches_stand_beside_their_step() -> None:
    torch.manual_seed(0)
    spectra = analyze(create("eit_small_w80", num_classes=3), [images(32)], listen=Listen(maps=True, self_check=False))
    axes = {ax.get_title().split("\n")[0]: ax.get_position() for ax in panels(spectra)}
    row = {name: box.y0 for name, box in axes.items() if "blocks.1" in name and "mixer" in name}
    assert len(row) == 2 and len({round(y, 6) for y in row.values()}) == 1
    assert round(axes["blocks.1+attn"].y0, 6) == round(next(iter(row.values())), 6)


def test_without_maps_or_with_another_scale_it_says_so() -> None:
    plain = analyze(nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU()), [images()])
    with pytest.raises(ResultError, match="analyze with --maps"):
        maps_figure([plain], ["net"])
    with pytest.raises(ResultError, match="expected common or panel"):
        chain(1).plot("maps", scale="row")
    one = analyze(nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()), [torch.rand(3, 3, 1, 1)], listen=Listen(maps=True))
    assert len(panels(one)) == 2  # a single position has one frequency, and no interval


@pytest.mark.slow
def test_the_command_line_draws_them_for_one_and_for_several(tmp_path: Path) -> None:
    few = ["--data", "bundled", "--images", "20", "--maps"]
    for number, scale in enumerate(("common", "panel")):
        out = tmp_path / scale
        done = CliRunner().invoke(
            cli.group, ["analyze", "timm:cifar_resnet8", *few, "--map-scale", scale, "--out", str(out)]
        )
        assert done.exit_code == 0, done.output
        assert (out / "maps.png").stat().st_size > 5000 and (out / "maps.pdf").exists(), number
    assert set(pd.read_csv(tmp_path / "panel" / "maps.csv").point) >= {"input", "stem", "layer1.0"}
    both = CliRunner().invoke(
        cli.group, ["compare", str(tmp_path / "common"), str(tmp_path / "panel"), "--out", str(tmp_path / "both")]
    )
    assert both.exit_code == 0 and (tmp_path / "both" / "maps.png").exists(), both.output
    fresh = ["compare", "timm:cifar_resnet8", "timm:cifar_vit_patch4", *few, "--out", str(tmp_path / "fresh")]
    done = CliRunner().invoke(cli.group, fresh)
    assert done.exit_code == 0 and (tmp_path / "fresh" / "maps.png").exists(), done.output


@pytest.mark.parametrize("count", [*range(1, 12), 16, 26, 31, 37])
def test_no_panel_is_alone_in_the_last_row_where_that_can_be(count: int) -> None:
    points = [SimpleNamespace(map=np.zeros((4, 4)), kind="residual") for _ in range(count)]
    rows = maps._rows(SimpleNamespace(input=None, points=points, selected=False))  # type: ignore[arg-type]
    assert sum(map(len, rows)) == count and max(map(len, rows)) <= maps.ACROSS
    assert len(rows) == 1 or len(rows[-1]) > 1
