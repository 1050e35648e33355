"""The numbers of one fixed analysis are those that are committed: weights, images and maths are the same everywhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import fourier_probe as fp

REFERENCE = Path(__file__).with_name("fixed_run.json")


def fixed_run() -> dict[str, object]:
    """A small network with weights from a seed, the bundled images; the numbers of the first and the last point."""
    torch.manual_seed(0)
    model = fp.create("cifar_resnet8", num_classes=10, in_chans=1)
    spectra = fp.analyze(model, "bundled", images=40, device="cpu")
    value = spectra.to_json()
    fields = ("name", "grid", "delta", "stderr", "radial", "hfd_share", "slope", "variance", "ac_dc", "token_cosine",
              "white_delta", "stderr_of")  # fmt: skip
    points = [{name: point[name] for name in fields} for point in value["points"]]
    return {"digest": value["images"]["digest"], "points": [points[0], points[-1]]}


def flat(value: object, where: str = "") -> dict[str, object]:
    """Every leaf by its path."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)  # type: ignore[assignment]
    else:
        return {where: value}
    return {path: leaf for key, item in items for path, leaf in flat(item, f"{where}.{key}").items()}


def test_the_numbers_of_a_fixed_run_are_reproduced() -> None:
    found, expected = flat(fixed_run()), flat(json.loads(REFERENCE.read_text()))
    assert found.keys() == expected.keys()
    for path, value in expected.items():
        if isinstance(value, float):
            assert found[path] == pytest.approx(value, rel=1e-5, abs=1e-5), path
        else:
            assert found[path] == value, path


if __name__ == "__main__":
    REFERENCE.write_text(json.dumps(fixed_run(), indent=1) + "\n")
