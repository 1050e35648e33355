"""Reading, building and writing checkpoints; faults 1 to 8 and 13 of the list, each injected for real."""

from __future__ import annotations

import argparse
import collections
import datetime
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from torch import Tensor, nn

from fourier_probe.checkpoints import architecture, build, read, save
from fourier_probe.checkpoints.writing import digest
from fourier_probe.errors import CheckpointError, ModelError, OutputError
from fourier_probe.models import create

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return create("cifar_resnet8", num_classes=10).eval()


@pytest.fixture
def state(net: nn.Module) -> State:
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.fixture
def ours(tmp_path: Path, state: State) -> Path:
    path = tmp_path / "last.pt"
    save(path, {"state_dict": state, "arch": "cifar_resnet8", "model_args": {"num_classes": 10}, "epoch": 3})
    return path


def same(model: nn.Module, state: State) -> bool:
    mine = model.state_dict()
    return mine.keys() == state.keys() and all(torch.equal(mine[name], state[name]) for name in state)


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: value for name, value in state.items()}


def shifted(state: State) -> State:
    return {name: value + 1 if value.is_floating_point() else value for name, value in state.items()}


# --- round trip


def test_round_trip(ours: Path, net: nn.Module, state: State) -> None:
    checkpoint = read(ours)
    assert (checkpoint.arch, checkpoint.model_args, checkpoint.epoch) == ("cifar_resnet8", {"num_classes": 10}, 3)
    assert (checkpoint.format, checkpoint.weights, checkpoint.prefix) == ("fourier-probe", "raw", "")
    model = build(checkpoint)
    assert same(model, state) and not any(module.training for module in model.modules())
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(model(images), net(images))


def test_everything_saved_comes_back(tmp_path: Path, state: State) -> None:
    payload = {
        "state_dict": collections.OrderedDict(state),
        "optimizer": {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(4).half()}}, "param_groups": []},
        "rng": {"torch": torch.get_rng_state(), "python": (3, (1, 2), None)},
        "config": {"lr": 1e-3, "data": "bundled", "size": (32, 32), "blob": b"\0\1", "nothing": float("nan")},
        "metrics": {"top1": 0.5},
        "conversions": [],
    }
    save(tmp_path / "a.pt", payload)
    back = read(tmp_path / "a.pt")
    assert back.config["size"] == (32, 32) and back.config["nothing"] != back.config["nothing"]
    assert back.metrics == {"top1": 0.5} and back.payload["rng"]["python"] == (3, (1, 2), None)
    assert torch.equal(back.payload["rng"]["torch"], payload["rng"]["torch"])
    moment = back.payload["optimizer"]["state"][0]["exp_avg"]
    assert moment.dtype is torch.float16 and torch.equal(moment, payload["optimizer"]["state"][0]["exp_avg"])


def test_sha256_is_the_files(ours: Path) -> None:
    import hashlib

    assert read(ours).sha256 == hashlib.sha256(ours.read_bytes()).hexdigest()


def test_a_view_is_saved_without_the_rest_of_its_storage(tmp_path: Path) -> None:
    save(tmp_path / "a.pt", {"state_dict": {"w": torch.zeros(1_000_000)[:10]}})
    assert (tmp_path / "a.pt").stat().st_size < 10_000


def test_digest_tells_name_type_shape_and_every_byte() -> None:
    base = {"a": torch.zeros(4), "b": torch.ones(2)}
    others: list[dict[str, Tensor]] = [
        {"a": torch.zeros(4), "c": torch.ones(2)},
        {"a": torch.zeros(4).int(), "b": torch.ones(2)},
        {"a": torch.zeros(2, 2), "b": torch.ones(2)},
        {"a": torch.tensor([0, 0, 0, 1e-45]), "b": torch.ones(2)},
        {"a": torch.zeros(4)},
    ]
    assert len({digest(each) for each in [base, *others]}) == 6
    assert digest(dict(reversed(base.items()))) == digest(base)
    strided = {"a": torch.zeros(4, 2).t()[0], "b": torch.ones(2)}
    assert digest(strided) == digest(base)
    assert digest({"a": torch.zeros(2, 3)}) != digest({"a": torch.zeros(3, 2)})


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (
            {"config": {"lr": np.float64(1e-3)}},
            r"payload\['config'\]\['lr'\]: it is numpy.float64, expected plain values",
        ),
        ({"config": {"out": [Path("a")]}}, r"payload\['config'\]\['out'\]\[0\]: it is pathlib"),
        ({"args": argparse.Namespace()}, r"payload\['args'\]: it is argparse.Namespace"),
        ({"model": nn.Linear(2, 2)}, r"payload\['model'\]: it is torch.nn.modules.linear.Linear"),
        ({"rng": {None: 1}}, r"payload\['rng'\]: its key None is NoneType"),
        ({"w": torch.eye(2).to_sparse()}, r"payload\['w'\]: it is torch.Tensor, expected .*dense tensors"),
    ],
)
def test_what_is_not_saved(tmp_path: Path, payload: dict[str, Any], message: str) -> None:
    """Also fault 13: nothing is written and the old file stays."""
    path = tmp_path / "last.pt"
    path.write_bytes(b"precious")
    with pytest.raises(CheckpointError, match=message):
        save(path, payload)
    assert path.read_bytes() == b"precious" and list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "nowhere").write_text("a file, where a folder should be")
    with pytest.raises(OutputError, match="nowhere"):
        save(tmp_path / "nowhere" / "last.pt", {"state_dict": {"w": torch.zeros(1)}})


# --- files of others


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_the_same_tensors_as_torch_reads(tmp_path: Path, legacy: bool) -> None:
    """Every type, layout and sharing that `torch.save` writes; torch's own reader is the reference."""
    base = torch.arange(24.0)
    kinds = (torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.uint8, torch.int64, torch.bool)
    values: dict[str, Tensor] = {str(kind): (torch.arange(6) % 2).to(kind) for kind in (*kinds, torch.complex64)}
    values |= (
        {str(kind): torch.arange(4).to(kind) for kind in (torch.uint16, torch.float8_e4m3fn)} if not legacy else {}
    )
    values |= {
        "view": base[4:10],
        "transposed": base.view(4, 6).t(),
        "last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "expanded": torch.arange(5).expand(3, 5),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 7),
        "parameter": nn.Parameter(torch.ones(3)),
        "buffer": nn.Buffer(torch.ones(2)),
        "tied": base.view(4, 6),
    }
    torch.save(values, tmp_path / "a.pt", _use_new_zipfile_serialization=not legacy)
    ours, theirs = read(tmp_path / "a.pt").state, torch.load(tmp_path / "a.pt")
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert (ours[name].dtype, ours[name].shape) == (tensor.dtype, tensor.shape), name
        assert tensor.numel() == 0 or ours[name].stride() == tensor.stride(), name
        assert (
            torch.equal(ours[name].view(torch.uint8), tensor.detach().view(torch.uint8))
            if (tensor.dtype is torch.float8_e4m3fn)
            else torch.equal(ours[name], tensor)
        ), name
    assert ours["view"].untyped_storage().data_ptr() == ours["tied"].untyped_storage().data_ptr()


def test_timm(tmp_path: Path, state: State) -> None:
    args = argparse.Namespace(
        model="cifar_resnet8",
        num_classes=None,
        in_chans=None,
        img_size=40,
        gp="avg",
        model_kwargs={},
        lr=np.float64(0.1),
    )
    payload = {"epoch": 7, "arch": "cifar_resnet8", "state_dict": state, "state_dict_ema": shifted(state), "args": args}
    torch.save({**payload, "metric": np.float64(71.5), "optimizer": {}, "version": 2}, tmp_path / "last.pth.tar")
    checkpoint = read(tmp_path / "last.pth.tar")
    assert (checkpoint.format, checkpoint.epoch, checkpoint.weights) == ("timm", 7, "ema")
    assert checkpoint.config["lr"] == 0.1 and type(checkpoint.config["lr"]) is float
    assert checkpoint.metrics == {"metric": 71.5}
    model = build(checkpoint)  # 10 classes off the head; img_size is of the images, not an argument of this model
    assert model.num_classes == 10 and same(model, shifted(state))
    assert architecture(checkpoint) == ("cifar_resnet8", {"num_classes": 10, "global_pool": "avg"})
    assert same(build(read(tmp_path / "last.pth.tar", use_ema=False)), state)


def test_timm_arguments_of_the_model(tmp_path: Path) -> None:
    model = create("cifar_vit_patch4", num_classes=5, in_chans=1, img_size=(16, 24), depth=2, global_pool="avg")
    args = argparse.Namespace(gp="avg", input_size=[1, 16, 24], model_kwargs={"img_size": (16, 24), "depth": 2})
    torch.save({"arch": "cifar_vit_patch4", "state_dict": model.state_dict(), "args": args}, tmp_path / "a.pt")
    assert same(build(read(tmp_path / "a.pt")), model.state_dict())


def test_timm_image_size_as_a_hint(tmp_path: Path) -> None:
    model = create("cifar_vit_patch4", num_classes=5, img_size=16)
    args = argparse.Namespace(img_size=16)
    torch.save({"arch": "cifar_vit_patch4", "state_dict": model.state_dict(), "args": args}, tmp_path / "a.pt")
    assert same(build(read(tmp_path / "a.pt")), model.state_dict())
    torch.save({"arch": "cifar_vit_patch4", "state_dict": model.state_dict()}, tmp_path / "b.pt")
    with pytest.raises(CheckpointError, match=r"pos_embed is \(1, 17, 64\), expected \(1, 65, 64\).*img_size=16"):
        build(read(tmp_path / "b.pt"))
    assert same(build(read(tmp_path / "b.pt"), model_args={"img_size": 16}), model.state_dict())


def test_weights_under_a_name_of_the_users_own_are_known_by_what_they_are(tmp_path: Path, state: State) -> None:
    torch.save({"net": state, "acc": 55.0, "epoch": 3}, tmp_path / "one.pth")
    assert set(read(tmp_path / "one.pth").state) == set(state)
    torch.save({"net": state, "best": state, "epoch": 3}, tmp_path / "two.pth")
    with pytest.raises(CheckpointError, match=r"under several names: say which, --key net, --key best"):
        read(tmp_path / "two.pth")


def test_classes_of_a_torchvision_model_are_read_off_its_head(tmp_path: Path) -> None:
    from torchvision.models import squeezenet1_1

    torch.save(squeezenet1_1(num_classes=7).state_dict(), tmp_path / "tv.pt")
    model = build(read(tmp_path / "tv.pt"), model="torchvision:squeezenet1_1")
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    with pytest.raises(CheckpointError) as refused:
        build(read(tmp_path / "tv.pt"), model="torchvision:squeezenet1_1", model_args={"num_classes": 3})
    assert "has 7 classes, the model was asked for 3: pass --model-arg num_classes=7." in str(refused.value)
    assert "The file says nothing of its architecture." in str(refused.value)


def test_python_code_is_told_how_to_be_named(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("def make():\n    ...\n")
    with pytest.raises(CheckpointError, match=r"name the function in it .*net.py:make"):
        read(tmp_path / "net.py")


def test_torchvision(tmp_path: Path, state: State) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(create("cifar_resnet8", num_classes=10)).state_dict()
    payload = {"model": state, "model_ema": averaged, "epoch": 2, "args": argparse.Namespace(model="cifar_resnet8")}
    torch.save(payload, tmp_path / "checkpoint.pth")
    checkpoint = read(tmp_path / "checkpoint.pth")
    assert (checkpoint.format, checkpoint.weights, checkpoint.prefix) == ("torchvision", "ema", "module.")
    assert torch.equal(build(checkpoint).state_dict()["conv1.weight"], averaged["module.conv1.weight"])
    assert same(build(read(tmp_path / "checkpoint.pth", use_ema=False)), state)


def test_lightning(tmp_path: Path, state: State) -> None:
    payload = {"pytorch-lightning_version": "2.4.0", "state_dict": prefixed(state, "model."), "epoch": 4}
    payload["hyper_parameters"] = {"model_name": "cifar_resnet8", "num_classes": 10, "lr": 0.1}
    torch.save(payload, tmp_path / "last.ckpt")
    checkpoint = read(tmp_path / "last.ckpt")
    assert (checkpoint.format, checkpoint.arch, checkpoint.model_args) == (
        "lightning",
        "cifar_resnet8",
        {"num_classes": 10},
    )
    assert same(build(checkpoint), state)


def test_open_clip(tmp_path: Path, state: State) -> None:
    payload = {"epoch": 1, "name": "my run", "state_dict": prefixed(state, "module."), "optimizer": {"state": {}}}
    torch.save(payload, tmp_path / "epoch_1.pt")
    with pytest.raises(CheckpointError, match=r"epoch_1.pt does not say what it is \(\d+ tensors.*pass --model NAME"):
        build(read(tmp_path / "epoch_1.pt"))
    assert same(build(read(tmp_path / "epoch_1.pt"), model="cifar_resnet8"), state)


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_bare_dictionary(tmp_path: Path, state: State, legacy: bool) -> None:
    torch.save(collections.OrderedDict(state), tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    checkpoint = read(tmp_path / "a.pth")
    assert checkpoint.arch is None
    assert same(build(checkpoint, model="cifar_resnet8"), state)


def test_safetensors(tmp_path: Path, state: State) -> None:
    safetensors.torch.save_file(state, tmp_path / "plain.safetensors")
    assert same(build(read(tmp_path / "plain.safetensors"), model="cifar_resnet8"), state)
    metadata = {"format": "pt", "arch": "cifar_resnet8", "model_args": json.dumps({"num_classes": 10}), "epoch": "5"}
    safetensors.torch.save_file(state, tmp_path / "said.bin", metadata=metadata)  # recognised without the suffix
    checkpoint = read(tmp_path / "said.bin")
    assert (checkpoint.format, checkpoint.epoch) == ("safetensors", 5) and same(build(checkpoint), state)


def test_a_hub_folder_of_timm(tmp_path: Path, state: State) -> None:
    safetensors.torch.save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    config = {"architecture": "cifar_resnet8", "num_classes": 10, "pretrained_cfg": {"url": "http://elsewhere"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = read(tmp_path / "model.safetensors")
    assert checkpoint.model_args == {"num_classes": 10} and same(build(checkpoint), state)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_cast(tmp_path: Path, state: State, dtype: torch.dtype) -> None:
    cast = {name: value.to(dtype) if value.is_floating_point() else value for name, value in state.items()}
    torch.save(cast, tmp_path / "a.pt")
    model = build(read(tmp_path / "a.pt"), model="cifar_resnet8")
    assert model.conv1.weight.dtype is torch.float32
    assert torch.equal(model.fc.weight, cast["fc.weight"].float())


@pytest.mark.parametrize(
    ("name", "model_args"),
    [
        ("cifar_vit_patch4", {"num_classes": 3, "in_chans": 1, "depth": 1}),
        ("resnet10t", {"num_classes": 3, "in_chans": 1}),
        ("resnet10t", {"num_classes": 0}),
        ("convit_tiny", {"num_classes": 3, "img_size": 32, "depth": 1, "local_up_to_layer": 1}),
        ("swin_tiny_patch4_window7_224", {"num_classes": 3, "depths": (1, 1), "embed_dim": 12, "num_heads": (1, 2)}),
    ],
)
def test_classes_and_channels_are_read_off_the_weights(tmp_path: Path, name: str, model_args: dict[str, Any]) -> None:
    model = create(name, **model_args)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.pt")
    other = {key: value for key, value in model_args.items() if key not in ("num_classes", "in_chans")}
    built = build(read(tmp_path / "a.pt"), model=name, model_args=other)
    assert same(built, model.state_dict()) and built.num_classes == model_args["num_classes"]


def test_batches_counted_are_not_needed(tmp_path: Path, state: State) -> None:
    old = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "a.pth")
    assert torch.equal(build(read(tmp_path / "a.pth"), model="cifar_resnet8").fc.weight, state["fc.weight"])


# --- which weights, which model


def test_averaged_weights(tmp_path: Path, ours: Path, state: State) -> None:
    both = {"arch": "cifar_resnet8", "model_args": {"num_classes": 10}, "state_dict": state}
    save(tmp_path / "both.pt", {**both, "state_dict_ema": shifted(state)})
    weights = {choice: read(tmp_path / "both.pt", use_ema=choice).weights for choice in (None, True, False)}
    assert weights == {None: "ema", True: "ema", False: "raw"}
    assert same(build(read(tmp_path / "both.pt")), shifted(state))
    save(tmp_path / "none.pt", {**both, "state_dict_ema": None})
    assert read(tmp_path / "none.pt").weights == "raw"
    with pytest.raises(CheckpointError, match=r"last.pt has no averaged \(EMA\) weights"):
        read(ours, use_ema=True)
    torch.save({"state_dict_ema": state}, tmp_path / "ema.pt")
    with pytest.raises(CheckpointError, match=r"ema.pt has only averaged \(EMA\) weights"):
        read(tmp_path / "ema.pt", use_ema=False)


def test_untrained_is_the_same_architecture_and_always_the_same(ours: Path, state: State) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        one = build(read(ours), untrained=True)
        torch.manual_seed(6)
        two = build(read(ours), untrained=True)
    assert same(one, dict(two.state_dict())) and not one.training
    assert one.fc.weight.shape == state["fc.weight"].shape and not torch.equal(one.fc.weight, state["fc.weight"])


def test_building_leaves_the_generator_alone(ours: Path) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        before = torch.get_rng_state()
        build(read(ours))
        build(read(ours), untrained=True)
        assert torch.equal(before, torch.get_rng_state())


def test_a_factory_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "nets.py"
    file.write_text(
        "from torch import nn\nclass Net(nn.Module):\n    def __init__(self, width):\n        super().__init__()\n"
        "        self.model = nn.Linear(width, 2)\ndef make(width=3):\n    return Net(width)\n"
    )
    payload = {"state_dict": {"model.weight": torch.ones(2, 5), "model.bias": torch.zeros(2)}}
    save(tmp_path / "a.pt", {**payload, "arch": f"{file}:make", "model_args": {"width": 5}})
    checkpoint = read(tmp_path / "a.pt")
    assert checkpoint.prefix == "model."  # the model's own, as it turns out
    with pytest.raises(CheckpointError, match=r"asks for the code in .*nets.py:make: if you trust"):
        build(checkpoint)
    assert torch.equal(build(checkpoint, model=f"{file}:make").model.weight, torch.ones(2, 5))


def test_a_file_cannot_ask_for_downloads_or_other_files(tmp_path: Path, state: State) -> None:
    wicked = {"num_classes": 10, "pretrained": True, "checkpoint_path": "/etc/passwd", "pretrained_cfg": {"url": "x"}}
    save(tmp_path / "a.pt", {"arch": "cifar_resnet8", "state_dict": state, "model_args": wicked})
    assert read(tmp_path / "a.pt").model_args == {"num_classes": 10}


def test_an_architecture_nobody_knows(tmp_path: Path, state: State) -> None:
    save(tmp_path / "a.pt", {"arch": "cifar_resnet_8", "state_dict": state})
    with pytest.raises(CheckpointError, match=r"says it is 'cifar_resnet_8'.*--model NAME.*Did you mean cifar_resnet8"):
        build(read(tmp_path / "a.pt"))
    with pytest.raises(ModelError, match="unknown model 'nonsense'"):
        build(read(tmp_path / "a.pt"), model="nonsense")
    assert same(build(read(tmp_path / "a.pt"), model="cifar_resnet8"), state)


def test_conversions_are_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layer and options reach `recast_`, in order, before the weights are loaded."""
    from fourier_probe.models.gpsa import recast

    model = create("cifar_resnet8", num_classes=10)
    recast.recast_(model, ["layer3.0.conv2"], gate=4.0)
    recast.recast_(model, ["layer3.0.conv1"])
    calls: list[tuple[list[str], dict[str, Any]]] = []
    original = recast.recast_

    def spy(model: nn.Module, names: list[str], **options: Any) -> list[str]:
        calls.append((names, options))
        return original(model, names, **options)

    monkeypatch.setattr(recast, "recast_", spy)
    conversions = [
        {"layer": "layer3.0.conv2", "epoch": 2, "options": {"gate": 4.0}},
        {"layer": "layer3.0.conv1", "epoch": 5, "options": {}},
    ]
    payload = {"state_dict": model.state_dict(), "arch": "cifar_resnet8", "model_args": {"num_classes": 10}}
    save(tmp_path / "a.pt", {**payload, "conversions": conversions})
    assert same(build(read(tmp_path / "a.pt")), model.state_dict())
    steps = [(["layer3.0.conv2"], {"gate": 4.0}), (["layer3.0.conv1"], {})]
    assert calls == steps * 2  # on the skeleton, on the model


# --- fault 1: malicious pickles


class Evil:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (eval, (f"open({str(self.path)!r}, 'w').close()",))


class System:
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return (os.system, ("touch pwned",))


def _zip(value: Any, path: Path) -> None:
    torch.save(value, path)


def _legacy(value: Any, path: Path) -> None:
    torch.save(value, path, _use_new_zipfile_serialization=False)


def _bare(value: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(value, protocol=2))


def _bare4(value: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(value, protocol=4))


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("write", [_zip, _legacy, _bare, _bare4])
def test_a_malicious_pickle_is_refused(tmp_path: Path, write: Callable[[Any, Path], None], suffix: str) -> None:
    path, pwned = tmp_path / f"a{suffix}", tmp_path / "pwned"
    write({"state_dict": {"w": torch.zeros(2)}, "args": Evil(pwned)}, path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=rf"a\{suffix} was refused: .*builtins.eval") as caught:
        read(path)
    assert "weights_only=False" not in str(caught.value) and not pwned.exists() and path.read_bytes() == before
    write([System()], path)
    with pytest.raises(CheckpointError, match=r"was refused: .*(posix|nt)\.system"):
        read(path)
    assert not pwned.exists()


def test_a_whole_model_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"torch.nn.modules.linear.Linear.*save model.state_dict\(\)"):
        read(tmp_path / "a.pt")


@pytest.mark.parametrize("write", [_zip, _legacy])
def test_plain_data_is_let_in(tmp_path: Path, state: State, write: Callable[[Any, Path], None]) -> None:
    counts: collections.defaultdict[str, list[int]] = collections.defaultdict(list)
    counts["a"].append(1)
    args = argparse.Namespace(
        model="cifar_resnet8",
        lr=np.float32(0.5),
        epochs=np.int64(3),
        flag=np.bool_(True),
        big=np.dtype(">f8").type(2.5),
        table=np.arange(6, dtype=">i2").reshape(2, 3),
        fortran=np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        text=np.str_("hello"),
        out=Path("runs") / "one",
        version=torch.__version__,
        nested=argparse.Namespace(a=[Path("b")]),
        counts=counts,
        when=datetime.datetime(2020, 1, 2),
        dtype=torch.float16,
        size=torch.Size([2, 3]),
        kinds={1, 2},
    )
    write({"state_dict": state, "args": args, "best": np.float64(0.25)}, tmp_path / "a.pt")
    config = read(tmp_path / "a.pt").config
    assert config == {
        "model": "cifar_resnet8",
        "lr": 0.5,
        "epochs": 3,
        "flag": True,
        "big": 2.5,
        "table": [[0, 1, 2], [3, 4, 5]],
        "fortran": [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]],
        "text": "hello",
        "out": "runs/one",
        "version": str(torch.__version__),
        "nested": {"a": ["b"]},
        "counts": {"a": [1]},
        "when": "2020-01-02 00:00:00",
        "dtype": "torch.float16",
        "size": (2, 3),
        "kinds": [1, 2],
    }
    assert all(type(value) in (str, float, int, bool, list, dict, tuple) for value in config.values())


def test_the_list_of_safe_types_is_not_left_behind(ours: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    read(ours)
    assert set(torch.serialization.get_safe_globals()) == before
    buffer = io.BytesIO()
    torch.save(argparse.Namespace(), buffer)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)


def test_numpy_objects_are_refused(tmp_path: Path, state: State) -> None:
    array = np.array([None, {}], dtype=object)
    torch.save({"state_dict": state, "args": argparse.Namespace(a=array)}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="a numpy value of type 'O8'"):
        read(tmp_path / "a.pt")


# --- faults 2 and 3: damage


def _cuts(size: int) -> list[int]:
    return [0, 4, size // 2, size - 1]


@pytest.mark.parametrize("kind", ["ours", "zip", "legacy", "safetensors"])
@pytest.mark.parametrize("cut", range(4))
def test_a_cut_file(tmp_path: Path, state: State, ours: Path, kind: str, cut: int) -> None:
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pt")
    if kind == "ours":
        path.write_bytes(ours.read_bytes())
    elif kind == "safetensors":
        safetensors.torch.save_file(state, path)
    else:
        (_zip if kind == "zip" else _legacy)(state, path)
    whole = path.read_bytes()
    part = whole[: _cuts(len(whole))[cut]]
    path.write_bytes(part)
    with pytest.raises(CheckpointError, match=rf"{path.name} is damaged or incomplete"):
        read(path)
    assert path.read_bytes() == part


@pytest.mark.parametrize("seed", range(5))
def test_noise_raises_nothing_but_our_error(tmp_path: Path, state: State, seed: int) -> None:
    """Bytes of the pickle itself overwritten, in both formats of torch: no other exception comes out."""
    generator = np.random.default_rng(seed)
    for write in (_zip, _legacy):
        path = tmp_path / "a.pt"
        write({"state_dict": {"w": state["fc.weight"]}, "args": argparse.Namespace(lr=0.1, name="x")}, path)
        data = bytearray(path.read_bytes())
        start = 100 if write is _zip else 80
        for position in generator.integers(start, start + 400, size=8):
            data[position] = generator.integers(256)
        path.write_bytes(data)
        try:
            read(path)
        except CheckpointError as error:
            assert "a.pt" in str(error)


def _flip(path: Path, state: State) -> None:
    data = bytearray(path.read_bytes())
    at = data.index(state["fc.weight"].numpy().tobytes())
    data[at + 17] ^= 4
    path.write_bytes(data)


def test_a_flipped_bit_in_a_foreign_file(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "a.pt")
    _flip(tmp_path / "a.pt", state)
    assert not torch.equal(torch.load(tmp_path / "a.pt")["fc.weight"], state["fc.weight"])  # torch does not see it
    with pytest.raises(CheckpointError, match=r"damaged or incomplete: .*CRC-32 for file .*data/\d+"):
        read(tmp_path / "a.pt")


def test_a_flipped_bit_in_a_file_of_ours(ours: Path, state: State) -> None:
    _flip(ours, state)
    with pytest.raises(CheckpointError, match="damaged"):
        read(ours)


def test_the_digest_is_checked_where_the_crc_is_right(ours: Path, state: State) -> None:
    """The archive rewritten after the flip, as a tool that copies damaged entries would."""
    with zipfile.ZipFile(ours) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    weights = state["fc.weight"].numpy().tobytes()
    (name,) = (name for name, data in entries.items() if data == weights)
    entries[name] = weights[:17] + bytes([weights[17] ^ 4]) + weights[18:]
    with zipfile.ZipFile(ours, "w") as archive:
        for each, data in entries.items():
            archive.writestr(each, data)
    with pytest.raises(CheckpointError, match="damaged: the SHA-256 of its tensors"):
        read(ours)


def test_a_newer_version(tmp_path: Path, ours: Path) -> None:
    values = torch.load(ours)
    torch.save({**values, "version": 99}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"newer fourier-probe \(checkpoint version 99.*upgrade"):
        read(tmp_path / "a.pt")


# --- fault 4: safetensors that lie about sizes


@pytest.mark.parametrize("declared", [2**63, 10**12, 2_000])
def test_a_huge_header(tmp_path: Path, declared: int) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", declared) + b"{" + b" " * 1000)
    with pytest.raises(CheckpointError, match=rf"declares a header of {declared} bytes and has 1009 bytes in all"):
        read(path)


@pytest.mark.parametrize("elements", [2**40, 2**62, 3])
def test_a_declared_size_that_is_not_there(tmp_path: Path, elements: int) -> None:
    entry = {"dtype": "F32", "shape": [elements], "data_offsets": [0, 4 * elements]}
    header = json.dumps({"w": entry}).encode()
    path = tmp_path / "a.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(CheckpointError, match=r"a.safetensors is damaged or incomplete: SafetensorError"):
        read(path)


# --- faults 5 to 8: weights that do not fit


def test_the_wrong_architecture(ours: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        build(read(ours), model="cifar_vit_patch4")
    message = str(caught.value)
    assert "last.pt does not fit cifar_vit_patch4" in message
    assert "missing (cls_token, pos_embed, patch_embed.proj.weight, patch_embed.proj.bias, ...)" in message
    assert "unexpected (conv1.weight, bn1.weight, bn1.bias, bn1.running_mean, ...)" in message
    assert "The file says it is cifar_resnet8(num_classes=10) at epoch 3, written by fourier-probe" in message


def test_a_missing_an_extra_and_a_misshapen_key(tmp_path: Path, state: State) -> None:
    del state["layer1.0.conv1.weight"]
    state["aux.weight"] = torch.zeros(1)
    state["bn1.weight"] = torch.zeros(5)
    state["conv1.weight"] = state["conv1.weight"].to(torch.int8)
    torch.save({"arch": "cifar_resnet8", "state_dict": state}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError) as caught:
        build(read(tmp_path / "a.pt"))
    assert (
        "1 missing (layer1.0.conv1.weight); 1 unexpected (aux.weight); 1 of another shape (bn1.weight is (5,), "
        "expected (16,)); 1 of another kind (conv1.weight is torch.int8, expected torch.float32)"
    ) in str(caught.value)
    with pytest.raises(CheckpointError, match="does not fit"):
        build(read(tmp_path / "a.pt"), untrained=True)


@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.", "model.module."]
)
def test_prefixes_are_stripped(tmp_path: Path, state: State, prefix: str) -> None:
    torch.save({"state_dict": prefixed(state, prefix)}, tmp_path / "a.pt")
    checkpoint = read(tmp_path / "a.pt")
    assert checkpoint.prefix == prefix and same(build(checkpoint, model="cifar_resnet8"), state)


def test_a_prefix_is_stripped_once_and_from_all_or_none(tmp_path: Path, state: State) -> None:
    torch.save(prefixed(state, "module.module."), tmp_path / "twice.pt")
    with pytest.raises(CheckpointError, match=r"unexpected \(module.conv1.weight"):
        build(read(tmp_path / "twice.pt"), model="cifar_resnet8")
    torch.save({**prefixed(state, "model."), "loss.weight": torch.ones(3)}, tmp_path / "some.pt")
    with pytest.raises(CheckpointError, match=r"unexpected \(model.conv1.weight"):
        build(read(tmp_path / "some.pt"), model="cifar_resnet8")


def test_the_wrong_number_of_classes(ours: Path) -> None:
    with pytest.raises(CheckpointError, match=r"head fc has 10 classes, the model was asked for 100.*num_classes=10"):
        build(read(ours), model_args={"num_classes": 100})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["layer2.0.conv1.weight", "bn1.running_var"])
def test_weights_that_are_not_finite(tmp_path: Path, state: State, name: str, value: float) -> None:
    state[name].view(-1)[3] = value
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=rf"{name} holds 1 of {state[name].numel()} values that are NaN or inf"):
        build(read(tmp_path / "a.pt"), model="cifar_resnet8")


def test_weights_too_large_for_the_model(tmp_path: Path, state: State) -> None:
    state["fc.bias"] = torch.full((10,), 1e300, dtype=torch.float64)
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"fc.bias holds 10 of 10 .*\(as float32\)"):
        build(read(tmp_path / "a.pt"), model="cifar_resnet8")


def test_a_mask_may_hold_infinity(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text(
        "import torch\nfrom torch import nn\ndef make():\n    net = nn.Linear(2, 2)\n"
        "    net.register_buffer('mask', torch.tensor([0.0, -torch.inf]))\n    return net\n"
    )
    values = {"weight": torch.zeros(2, 2), "bias": torch.zeros(2), "mask": torch.tensor([0.0, -torch.inf])}
    torch.save(values, tmp_path / "a.pt")
    build(read(tmp_path / "a.pt"), model=f"{tmp_path / 'nets.py'}:make")


# --- what is no checkpoint at all


def _npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))


def _image(path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (4, 4)).save(path, format="PNG")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, r"no such file: .*a.pt"),
        (lambda path: path.mkdir(), r"a.pt is a folder: name the checkpoint in it"),
        (lambda path: path.write_text("epoch,loss\n1,2\n"), r"a.pt is not a checkpoint \(it starts with b'epoch,lo'\)"),
        (_image, r"a.pt is not a checkpoint \(it starts with b'.*PNG"),
        (_npz, "is a zip file, but not a checkpoint"),
        (lambda path: _bare({"w": [1, 2]}, path), "is a bare pickle, not a checkpoint"),
        (lambda path: _zip([1, 2], path), "holds a list, expected a dictionary of weights"),
        (lambda path: _zip({"epoch": 3, "loss": 1.0}, path), "holds no weights: expected .* found epoch, loss"),
        (lambda path: _zip({"state_dict": {}}, path), "holds no weights: its state_dict is empty"),
        (lambda path: _zip({"state_dict": {"a": 3}}, path), r"state_dict\['a'\] is a int, expected a tensor"),
        (lambda path: _zip({"w": torch.eye(3).to_sparse()}, path), r"state_dict\['w'\] is sparse"),
        (
            lambda path: _zip({"w": torch.zeros(3, device="meta")}, path),
            r"state_dict\['w'\] is sparse, .* empty of data",
        ),
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    write(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=message):
        read(tmp_path / "a.pt")


def test_torchscript(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py"):
            archive.writestr(f"archive/{name}", b"")
    with pytest.raises(CheckpointError, match="is a TorchScript archive, which holds code"):
        read(tmp_path / "a.pt")


def test_a_compressed_archive(tmp_path: Path, ours: Path) -> None:
    with zipfile.ZipFile(ours) as archive, zipfile.ZipFile(tmp_path / "a.pt", "w", zipfile.ZIP_DEFLATED) as out:
        for name in archive.namelist():
            out.writestr(name, archive.read(name))
    with pytest.raises(CheckpointError, match="is compressed"):
        read(tmp_path / "a.pt")


def test_timms_own_loader_reads_our_files(tmp_path: Path, ours: Path, state: State) -> None:
    from timm.models import load_state_dict

    theirs: State = load_state_dict(str(ours))
    assert theirs.keys() == state.keys() and all(torch.equal(theirs[name], state[name]) for name in state)
    assert timm.create_model("cifar_resnet8", num_classes=10, checkpoint_path=str(ours)) is not None
