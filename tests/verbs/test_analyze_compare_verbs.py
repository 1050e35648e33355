"""One line of Python does what the command line does, with the same defaults and the same numbers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from click.testing import CliRunner
from matplotlib import pyplot as plt
from torch.utils.data import DataLoader, TensorDataset

import fourier_probe as fp
from fourier_probe.cli import group
from fourier_probe.data.trust import NamedData
from fourier_probe.errors import DataError, ModelError, ResultError
from fourier_probe.runtime.messages import ProbeNote, listening

NET = {"num_classes": 10, "in_chans": 1, "width": 4}


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    torch.manual_seed(0)
    return fp.create("cifar_resnet8", **NET)


def test_the_command_line_and_the_verb_give_the_same_numbers(tmp_path: Path) -> None:
    arguments = ["analyze", "timm:cifar_resnet8", "--images", "30", "--out", "cli", "--device", "cpu"]
    for name, value in NET.items():
        arguments += ["--model-arg", f"{name}={value}"]
    done = CliRunner().invoke(group, arguments)
    assert done.exit_code == 0, done.output
    by_name = fp.analyze("timm:cifar_resnet8", images=30, model_args=NET, device="cpu", out=tmp_path / "verb")
    saved = fp.Spectra.load(tmp_path / "cli")
    for ours, theirs in zip(by_name.points, saved.points, strict=True):
        np.testing.assert_array_equal(ours.delta, theirs.delta)
        np.testing.assert_array_equal(ours.stderr, theirs.stderr)
    assert {path.name for path in (tmp_path / "cli").iterdir()} == {path.name for path in (tmp_path / "verb").iterdir()}


def test_other_training_data_than_those_compared_on_are_said(tmp_path: Path) -> None:
    named = [NamedData(source="bundled", file="a", ours=True), NamedData(source="planted", file="b", ours=True)]
    targets = [
        replace(fp.open_target(fp.create("cifar_resnet8", num_classes=10, in_chans=1, width=4), label=label), data=data)
        for label, data in zip("ab", named, strict=True)
    ]
    with pytest.warns(ProbeNote, match="analyzed on bundled, which the first was trained on; b on planted. --data"):
        fp.compare(targets, images=20)


def test_maps_are_drawn_where_every_result_has_them(net: torch.nn.Module) -> None:
    plain, mapped = fp.analyze(net, "bundled", images=20), fp.analyze(net, "bundled", images=20, maps=True)
    assert "maps" in fp.compare([mapped, mapped]).figures()
    assert "maps" not in fp.compare([plain, mapped]).figures()


def test_every_kind_of_data_is_taken(net: torch.nn.Module) -> None:
    source = fp.open_data("bundled")
    named, opened = fp.analyze(net, "bundled", images=24), fp.analyze(net, source, images=24)
    assert named.images.digest == opened.images.digest
    images = torch.randn(24, 1, 32, 32)
    kinds = [images, list(images), list(images.split(8)), DataLoader(TensorDataset(images), batch_size=6)]
    results = [fp.analyze(net, kind) for kind in kinds]
    for other in results[1:]:
        np.testing.assert_allclose(other["layer3.0"].log_amplitude, results[0]["layer3.0"].log_amplitude, atol=1e-5)
    labelled = DataLoader(TensorDataset(images, torch.zeros(24, dtype=torch.long)), batch_size=6)
    assert fp.analyze(net, labelled).top1 is not None
    with pytest.warns(ProbeNote, match="first 10 images"):
        assert fp.analyze(net, images, images=10).images.n == 10
    with pytest.raises(DataError, match="batches are taken as they are"):
        fp.analyze(net, images, mean=(0.5,))
    with pytest.raises(ModelError, match="expected a network"):
        fp.analyze(3, images)


@pytest.mark.parametrize("verb", ["analyze", "heatmap", "validate"])
def test_a_device_that_does_not_exist_is_named(net: torch.nn.Module, verb: str) -> None:
    with pytest.raises(fp.ProbeError, match=r"abacus.*Expected auto, cpu, cuda"):
        getattr(fp, verb)(net, "bundled", images=20, device="abacus")


def test_open_target_says_what_a_network_wants() -> None:
    target = fp.open_target("timm:resnet18", label="mine")
    assert (target.label, target.input.size, target.provenance.arch) == ("mine", (224, 224), "resnet18")
    assert fp.open_target(target) is target
    with pytest.raises(ModelError, match="already"):
        fp.open_target(target, pretrained=True)


def test_interrupted_it_returns_what_was_summed(net: torch.nn.Module) -> None:
    def stopping() -> Iterator[torch.Tensor]:
        for turn in range(8):
            if turn == 5:
                os.kill(os.getpid(), signal.SIGINT)
            yield torch.randn(5, 1, 32, 32)

    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.warns(ProbeNote, match="interrupted"):
            spectra = fp.analyze(net, stopping())
    finally:
        signal.signal(signal.SIGINT, before)
    assert spectra.images.interrupted and spectra.images.n in (25, 30)


def test_the_names_of_0_1_go_on_working(net: torch.nn.Module) -> None:
    batches = [torch.randn(5, 1, 32, 32) for _ in range(4)]
    with pytest.warns(DeprecationWarning, match=r"version 0\.1"):
        old = fp.analyze(model=net, images=batches, metrics="diagonal")
    new = fp.analyze(net, batches, metrics="diagonal")
    np.testing.assert_array_equal(old["layer3.0"].delta, new["layer3.0"].delta)
    with pytest.raises(TypeError, match="unexpected keyword argument 'imags'"):
        fp.analyze(net, batches, imags=3)


def test_compare_mixes_networks_and_results_and_saves(net: torch.nn.Module, tmp_path: Path) -> None:
    saved = fp.analyze(net, "bundled", images=24, out=tmp_path / "saved")
    other = fp.create("cifar_resnet8", **{**NET, "width": 6})
    comparison = fp.compare([net, other, saved, tmp_path / "saved"], "bundled", images=24,
                            labels=["A", "B", None, "file"], out=tmp_path / "both")  # fmt: skip
    assert comparison.labels[0] == "A" and comparison["file"].images.digest == saved.images.digest
    assert "\n" not in repr(comparison) and "<table" in comparison._repr_html_()
    assert set(comparison.to_frame()["label"]) == set(comparison.labels)
    assert {"compare.csv", "depth.png", "density.csv"} <= {path.name for path in (tmp_path / "both").iterdir()}
    plt.close(comparison.plot("depth"))
    with pytest.raises(ResultError, match=r"no figure 'dept'.*Did you mean depth"):
        comparison.plot("dept")
    with pytest.raises(ResultError, match=r"no 'fil'.*Did you mean file"):
        comparison["fil"]
    json.dumps(comparison.to_json(), allow_nan=False)
    with pytest.raises(ResultError, match="list of targets"):
        fp.compare(net, "bundled")  # type: ignore[arg-type]


def test_a_comparison_and_a_page_say_how_much_was_read(net: torch.nn.Module) -> None:
    result = fp.analyze(net, "bundled", images=24)
    assert result.coverage is not None and result.coverage.steps == result.coverage.read
    read = f"{result.coverage.read} of {result.coverage.steps} steps read"
    assert f"Coverage: A {read}" in fp.compare([result, result], labels=["A", "B"]).table().caption
    assert read in fp.report([result]).html


def test_seeds_are_one_arm_with_an_interval_over_seeds() -> None:
    def seed(number: int) -> torch.nn.Module:
        torch.manual_seed(number)
        return fp.create("cifar_resnet8", **NET)

    comparison = fp.compare([[seed(0), seed(1), seed(2)], seed(3)], "bundled", images=24, labels=["CNN", "one"])
    cnn, one = comparison.over_seeds
    assert (cnn.arm, cnn.seeds, one.seeds) == ("CNN", 3, 1)
    assert cnn.value == pytest.approx(np.mean(cnn.values))
    assert cnn.half == pytest.approx(4.302652729911275 * np.std(cnn.values, ddof=1) / 3**0.5)
    assert np.isnan(one.half)
    assert any(table.title.startswith("seeds as one arm") for table in comparison.tables())


def test_no_exported_name_is_a_sub_package_and_every_one_is_there() -> None:
    packages = {path.parent.name for path in Path(fp.__file__).parent.glob("*/__init__.py")}
    assert not packages & set(fp.__all__)
    for name in fp.__all__:
        assert getattr(fp, name) is not None
        assert getattr(fp, name).__doc__, name


def test_attention_of_batches_of_ones_own_where_they_can_be_read_again() -> None:
    torch.manual_seed(0)
    net = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1, embed_dim=12, num_heads=2)
    read = [torch.rand(8, 3, 32, 32) for _ in range(9)]
    result = fp.analyze(net, read, attention=True, self_check=False)
    assert result.attention[0].images == 64 and len(result.information) == 1
    heard: list[str] = []
    with listening(heard.append):
        assert not fp.analyze(net, iter(read), attention=True, self_check=False).attention
    assert any("can be read once only: give a list" in text for text in heard)
