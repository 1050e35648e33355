"""Files of self-supervised and downstream training: the network inside them, and what is said where none fits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from fourier_probe.errors import CheckpointError
from fourier_probe.runtime.messages import ProbeNote
from fourier_probe.targets import ModelOptions, resolve

SMALL: dict[str, Any] = {"img_size": 32, "patch_size": 8, "depth": 2}
NAME = "vit_tiny_patch16_224"
OPTIONS = ModelOptions(model=NAME, model_args=SMALL)


def network(**more: Any) -> dict[str, Tensor]:
    torch.manual_seed(0)
    return dict(timm.create_model(NAME, num_classes=10, **SMALL | more).state_dict())


def headless() -> dict[str, Tensor]:
    return {key: value for key, value in network().items() if not key.startswith("head.")}


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


def mae() -> dict[str, Any]:
    decoder = {"mask_token": torch.zeros(1, 1, 8), "decoder_embed.weight": torch.zeros(8, 192),
               "decoder_blocks.0.norm1.weight": torch.zeros(8)}  # fmt: skip
    return {"model": {**headless(), **decoder}, "args": {"model": "mae_vit_base_patch16"}}


def moco() -> dict[str, Any]:
    head = {"head.0.weight": torch.zeros(4, 192), "head.1.weight": torch.ones(4)}
    momentum = {key: value + 1 for key, value in headless().items()}
    parts = {**under("base_encoder.", {**headless(), **head}), **under("momentum_encoder.", {**momentum, **head})}
    return {"epoch": 3, "state_dict": under("module.", {**parts, "predictor.0.weight": torch.zeros(4, 4)})}


def dino() -> dict[str, Any]:
    teacher = {**under("backbone.", headless()), "head.last_layer.weight_g": torch.ones(4, 1)}
    student = under("module.", {key: value + 1 for key, value in teacher.items()})
    return {"student": student, "teacher": teacher, "args": {"arch": "vit_small"}}


def mm() -> dict[str, Any]:
    more = {"neck.conv.weight": torch.zeros(2, 2), "decode_head.conv_seg.weight": torch.zeros(2, 2)}
    return {"meta": {"epoch": 3}, "state_dict": {**under("backbone.", headless()), **more}}


@pytest.mark.parametrize(("layout", "name"), [(mae, "MAE"), (moco, "MoCo v3"), (dino, "DINO"), (mm, "mm")])
def test_the_network_inside_is_read(tmp_path: Path, layout: Any, name: str) -> None:
    torch.save(layout(), tmp_path / "a.pt")
    with pytest.warns(ProbeNote, match=rf"laid out as .*{name}.* saves"):
        target = resolve(str(tmp_path / "a.pt"), OPTIONS)
    assert target.model is not None
    for key, value in headless().items():
        assert torch.equal(target.model.state_dict()[key], value)
    assert target.provenance.weights == ("ema" if layout is dino else "raw")


def test_an_encoder_alone_and_the_student_of_dino(tmp_path: Path) -> None:
    torch.save({"model": headless()}, tmp_path / "mae.pt")
    assert resolve(str(tmp_path / "mae.pt"), OPTIONS).provenance.model_args == {"num_classes": 0, **SMALL}
    torch.save(dino(), tmp_path / "dino.pt")
    student = resolve(str(tmp_path / "dino.pt"), ModelOptions(model=NAME, model_args=SMALL, use_ema=False)).model
    assert student is not None
    assert torch.equal(student.state_dict()["cls_token"], headless()["cls_token"] + 1)


def test_a_network_with_a_backbone_of_its_own_keeps_it(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n"
        "class Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.backbone = nn.Conv2d(3, 4, 1)\n        self.head = nn.Conv2d(4, 2, 1)\n"
        "    def forward(self, x):\n        return self.head(self.backbone(x))\n"
    )
    state = {"backbone.weight": torch.zeros(4, 3, 1, 1), "backbone.bias": torch.zeros(4),
             "head.weight": torch.zeros(2, 4, 1, 1), "head.bias": torch.zeros(2)}  # fmt: skip
    torch.save(state, tmp_path / "a.pt")
    model = resolve(f"{tmp_path / 'a.pt'}={tmp_path / 'net.py'}:Net").model
    assert model is not None
    assert set(model.state_dict()) == set(state)


def test_key_prefix_and_ignore_extra(tmp_path: Path) -> None:
    path = str(tmp_path / "a.pt")
    torch.save({"net": {"params": under("enc.inner.", {**network(), "other.weight": torch.zeros(1)})}}, path)
    with pytest.raises(CheckpointError, match="name it with --key"):
        resolve(path, OPTIONS)
    with pytest.raises(CheckpointError, match=r"nothing under --key net.x: net holds params"):
        resolve(path, ModelOptions(model=NAME, model_args=SMALL, key="net.x"))
    with pytest.raises(CheckpointError, match=r"pass --prefix enc.inner\."):
        resolve(path, ModelOptions(model=NAME, model_args=SMALL, key="net.params"))
    chosen = {"model": NAME, "model_args": SMALL, "key": "net.params", "prefix": "enc.inner"}
    with pytest.raises(CheckpointError, match=r"the whole network and more: --ignore-extra"):
        resolve(path, ModelOptions(**chosen))
    with pytest.warns(ProbeNote, match=r"1 weights of a.pt have no place"):
        model = resolve(path, ModelOptions(**chosen, ignore_extra=True)).model
    assert model is not None
    assert torch.equal(model.state_dict()["head.weight"], network()["head.weight"])
    with pytest.raises(CheckpointError, match=r"begin with nothing.: they begin with enc"):
        resolve(path, ModelOptions(model=NAME, model_args=SMALL, key="net.params", prefix="nothing"))


@pytest.mark.parametrize(
    ("arguments", "state", "message"),
    [
        (SMALL | {"num_classes": 10}, headless, r"Only its head is missing.*num_classes=0"),
        (SMALL, lambda: network(img_size=64), r"img_size=64 --model-arg dynamic_img_size=True --img-size 32"),
        (SMALL | {"embed_dim": 96}, network, "sizes differ: it is another size of this architecture"),
    ],
    ids=["head", "positions", "width"],
)
def test_the_right_cause_is_named(tmp_path: Path, arguments: dict[str, Any], state: Any, message: str) -> None:
    torch.save(state(), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=message):
        resolve(str(tmp_path / "a.pt"), ModelOptions(model=NAME, model_args=arguments))


def test_the_way_offered_for_positions_works(tmp_path: Path) -> None:
    torch.save(network(img_size=64), tmp_path / "a.pt")
    arguments = SMALL | {"img_size": 64, "dynamic_img_size": True}
    target = resolve(str(tmp_path / "a.pt"), ModelOptions(model=NAME, model_args=arguments))
    assert target.model is not None
    assert target.model(torch.zeros(1, 3, *target.input_spec(img_size=(32, 32)).size)).shape == (1, 10)
