"""Every kind of TARGET, and FILE=NAME. Small networks; nothing is fetched."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch

import fourier_probe as fp
from fourier_probe.errors import CheckpointError, ModelError, ProbeError
from fourier_probe.runtime.messages import ProbeNote
from fourier_probe.targets import ModelOptions, resolve
from fourier_probe.targets.kinds import split

NETS = """
import torch, timm
def make(num_classes=10):
    return timm.create_model("cifar_resnet8", num_classes=num_classes, in_chans=1)
def fixed(state):
    return {key: torch.linspace(0, 1, value.numel()).reshape(value.shape).to(value) for key, value in state.items()}
def loads():
    net = make()
    net.load_state_dict(fixed(net.state_dict()))
    return net
def seeds():
    torch.manual_seed(3)
    return make()
def numpy_draws():
    import numpy
    net = make()
    for value in net.parameters():
        value.data = torch.as_tensor(numpy.random.randn(*value.shape)).float()
    return net
def partly():
    net = make()
    net.layer1.load_state_dict(fixed(net.layer1.state_dict()))
    return net
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETS)
    return tmp_path


def bare(path: str, name: str = "cifar_resnet8", **arguments: object) -> str:
    net = timm.create_model(name, num_classes=10, in_chans=1, **arguments)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    torch.save(net.state_dict(), path)
    return path


@pytest.mark.parametrize("path", ["epoch=9-step=1000.ckpt", "lr=0.1/last.pt"])
def test_an_existing_path_is_taken_whole(path: str) -> None:
    bare(path)
    assert split(path) == (path, None)
    assert split(f"{path}=cifar_resnet8") == (path, "cifar_resnet8")
    assert resolve(path, ModelOptions(model="cifar_resnet8")).provenance.arch == "cifar_resnet8"
    assert resolve(f"{path}=cifar_resnet8").provenance.source == path


def test_a_factory_with_arguments_behind_a_file() -> None:
    assert split(f"{bare('a.pt')}=net.py:make") == ("a.pt", "net.py:make")
    assert resolve("a.pt=net.py:make").provenance.arch == "net.py:make"


def test_two_bare_files_of_two_architectures_in_one_command() -> None:
    cnn, vit = bare("cnn.pt"), bare("vit.pt", "cifar_vit_patch4")
    compared = fp.compare([f"{cnn}=cifar_resnet8", f"{vit}=cifar_vit_patch4"], "bundled", images=8)
    assert [each.target.arch for each in compared.results] == ["cifar_resnet8", "cifar_vit_patch4"]
    mixed = fp.compare([f"{cnn}=cifar_resnet8", vit], "bundled", images=8, model="cifar_vit_patch4",
                       model_args={"img_size": 32})  # fmt: skip
    assert [each.target.arch for each in mixed.results] == ["cifar_resnet8", "cifar_vit_patch4"]


def test_a_file_that_says_keeps_its_word_and_one_named_for_itself_does_not() -> None:
    net = timm.create_model("cifar_resnet8", num_classes=10)
    torch.save({"arch": "cifar_resnet8", "state_dict": net.state_dict()}, "says.pt")
    with pytest.warns(ProbeNote, match=r"says that it is cifar_resnet8.*says.pt=cifar_vit_patch4"):
        target = resolve("says.pt", ModelOptions(model="cifar_vit_patch4", model_args={"img_size": 32}))
    assert target.provenance.arch == "cifar_resnet8"
    with pytest.raises(CheckpointError, match="does not fit cifar_vit_patch4"):
        resolve("says.pt=cifar_vit_patch4")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothere.pt=resnet18", r"no file or folder nothere.pt \(of nothere.pt=resnet18\)"),
        ("nofile.py:make", "no such file: nofile.py"),
        ("net.py:mak", "it has make, fixed, loads"),
        ("net.py:make=resnet18", "is a factory, which names its own architecture"),
        ("torchvision:resnet1", "torchvision has no model 'resnet1'. Did you mean"),
    ],
)
def test_names_that_are_no_target(name: str, message: str) -> None:
    with pytest.raises((ModelError, CheckpointError), match=message):
        resolve(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net.py", r"net\.py is Python code: name the function .* net\.py:"),
        ("net.py:", r"names no factory: expected path/to/file\.py:factory"),
        ("net.py:make.it", r"names no factory"),
    ],
)
def test_python_code_without_a_factory(here: Path, name: str, message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        resolve(name)


def test_options_of_files_are_refused_for_what_is_made() -> None:
    with pytest.raises(ModelError, match="for files only: --key"):
        resolve("torchvision:resnet18", ModelOptions(key="x"))
    with pytest.raises(ModelError, match="--pretrained is for timm:NAME and torchvision:NAME"):
        resolve("net.py:make", ModelOptions(pretrained=True))
    with pytest.raises(ModelError, match="weights is no argument"):
        resolve("torchvision:resnet18", ModelOptions(model_args={"weights": "DEFAULT"}))


def test_a_factory_is_a_target() -> None:
    spectra = fp.analyze("net.py:make", "bundled", images=8)
    assert spectra.target.source == "net.py:make"
    assert spectra.target.weights == "raw"


def test_torchvision_says_its_input_and_fetches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", lambda *_, **__: pytest.fail("weights were fetched"))
    target = resolve("torchvision:squeezenet1_1")
    assert target.input.size == (224, 224)
    assert target.label == "squeezenet1_1"
    assert resolve("torchvision:lraspp_mobilenet_v3_large").model is not None  # its backbone's weights by default


@pytest.mark.parametrize("factory", ["loads", "seeds"])
@pytest.mark.parametrize("as_model", [False, True], ids=["target", "of a file"])
def test_untrained_is_refused_where_two_seeds_give_one_network(factory: str, as_model: bool) -> None:
    name = f"{bare('a.pt')}=net.py:{factory}" if as_model else f"net.py:{factory}"
    with pytest.raises(ModelError, match=r"same .* under two seeds.*it loads weights.*it seeds itself"):
        resolve(name, ModelOptions(untrained=True))


def test_untrained_in_part_is_said_and_a_fresh_one_passes() -> None:
    with pytest.warns(ProbeNote, match="same under two seeds .layer1.0"):
        resolve("net.py:partly", ModelOptions(untrained=True))
    resolve("net.py:numpy_draws", ModelOptions(untrained=True))  # torch's generator is not the only one
    target = resolve("net.py:make", ModelOptions(untrained=True))
    assert (target.provenance.weights, target.provenance.seed) == ("untrained", 0)
