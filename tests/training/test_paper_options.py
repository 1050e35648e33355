"""Options of timm's training: parts of a batch, rates by depth, clipping, losses, augmentation; alone and in a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.data import Mixup
from timm.data.distributed_sampler import RepeatAugSampler
from timm.loss import BinaryCrossEntropy
from timm.optim import param_groups_layer_decay
from timm.utils import adaptive_clip_grad
from torch import Tensor, nn

from fourier_probe.errors import ProbeError, TrainingError
from fourier_probe.models import zoo
from fourier_probe.runtime.distributed import Ranks
from fourier_probe.training import TrainConfig, inputs, train
from fourier_probe.training.convert import convert_
from fourier_probe.training.exactness import differences
from fourier_probe.training.optim import clip, loss_of, make_optimizer, make_scheduler, rate
from fourier_probe.training.plan import Plan, make_model
from fourier_probe.training.schedule import PRSSchedule
from fourier_probe.training.splits import open_splits
from fourier_probe.training.steps import train_step

from .tiny import assert_same_run, last, log, make_photos, stop_at, tiny

PLAIN: dict[str, Any] = {"opt": "momentum", "lr": 0.1, "momentum": 0.9, "smoothing": 0.1, "weight_decay": 0.0}


def network() -> nn.Module:
    """Without BatchNorm, whose statistics would be those of each part."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double()


def batch(count: int = 10) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(count, 1, 6, 6, generator=generator, dtype=torch.float64), torch.arange(count) % 3


def stepped(config: TrainConfig, targets: Tensor | None = None) -> tuple[dict[str, Tensor], list[float]]:
    net = network()
    x, y = batch()
    optimizer, scaler = make_optimizer(net, config), torch.amp.GradScaler("cpu", enabled=False)
    outcomes = [train_step(net, x, y if targets is None else targets, optimizer, scaler, config) for _ in range(3)]
    return net.state_dict(), [float(value) for outcome in outcomes for value in outcome]


# --- parts of a batch ---


@pytest.mark.parametrize("parts", [2, 3, 10])
def test_a_batch_in_parts_is_the_same_step(parts: int) -> None:
    mixed = torch.softmax(torch.randn(10, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), 1)
    for targets in (None, mixed):
        whole, in_parts = (
            stepped(TrainConfig(**PLAIN, grad_accum_steps=k, clip_grad=0.5), targets) for k in (1, parts)
        )
        assert whole[1] == pytest.approx(in_parts[1], rel=1e-10)
        for name, value in whole[0].items():
            torch.testing.assert_close(in_parts[0][name], value, rtol=1e-9, atol=1e-12)


def test_a_run_in_parts_takes_as_many_steps_and_resumes_exactly(data: Path, tmp_path: Path) -> None:
    config = tiny(data, epochs=2, grad_accum_steps=3)
    train(config, tmp_path / "whole")
    assert [row["step"] for row in log(tmp_path / "whole")] == ["3", "6"]
    stop_at(config, tmp_path / "run", (0, 2))
    train(config, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_parts_that_cannot_be_are_refused_and_batch_norm_is_said(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="--grad-accum-steps is 0: expected at least 1"):
        tiny(data, grad_accum_steps=0)
    with pytest.raises(TrainingError, match="a batch of 16 images cannot be run in so many parts: give 16 or fewer"):
        train(tiny(data, grad_accum_steps=17), tmp_path / "run")
    with pytest.raises(TrainingError, match="on each of 2 processes: give 8 or fewer"):
        inputs.batch_of(tiny(data, grad_accum_steps=9), 48, 2)
    (said,) = differences(nn.BatchNorm2d(1), TrainConfig(grad_accum_steps=2), 1)
    assert "BatchNorm normalises over the images of each of 2 parts" in said
    assert len(differences(nn.Linear(1, 1), TrainConfig(sam_rho=0.1), 2)) == 1


# --- rates by depth ---


@pytest.mark.parametrize("model", ["cifar_resnet8", "patch_resnet", "cifar_convit", "eit_mini"])
def test_rates_by_depth_are_timms(model: str) -> None:
    net = zoo.create(model)
    config = TrainConfig(opt="adamw", lr=0.1, layer_decay=0.5)
    ours = {id(p): group["lr_scale"] for group in make_optimizer(net, config).param_groups for p in group["params"]}
    theirs = {id(p): g["lr_scale"] for g in param_groups_layer_decay(net, layer_decay=0.5) for p in g["params"]}
    assert ours == theirs
    assert len(set(ours.values())) > 3


def test_a_recast_layer_keeps_its_depth(data: Path) -> None:
    config = tiny(data, layer_decay=0.5, gate_lr_mult=10.0, new_lr_mult=2.0, opt="adamw")
    net, _, _ = make_model(config, open_splits(config))
    optimizer = make_optimizer(net, config)
    scheduler = make_scheduler(optimizer, config, Plan(4, 3, PRSSchedule.none(), (), 1.0))
    count = len(optimizer.param_groups)
    before = {id(p): g["lr_scale"] for g in optimizer.param_groups for p in g["params"]}
    convert_(["layer1.0.conv1", "layer3.0.conv2"], net, None, optimizer, config)
    assert len(optimizer.param_groups) == count  # timm's scheduler pairs rates with groups once
    scheduler.step_update(5)
    scales = {id(p): (g["lr_scale"], g["lr"]) for g in optimizer.param_groups for p in g["params"]}
    for layer in ("layer1.0.conv1", "layer3.0.conv2"):
        module = net.get_submodule(layer)
        depth = before[id(module.weight)]
        assert scales[id(module.weight)][0] == depth < 1
        for name, times in (("gate", 10.0), ("attention_centre", 10.0), ("query_weight", 2.0)):
            scale, lr = scales[id(getattr(module, name))]
            assert scale == pytest.approx(times * depth)
            assert lr == pytest.approx(times * depth * rate(optimizer))
    assert len(scales) == len(list(net.parameters()))


def test_a_network_without_depths_is_refused(data: Path) -> None:
    with pytest.raises(TrainingError, match=r"--layer-decay 0.5: timm finds no depths in Sequential"):
        make_optimizer(network(), TrainConfig(layer_decay=0.5))
    with pytest.raises(TrainingError, match=r"--layer-decay is 0.0: expected above 0, up to 1"):
        TrainConfig(layer_decay=0.0)


# --- clipping ---


def clipped(mode: str, limit: float) -> tuple[nn.Module, list[Tensor]]:
    net = network()
    optimizer = make_optimizer(net, TrainConfig(**PLAIN))
    nn.functional.cross_entropy(net(batch()[0]), batch()[1]).backward()
    for parameter in net.parameters():
        parameter.grad = 100 * parameter.grad  # type: ignore[operator]
    norm = nn.utils.get_total_norm([p.grad for p in net.parameters() if p.grad is not None])
    before = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    clip(optimizer, net, norm, TrainConfig(**PLAIN, clip_mode=mode, clip_grad=limit))
    return net, before


def test_each_way_of_clipping() -> None:
    net, before = clipped("norm", 1.0)
    norm = torch.stack([g.square().sum() for g in before]).sum().sqrt()
    for parameter, gradient in zip(net.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.grad, gradient / (norm + 1e-6))
    net, before = clipped("value", 0.5)
    for parameter, gradient in zip(net.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.grad, gradient.clamp(-0.5, 0.5))
    net, before = clipped("agc", 0.01)
    expected = network()
    for parameter, gradient in zip(expected.parameters(), before, strict=True):
        parameter.grad = gradient.clone()
    adaptive_clip_grad(list(expected.parameters())[:-2], 0.01)  # the head is left alone
    for parameter, other in zip(net.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, other.grad)
    assert torch.equal(net[3].weight.grad, before[2])  # type: ignore[index, union-attr]


def test_a_way_of_clipping_needs_its_limit_and_takes_none_of_a_recipe() -> None:
    with pytest.raises(TrainingError, match=r"--clip-mode agc needs its limit: --clip-grad, such as 0\.01"):
        TrainConfig.of(model="cifar_vit_patch4", clip_mode="agc")  # whose recipe clips the norm at 1
    assert TrainConfig.of(model="cifar_vit_patch4", clip_mode="agc", clip_grad=0.02).clip_grad == 0.02
    with pytest.raises(TrainingError, match="--clip-mode is 'nrom': expected one of norm, value, agc"):
        TrainConfig(clip_mode="nrom")


# --- the loss ---


def test_the_binary_loss_is_timms() -> None:
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    labels, config = torch.arange(6) % 4, TrainConfig(bce_loss=True, smoothing=0.1)
    assert torch.equal(loss_of(logits, labels, config), BinaryCrossEntropy(0.1)(logits, labels))
    mixed = torch.softmax(logits, 1).double()
    torch.testing.assert_close(loss_of(logits, mixed, config), BinaryCrossEntropy(0.1)(logits, mixed.float()))
    torch.testing.assert_close(
        loss_of(logits.half(), labels, config), BinaryCrossEntropy(0.1)(logits.half().float(), labels)
    )


# --- augmentation ---


def test_mixup_ends_where_it_is_told(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on: list[bool] = []
    call = Mixup.__call__

    def seen(self: Mixup, x: Tensor, target: Tensor) -> Any:
        mixed, targets = call(self, x.clone(), target)
        on.append(not torch.equal(mixed, x))
        return mixed, targets

    monkeypatch.setattr(Mixup, "__call__", seen)
    for off, expected in ((2.0, [True] * 6 + [False] * 6), (0.75, [True] * 9 + [False] * 3), (0.0, [True] * 12)):
        on.clear()
        train(tiny(data, mixup=1.0, mixup_off_epoch=off), tmp_path / str(off))
        assert on == expected
    stop_at(tiny(data, mixup=1.0, mixup_off_epoch=2.0), tmp_path / "stopped", (2, 1))
    train(tiny(data, mixup=1.0, mixup_off_epoch=2.0), tmp_path / "stopped", resume=True)
    assert_same_run(tmp_path / "2.0", tmp_path / "stopped")


def test_repeats_are_those_of_timms_sampler(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny(data, aug_repeats=3)
    splits = open_splits(config)
    _, _, spec = make_model(config, splits)
    rows = []
    for world in (1, 2):
        every = [
            inputs.Training.of(config, splits.train, spec, Ranks(r, world, torch.device("cpu"))) for r in range(world)
        ]
        dealt = [[step.labels for step in training.batches(0, 3)] for training in every]
        rows.append([torch.stack(parts, 1).flatten() for parts in zip(*dealt, strict=True)])
    assert all(torch.equal(one, two) for one, two in zip(*rows, strict=True))
    order = torch.randperm(48, generator=inputs._generator("cpu", config.seed, inputs._ORDER, 0))
    monkeypatch.setattr(torch, "randperm", lambda *_, **__: order)
    theirs = list(RepeatAugSampler(range(48), 1, 0, num_repeats=3))
    assert theirs == order.repeat_interleave(3)[:48].tolist()
    labels = torch.as_tensor(splits.train.labels)
    assert torch.equal(torch.cat(rows[0]), labels[theirs])


@pytest.mark.slow
def test_copies_of_a_file_differ_and_the_run_resumes_exactly(tmp_path: Path) -> None:
    photos = make_photos(tmp_path / "photos")
    config = tiny(photos, model_args={"width": 4}, img_size=16, aug_repeats=2, color_jitter=0.4, epochs=2, batch_size=6,
                  val_split=0.25, test=False, loader="processes", workers=0)  # fmt: skip
    splits = open_splits(config)
    _, _, spec = make_model(config, splits)
    step = next(inputs.Training.of(config, splits.train, spec, Ranks(0, 1, torch.device("cpu"))).batches(0, 1))
    assert step.labels[0] == step.labels[1]
    assert not torch.equal(step.images[0], step.images[1])
    train(config, tmp_path / "whole")
    stop_at(config, tmp_path / "run", (1, 1))
    train(config, tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "run")


def test_colours_are_jittered_for_arrays_too(data: Path, tmp_path: Path) -> None:
    config = tiny(data, color_jitter=0.5, hflip=0.0, crop_padding=0)
    splits = open_splits(config)
    _, _, spec = make_model(config, splits)
    training = inputs.Training.of(config, splits.train, spec, Ranks(0, 1, torch.device("cpu")))
    assert training.decoding is not None
    first, again = (next(training.batches(0, 1)).images for _ in range(2))
    assert torch.equal(first, again)
    order = torch.randperm(48, generator=inputs._generator("cpu", config.seed, inputs._ORDER, 0))
    pixels = torch.from_numpy(splits.train.pixels)[order[:16], :, :, 0]  # type: ignore[index, arg-type]
    changed = (first[:, 0] != pixels).flatten(1).any(1)
    assert changed.all()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"data": "planted", "color_jitter": 0.4}, "--color-jitter 0.4 would change what the label of a planted image"),
        ({"data": "planted", "aug_repeats": 3}, "--aug-repeats has no place on the planted task"),
        ({"aa": "rand-m9", "color_jitter": 0.4}, "timm leaves --color-jitter out beside --aa"),
        ({"loader": "device", "color_jitter": 0.4}, "--color-jitter runs in processes: drop --loader device"),
        ({"mixup_off_epoch": 3.0}, "--mixup-off-epoch ends --mixup and --cutmix, and neither is on"),
        ({"aug_repeats": -1}, "--aug-repeats is -1: expected 0 or more"),
        ({"color_jitter": float("nan")}, "--color-jitter is nan: expected 0 or more"),
        ({"log_interval": -1}, "--log-interval is -1"),
    ],
)
def test_what_makes_no_sense_is_refused(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ProbeError, match=message):
        TrainConfig.of(**more)


# --- all together, in a run ---

OPTIONS: dict[str, dict[str, Any]] = {
    "parts": {"grad_accum_steps": 2},
    "depths": {"layer_decay": 0.7, "opt": "adamw", "lr": 1e-3},
    "value": {"clip_mode": "value", "clip_grad": 0.5},
    "agc": {"clip_mode": "agc", "clip_grad": 0.02},
    "binary": {"bce_loss": True, "mixup": 0.4, "mixup_off_epoch": 1.0},
    "sharpness": {"sam_rho": 0.05},
}
CONVERTED: dict[str, Any] = {"epochs": 2, "schedule": "linear", "early_epoch": 1, "late_epoch": 1, "val_split": 0.25}


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIONS)
def test_each_goes_through_a_switch_a_stop_a_fork_and_its_own_config(name: str, data: Path, tmp_path: Path) -> None:
    config = tiny(data, **CONVERTED, **OPTIONS[name], model_ema=True)
    whole = train(config, tmp_path / "whole")
    stop_at(config, tmp_path / "stopped", (1, 2))
    train(config, tmp_path / "stopped", resume=True)
    assert_same_run(whole, tmp_path / "stopped")
    train(config, tmp_path / "forked", fork=f"{whole}@1")
    assert_same_run(whole, tmp_path / "forked")
    recorded = json.loads((whole / "config.json").read_text())["config"]
    assert TrainConfig.from_json(recorded) == config
    assert all(recorded[key] == value for key, value in OPTIONS[name].items())
    other = {key: value for key, value in OPTIONS[name].items() if key not in ("opt", "lr", "clip_grad", "mixup")}
    plain = tiny(data, **CONVERTED, **{k: v for k, v in OPTIONS[name].items() if k not in other}, model_ema=True)
    key = next(iter(other))
    with pytest.raises(TrainingError, match=f"--{key.replace('_', '-')} "):
        train(plain, whole, resume=True)


@pytest.mark.parametrize("name", OPTIONS)
def test_a_loss_that_is_not_finite_stops_each(name: str, data: Path, tmp_path: Path) -> None:
    more = {**OPTIONS[name], "opt": "sgd", "lr": 1e38}
    more = {**more, "clip_grad": 1e30} if name in ("value", "agc") else more
    config = tiny(data, **more, sched="constant", warmup_epochs=0.0)
    with pytest.raises(TrainingError, match=r"became NaN or infinite at step \d+"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run" / "last.pt").exists()


def test_the_state_says_at_which_depth_a_group_is(data: Path, tmp_path: Path) -> None:
    run = train(tiny(data, epochs=1, layer_decay=0.5, opt="adamw"), tmp_path / "run")
    groups = last(run)["optimizer"]["param_groups"]
    assert sorted({group["depth_scale"] for group in groups}) == [2.0**-n for n in (4, 3, 2, 1, 0)]
    assert np.isclose(float(log(run)[0]["lr"]), rate_of(groups))


def rate_of(groups: list[dict[str, Any]]) -> float:
    return next(float(group["lr"]) for group in groups if group["lr_scale"] == 1.0)
