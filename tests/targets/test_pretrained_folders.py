"""Folders of transformers: read with sockets closed, refused where something would be run or fetched."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
import torch

import fourier_probe as fp
from fourier_probe.errors import CheckpointError, ModelError
from fourier_probe.runtime.messages import ProbeNote
from fourier_probe.targets import ModelOptions, resolve

transformers = pytest.importorskip("transformers")
PROCESSOR = {
    "size": {"height": 32, "width": 32},
    "do_normalize": True,
    "image_mean": [0.5] * 3,
    "image_std": [0.25] * 3,
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", closed)
    transformers.utils.logging.disable_progress_bar()


def saved(folder: Path, **config: Any) -> Path:
    torch.manual_seed(5)  # not that of untrained weights
    settings = transformers.ViTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48,
                                      image_size=32, patch_size=8, num_labels=10)  # fmt: skip
    transformers.ViTForImageClassification(settings).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    return folder


def test_a_classifier_end_to_end(tmp_path: Path) -> None:
    folder = str(saved(tmp_path / "vit"))
    target = resolve(folder)
    assert type(target.model).__name__ == "ViTForImageClassification"
    assert (target.input.size, target.input.mean, target.input.std) == ((32, 32), (0.5,) * 3, (0.25,) * 3)
    spectra = fp.analyze(folder, "bundled", images=8)
    assert [len(spectra.points), spectra.points[-1].grid] == [5, (4, 4)]
    assert spectra.top1 is not None
    assert fp.heatmap(folder, "bundled", images=8, bands=2).clean_error is not None
    other = tmp_path / "swin"
    swin = transformers.SwinConfig(embed_dim=8, depths=[1, 1], num_heads=[1, 2], image_size=32, window_size=4)
    transformers.SwinModel(swin).save_pretrained(other)
    with pytest.warns(ProbeNote, match="no preprocessor_config.json"):
        compared = fp.compare([folder, str(other)], "bundled", images=8)
    assert [each.target.arch for each in compared.results] == ["ViTForImageClassification", "SwinModel"]


def test_the_weights_are_those_saved_and_untrained_are_not(tmp_path: Path) -> None:
    folder = saved(tmp_path / "vit")
    torch.manual_seed(0)
    expected = transformers.ViTForImageClassification.from_pretrained(folder).state_dict()
    model = resolve(str(folder)).model
    fresh = resolve(str(folder), ModelOptions(untrained=True)).model
    assert model is not None
    assert fresh is not None
    for key, value in expected.items():
        assert torch.equal(model.state_dict()[key], value)
    assert not torch.equal(fresh.state_dict()["classifier.weight"], expected["classifier.weight"])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("auto_map", {"AutoModel": "code.Net"}, "auto_map.*code that comes with"),
        ("trust_remote_code", True, "trust_remote_code.*code from elsewhere"),
        ("use_pretrained_backbone", True, "use_pretrained_backbone.*fetched"),
        ("backbone", "resnet50", "backbone.*fetched"),
        ("backbone_config", {"auto_map": {"AutoModel": "a.B"}}, "backbone_config.auto_map"),
        ("quantization_config", {"quant_method": "bitsandbytes"}, "quantization_config.*quantised"),
        ("_attn_implementation", "someone/flash-attn", "_attn_implementation.*hub"),
        ("attn_implementation", "flash_attention_2", "attn_implementation.*hub"),
        ("use_kernels", True, "use_kernels.*kernels"),
        ("model_type", "no_such", "model_type is 'no_such'"),
        ("model_type", "bert", "a bert is no image classifier"),
        ("hidden_size", "x", r"config.json|cannot be made"),
        ("hidden_size", 48, "does not fit|missing"),
        ("hidden_size", 6_000_000, "far larger|cannot be made"),
    ],
)
def test_what_would_be_run_or_fetched_or_cannot_be_is_refused(
    tmp_path: Path, key: str, value: Any, message: str
) -> None:
    folder = saved(tmp_path / "vit", **{key: value})
    with pytest.raises((CheckpointError, ModelError), match=message):
        resolve(str(folder))


def test_pickles_adapters_and_shards_elsewhere_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "vit")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin is pickled"):
        resolve(str(folder))
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../a.safetensors"}}))
    with pytest.raises(CheckpointError, match="expected the names of safetensors files beside it"):
        resolve(str(folder))
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="adapter"):
        resolve(str(folder))


def test_shards_are_read_through_the_links_of_a_hub_s_cache(tmp_path: Path) -> None:
    folder = saved(tmp_path / "vit")
    whole = resolve(str(folder)).model
    assert whole is not None
    whole.save_pretrained(tmp_path / "blobs", max_shard_size="20KB")
    blobs = sorted((tmp_path / "blobs").glob("model-*.safetensors"))
    assert len(blobs) > 1
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").symlink_to(tmp_path / "blobs" / "model.safetensors.index.json")
    for blob in blobs:
        (folder / blob.name).symlink_to(blob)
    model = resolve(str(folder)).model
    assert model is not None
    for key, value in whole.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)


@pytest.mark.parametrize("value", [{"size": "x"}, {"size": {"height": -3, "width": 4}}, {"image_mean": ["a"]}, []])
def test_a_processor_of_other_types_is_refused_by_its_name(tmp_path: Path, value: Any) -> None:
    folder = saved(tmp_path / "vit")
    (folder / "preprocessor_config.json").write_text(json.dumps(value))
    with pytest.raises(CheckpointError, match=r"preprocessor_config.json"):
        resolve(str(folder))
