"""Yin et al. (1906.08988) on two shipped CNNs, one trained with Gaussian noise: how noise of each band hurts them."""

from __future__ import annotations

from pathlib import Path

import fourier_probe as fp

SHIPPED = Path(__file__).parents[2] / "checkpoints" / "noise"


def test_noise_in_training_takes_the_errors_at_high_frequencies_away_and_leaves_those_at_the_lowest() -> None:
    heats = fp.heatmap([SHIPPED / "clean.pt", SHIPPED / "gaussian.pt"], "bundled", bands=4, images=200, batch_size=100)
    clean, noisy = ([row.increase for row in heat.responses] for heat in heats)
    assert all(found is not None and found.low is not None and found.low > 0.3 for found in clean)  # everywhere
    low, *_, high = noisy
    assert low is not None and low.low is not None and low.low > 0.1  # the lowest band still hurts
    assert high is not None and high.high is not None and high.high < 0.08  # flat where the noise of training was
    assert clean[-1] is not None and clean[0] is not None and clean[-1].value > clean[0].value  # the other way round
    predicted = heats[1].prediction()
    assert predicted is not None and predicted[0] > 0.7


def test_they_are_small() -> None:
    assert sum(path.stat().st_size for path in SHIPPED.glob("*.pt")) < 500_000
