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
from fourier_probe.results.heatmap_text import tables_of
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
    chance = [text for text in notes if "no better than chance over 2 classes" in text]
    assert len(chance) == 1 and heat.notes == chance
    rest = [text for text in notes if text not in chance]  # the class of this network is the sign of the mean
    assert all("the gradient of the loss is 0 beyond the mean" in text for text in rest) and len(rest) == 2
    assert heat.sensitivity is None and heat.prediction() is None


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


class Deep(nn.Module):
    """A small network that uses every frequency."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.head = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(4 * 64, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Scores of two classes."""
        scores: Tensor = self.head(self.stem(x).relu().flatten(1))
        return scores


def noisy(n: int = 24) -> tuple[Tensor, Tensor]:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(n) % 2


def test_filters_give_what_filtered_images_give() -> None:
    """Against numpy's full FFT, image by image."""
    images, labels = noisy()
    net = Deep()
    heat = heatmap(net, [(images, labels)], filters=True, bands=3, points=["stem"])
    assert [row.filter for row in heat.responses] == ["low"] * 4 + ["high"] * 4 + ["removed"] * 3
    r = np.hypot(2 * np.fft.fftfreq(8)[:, None], 2 * np.fft.fftfreq(8)[None, :])
    for row in heat.responses:
        low, high = row.band or (0.0, 0.0)
        inside = r <= (row.cutoff or 0) + 1e-9
        outside_band = (r <= low + 1e-9) | ((r > high + 1e-9) & (high < 1))
        keep = {"low": inside, "high": ~inside, "removed": outside_band}[row.filter or ""] | (r == 0)
        filtered = np.fft.ifft2(np.fft.fft2(images.double().numpy()) * keep).real
        with torch.no_grad():
            answers = net(torch.from_numpy(filtered).float()).argmax(1)
            before, after = (net.stem(x).flatten(1) for x in (images, torch.from_numpy(filtered).float()))
        assert row.error is not None and row.error.value == pytest.approx(float((answers != labels).double().mean()))
        change = row.change["stem"]
        expected = float(((after - before).norm(dim=1) / before.norm(dim=1)).mean())
        assert change is not None and change.value == pytest.approx(expected, abs=1e-5)
    assert heat.responses[4].filter == "high" and heat.responses[4].error == heat.clean_error  # nothing is taken away
    assert heat.definition.eps is None and heat.sensitivity is None


def test_targets_of_one_kind_are_told_apart_on_the_screen_too(tmp_path: Any) -> None:
    torch.manual_seed(0)
    for name in ("clean", "noisy"):
        model = fp.create("cifar_resnet8", num_classes=10, in_chans=1, width=4)
        state = {"arch": "cifar_resnet8", "model_args": {"num_classes": 10, "in_chans": 1, "width": 4}}
        torch.save({**state, "state_dict": model.state_dict()}, tmp_path / f"{name}.pt")
    heats = fp.heatmap([tmp_path / "clean.pt", tmp_path / "noisy.pt"], "bundled", images=8, bands=2)
    assert heats.labels == [heat.target.label for heat in heats]
    assert [label.rpartition(", ")[2] for label in heats.labels] == ["clean", "noisy"]
    first, second, table = tables_of(list(heats), heats.labels)
    assert str(first).startswith(f"{heats.labels[0]}: 8 images") and str(second).startswith(heats.labels[1])
    assert not isinstance(table, str) and table.columns == ("radius", *heats.labels)
    error = heats[1].responses[1].error
    assert error is not None and error.low is not None and error.high is not None and table.rows[1][0] == "0.50 to 1.00"
    assert table.rows[1][2] == f"{100 * error.value:.1f} ({100 * error.low:.1f} to {100 * error.high:.1f})"


@pytest.mark.parametrize("options", [{"filters": True, "bands": 4}, {"stride": 4}])
def test_errors_are_printed_of_filters_and_of_single_frequencies(options: dict[str, Any]) -> None:
    images, labels = noisy()
    heat = fp.heatmap(Deep(), [(images, labels)], **options)
    line, table = tables_of([heat], [heat.target.label])
    assert "images of your own" in str(line) and not isinstance(table, str)
    assert table.rows and all("-" not in cell for row in table.rows for cell in row[1:])


def test_several_targets_share_one_result(tmp_path: Any) -> None:
    images, labels = noisy()
    heats = fp.heatmap([Deep(), Deep()], [(images, labels)], stride=4, labels=["a", "a"], out=tmp_path / "out")
    assert heats.labels == ["a", "a#2"] and heats["a#2"].responses == heats[0].responses
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a", "a-2", "heatmap.csv",
                                                                      "heatmap.pdf", "heatmap.png"}  # fmt: skip
    again = fp.HeatMap.load(tmp_path / "out" / "a")
    assert again.responses == heats[0].responses
    assert list(heats.to_frame()["target"].unique()) == ["a", "a#2"]
    with pytest.raises(DataError, match="2 targets and 1 labels"):
        heatmap([Deep(), Deep()], [(images, labels)], labels=["a"])
    with pytest.raises(DataError, match="once for each target"):
        heatmap([Deep(), Deep()], iter([(images, labels)]), stride=4)


def test_the_sensitivity_spectrum_is_that_of_single_images() -> None:
    """By finite differences along the real Fourier basis: the mean square change of the loss under random signs."""
    from scipy.stats import spearmanr

    images, labels = noisy()
    net = Deep().double()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= 3
    heat = heatmap(net, [(images, labels)], stride=1, eps=2.0)
    assert heat.sensitivity is not None and heat.sensitivity.radius == [0.25, 0.5, 0.75, 1.0]
    y, x = np.mgrid[:8, :8]
    gradient = np.zeros((24, 8, 8))
    step = 1e-5
    for i, j in zip(y.ravel(), x.ravel(), strict=True):
        moved = torch.zeros(8, 8, dtype=torch.float64)
        moved[i, j] = step
        with torch.no_grad():
            up, down = (
                nn.functional.cross_entropy(net(images.double() + s * moved), labels, reduction="none") for s in (1, -1)
            )
        gradient[:, i, j] = ((up - down) / (2 * step)).numpy()
    power = np.abs(np.fft.fft2(gradient)) ** 2
    r = np.hypot(np.fft.fftfreq(8)[:, None], np.fft.fftfreq(8)[None, :]) * 2
    for at, (radius, found) in enumerate(zip(heat.sensitivity.radius, heat.sensitivity.log_power, strict=True), 1):
        ring = (np.rint(r * 4) == at) & (r > 0)
        logs = np.log(power[:, ring].mean(1))
        assert found.value == pytest.approx(logs.mean(), abs=1e-5), radius
        assert found.low is not None and found.high is not None
        half = 2.0687 * logs.std(ddof=1) / np.sqrt(24)  # Student, 23 degrees of freedom
        assert (found.high - found.low) / 2 == pytest.approx(half, rel=1e-3)
    pairs = heat.over_radii()
    predicted = heat.prediction()
    if predicted is not None:
        assert predicted == (pytest.approx(spearmanr([p[1] for p in pairs], [p[2] for p in pairs]).statistic), 4)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_what_has_no_gradient_is_a_note() -> None:
    class Detached(Deep):
        def forward(self, x: Tensor) -> Tensor:
            """No graph."""
            with torch.no_grad():
                return super().forward(x)

    notes: list[str] = []
    images, labels = noisy()
    with listening(notes.append):
        heat = heatmap(Detached(), [(images, labels)], bands=2)
    assert heat.sensitivity is None and any("sensitivity spectrum is left out" in text for text in notes)
