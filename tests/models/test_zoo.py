from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

from fourier_probe.errors import DataError, ModelError
from fourier_probe.models import create, hub, input_spec, names, stats
from fourier_probe.models.zoo import FACTORY, skeleton


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    file = tmp_path / "nets.py"
    file.write_text(
        "from dataclasses import dataclass\n"
        "from torch import nn\n"
        "@dataclass\nclass Config:\n    width: int = 4\n"
        "def tiny(width=4):\n    return nn.Sequential(nn.Conv2d(1, width, 3), nn.Flatten())\n"
        "def number():\n    return 3\n"
        "def broken():\n    raise RuntimeError('no weights here')\n"
    )
    return file


def test_a_model_of_timm_and_one_of_ours() -> None:
    assert type(create("resnet10t", num_classes=3)).__name__ == "ResNet"
    assert type(create("cifar_resnet8", num_classes=3)).__name__ == "CifarResNet"


@pytest.mark.slow
def test_importing_the_package_registers_ours_with_timm() -> None:
    code = "import timm; before = timm.is_model('cifar_resnet8'); import fourier_probe.models; "
    code += "assert not before and timm.is_model('cifar_resnet8')"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        for spelt in (name, name.upper()):
            monkeypatch.delenv(spelt, raising=False)


ANSWERS = {
    "refuses": (b"HTTP/1.1 403 Forbidden\r\n\r\n", "403"),
    "is none": (b"SSH-2.0-OpenSSH\r\n", "gives no way"),
    "hangs": (b"", "timed out"),
    "opens": (b"HTTP/1.1 200 Connection established\r\n\r\n", ""),
    "is dead": (b"", "refused"),
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_behind_a_proxy_that_gives_no_way_published_weights_are_refused_at_once(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    without_proxies(monkeypatch)
    answer, said = ANSWERS[kind]
    asked: list[bytes] = []
    with socket.socket() as proxy:
        proxy.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:secret@127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setattr(hub, "PATIENCE", 0.5)

        def serve() -> None:
            with proxy.accept()[0] as client:
                asked.append(client.recv(4096))
                client.sendall(answer)
                client.recv(1)

        if kind != "is dead":
            proxy.listen(1)
            threading.Thread(target=serve, daemon=True).start()
        with hub.at_once() as blocked:
            assert said in blocked.lower() and bool(blocked) == (kind != "opens")
        assert "secret" not in blocked
        if kind == "is dead":
            start = time.monotonic()
            message = r"cannot create resnet10t .*: the proxy 127\.0\.0\.1:\d+ gives no way.*not fetched before"
            with pytest.raises(ModelError, match=message):
                create("resnet10t", pretrained=True)
            assert time.monotonic() - start < 20
        else:
            assert asked[0].startswith(b"CONNECT huggingface.co:443") and b"Proxy-Authorization: Basic" in asked[0]


def test_without_a_network_published_weights_are_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub").constants

    def no_address(*_: object) -> None:
        raise OSError("Name or service not known")

    without_proxies(monkeypatch)
    monkeypatch.setattr("socket.getaddrinfo", no_address)
    before = constants.HF_HUB_OFFLINE
    with hub.at_once() as blocked:
        assert blocked == "there is no network" and constants.HF_HUB_OFFLINE
    assert constants.HF_HUB_OFFLINE == before
    monkeypatch.setattr("timm.create_model", lambda *_, **__: Path("/nowhere/weights").open())
    with pytest.raises(ModelError, match="there is no network, and they were not fetched before"):
        create("resnet10t", pretrained=True)


def test_names() -> None:
    assert names("cifar_resnet20*") == ["cifar_resnet20", "cifar_resnet20_x2", "cifar_resnet20_x4"]
    assert "resnet50" in names() and names("no-such-*") == []


@pytest.mark.parametrize(
    ("name", "model_args", "message"),
    [
        ("cifar_resnet2O", {}, r"unknown model 'cifar_resnet2O'.*Did you mean cifar_resnet20"),
        ("zzzzzzzz", {}, r"unknown model 'zzzzzzzz'.*fourier-probe models"),
        ("../resnet18", {}, "unknown model"),
        ("resnet10t", {"widht": 3}, r"cannot create resnet10t from widht=3: .*unexpected keyword argument 'widht'"),
        ("cifar_vit_patch4", {"num_heads": 7}, r"cannot create cifar_vit_patch4 from num_heads=7"),
        ("cifar_resnet8", {"pretrained": True}, r"cifar_resnet8 with pretrained weights .*No pretrained weights"),
        ("resnet10t.nonsense", {}, "Invalid pretrained tag"),
    ],
)
def test_what_cannot_be_created(name: str, model_args: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create(name, **model_args)


def test_factory_in_a_file(factory: Path) -> None:
    model = create(f"{factory}:tiny", width=6)
    assert model[0].out_channels == 6  # type: ignore[index]


@pytest.mark.parametrize(
    ("suffix", "model_args", "message"),
    [
        (":huge", {}, r"nets.py has no function 'huge'; it has .*tiny"),
        (":number", {}, r"number of .*nets.py returned int, expected a torch.nn.Module"),
        (":broken", {}, r"broken of .*nets.py fails on its defaults: RuntimeError: no weights here"),
        (":tiny", {"depth": 3}, r"tiny of .*nets.py fails on depth=3: TypeError"),
        (":tiny", {"pretrained": True}, "let its factory load them"),
    ],
)
def test_factories_that_fail(factory: Path, suffix: str, model_args: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create(f"{factory}{suffix}", **model_args)


def test_files_that_are_no_factory(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no such file: .*nowhere.py"):
        create(f"{tmp_path / 'nowhere.py'}:tiny")
    (tmp_path / "wrong.py").write_text("def tiny(:\n")
    with pytest.raises(ModelError, match=r"wrong.py fails when it is loaded: SyntaxError"):
        create(f"{tmp_path / 'wrong.py'}:tiny")


# --- what a model wants to see


def test_input_is_read_from_timms_cfg() -> None:
    spec = input_spec(create("resnet10t"))
    assert (spec.channels, spec.size, spec.mean[0], spec.interpolation, spec.crop_pct) == (
        3,
        (176, 176),
        0.485,
        "bicubic",
        0.875,
    )


def test_input_follows_the_model_as_it_was_created() -> None:
    spec = input_spec(create("cifar_vit_patch4", img_size=(28, 48), in_chans=1))
    assert (spec.channels, spec.size) == (1, (28, 48))
    assert spec.mean == (pytest.approx((0.5071 + 0.4865 + 0.4409) / 3),)


def test_input_as_asked_for() -> None:
    spec = input_spec(create("cifar_resnet8", in_chans=3), img_size=64, mean=[0.5], std=[0.2, 0.3, 0.4])
    assert (spec.size, spec.mean, spec.std) == ((64, 64), (0.5,) * 3, (0.2, 0.3, 0.4))


def test_input_of_a_model_that_says_nothing() -> None:
    spec = input_spec(nn.Sequential(nn.Conv2d(1, 4, 3)))
    assert (spec.channels, spec.size, len(spec.mean), spec.crop_pct) == (1, (224, 224), 1, 1.0)


def test_input_that_cannot_be() -> None:
    model = create("cifar_resnet8")
    with pytest.raises(ModelError, match="mean has 2 values: expected 1, or one for each of the 3 channels"):
        input_spec(model, mean=[0.5, 0.5])
    with pytest.raises(ModelError, match=r"image size is \[0, 3\]"):
        input_spec(model, img_size=[0, 3])
    with pytest.raises(DataError, match="std above 0"):
        input_spec(model, std=[0.0])


# --- what it costs


def test_multiply_adds_of_a_convolution_and_a_product() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 4 * 6, 5))
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cost = stats(model, (4, 6))
    assert cost.parameters == 3 * 8 * 9 + 8 + 16 + 8 * 24 * 5 + 5
    assert cost.multiply_adds == 4 * 6 * 8 * 27 + 8 * 24 * 5
    assert model.training and all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_multiply_adds_of_resnet20_are_the_papers() -> None:
    """40.8M at 32 x 32: 40.55M of the 3x3 convolutions and the head, 0.26M of the two projections."""
    head, projections = 64 * 10, 16 * 16 * 16 * 32 + 8 * 8 * 32 * 64
    stages = 32 * 32 * 16 * 9 * (3 + 6 * 16) + 16 * 16 * 32 * 9 * (16 + 5 * 32) + 8 * 8 * 64 * 9 * (32 + 5 * 64)
    assert stats(create("cifar_resnet20", num_classes=10), 32).multiply_adds == stages + head + projections


def test_attention_is_counted() -> None:
    tokens, width = 65, 64
    block = tokens * width * width * 12 + 2 * tokens * tokens * width
    assert stats(create("cifar_vit_patch4"), (3, 32, 32)).multiply_adds == 64 * 48 * width + 6 * block + width * 100


def test_a_layer_that_cannot_run_on_meta() -> None:
    class Peek(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = self.conv(images)
            return features * (1.0 if math.isfinite(float(features.sum())) else 0.0)

    assert stats(Peek(), 8).multiply_adds == 64 * 12


def test_a_view_of_a_parameter_is_no_obstacle() -> None:
    """Attention pooling expands its latent query: in a skeleton that is a view of what has gradients."""
    bones = skeleton("vit_base_patch16_siglip_224", num_classes=0)
    cost = stats(bones, 224)
    assert cost.multiply_adds / 1e9 == pytest.approx(17.5, abs=0.8)

    class Peek(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.query, self.layer = nn.Parameter(torch.ones(1, 3, 1, 1)), nn.Conv2d(3, 4, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features: torch.Tensor = self.layer(self.query.expand(len(images), -1, 8, 8))
            return features * (1.0 if math.isfinite(float(features.sum())) else 0.0)

    model = Peek()
    assert stats(model, 8).multiply_adds == 64 * 12
    assert all(each.requires_grad for each in model.parameters())


def test_an_image_the_model_does_not_take() -> None:
    with pytest.raises(ModelError, match=r"does not take an image of 3 x 33 x 33: .*33"):
        stats(create("cifar_vit_patch4"), 33)


@pytest.mark.slow
def test_skeleton_has_names_and_shapes_but_no_weights() -> None:
    state = torch.get_rng_state()
    bones = skeleton("vit_tiny_patch16_224", num_classes=3)
    assert torch.equal(state, torch.get_rng_state())
    assert all(each.is_meta for each in bones.parameters())
    assert {name: value.shape for name, value in bones.state_dict().items()} == {
        name: value.shape
        for name, value in timm.create_model("vit_tiny_patch16_224", num_classes=3).state_dict().items()
    }


# --- files whose code leaves, or is no code


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys\nsys.exit(0)\n", r"nets.py fails when it is loaded: it calls sys.exit: 0"),
        ("raise SystemExit\n", r"nets.py fails when it is loaded: it calls sys.exit"),
        ("raise BaseException('out')\n", r"nets.py fails when it is loaded: BaseException: out"),
        (
            "import sys\ndef make():\n    sys.exit(0)\n",
            r"make of .*nets.py fails on its defaults: it calls sys.exit: 0",
        ),
        ("def make():\n    raise GeneratorExit\n", r"make of .*nets.py fails on its defaults: GeneratorExit"),
        ("def make():\n    raise ValueError('a\\x1b[31m\\nb')\n", r"ValueError: a\\x1b\[31m$"),
        ("def make():\n    return make()\n", r"make of .*nets.py fails on its defaults: RecursionError"),
        (
            "def __getattr__(name):\n    raise SystemExit(0)\n",
            r"nets.py fails when make is looked up: it calls sys.exit",
        ),
        ("def make():\n    return 'model'\n", r"make of .*nets.py returned str, expected a torch.nn.Module"),
        ("make = 3\n", r"nets.py has no function 'make'"),
    ],
)
def test_a_factory_file_that_leaves(tmp_path: Path, code: str, message: str) -> None:
    (tmp_path / "nets.py").write_text(code)
    with pytest.raises(ModelError, match=message) as caught:
        create(f"{tmp_path / 'nets.py'}:make")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "Terminated"])
def test_signals_go_through_a_factory(tmp_path: Path, error: str) -> None:
    file = tmp_path / "nets.py"
    file.write_text(f"from fourier_probe.errors import Terminated\ndef make():\n    raise {error}\n")
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        create(f"{file}:make")


def test_a_factory_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_bytes(b"\xff\xfe\0def make():\n")
    with pytest.raises(ModelError, match=r"nets.py fails when it is loaded: (SyntaxError|ValueError)"):
        create(f"{tmp_path / 'nets.py'}:make")
    os.mkfifo(tmp_path / "pipe.py")
    with pytest.raises(ModelError, match=r"not a regular file: .*pipe.py"):
        create(f"{tmp_path / 'pipe.py'}:make")
    with pytest.raises(ModelError, match=r"not a regular file: .*folder.py"):
        (tmp_path / "folder.py").mkdir()
        create(f"{tmp_path / 'folder.py'}:make")
    with pytest.raises(ModelError, match="no file can have this name"):
        create(f"{'x' * 3000}.py:make")


def test_a_factory_file_with_any_name(tmp_path: Path) -> None:
    """Not UTF-8, with a line end: it works, and its errors can be printed."""
    file = tmp_path / "raw\udcff\nname.py"
    file.write_text("from torch import nn\ndef make():\n    return nn.Identity()\n")
    if FACTORY.fullmatch(f"{file}:make"):
        assert isinstance(create(f"{file}:make"), nn.Identity)
    with pytest.raises(ModelError) as caught:
        create(f"{file}:other")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"in_chans": 0}, "in_chans is 0, expected a whole number, at least 1"),
        ({"num_classes": "x"}, "num_classes is 'x', expected a whole number, at least 0"),
        ({"img_size": "x"}, "img_size is 'x', expected pixels"),
        ({"img_size": (32, 0)}, r"img_size is \(32, 0\), expected pixels"),
    ],
)
def test_numbers_no_model_takes(argument: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        create("cifar_resnet8", **argument)
