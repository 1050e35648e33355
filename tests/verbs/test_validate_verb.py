"""`fp.validate` and `fourier-probe validate`: counted by hand, labels that cannot be the model's, the planted task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor, nn

import fourier_probe as fp
from fourier_probe.cli import group
from fourier_probe.data import ImageSet
from fourier_probe.errors import DataError, ModelError, OutputError, ResultError
from fourier_probe.models.gpsa.recast import recast_
from fourier_probe.results.filenames import VALIDATE
from fourier_probe.results.intervals import share
from fourier_probe.runtime.messages import ProbeNote, listening


class Reads(nn.Module):
    """The class is the first pixel, read off: images say what is answered."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.classes, self.dropout = classes, nn.Dropout(0.5)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        answer = images[:, 0, 0, 0].round().long()
        ranks = (torch.arange(self.classes)[None] - answer[:, None]) % self.classes
        return {"logits": self.dropout(-ranks.float())}  # the next classes follow in order


def batches(truth: list[int], answers: list[int]) -> list[tuple[Tensor, Tensor]]:
    images = torch.tensor(answers, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    return [(images[:3], torch.tensor(truth[:3])), (images[3:], torch.tensor(truth[3:]))]


TRUTH, ANSWERS = [0, 0, 0, 1, 1, 6, 6, 6], [0, 0, 3, 1, 2, 6, 5, 6]


def test_every_number_is_what_a_hand_counts() -> None:
    result = fp.validate(Reads(7), batches(TRUTH, ANSWERS), label="reads")
    assert result.top1 == share(5, 8)
    assert result.top5 == share(7, 8)  # 0 answered as 3: 3 4 5 6 0; 6 as 5; but 1 as 2: 2 3 4 5 6
    counted = [(row.images, row.predicted) for row in result.classes]
    assert counted == [(3, 2), (2, 1), (0, 1), (0, 1), (0, 0), (0, 1), (3, 2)]
    assert result.classes[0].top1 == share(2, 3) and result.classes[2].top1 is None
    assert result.matrix[0, 3] == 1 and result.matrix[6, 5] == 1 and result.matrix.sum() == 8
    logits = torch.stack([-((torch.arange(7) - answer) % 7).float() for answer in ANSWERS])
    assert result.loss is not None
    assert result.loss.value == pytest.approx(nn.functional.cross_entropy(logits, torch.tensor(TRUTH)).item())
    assert result.images.n == 8 and result.images.size == [4, 4]
    assert repr(result).startswith("Validation('reads', 8 images of your own: top-1 62.5%, top-5")
    assert "62.5" in result._repr_html_()
    assert list(result.table().index[:2]) == ["all images", "0"]
    assert result.confusion().loc["6", "5"] == 1


def test_the_network_is_left_as_it_was() -> None:
    model = Reads(7).train()
    model.dropout.eval()
    fp.validate(model, batches(TRUTH, ANSWERS))
    assert model.training and not model.dropout.training


def test_it_is_saved_and_read_back_and_what_does_not_agree_is_refused(tmp_path: Path) -> None:
    result = fp.validate(Reads(7), batches(TRUTH, ANSWERS), out=tmp_path / "v")
    asked_for = {name for name in VALIDATE if name.startswith(("lesions", "hessian"))}
    assert {path.name for path in (tmp_path / "v").iterdir()} == set(VALIDATE) - asked_for
    assert fp.Validation.load(tmp_path / "v") == result
    with pytest.raises(OutputError, match="force"):
        result.save(tmp_path / "v")
    record = msgspec.to_builtins(result)
    for change, message in (
        ({"answers": [[0, 9, 8]]}, "names a class"),
        ({"answers": [[0, 0, 7]]}, "7 images"),
        ({"classes": record["classes"][::-1]}, "do not agree"),
        ({"schema": "other"}, "schema"),
        ({"top1": {"value": "high"}}, "top1"),
    ):
        (tmp_path / "bad.json").write_text(json.dumps({**record, **change}))
        with pytest.raises(ResultError, match=message):
            fp.Validation.load(tmp_path / "bad.json")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (batches([0, 1, 2, 3, 7], [0, 1, 2, 3, 4]), "largest label is 7"),
        (batches([0, 1, 2, 3, -1], [0, 1, 2, 3, 4]), "smallest label is -1"),
        ([torch.zeros(2, 1, 4, 4)], "no labels"),
        ([], "no images"),
    ],
)
def test_labels_that_cannot_be_the_models_stop_it(data: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        fp.validate(Reads(7), data)


def test_an_unknown_precision_stops_it() -> None:
    with pytest.raises(ModelError, match=r"amp 'bf61': expected bf16, fp16 or none\. Did you mean bf16\?"):
        fp.validate(fp.create("cifar_resnet8", num_classes=10, in_chans=1), "bundled", images=20, amp="bf61")


def test_a_source_of_another_number_of_classes_stops_it() -> None:
    images = ImageSet("mine", "test", np.zeros(4, dtype=np.int64), ("a", "b"), np.zeros((4, 8, 8, 3), dtype=np.uint8))
    model = fp.create("cifar_resnet8", width=4, num_classes=10)
    with pytest.raises(DataError, match="2 classes and the model has 10"):
        fp.validate(model, images, img_size=(8, 8))


def test_answers_at_chance_are_said() -> None:
    with pytest.warns(ProbeNote, match="no better than chance over 7 classes"):
        result = fp.validate(Reads(7), batches([0] * 8, [1] * 7 + [0]))
    assert "no better than chance" in result.notes[0]


def test_on_the_planted_task_conflict_images_are_apart_and_the_bound_is_of_this_network() -> None:
    torch.manual_seed(0)
    model = fp.create("patch_resnet", width=8)
    heard: list[str] = []
    with listening(heard.append):
        plain = fp.validate(model, "planted", images=60)
        recast_(model, ["blocks.0.conv1"], locality_strength=1.0, gate=1.0)
        attention = fp.validate(model, "planted", images=60)
        far = fp.validate(model, "planted:far", images=60)
    assert plain.bound is not None and plain.bound.top1 == 0.875 and "bound 87.5%" in repr(plain)
    assert attention.bound is not None and attention.bound.top1 is None and "no bound" in repr(attention)
    assert far.conflict is None and far.bound is not None
    assert plain.conflict is not None and plain.agreeing is not None
    assert plain.conflict.images + plain.agreeing.images == 60
    source = fp.open_data("planted", "test")
    assert source.conflict is not None
    mine = (plain.conflict.images * plain.conflict.top1.value + plain.agreeing.images * plain.agreeing.top1.value) / 60
    assert mine == pytest.approx(plain.top1.value)


def test_the_command_prints_and_writes(tmp_path: Path) -> None:
    result = CliRunner().invoke(
        group, ["validate", "timm:patch_resnet", "--data", "planted", "--images", "40", "--out", "v"]
    )
    assert result.exit_code == 0, result.output
    for text in ("all images", "cue conflicts with label", "bound 87.5 %", "nats", "confusion.csv"):
        assert text in result.stdout, text
    assert "no better than chance" in result.stderr
    again = CliRunner().invoke(group, ["validate", "timm:patch_resnet", "--data", "planted", "--out", "v"])
    assert again.exit_code == 1 and "--force" in again.stderr
    shown = CliRunner().invoke(
        group, ["validate", "timm:patch_resnet", "--data", "planted", "--images", "40", "--out", "w", "--json"]
    )
    assert json.loads(shown.stdout)["schema"] == "fourier-probe/validation"
    wrong = CliRunner().invoke(group, ["validate", "timm:resnet18", "--data", "planted", "--images", "4", "--out", "x"])
    assert wrong.exit_code == 1 and "2 classes and the model has 1000" in wrong.stderr
    assert not Path("x/validation.json").exists()
