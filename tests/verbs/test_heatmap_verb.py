"""`fp.heatmap` on modules, sources and batches; labels that cannot be the model's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import fourier_probe as fp
from fourier_probe.data import ImageSet
from fourier_probe.errors import DataError, ModelError
from fourier_probe.runtime.messages import listening
from fourier_probe.verbs.heatmap import heatmap


class Net(nn.Module):
    """A network whose class is the sign of the mean: right on the images below, wrong under strong noise."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 2, 3, padding=1)
        self.classes = classes

    def forward(self, x: Tensor) -> Any:
        """Scores of two classes, in a dictionary."""
        mean = x.mean((1, 2, 3)) - 0.5
        rest = torch.full((len(x), self.classes - 2), -1e3)
        return {"logits": torch.cat([torch.stack([-mean, mean], 1) + 0 * self.stem(x).mean(), rest], 1)}


def pictures(n: int = 24) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % 2
    return (0.3 + 0.4 * labels.float()).view(n, 1, 1, 1).expand(n, 1, 8, 8).contiguous(), labels


def source(labels: Tensor, classes: tuple[str, ...] | None = None) -> ImageSet:
    pixels = (pictures(len(labels))[0] * 255).round().byte().permute(0, 2, 3, 1).numpy()
    return ImageSet("mine", "test", labels.numpy().astype(np.int64), classes, pixels)


def options(**more: Any) -> dict[str, Any]:
    return {"img_size": (8, 8), "mean": [0.0], "std": [1.0], **more}


def test_a_module_and_batches_give_the_map_that_a_source_gives() -> None:
    images, labels = pictures()
    own = fp.heatmap(Net(), [(images[:10], labels[:10]), (images[10:], labels[10:])], eps=4.0, points=["stem"])
    opened = fp.heatmap(Net(), source(labels), eps=4.0, points=["stem"], **options())
    assert own.clean_error is not None and own.clean_error.value == 0
    assert [row.error for row in own.responses] == [row.error for row in opened.responses]
    mean, *rest = own.responses  # only noise that moves the mean of an image can turn this network
    assert mean.frequency == (0, 0) and mean.error is not None and mean.error.value > 0.2
    assert mean.increase is not None and mean.increase.low is not None and mean.increase.low > 0
    far = [row.error.value for row in rest if row.error is not None and row.frequency == (0, 3)]
    assert far == [0.0]
    assert own.images.n == 24 and own.images.size == (8, 8) and own.target.source == "Net"


@pytest.mark.parametrize(
    ("labels", "classes", "reason"),
    [
        (torch.arange(24) * 4, None, "the largest label is 92 and the model has 2 classes"),
        (torch.arange(24) % 2, ("a", "b", "c"), "the labels are of 3 classes and the model has 2"),
        (torch.arange(24) % 2 - 1, None, "the smallest label is -1"),
    ],
)
def test_labels_of_other_classes_stop_it_or_leave_the_changes(
    labels: Tensor, classes: tuple[str, ...] | None, reason: str
) -> None:
    with pytest.raises(DataError, match=f"no error of Net on mine to map: {reason}"):
        heatmap(Net(), source(labels, classes), stride=4, **options())
    notes: list[str] = []
    with listening(notes.append):
        heat = heatmap(Net(), source(labels, classes), stride=4, points=["stem"], **options())
    assert heat.quantities == ["change:stem"] and reason in notes[0] and reason in heat.notes[0]


def test_no_better_than_chance_is_said() -> None:
    images, labels = pictures()
    notes: list[str] = []
    with listening(notes.append):
        heat = heatmap(Net(), [(images, 1 - labels)], stride=4)
        heatmap(Net(), [(images, labels)], stride=4)
    assert len(notes) == 1 and "no better than chance over 2 classes" in notes[0]
    assert heat.notes == notes


@pytest.mark.parametrize(
    "wrong", [{"eps": float("nan")}, {"eps": float("inf")}, {"eps": 0}, {"eps": -1}, {"stride": 0}, {"bands": 1},
              {"seed": -1}, {"batch_size": 0}]
)  # fmt: skip
def test_options_that_cannot_be_are_refused_before_anything_is_read(wrong: dict[str, Any]) -> None:
    def never() -> Any:
        raise AssertionError("the data were read")
        yield

    with pytest.raises(DataError, match=next(iter(wrong)).replace("_", " ")):
        heatmap(Net(), never(), **wrong)


def test_what_cannot_be_disturbed_is_refused() -> None:
    images, labels = pictures()
    with pytest.raises(DataError, match="give the mean= and std="):
        heatmap(Net(), [((images - 0.5) / 0.1, labels)], stride=4)
    heat = heatmap(Net(), [((images - 0.5) / 0.1, labels)], stride=4, mean=[0.5], std=[0.1])
    assert heat.images.mean == [0.5]
    with pytest.raises(DataError, match="no images"):
        heatmap(Net(), [])
    with pytest.raises(DataError, match=r"floating \(B, C, H, W\), got torch.uint8"):
        heatmap(Net(), [torch.zeros(2, 1, 8, 8, dtype=torch.uint8)])
    with pytest.raises(ModelError, match="expected a network"):
        heatmap(7, [(images, labels)])  # type: ignore[arg-type]


def test_features_that_are_not_finite_under_noise_are_null() -> None:
    class Fragile(Net):
        def forward(self, x: Tensor) -> Any:
            """A stem that overflows where the noise is strong."""
            self.stem(x if float(x.std()) < 0.21 else x / 0)
            return super().forward(x)

    images, labels = pictures()
    heat = heatmap(Fragile(), [(images, labels)], eps=4.0, points=["stem"], stride=2)
    changes = [row.change["stem"] for row in heat.responses]
    assert None in changes
