"""Small files that ask for much memory, long work, downloads or other files: refused, in time, in memory, by name."""

from __future__ import annotations

import argparse
import collections
import inspect
import io
import json
import os
import pickle
import re
import socket
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from fourier_probe.checkpoints import build, read, save
from fourier_probe.checkpoints.description import NOT_ARCHITECTURE
from fourier_probe.errors import CheckpointError, ModelError, ProbeError
from fourier_probe.models import create

SECONDS, MEGABYTES = 5, 1000


class Call:
    """Pickled as a call."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.function, self.args = function, args

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.args


class Stored:
    """Pickled as torch's reference to a storage."""

    def __init__(self, numbers: int, key: str = "0") -> None:
        self.pid = ("storage", torch.FloatStorage, key, "cpu", numbers)


class _Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> Any:
        return value.pid if isinstance(value, Stored) else None


def pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def zipped(path: Path, pickle_: bytes, *storages: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", pickle_)
        archive.writestr("a/byteorder", "little")
        archive.writestr("a/version", "3\n")  # so that torch reads it too
        for key, data in enumerate(storages):
            archive.writestr(f"a/data/{key}", data)


def tensor(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, numbers: int = 4) -> Call:
    hooks: dict[str, Any] = {}
    rebuild = torch._utils._rebuild_tensor_v2  # type: ignore[attr-defined]
    return Call(rebuild, Stored(numbers), offset, size, stride, False, hooks)


def doubled(times: int) -> list[Any]:
    value: list[Any] = [0]
    for _ in range(times):
        value = [value, value]
    return value


def nested(times: int) -> bytes:
    return b"\x80\x02" + b"]" * times + b"a" * (times - 1) + b"."


def long(number: int) -> bytes:
    data = pickle.encode_long(number)
    return b"\x8a" + bytes([len(data)]) + data


PRIME = 2**61 - 1  # hashes of whole numbers are remainders of it
TUPLES = b")" + b"2\x86" * 60  # of 2**60 values, by DUP and TUPLE2
COLLIDING = b"".join(long(PRIME * (2 * i + 1)) + b"N" for i in range(20_000))


def array(shape: tuple[int, ...], data: bytes) -> Any:
    class Array:
        def __reduce__(self) -> tuple[Any, ...]:
            reconstruct = np.zeros(1).__reduce__()[0]
            return reconstruct, (np.ndarray, (0,), b"b"), (1, shape, np.dtype("f8"), False, data)

    return Array()


FLOATS = bytes(16)
State = dict[str, Tensor]

EXPANDING: dict[str, tuple[bytes, str]] = {
    "lists that hold lists twice": (pickled(doubled(60)), "repeat or declare far more"),
    "lists nested 100,000 deep": (nested(100_000), "nested too deeply"),
    "a list of a bytearray": (pickled(Call(list, Call(bytearray, 300_000_000))), "damaged or incomplete|refused"),
    "a bytearray": (pickled([Call(bytearray, 10**11)]), "expected bytes, got int"),
    "a counter of a bytearray": (pickled(Call(collections.Counter, Call(bytearray, 300_000_000))), "a.pt"),
    "a storage by its size": (pickled([Call(torch.FloatStorage, 10**11)]), "holds a list"),
    "a tensor by its size": (pickled([Call(torch.Tensor, 100_000, 1_000_000)]), "holds a list"),
    "an array of empty rows": (pickled([array((10**8, 0), b"")]), "repeat or declare far more"),
    "an array of more than it has": (pickled([array((10**9,), b"12345678")]), "repeat or declare|cannot reshape"),
    "a tensor that repeats one number": (pickled({"w": tensor((10**12,), (0,))}), "overlaps itself"),
    "a tensor that repeats its only number": (pickled({"w": tensor((10**12,), (0,), 3)}), "repeat or declare far more"),
    "a tensor beyond its storage": (pickled({"w": tensor((10**12,), (1,))}), "reaches to element 1000000000000"),
    "a tensor at an offset": (pickled({"w": tensor((1,), (1,), 2**62)}), "reaches to element"),
    "a tensor at a negative offset": (pickled({"w": tensor((1,), (1,), -1)}), "at offset -1"),
    "a tensor of negative size": (pickled({"w": tensor((-5,), (1,))}), "a tensor of size"),
    "a storage of another length": (pickled({"w": tensor((4,), (1,), 0, 2**40)}), "a storage of 1099511627776"),
    "a number of a million digits": (pickled({"w": 10**1_000_000}), r"a whole number of \d+ bits"),
    "a place 4,000,000,000 in the memo": (b"\x80\x02Nr\x00\x00\x00\xee.", "LONG_BINPUT"),
    "bytes that are not there": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".", "damaged or incomplete"),
    "a key that holds 2**60 values": (b"\x80\x02}" + TUPLES + b"Ns.", "more than 256 values"),
    "such keys, several at once": (b"\x80\x02}(" + TUPLES + b"Nu.", "more than 256 values"),
    "a dictionary made of such a key": (b"\x80\x02(" + TUPLES + b"Nd.", "more than 256 values"),
    "such a key of an ordered dictionary": (
        b"\x80\x02ccollections\nOrderedDict\n)R" + TUPLES + b"Ns.",
        "more than 256 values",
    ),
    "such a member of a set": (b"\x80\x04\x8f(" + TUPLES + b"\x90.", "more than 256 values"),
    "such a member of a frozen set": (b"\x80\x04(" + TUPLES + b"\x91.", "more than 256 values"),
    "a key nested 100,000 deep": (b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.", "more than 256 values"),
    "one key of 200 values, often": (
        b"\x80\x02}(" + b"N" * 200 + b"tq\x000(" + b"h\x00N" * 50_000 + b"u.",
        "have one hash|repeat far more",
    ),
    "keys that collide": (b"\x80\x02}(" + COLLIDING + b"u.", "keys of a dictionary have one hash"),
    "pairs whose keys collide": (
        pickled(collections.OrderedDict((PRIME * (2 * i + 1), None) for i in range(100))),
        "have one hash",
    ),
    "a key of 200 bits": (pickled({2**200: None}), "a whole number of 201 bits"),
    "an extension": (b"\x80\x02\x82\x01.", "EXT1"),
    "a dictionary in itself": (b"\x80\x02}q\x00U\x01ah\x00s.", "nested too deeply"),
}
MODELS: dict[str, tuple[str, dict[str, Any], str]] = {
    "classes": ("cifar_resnet8", {"num_classes": 20_000_000}, "num_classes is beyond 1048576"),
    "classes below the limit": ("cifar_resnet8", {"num_classes": 1_000_000}, r"fc.weight is \(10, 64\), expected"),
    "width": ("cifar_resnet8", {"width": 60_000}, r"conv1.weight is .*, expected \(60000"),
    "depth": ("cifar_vit_patch4", {"depth": 60_000}, "makes more than .* modules"),
    "more depth": ("cifar_vit_patch4", {"depth": 10**9}, "depth is beyond 65536"),
    "blocks": ("cifar_resnet8", {"blocks": 60_000}, "makes more than .* modules"),
    "image size": ("cifar_vit_patch4", {"img_size": 60_000}, "does not fit cifar_vit_patch4"),
    "masks": ("swin_tiny_patch4_window7_224", {"img_size": 65_000}, "does not fit|cannot create"),
    "a giant": ("vit_giant_patch14_224", {}, "does not fit vit_giant_patch14_224"),
    "no channels": ("cifar_resnet8", {"in_chans": 0}, "in_chans is 0, expected a whole number, at least 1"),
    "negative channels": ("resnet10t", {"in_chans": -3}, "in_chans is -3"),
    "channels in words": ("resnet10t", {"in_chans": "three"}, "in_chans is 'three'"),
    "negative classes": ("resnet10t", {"num_classes": -1}, "num_classes is -1"),
    "half a class": ("resnet10t", {"num_classes": 2.5}, "num_classes is 2.5"),
    "no image": ("cifar_vit_patch4", {"img_size": [0, 4]}, r"img_size is \[0, 4\]"),
    "nan": ("cifar_resnet8", {"drop_rate": float("nan")}, "drop_rate is nan, expected a finite number"),
    "a path": ("cifar_resnet8", {"global_pool": "/etc/passwd"}, "global_pool is '/etc/passwd', expected a plain name"),
    "an address": ("cifar_resnet8", {"norm_layer": "http://x"}, "expected a plain name"),
    "a name that is none": ("cifar_resnet8", {"a b\x1b[31m": 1}, r"has the name 'a b\\\\x1b\[31m'"),
    "an object": ("cifar_resnet8", {"norm_layer": b"x"}, "norm_layer is a bytes"),
    "a long list": ("cifar_resnet8", {"blocks": list(range(20_000))}, "too long or nested"),
    "a list of lists": ("cifar_resnet8", {"blocks": [[[[[[1]]]]]]}, "too long or nested"),
    "an unknown argument": ("cifar_resnet8", {"widht": 4}, "unexpected keyword argument 'widht'"),
}
_READ = """
import json, resource, sys, time
from fourier_probe.checkpoints import build, read
from fourier_probe.errors import ProbeError
import fourier_probe.models, timm, torch
def run(path):
    start = time.perf_counter()
    try:
        build(read(path))
        message = "no error"
    except ProbeError as error:
        message = str(error)
    except BaseException as error:
        message = f"TRACEBACK {type(error).__name__}: {error}"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [message, time.perf_counter() - start, peak]
run(sys.argv[1])
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([[message, seconds, peak - base] for message, seconds, peak in map(run, sys.argv[2:])]))
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, float, float]]:
    """Name of a hostile file -> message, seconds, megabytes, all read in one process of their own."""
    folder = tmp_path_factory.mktemp("hostile")
    state = create("cifar_resnet8", num_classes=10).state_dict()
    paths: dict[str, Path] = {}
    for number, (name, (data, _)) in enumerate(EXPANDING.items()):
        paths[name] = folder / f"{number}a.pt"
        zipped(paths[name], data, FLOATS)
    for number, (name, (arch, model_args, _)) in enumerate(MODELS.items()):
        paths[name] = folder / f"{number}m.pt"
        torch.save({"arch": arch, "state_dict": state, "model_args": model_args}, paths[name])
    for name, data in _others(state).items():
        paths[name] = folder / f"{name}.pt"
        paths[name].write_bytes(data)
    warm = folder / "warm.pt"
    save(warm, {"arch": "cifar_resnet8", "state_dict": state})
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(warm), *map(str, paths.values())],
        capture_output=True, check=True, timeout=240, env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )  # fmt: skip
    return dict(zip(paths, (tuple(each) for each in json.loads(done.stdout)), strict=True))


def _others(state: State) -> dict[str, bytes]:
    """Hostile files in other formats, and ones of ours."""
    buffer = io.BytesIO()
    torch.save({"w": torch.zeros(4)}, buffer, _use_new_zipfile_serialization=False)
    huge = buffer.getvalue().replace(b"K\x04N", b"\x8a\x05\0\0\0\0\x01N", 1)
    header = json.dumps({"w": {"dtype": "F32", "shape": [10**8, 0], "data_offsets": [0, 0]}}).encode()
    empty_rows = struct.pack("<Q", len(header)) + header
    deep = b"[" * 100_000
    return {
        "legacy": huge,
        "empty-rows": empty_rows,
        "deep-header": struct.pack("<Q", len(deep) + 10) + b'{"a":' + deep + b"]" * 5,
        "many-views": _many_views(),
    }


def _many_views() -> bytes:
    """100,000 tensors, each of the whole of one storage of 1 MB."""
    rebuild = torch._utils._rebuild_tensor_v2  # type: ignore[attr-defined]
    stored = Stored(250_000)
    values = {str(i): Call(rebuild, stored, 0, (250_000,), (1,), False, None) for i in range(20_000)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a/data.pkl", pickled({"state_dict": values}))
        archive.writestr("a/data/0", bytes(1_000_000))
    return buffer.getvalue()


OTHERS = {
    "legacy": "a storage of 4294967296 numbers in a file",
    "empty-rows": "does not say what it is",
    "deep-header": "damaged or incomplete",
    "many-views": "repeat or declare far more",
}


@pytest.mark.parametrize("name", ["a bytearray", "a storage by its size", "a tensor that repeats one number"])
def test_what_the_scan_of_torch_lets_pass_is_refused(name: str, tmp_path: Path) -> None:
    data, expected = EXPANDING[name]
    zipped(tmp_path / "a.pt", data, FLOATS)
    assert torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / "a.pt") == []  # all of its names are allowed
    with pytest.raises(CheckpointError, match=expected):
        read(tmp_path / "a.pt")


@pytest.mark.parametrize(("name", "expected"), [("torch\nA%dTensor", "names more than 4096 classes"),
                                                ("os\na%d", r"names os\.a0, .* and 4091 more")])  # fmt: skip
def test_names_without_end_are_refused_before_each_takes_a_kilobyte(name: str, expected: str, tmp_path: Path) -> None:
    names = b"".join(b"c%s\n" % (name % number).encode() for number in range(6000))
    zipped(tmp_path / "a.pt", b"\x80\x02(" + names + b"t.", FLOATS)
    with pytest.raises(CheckpointError, match=expected):
        read(tmp_path / "a.pt")


def test_the_scan_of_torch_reads_no_newer_pickle(tmp_path: Path) -> None:
    zipped(tmp_path / "a.pt", pickle.dumps({"w": Call(os.system, "true")}, protocol=4))
    with pytest.raises(pickle.UnpicklingError, match="Unsupported operand"):
        torch.serialization.get_unsafe_globals_in_checkpoint(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"was refused: .* names posix\.system"):
        read(tmp_path / "a.pt")


@pytest.mark.parametrize("name", [*EXPANDING, *MODELS, *OTHERS])
def test_a_hostile_file_is_refused_in_time_and_memory(outcomes: dict[str, tuple[str, float, float]], name: str) -> None:
    message, seconds, megabytes = outcomes[name]
    expected = OTHERS.get(name) or (EXPANDING.get(name) or MODELS[name][1:])[1]
    assert re.search(expected, message), message
    assert "TRACEBACK" not in message and "MemoryError" not in message and ".pt" in message
    assert message.isprintable() and len(message) < 2000
    assert seconds < SECONDS and megabytes < MEGABYTES, (seconds, megabytes)


def test_keys_of_real_checkpoints_are_taken(tmp_path: Path, state: State) -> None:
    """Numbers of parameters, places on a grid, names, arguments of a script."""
    said = {
        "args": argparse.Namespace(milestones={10, 20}, names=frozenset({"a", "b"}), lr=0.1),
        "grid": {(y, x, "q"): y * x for y in range(40) for x in range(40)},
        "numbers": dict.fromkeys(range(-5_000, 5_000), 0.5),
        "floats": collections.OrderedDict((i / 7, i) for i in range(3_000)),
        "hashes": {2**64 - 1: 1, 2**127: 2, None: 3, True: 4, b"x": 5},
    }
    torch.save({"arch": "cifar_resnet8", "state_dict": state, **said}, tmp_path / "a.pt")
    payload = read(tmp_path / "a.pt").payload
    assert all(payload[name] == said[name] for name in ("grid", "numbers", "floats", "hashes"))
    assert payload["args"]["names"] in (["a", "b"], ["b", "a"])


# --- what a file can bring to the creation of a model: nothing is downloaded, read or run because of it


@pytest.fixture
def state() -> State:
    return dict(create("cifar_resnet8", num_classes=10).state_dict())


@pytest.fixture
def _closed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No socket can be made, nothing of timm that fetches or reads weights may be called."""
    import timm.models._builder
    import timm.models._factory

    def forbidden(*args: object, **_: object) -> None:
        raise AssertionError(f"a file made the tool fetch or read something: {args}")

    monkeypatch.setattr(socket, "socket", forbidden)
    monkeypatch.setattr(torch, "load", forbidden)
    for module, name in (
        (timm.models._factory, "load_checkpoint"),
        (timm.models._factory, "load_model_config_from_hf"),
        (timm.models._factory, "load_model_config_from_path"),
        (timm.models._builder, "load_pretrained"),
        (timm.models._builder, "load_custom_pretrained"),
        (timm.models._builder, "adapt_model_from_file"),
    ):
        monkeypatch.setattr(module, name, forbidden)


ELSEWHERE: list[dict[str, Any]] = [
    {"pretrained": True},
    {"checkpoint_path": "elsewhere.pt"},
    {"pretrained": True, "pretrained_cfg": {"url": "http://elsewhere/w.pt", "custom_load": True}},
    {"pretrained": True, "pretrained_cfg": {"file": "elsewhere.pt"}},
    {"pretrained": True, "pretrained_cfg_overlay": {"hf_hub_id": "a/b"}, "cache_dir": "elsewhere"},
    {"features_only": True, "feature_cls": "hook", "out_indices": (0,), "exportable": True, "scriptable": True},
    {"pruned": True, "pretrained_filter_fn": "os.system", "model_cls": "x", "kwargs_filter": ("num_classes",)},
]


@pytest.mark.usefixtures("_closed")
@pytest.mark.parametrize("said", ELSEWHERE)
@pytest.mark.parametrize("place", ["model_args", "args", "hyper_parameters", "hub"])
def test_nothing_is_fetched_for_a_file(tmp_path: Path, state: State, said: dict[str, Any], place: str) -> None:
    path = tmp_path / "model.safetensors"
    if place == "hub":
        safetensors.torch.save_file(state, path, metadata={"format": "pt"})
        config = {"architecture": "cifar_resnet8", "num_classes": 10, "model_args": said, "pretrained_cfg": said}
        path.with_name("config.json").write_text(json.dumps(config))
    else:
        extra = {
            "model_args": {"arch": "cifar_resnet8", "model_args": said},
            "args": {"args": argparse.Namespace(model="cifar_resnet8", model_kwargs=said, **said)},
            "hyper_parameters": {"hyper_parameters": {"model_name": "cifar_resnet8", "model_kwargs": said, **said}},
        }[place]
        torch.save({"state_dict": state, **extra}, path)
    model = build(read(path))
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_every_argument_by_which_timm_fetches_is_on_the_list() -> None:
    """A canary: a new argument of timm's must be judged before a file may set it."""
    import timm
    from timm.models._builder import build_model_with_cfg

    taken = {
        name
        for function in (timm.create_model, build_model_with_cfg)
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    assert taken <= NOT_ARCHITECTURE


@pytest.mark.usefixtures("_closed")
@pytest.mark.parametrize(
    "arch",
    [
        "hf-hub:timm/resnet18",
        "hf_hub:timm/resnet18",
        "local-dir:.",
        "timm/resnet18",
        "resnet18.x/../y",
        "resnet18.hf-hub:a/b",
        "../resnet18",
        "http://elsewhere/resnet18",
        "resnet18\n",
        "x" * 900,
        "os.system",
    ],
)
def test_a_name_that_is_an_address_is_no_name(tmp_path: Path, state: State, arch: str) -> None:
    save(tmp_path / "a.pt", {"arch": arch, "state_dict": state})
    with pytest.raises(CheckpointError, match="which is no model of timm or ours") as caught:
        build(read(tmp_path / "a.pt"))
    assert str(caught.value).isprintable()
    with pytest.raises(ModelError, match="unknown model"):
        create(arch)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("arch", 5, "arch: expected str or null, got int"),
        ("model_args", [1], "model_args: expected object or null, got array"),
        ("epoch", "3", "epoch: expected int or null, got str"),
        ("epoch", -1, "epoch: "),
        ("epoch", True, "epoch: "),
        ("step", 1.5, "step: "),
        ("version", "1", "version: expected int, got str"),
        ("version", 0, "version: expected int >= 1"),
        ("digest", None, "digest: expected str, got null"),
        ("config", "x", "config: expected object or null, got str"),
        ("config", {"data": 3}, "config.data: expected str or null, got int"),
        ("config", {"seed": "x"}, "config.seed: "),
        ("config", {"input": {"size": "x"}}, "config.input.size: expected array or null, got str"),
        ("config", {"input": {"size": [32, 10**9]}}, r"config.input.size\[1\]: expected int <= 65536"),
        ("config", {"input": {"size": [32, 0]}}, r"config.input.size\[1\]: expected int >= 1"),
        ("config", {"input": {"mean": ["x"]}}, r"config.input.mean\[0\]: expected float, got str"),
        ("config", {"input": {"std": [0.1] * 2000}}, "config.input.std: expected array of length <= 1024"),
        ("conversions", {"layer": "x"}, "conversions: "),
        ("conversions", [{"epoch": 2}], r"conversions\[0\]: object missing required field layer"),
        ("conversions", [{"layer": 3}], r"conversions\[0\].layer: expected str, got int"),
        ("conversions", [{"layer": "x", "options": {"gate": "y"}}], r"conversions\[0\].options.gate: expected float"),
        ("conversions", [{"layer": "x", "options": {"head_dim": 10**6}}], "options.head_dim: expected int <= 65536"),
        ("conversions", [{"layer": "x", "options": {"generator": 1}}], "unknown field generator"),
        ("metrics", {"top1": [1]}, r"metrics\[...\]: expected "),
        ("rows", {"a": 1}, "rows: expected array or null"),
        ("seconds", "x", "seconds: "),
        ("best", "x", "best: "),
        ("finished", "x", "finished: "),
        ("environment", 3, "environment: "),
        ("optimizer", 3, "optimizer: "),
    ],
)
def test_a_field_of_another_type_is_refused_by_name(
    tmp_path: Path, state: State, field: str, value: Any, message: str
) -> None:
    path = tmp_path / "a.pt"
    save(path, {"arch": "cifar_resnet8", "state_dict": state, "model_args": {}, "epoch": 3})
    torch.save({**torch.load(path), field: value}, path)
    with pytest.raises(CheckpointError, match=rf"a\.pt: .*{message}"):
        read(path)


@pytest.mark.parametrize(
    ("conversion", "message"),
    [
        ({"layer": "layer3.0.conv9"}, "conversion of layer3.0.conv9 cannot be repeated: .*no module"),
        ({"layer": "layer3"}, "conversion of layer3 cannot be repeated: .*Sequential is not"),
        ({"layer": "layer3.0.conv1"}, r"its layer3.0.conv1.query_weight is None, expected \(36, 32\)"),
        ({"layer": "layer3.0.conv1", "options": {"head_dim": 60_000}}, r"expected \(540000, 32\)"),
        ({"layer": "bad\x1b[31m"}, r"conversion of bad\\x1b\[31m cannot be repeated"),
    ],
)
def test_a_conversion_that_the_weights_do_not_show(
    tmp_path: Path, state: State, conversion: dict[str, Any], message: str
) -> None:
    save(tmp_path / "a.pt", {"arch": "cifar_resnet8", "state_dict": state, "conversions": [conversion]})
    with pytest.raises(CheckpointError, match=message) as caught:
        build(read(tmp_path / "a.pt"))
    assert str(caught.value).isprintable()


def test_what_foreign_files_say_in_other_types_is_left_out_with_the_reason(tmp_path: Path, state: State) -> None:
    args = {"model": "cifar_resnet8", "data": ["a"], "seed": "x", "input": "x", "lr": 0.1, "schedule": "linear"}
    torch.save({"state_dict": state, "epoch": "ten", "args": args, "metric": 1.5}, tmp_path / "a.pt")
    checkpoint = read(tmp_path / "a.pt")
    assert checkpoint.config == {"model": "cifar_resnet8", "lr": 0.1, "schedule": "linear"}
    assert checkpoint.epoch is None
    assert [reason.partition(":")[0] for reason in checkpoint.ignored] == ["data", "seed", "input"]
    build(checkpoint)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a":' + "[" * 100_000, "config.json beside it: it is nested too deeply"),
        ('{"architecture": "cifar_resnet8"', "config.json beside it: input data was truncated"),
        ('{"architecture": 3}', "config.json beside it: architecture: expected str, got int"),
        ('{"architecture": "cifar_resnet8", "num_classes": "x"}', "num_classes: expected int or null, got str"),
        (f'{{"architecture": "{"x" * (1 << 20)}"}}', "config.json beside it cannot be read: it has more than 1 MB"),
    ],
)
def test_a_hub_config_that_says_nothing(tmp_path: Path, state: State, text: str, reason: str) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state, path)
    path.with_name("config.json").write_text(text)
    with pytest.raises(CheckpointError, match=f"does not say what it is .*Left out: .*{reason}"):
        build(read(path))
    build(read(path), model="cifar_resnet8")


def test_a_hub_config_that_is_a_pipe(tmp_path: Path, state: State) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(state, path)
    os.mkfifo(path.with_name("config.json"))
    assert read(path).arch is None


@pytest.mark.parametrize("key", ["model_args", "num_classes", "epoch"])
@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":', '"x"', "1e999"])
def test_metadata_of_safetensors_that_is_no_json(tmp_path: Path, state: State, key: str, text: str) -> None:
    safetensors.torch.save_file(state, tmp_path / "a.safetensors", metadata={"arch": "cifar_resnet8", key: text})
    checkpoint = read(tmp_path / "a.safetensors")
    assert checkpoint.ignored[0].startswith(f"metadata {key}: ")
    build(checkpoint)


def test_names_in_messages_can_be_printed(tmp_path: Path, state: State) -> None:
    """ANSI escapes, line ends, text turned round, bytes that are no UTF-8, 3,000 characters."""
    names = ["red\x1b[31m", "two\nlines", "turned\u202eround", "raw\udcff", "long" * 750]
    torch.save({**state, **{name: torch.zeros(1) for name in names}}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"red\\x1b\[31m, two\\nlines, turned\\u202eround, raw\\udcff") as caught:
        build(read(tmp_path / "a.pt"), model="cifar_resnet8")
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1500


def test_a_file_that_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt cannot be read: a FIFO \(named pipe\), not a regular file"):
        read(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match="cannot be read: File name too long"):
        read(tmp_path / ("x" * 3000))


def test_an_object_in_place_of_everything(tmp_path: Path) -> None:
    for value in ([], None, 3, "x", {"state_dict": {}}, {"state_dict": []}, {}, nn.Parameter(torch.zeros(3))):
        torch.save(value, tmp_path / "a.pt")
        with pytest.raises(ProbeError, match=r"a\.pt"):
            read(tmp_path / "a.pt")
