"""What a step costs before and after conversions, what the input pipeline costs, and throughput beside timm's parts.

    python benchmarks/train.py                       the tables of docs/benchmarks.md
    python benchmarks/train.py --pairs 2 --images 512   a smoke run
    python benchmarks/train.py --device cuda --batch 512

Arms run interleaved in one process on random 32-pixel images. Each pair gives the ratio of two arms run one right after
the other, in alternating order; reported are the median and its bootstrap 95 % interval.

- `before`: our step of a network that a schedule will convert, before it does, over a bare step of the same network
  (forward, cross-entropy, backward, update) on the same inputs.
- `after`: our step once every layer with 8x8 keys is attention, over our step of the plain network.
- `input`: gathering, cropping, mirroring, scaling and erasing a batch, over our step on it.
- `pass`: images per second of our pass over the data (crop, flip, erasing, mixup) over that of a loop of timm's public
  parts (create_loader, Mixup, create_optimizer_v2) with the same model, batch and augmentation; as it comes, and with
  the model and images channels-last, as ours are.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import Mixup, create_loader
from timm.data.transforms import ToNumpy
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from torch import Tensor, nn
from torchvision import transforms

from fourier_probe.runtime.distributed import ranks
from fourier_probe.training import Progress, TrainConfig
from fourier_probe.training.convert import convert_
from fourier_probe.training.folder import RunFolder
from fourier_probe.training.layers import convertible_layers
from fourier_probe.training.session import Session
from fourier_probe.training.state import seeded
from fourier_probe.training.steps import prepare, train_step
from fourier_probe.training.stop import Stop
from fourier_probe.training.trainer import _pass

CLASSES = 100
KEYS = (8, 8)  # the key grid whose layers are converted


def make_data(path: Path, images: int) -> Path:
    """Random RGB images in the shape of CIFAR-100."""
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for split, count in (("train", images), ("test", CLASSES)):
        arrays[f"{split}_images"] = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        arrays[f"{split}_labels"] = np.arange(count) % CLASSES
    np.savez(path, **arrays)
    return path


def session_of(data: Path, args: argparse.Namespace, team: Any, **more: Any) -> Session:
    """A run of ours, ready to step."""
    given = {"data": str(data), "val_split": 0.0, "batch_size": args.batch, "device": args.device, **more}
    config = TrainConfig.of(given)
    return Session.open(config, team, RunFolder(data.parent), Progress(), Stop(), None)


def stepper(session: Session, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    """One step of ours on prepared inputs."""
    state, gpu = session.state, inputs.device.type == "cuda"

    def step() -> None:
        train_step(session.net, inputs, targets, state.optimizer, state.scaler, session.config, check=not gpu)

    session.net.train()
    return step


def bare_stepper(model: nn.Module, inputs: Tensor, targets: Tensor) -> Callable[[], None]:
    """One step with nothing around it."""
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.01, weight_decay=5e-4)
    model.train()

    def step() -> None:
        loss = nn.functional.cross_entropy(model(inputs), targets, label_smoothing=0.1)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


class Pictures(torch.utils.data.Dataset[Any]):
    """Images for timm's loader, decoded from an array."""

    def __init__(self, data: Path) -> None:
        arrays = np.load(data)
        self.images, self.labels, self.transform = arrays["train_images"], arrays["train_labels"], None

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Any:
        picture = Image.fromarray(self.images[index])
        return (picture if self.transform is None else self.transform(picture)), int(self.labels[index])


def timm_pass(data: Path, args: argparse.Namespace, name: str, layout: torch.memory_format) -> Callable[[], int]:
    """A pass of a loop of timm's public parts; returns the number of images."""
    device = torch.device(args.device)
    dataset = Pictures(data)
    loader = create_loader(
        dataset, (3, 32, 32), args.batch, is_training=True, re_prob=0.25, re_mode="pixel", num_workers=args.workers,
        device=device, persistent_workers=True, pin_memory=device.type == "cuda",
    )  # fmt: skip
    # The crop of small images: padding, not resizing.
    crop = [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), ToNumpy()]
    dataset.transform = transforms.Compose(crop)
    model = timm.create_model(name, num_classes=CLASSES).to(device, memory_format=layout).train()
    optimizer = create_optimizer_v2(model, opt="sgd", lr=0.01, weight_decay=5e-4)
    mixup, criterion = Mixup(mixup_alpha=0.8, label_smoothing=0.1, num_classes=CLASSES), SoftTargetCrossEntropy()

    def once() -> int:
        for images, labels in loader:
            inputs, targets = mixup(images, labels)
            inputs = inputs.contiguous(memory_format=layout)
            criterion(model(inputs), targets).backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return len(loader) * args.batch

    return once


def our_pass(session: Session) -> Callable[[], int]:
    """A pass of ours; returns the number of images."""

    def once() -> int:
        _pass(session)
        session.state.step = 0
        session.state.sums.zero_()
        return session.plan.steps * session.training.batch

    return once


def timed(arm: Callable[[], Any], device: str) -> float:
    """Seconds of one call."""
    _wait(device)
    start = time.perf_counter()
    arm()
    _wait(device)
    return time.perf_counter() - start


def paired(arm: Callable[[], Any], base: Callable[[], Any], pairs: int, device: str) -> tuple[np.ndarray, float]:
    """Ratios of seconds, arm over base, in alternating order; and the median seconds of the base."""
    for each in (arm, base):
        timed(each, device)  # warm up
    ratios, seconds = [], []
    for turn in range(pairs):
        if turn % 2:
            first, second = timed(arm, device), timed(base, device)
        else:
            second, first = timed(base, device), timed(arm, device)
        ratios.append(first / second)
        seconds.append(second)
    return np.array(ratios), float(np.median(seconds))


def row(what: str, network: str, ratios: np.ndarray, base: float, bound: str) -> str:
    """A line of the table."""
    low, high = _interval(ratios)
    return f"| {what} | {network} | {1e3 * base:.1f} ms | {np.median(ratios):.3f} | {low:.3f} to {high:.3f} | {bound} |"


def steps_table(args: argparse.Namespace, data: Path, team: Any) -> None:
    """Before, after, input."""
    print("| ratio | network | base | median | 95 % | aim |\n|---|---|---|---|---|---|")
    for name, aim in (("cifar_resnet20", "<= 3"), ("cifar_resnet20_x4", "<= 2")):
        if name not in args.models:
            continue
        plain, other = (session_of(data, args, team, model=name, reprob=0.25, lr=0.01) for _ in range(2))
        step = next(plain.training.batches(0, 1))
        inputs, targets = prepare(step, plain.config, plain.spec, None)
        ours = stepper(plain, inputs, targets)
        layout = torch.channels_last if plain.config.channels_last else torch.contiguous_format
        bare = timm.create_model(name, num_classes=CLASSES).to(args.device, memory_format=layout)
        if name == "cifar_resnet20":
            print(row("before", name, *paired(ours, bare_stepper(bare, inputs, targets), args.pairs, args.device),
                      "<= 1.02"), flush=True)  # fmt: skip

            def pipeline(session: Session = plain) -> None:
                step = next(session.training.batches(0, 1))
                prepare(step, session.config, session.spec, None)

            print(row("input", name, *paired(pipeline, ours, args.pairs, args.device), "<= 0.10"), flush=True)
        layers = [layer.name for layer in convertible_layers(other.state.model, inputs[:1]) if layer.keys == KEYS]
        convert_(layers, other.state.model, None, other.state.optimizer, other.config)
        other.rewrap()
        after = stepper(other, inputs, targets)
        print(row(f"after, {len(layers)} layers", name, *paired(after, ours, args.pairs, args.device), aim), flush=True)


def pass_table(args: argparse.Namespace, data: Path, team: Any) -> None:
    """Throughput, ours over timm's parts."""
    aim = ">= 3" if args.device.startswith("cuda") else ">= 1.1"
    ours = our_pass(session_of(data, args, team, model="cifar_resnet20", reprob=0.25, mixup=0.8, lr=0.01))
    print("\n| throughput, ours over timm's parts | ours, images/s | median | 95 % | aim |\n|---|---|---|---|---|")
    for what, layout in (("", torch.contiguous_format), (", both channels-last", torch.channels_last)):
        theirs = timm_pass(data, args, "cifar_resnet20", layout)
        ratios, seconds = paired(theirs, ours, args.pairs, args.device)  # their seconds over ours: our rate over theirs
        rate = args.images // args.batch * args.batch / seconds
        low, high = _interval(ratios)
        print(f"| cifar_resnet20, {args.workers} workers{what} | {rate:.0f} | {np.median(ratios):.3f} | {low:.3f} to "
              f"{high:.3f} | {aim if not what else ''} |", flush=True)  # fmt: skip


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--models", nargs="+", default=["cifar_resnet20", "cifar_resnet20_x4"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--images", type=int, default=2560, help="of a pass")
    parser.add_argument("--workers", type=int, default=2, help="of timm's loader")
    parser.add_argument("--only", choices=["steps", "pass"], help="one of the two tables")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    gpu = args.device.startswith("cuda")
    where = torch.cuda.get_device_name() if gpu else f"{args.threads} threads of {platform.machine()}"
    print(f"torch {torch.__version__}, timm {timm.__version__}, {where}, batch {args.batch}, {args.pairs} pairs\n")
    with tempfile.TemporaryDirectory() as folder, ranks(args.device) as team, seeded(0, team):
        data = make_data(Path(folder) / "random.npz", args.images)
        if args.only != "pass":
            steps_table(args, data, team)
        if args.only != "steps":
            pass_table(args, data, team)


def _interval(values: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(values, (4000, len(values))), axis=1)
    return float(np.quantile(medians, 0.025)), float(np.quantile(medians, 0.975))


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
