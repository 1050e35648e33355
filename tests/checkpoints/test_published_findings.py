"""Published findings on trained networks that ship: Park & Kim on our own ViTs and on networks that others trained."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path

import pytest

import fourier_probe as fp
from fourier_probe.results.estimates import add_steps
from fourier_probe.results.intervals import over_seeds

SHIPPED = Path(__file__).parents[2] / "checkpoints"
T19 = 2.093  # Student's quantile of 95 % with 19 degrees of freedom


def changes(spectra: fp.Spectra, op: str, *, second_half: bool = False) -> list[tuple[float, float]]:
    """Change of delta at the highest usable frequency by each step of a kind, with its standard error."""
    if any(point.sums is not None for point in spectra.points):
        add_steps(spectra.points)  # files of version 1 hold the change of log_amplitude alone
    points = spectra.stream
    k = points[0].usable - 1
    chosen = points[1 + len(points) // 2 :] if second_half else points[1:]
    steps = [point.step for point in chosen if point.op == op and point.step is not None]
    return [(float(step.delta.change[k]), float(step.delta.stderr[k])) for step in steps]


def test_our_vits_lower_by_attention_and_raise_by_mlps() -> None:
    """17 and 16 of 18 steps: six blocks of three seeds, CIFAR-100 at a tenth of its size."""
    runs = sorted(SHIPPED.glob("cifar_vit_patch4-cifar100-10pc-*"))
    assert len(runs) == 3
    lowered, raised, by_seed = 0, 0, []
    for run in runs:
        points = fp.Spectra.load(run).stream
        k = points[0].usable - 1
        change = {op: [float(p.delta[k] - q.delta[k]) for q, p in itertools.pairwise(points) if p.op == op]
                  for op in ("attention", "mlp")}  # fmt: skip
        lowered += sum(value < 0 for value in change["attention"])
        raised += sum(value > 0 for value in change["mlp"])
        by_seed.append(sum(change["attention"]) / 6 - sum(change["mlp"]) / 6)
    assert (lowered, raised) == (17, 16)
    mean, half = over_seeds(by_seed)
    assert mean + half < 0  # attention minus MLP, over three trainings


def test_the_paired_intervals_of_a_shipped_vit_leave_out_zero() -> None:
    spectra = fp.Spectra.load(SHIPPED / "cifar_vit_patch4-cifar100-10pc-d9297f22")
    attention, mlp = changes(spectra, "attention"), changes(spectra, "mlp")
    assert sum(value + T19 * error < 0 for value, error in attention) >= 5
    assert sum(value - T19 * error > 0 for value, error in mlp) >= 5


REAL = SHIPPED / "real"
REAL_NETWORKS = json.loads((REAL / "manifest.json").read_text())


@pytest.mark.parametrize("entry", REAL_NETWORKS, ids=lambda entry: str(entry["name"]))
def test_spectra_of_real_networks_are_those_of_the_manifest(entry: dict[str, object]) -> None:
    folder = REAL / str(entry["name"])
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert files == entry["files"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 250_000
    spectra = fp.Spectra.load(folder)
    assert spectra.target.sha256 == entry["sha256"] and spectra.images.n == 200
    assert spectra.coverage is not None and spectra.coverage.read == spectra.coverage.steps
    assert (REAL.parent.parent / "tools" / "real_networks.py").read_text().count(str(entry["sha256"])) == 1


def test_park_and_kim_hold_in_the_second_half_of_a_vit_of_others() -> None:
    """Each of six steps of each kind, with paired intervals of 95 %; in the first half it does not hold."""
    spectra = fp.Spectra.load(REAL / "vit-s14")
    assert len(spectra.stream) == 25
    attention, mlp = (changes(spectra, op, second_half=True) for op in ("attention", "mlp"))
    assert len(attention) == len(mlp) == 6
    assert all(value + T19 * error < 0 for value, error in attention)
    assert all(value - T19 * error > 0 for value, error in mlp)
    everywhere = [changes(spectra, op) for op in ("attention", "mlp")]
    assert [sum(value < 0 for value, _ in everywhere[0]), sum(value > 0 for value, _ in everywhere[1])] == [9, 7]
    first, last = spectra.stream[0], spectra.stream[-1]
    assert first.scalars["hfd_share"] == pytest.approx(0.667, abs=1e-3)
    assert last.scalars["hfd_share"] == pytest.approx(0.237, abs=1e-3)
    assert first.delta[first.usable - 1] == pytest.approx(-1.98, abs=0.01)
    assert last.delta[last.usable - 1] == pytest.approx(-3.99, abs=0.01)


def test_a_real_cnn_from_112_to_7_pixels() -> None:
    stream = fp.Spectra.load(REAL / "efficientnet-lite0").stream
    assert (len(stream), stream[0].grid, stream[-1].grid) == (17, (112, 112), (7, 7))
    shares = [point.scalars["hfd_share"] for point in stream]
    assert shares[0] == pytest.approx(0.274, abs=1e-3) and shares[-1] == pytest.approx(0.251, abs=1e-3)
    assert all(0.48 < share < 0.55 for share in shares[3:-1])
