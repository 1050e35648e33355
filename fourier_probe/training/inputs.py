"""Images of a run, dealt out in batches: of training, shared by the ranks, and of evaluation.

Images in memory stay on the device as uint8 and are cropped and mirrored there, a batch at a time. Image files, and
RandAugment, are decoded in processes by timm's transforms. Either way a batch is a function of (seed, epoch, step), so
that a run can be resumed in the middle of an epoch and shared by any number of ranks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fourier_probe.data import (
    ImageSet,
    InputSpec,
    batches,
    normalise,
    random_crop,
    random_flip,
)
from fourier_probe.data.augment import Share
from fourier_probe.data.transform import fit
from fourier_probe.errors import TrainingError
from fourier_probe.runtime.accelerator import summing
from fourier_probe.runtime.distributed import Ranks
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.decoding import Decoding
from fourier_probe.training.splits import labels_of

HELD = 2 * 2**30  # bytes of uint8 images that are kept on the device
_ORDER, _STEP = 1, 2  # separate streams of one seed


def derived(*numbers: int) -> int:
    """A 63-bit seed from a few numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


@dataclass
class Held:
    """Images on the device.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
    """

    images: Tensor
    labels: Tensor

    @classmethod
    def of(cls, images: ImageSet, spec: InputSpec, device: torch.device) -> Held:
        """Every image in the model's size and channels."""
        shape = (*spec.size, spec.channels)
        if images.pixels is not None and images.pixels.shape[1:] == shape:
            pixels = images.pixels
        else:
            pixels = np.empty((len(images), *shape), dtype=np.uint8)
            for index in range(len(images)):
                pixels[index] = fit(images.read(index), spec, crop=images.reader is not None)
        tensor = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
        return cls(tensor.to(device), torch.from_numpy(labels_of(images)).to(device))


@dataclass
class Evaluation:
    """Images to be evaluated, in order, without augmentation; this rank's share of them.

    Attributes:
        images: the split.
        spec: the model's input.
        device: where they are wanted.
        workers: processes that decode files.
        batch_size: images per batch.
        hold: keep them on the device once decoded.
    """

    images: ImageSet
    spec: InputSpec
    device: torch.device
    workers: int
    batch_size: int
    hold: bool
    held: Held | None = field(default=None, repr=False)

    def steps(self, world: int) -> int:
        """Batches of the rank with the most images."""
        return math.ceil(math.ceil(len(self.images) / world) / self.batch_size)

    def batches(self, rank: int, world: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(B, C, H, W) float32 normalised, (B,) labels."""
        if not self.hold:
            shard = batches(
                self.images, self.spec, batch_size=self.batch_size, shard=(rank, world), workers=self.workers
            )
            for batch in shard:
                if batch.labels is not None:
                    yield batch.images.to(self.device, non_blocking=True), batch.labels.to(self.device)
            return
        if self.held is None:
            self.held = Held.of(self.images, self.spec, self.device)
        own = torch.arange(rank, len(self.images), world, device=self.device)
        for index in torch.split(own, self.batch_size) if len(own) else ():  # none: split would give one empty batch
            yield normalise(self.held.images[index], self.spec.mean, self.spec.std), self.held.labels[index]


class Step(NamedTuple):
    """This rank's part of one training step.

    Attributes:
        images: (B, C, H, W) uint8.
        labels: (B,) int64.
        generator: of the step, the same on every rank.
        share: which images of the step's batch these are.
    """

    images: Tensor
    labels: Tensor
    generator: torch.Generator
    share: Share


@dataclass
class Training:
    """The training images, dealt out in steps.

    Attributes:
        config: of the run.
        images: the training split.
        spec: the model's input.
        ranks: who shares a batch.
        steps: of one pass over the images.
        batch: images of a step, over all ranks; a set smaller than a batch is one step.
        held: the images, where they are on the device.
    """

    config: TrainConfig
    images: ImageSet
    spec: InputSpec
    ranks: Ranks
    steps: int
    batch: int
    held: Held | None
    decoding: Decoding | None

    @classmethod
    def of(cls, config: TrainConfig, images: ImageSet, spec: InputSpec, ranks: Ranks) -> Training:
        """Choose where the images live, and how many steps an epoch has.

        Raises:
            TrainingError: a batch that the ranks cannot share, or `--loader device` for too many images.
        """
        batch = batch_of(config, len(images), ranks.world)
        size = len(images) * spec.channels * spec.size[0] * spec.size[1]
        on_device = images.pixels is not None and not config.aa and not config.color_jitter and size <= HELD
        if config.loader == "device":
            if size > HELD:
                raise TrainingError(
                    f"{len(images)} images of {spec.size[0]}x{spec.size[1]} take {size / 2**30:.1f} GiB, more than "
                    f"{HELD / 2**30:.0f}: use --loader auto."
                )
            on_device = True
        on_device = on_device and config.loader != "processes"
        held = Held.of(images, spec, ranks.device) if on_device else None
        decoding = None if on_device else Decoding.of(config, images, spec)
        return cls(config, images, spec, ranks, max(1, len(images) // batch), batch, held, decoding)

    def batches(self, first: int, count: int) -> Iterator[Step]:
        """The batches of steps `first` to `first + count` of the run, over as many passes as that takes.

        What a step is given depends on its number alone, not on how a run is divided into epochs or rounds.
        """
        while count:
            epoch, start = divmod(first, self.steps)
            here = min(count, self.steps - start)
            yield from self._pass(epoch, start, start + here)
            first, count = first + here, count - here

    def _pass(self, epoch: int, start: int, stop: int) -> Iterator[Step]:
        """Steps of one pass over the images, which have been cropped and mirrored; this rank's share of each."""
        order = torch.randperm(len(self.images), generator=_generator("cpu", self.config.seed, _ORDER, epoch))
        copies = torch.zeros_like(order)
        if (repeats := self.config.aug_repeats) > 1:  # as timm's RepeatAugSampler: copies of an image follow each other
            order = order.repeat_interleave(repeats)[: len(order)]
            copies = torch.arange(len(order)) % repeats
        pairs = bool(self.config.mixup or self.config.cutmix)
        share = share_of(self.batch, self.ranks.rank, self.ranks.world, pairs=pairs)
        rows, copies = (
            indices[: self.steps * self.batch].view(self.steps, self.batch)[start:stop, share.index]
            for indices in (order, copies)
        )
        decoded = None if self.decoding is None else self.decoding.batches(rows, copies, epoch)
        own_rows = rows.to(self.ranks.device) if decoded is None else rows
        for step in range(start, stop):
            generator = _generator(self.ranks.device, self.config.seed, _STEP, epoch, step, 0)
            if decoded is not None:
                images, labels = next(decoded)
                images, labels = (values.to(self.ranks.device, non_blocking=True) for values in (images, labels))
            elif self.held is not None:
                index = own_rows[step - start]
                images, labels = self.held.images[index], self.held.labels[index]
            if self.images.pixels is not None and self.config.crop_padding:
                images = random_crop(images, self.config.crop_padding, generator, share)
            if (self.images.pixels is not None or self.held is not None) and self.config.hflip:
                images = random_flip(images, generator, self.config.hflip, share)
            yield Step(images, labels, generator, share)

    def close(self) -> None:
        """End the processes that decode, if there are any."""
        if self.decoding is not None:
            self.decoding.close()


def share_of(batch: int, rank: int, world: int, *, pairs: bool = False) -> Share:
    """A rank's part of a batch: every world-th image, or every world-th pair. Parts may differ by one of them.

    Image i and image `batch - 1 - i` are a pair, which timm's Mixup mixes and no two ranks share. Each part has its
    pairs at the same two ends, so that mixing a part is mixing the batch.

    >>> share_of(8, 0, 3, pairs=True).index.tolist(), share_of(8, 2, 3, pairs=True).index.tolist()
    ([0, 3, 4, 7], [2, 5])
    """
    if not pairs:
        return Share(batch, torch.arange(rank, batch, world))
    low = torch.arange(rank, batch // 2, world)
    return Share(batch, torch.cat([low, batch - 1 - low.flip(0)]))


def batch_of(config: TrainConfig, images: int, world: int = 1) -> int:
    """Images of a step over all processes, however many they are; all there are, where a batch would be more.

    Raises:
        TrainingError: it is odd, where mixup needs pairs, or has fewer images, or pairs, than there are processes.
    """
    unit = 2 if config.mixup or config.cutmix else 1  # timm's Mixup pairs images
    batch = min(config.batch_size, images // unit * unit)
    if batch // world < config.grad_accum_steps > 1:
        raise TrainingError(
            f"--grad-accum-steps {config.grad_accum_steps}: a batch of {batch} images cannot be run in so many parts"
            f"{f' on each of {world} processes' if world > 1 else ''}: give {max(1, batch // world)} or fewer."
        )
    if batch % unit:
        raise TrainingError(f"--batch-size is {config.batch_size}: mixup and cutmix pair images, so it must be even.")
    if batch < unit * world:
        raise TrainingError(
            f"a batch of {batch} images cannot be shared by {world} process{'es' if world > 1 else ''}"
            f"{' in pairs, as mixup needs' if unit > 1 else ''}: each takes at least {unit}. Start at most "
            f"{max(1, batch // unit)}, or give {unit * world} images and a --batch-size of that or more."
        )
    return batch


def _generator(device: torch.device | str, *seeds: int) -> torch.Generator:
    kind = torch.device(device)
    return torch.Generator(summing(kind)).manual_seed(derived(*seeds))  # some draws are in float64
