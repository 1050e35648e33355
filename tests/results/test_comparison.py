"""Differences between results: step changes and shares, with errors paired over the same images."""

from __future__ import annotations

import copy
from dataclasses import replace

import msgspec
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fourier_probe.data import ImageSet, InputSpec, batches
from fourier_probe.errors import ResultError
from fourier_probe.results.analysis import analyze
from fourier_probe.results.comparison import DRAWN, Comparison
from fourier_probe.results.coordinate import Axes, locate
from fourier_probe.results.profile import common_frequency, ends_of, profile, view_of
from fourier_probe.results.side_by_side import (
    check_comparable,
    common_table,
    coordinates,
    hfd_share_difference,
    key_of,
    paired,
    summary,
)
from fourier_probe.results.spectra import Spectra
from fourier_probe.results.steps import Step, StepChanges, step_changes
from fourier_probe.runtime.messages import listening


class Residual(nn.Module):
    """x + a depthwise blur or sharpening of x: lowers or raises what is high."""

    def __init__(self, sign: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False)
        self.act = nn.Identity()
        kernel = torch.full((3, 3), 1 / 9)
        nn.init.zeros_(self.conv.weight)
        with torch.no_grad():
            self.conv.weight += -sign * kernel * 0.5

    def forward(self, maps: Tensor) -> Tensor:
        """(B, 4, H, W) -> the same."""
        out: Tensor = self.act(maps + self.conv(maps))
        return out


def network(*signs: float) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *(Residual(sign) for sign in signs))


def of(*signs: float, n: int = 60) -> Spectra:
    images = torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    return analyze(network(*signs), [images])


def test_a_blur_lowers_and_a_sharpening_raises_high_frequencies() -> None:
    (kind,) = step_changes(of(-1.0, -1.0, 1.0))
    assert (kind.op, kind.steps, kind.raised) == ("conv", 3, 1)
    changes = [step.change for step in kind.each]
    assert [change < 0 for change in changes] == [True, True, False]
    assert (kind.change, kind.median) == pytest.approx((np.mean(changes), sorted(changes)[1]))
    assert 0 < kind.stderr < 0.1


def test_the_change_is_that_of_delta_and_its_error_is_paired() -> None:
    result = of(1.0)
    (kind,) = step_changes(result)
    before, after = result.stream
    last = after.usable - 1
    assert kind.frequency == pytest.approx(after.frequency[last])
    assert kind.change == pytest.approx(after.delta[last] - before.delta[last])
    unpaired = np.hypot(after.stderr[last], before.stderr[last])
    assert kind.stderr < 0.5 * unpaired
    assert kind.stderr == pytest.approx(kind.each[0].stderr)  # a mean over one step
    bare = copy.deepcopy(result)
    for point in bare.points:
        point.sums = None
    assert step_changes(bare)[0].change == pytest.approx(kind.change)
    assert np.isnan(step_changes(bare)[0].stderr)


def test_steps_are_counted_in_the_quantity_of_the_figure_beside_the_table() -> None:
    """Grids differ: the log density, as the depth profile has it; delta may rise where it falls."""
    torch.manual_seed(0)
    layers = [Residual(1.0), nn.AvgPool2d(2), Residual(-1.0), Residual(-1.0)]
    images = torch.rand(40, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    result = analyze(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *layers), [images])
    comparison = Comparison((result,), ("net",))
    assert comparison.view.quantity == "log_density"
    (changes,) = comparison.steps
    along = profile(result, comparison.view)
    value = dict(zip(along.names, along.value, strict=True))
    before = dict(zip(along.names[1:], along.value, strict=False))
    assert {step.name for kind in changes for step in kind.each}
    for step in (step for kind in changes for step in kind.each):
        assert step.change == pytest.approx(value[step.name] - before[step.name])
    table = next(table for table in comparison.tables() if table.title.startswith("what each step does"))
    assert comparison.view.heading in table.title


def test_one_step_that_decides_a_mean_is_named() -> None:
    steps = [Step(f"block {n}", n / 4, change, 0.0) for n, change in enumerate((-0.1, 2.7, -0.1, -0.2))]
    kind = StepChanges("conv", "delta", 0.8, 0.575, 0.0, -0.1, 1, 2.0, tuple(steps))
    assert kind.carrier == steps[1]
    assert replace(kind, change=-0.1, each=(steps[0], steps[2], steps[0])).carrier is None
    assert replace(kind, each=tuple(steps[:2])).carrier is None  # of two steps each is half


def test_a_difference_of_shares_is_paired() -> None:
    first, other = of(1.0).points[-1], of(0.9).points[-1]
    difference, error = hfd_share_difference(other, first)
    assert difference == pytest.approx(other.scalars["hfd_share"] - first.scalars["hfd_share"])
    assert 0 < error < 0.3 * np.hypot(first.stderr_of["hfd_share"], other.stderr_of["hfd_share"])
    assert hfd_share_difference(first, first) == (0.0, 0.0)


def test_the_common_table_and_the_coordinates_share_one_grid() -> None:
    cnn, vit, other = of(-1.0), of(1.0), of(0.3)
    rows = common_table([cnn, other], ["cnn", "other"])
    assert {row["target"] for row in rows} == {"cnn", "other"}
    assert {row["depth"] for row in rows} == {0.0, 1.0}  # they match one to one
    places = coordinates([cnn, other, vit], ["cnn", "other", "vit"], cnn, vit)
    assert [row["target"] for row in places] == ["cnn", "other", "vit", "white noise"]
    assert 0 < places[1]["t"] < 1
    assert common_frequency([cnn, other]) == pytest.approx(0.875)


def test_models_may_see_the_same_raw_images_at_sizes_of_their_own() -> None:
    rng = np.random.default_rng(6)
    raw = rng.integers(0, 256, (40, 20, 20, 3), dtype=np.uint8)

    def at(side: int, mean: float, pixels: NDArray[np.uint8] = raw) -> Spectra:
        spec = InputSpec(3, (side, side), (mean,) * 3, (0.2,) * 3)
        images = ImageSet("arrays", "test", pixels=pixels)
        return analyze(network(1.0, -1.0), batches(images, spec, batch_size=16))

    small, large = at(16, 0.5), at(24, 0.4)
    assert [result.points[-1].grid for result in (small, large)] == [(16, 16), (24, 24)]
    assert small.images.digest == large.images.digest
    check_comparable([small, large])
    assert common_frequency([small, large]) == pytest.approx(0.875)  # of the smaller maps
    rows = summary([small, large], ["small", "large"])
    assert np.isfinite([rows[1]["last_delta"], rows[1]["last_stderr"], rows[1]["hfd_share_difference_stderr"]]).all()
    assert len(common_table([small, large], ["small", "large"])) == 2 * 33 * 16  # interpolated onto one grid
    changed = raw.copy()
    changed[7, 0, 0, 0] ^= 1  # one level of one pixel
    with pytest.raises(ResultError, match="cannot be compared: images 40 of"):
        check_comparable([small, at(24, 0.4, changed)])


def test_a_key_that_a_result_does_not_say() -> None:
    result = of(1.0)
    result.target = msgspec.structs.replace(result.target, data_scale=0.1)
    assert key_of(result, "data-scale") == 0.1
    with pytest.raises(ResultError, match="does not say its schedule"):
        key_of(result, "schedule")


def test_runs_of_one_model_that_switch_at_other_epochs_have_rows_of_their_own() -> None:
    results, labels = [], []
    for scale, epoch, seed in ((600, 0, 0), (600, 13, 0), (54000, 0, 0), (54000, 13, 0), (600, 13, 1)):
        result = of(1.0, n=20)
        result.target = msgspec.structs.replace(
            result.target, arch="net", schedule="constant", train_images=scale, seed=seed
        )
        results.append(result)
        labels.append(f"net, constant, {scale:,} images, switch at epoch {epoch}" + ", seed 1" * seed)
    four = Comparison(tuple(results[:4]), tuple(labels[:4]), by="data-scale")
    cells, rows, columns = four._cells()
    assert rows == ["net, constant, switch at epoch 0", "net, constant, switch at epoch 13"]
    assert columns == ["600 images", "54,000 images"]
    assert len(cells) == 4
    seeds = Comparison((results[0], results[4]), (labels[0], labels[4]), by="data-scale")
    heard: list[str] = []
    with listening(heard.append):
        cells, rows, _ = seeds._cells()
    assert rows == ["net + constant"]
    assert cells[rows[0], "600 images"] is results[0]
    assert heard == ["results that differ by their seed share a panel: the first of each is drawn."]


def test_a_mean_that_moves_delta_is_said_where_delta_is_shown() -> None:
    result = of(1.0, -1.0)
    for point, level in zip(result.stream, (-2.0, -2.1, -2.2), strict=False):
        point.scalars["white_delta"] = level
    assert "mean of the maps" not in view_of([result]).why
    result.stream[-1].scalars["white_delta"] = -4.2
    why = view_of([result]).why
    assert "compared as it is. Delta also changes with the mean of the maps" in why
    assert "between -4.20 and -2.00 (dashed)" in why


def test_the_table_says_how_many_images_a_run_was_trained_on_and_a_whole_coverage_once() -> None:
    results = []
    for images in (None, 54000):
        for seed in range(2):
            result = of(1.0, n=20)
            result.target = msgspec.structs.replace(
                result.target, arch="net", data_scale=0.1 if images is None else 1.0, train_images=images, seed=seed
            )
            results.append(result)
    table = Comparison(tuple(results), ("a", "b", "c", "d"), by="data-scale").table()
    assert [row[1] for row in table.rows] == ["10 %", "10 %", "54,000 images", "54,000 images"]
    assert "Coverage: every step of the 4 networks is read." in table.caption


def test_no_step_is_made_of_points_that_are_no_neighbours() -> None:
    result = of(1.0, -1.0, 1.0)
    assert step_changes(result)[0].steps == 3
    del result.points[1]  # as where features were not finite
    assert [step.name for step in step_changes(result)[0].each] == [result.points[2].name]
    result.selected = True
    assert step_changes(result) == []


def test_results_of_other_groups_are_taken_as_independent_and_said_to_be() -> None:
    """Version 1 grouped by index: its errors add in squares, never paired with a later result or with each other."""
    old, new = of(-1.0, 1.0), of(1.0, 1.0)
    old.definition = replace(old.definition, grouping=None)
    assert not paired([old, new]) and not paired([old, old]) and paired([new, new])
    check_comparable([old, new])
    row, other = summary([old, new], ["old", "new"])
    last = [result.points[-1].stderr_of["hfd_share"] for result in (old, new)]
    assert other["hfd_share_difference_stderr"] == pytest.approx(np.hypot(*last))
    assert (row["hfd_share_difference_stderr"], row["paired"], other["paired"]) == (0, False, False)
    view = view_of([old, new])
    ends = ends_of([old, new], view)
    assert ends[1].last_difference_stderr == pytest.approx(np.hypot(ends[0].last_stderr, ends[1].last_stderr))
    assert ends[0].last_difference_stderr == 0
    assert ends_of([new, of(-1.0, 1.0)], view)[1].last_difference_stderr < 0.9 * ends[1].last_difference_stderr
    same = summary([new, of(-1.0, 1.0)], ["new", "old"])[1]
    assert same["paired"] and same["hfd_share_difference_stderr"] < 0.9 * other["hfd_share_difference_stderr"]


def test_the_coordinate_without_shared_groups_adds_the_variances() -> None:
    """Each end and the model lose their groups alone; the errors are those of three independent jackknives."""
    rng = np.random.default_rng(0)
    axes = Axes(np.array([0.0, 1.0]), np.array([0.5, 1.0]), np.full((2, 2), 0.25), matched=True)
    cnn, vit, model = (level + 0.001 * rng.normal(size=(21, 2, 2)) for level in (0.0, 1.0, 0.5))
    together = locate(model, cnn, vit, axes, paired=False)
    alone = [
        locate(*(x if i == varied else np.broadcast_to(x[:1], x.shape) for i, x in enumerate((model, cnn, vit))), axes)
        for varied in range(3)
    ]
    assert together.t_stderr == pytest.approx(np.sqrt(sum(each.t_stderr**2 for each in alone)))
    assert (together.paired, locate(model, cnn, vit, axes).paired) == (False, True)
    itself = locate(cnn, cnn.copy(), vit, axes, paired=False)  # the end itself is no independent draw
    assert (itself.t, itself.t_stderr) == (0, pytest.approx(0, abs=1e-9))


def test_of_many_targets_the_first_are_drawn_and_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: dict[str, int] = {}
    counting = lambda name: lambda results, *_, **__: drawn.__setitem__(name, len(results))  # noqa: E731
    monkeypatch.setattr("fourier_probe.results.comparison.drawing", counting)
    many = DRAWN + 2
    comparison = Comparison((of(1.0, -1.0),) * many, tuple(f"net {number}" for number in range(many)))
    with listening((notes := []).append):
        for draw in comparison.figures().values():
            draw()
    assert {"spectra", "depth", "steps"} <= drawn.keys()
    assert set(drawn.values()) == {DRAWN}
    assert [text for text in notes if f"the first {DRAWN} of {many} targets" in text]
    assert len(comparison.rows) == many
