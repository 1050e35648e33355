"""Options whose effect no other test shows, each with one look; and options that cannot have any are said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fourier_probe.errors import TrainingError
from fourier_probe.runtime.distributed import ranks
from fourier_probe.training import TrainConfig, train
from fourier_probe.training.convert import convert_, ease_
from fourier_probe.training.folder import RunFolder
from fourier_probe.training.idle import idle, said
from fourier_probe.training.optim import rate
from fourier_probe.training.progress import Progress
from fourier_probe.training.session import Session, settings
from fourier_probe.training.stop import Stop

from .tiny import At, make_photos, tiny


def opened(config: TrainConfig) -> Session:
    """All that a run holds before its first step."""
    with ranks("cpu") as team:
        return Session.open(config, team, RunFolder(Path("unused")), Progress(), Stop(), None)


def rates(session: Session) -> list[float]:
    """The learning rate of each step, that after the last one included."""
    out = []
    for step in range(session.plan.epochs * session.plan.steps + 1):
        session.state.scheduler.step_update(step)
        out.append(rate(session.state.optimizer))
    return out


def eased(session: Session) -> tuple[float, float]:
    """The shifts of gate and locality of a layer at its switch."""
    state = session.state
    layer, epoch = next(iter(session.plan.schedule.items()))
    convert_([layer], state.model, None, state.optimizer, session.config)
    ease_(state.model, [layer], session.plan, session.config, epoch)
    module = state.model.get_submodule(layer)
    return float(module.get_buffer("gate_shift")), float(module.get_buffer("locality_shift"))


def epochs(session: Session) -> list[int]:
    return list(session.plan.schedule.values())


def group(session: Session, name: str) -> dict[str, Any]:
    return next(each for each in session.state.optimizer.param_groups if each["name"] == name)


LINEAR: dict[str, Any] = {"schedule": "linear"}
STEPS: dict[str, Any] = {"schedule": "linear", "steps": 12, "val_every": 1}
PLAIN: dict[str, Any] = {"warmup_epochs": 0, "lr": 0.5}
LOOKS: dict[str, tuple[dict[str, Any], Callable[[Session], object], object]] = {
    "mixup_prob": ({"mixup": 0.2, "mixup_prob": 0.25}, lambda s: s.mixup and s.mixup.mix_prob, 0.25),
    "mixup_switch_prob": ({"mixup": 0.2, "cutmix": 1, "mixup_switch_prob": 0.125},
                          lambda s: s.mixup and s.mixup.switch_prob, 0.125),
    "momentum": ({"momentum": 0.75}, lambda s: group(s, "decay")["momentum"], 0.75),
    "weight_decay": ({"weight_decay": 0.125}, lambda s: (group(s, "decay")["weight_decay"],
                                                         group(s, "no_decay")["weight_decay"]), (0.125, 0.0)),
    "new_lr_mult": ({**LINEAR, "new_lr_mult": 3.0}, lambda s: group(s, "qk")["lr_scale"], 3.0),
    "gate_lr_mult": ({**LINEAR, "gate_lr_mult": 5.0}, lambda s: group(s, "gates")["lr_scale"], 5.0),
    "model_ema_decay": ({"model_ema": True, "model_ema_decay": 0.5}, lambda s: s.state.ema and s.state.ema.decay, 0.5),
    "min_lr": ({**PLAIN, "min_lr": 0.125}, lambda s: rates(s)[-1], 0.125),
    "warmup_lr": ({"lr": 0.5, "warmup_epochs": 1, "warmup_lr": 0.25}, lambda s: rates(s)[0], 0.25),
    "decay_epochs": ({**PLAIN, "sched": "step", "decay_epochs": 2}, lambda s: rates(s)[5:7], [0.5, 0.05]),
    "decay_rate": ({**PLAIN, "sched": "step", "decay_epochs": 2, "decay_rate": 0.5}, lambda s: rates(s)[6], 0.25),
    "decay_milestones": ({**PLAIN, "sched": "multistep", "decay_milestones": [1]}, lambda s: rates(s)[1:4:2],
                         [0.5, 0.05]),
    "early_step": ({**STEPS, "early_step": 9, "late_step": 3}, lambda s: (max(epochs(s)), min(epochs(s))), (9, 3)),
    "late_step": ({**STEPS, "early_step": 9, "late_step": 9}, lambda s: set(epochs(s)), {9}),
    "switch_ends": ({"schedule": "custom", "switches": {"layer3.0.conv2": 1}, "switch_ends": {"layer3.0.conv2": 3}},
                    lambda s: s.plan.schedule.ends, {"layer3.0.conv2": 3}),
    "schedule_seed": ({"schedule": "random", "schedule_seed": 3}, lambda s: epochs(s) != sorted(epochs(s))[::-1], True),
    "weighted_mean": ({"schedule": "constant", "weighted_mean": True}, lambda s: set(epochs(s)), {1}),
    "checkpoint_every": ({"checkpoint_every": 2}, lambda s: [s.plan.keeps(s.config, e) for e in (1, 2, 3, 4)],
                         [False, True, False, True]),
    "anneal_gate": ({**LINEAR, "anneal_gate": 3.0}, eased, (3.0, 0.0)),
    "anneal_locality": ({**LINEAR, "anneal_gate": 0.0, "anneal_locality": 2.0}, eased, (0.0, 2.0)),
    "img_size": ({"img_size": 16}, lambda s: s.spec.size, (16, 16)),
    "mean": ({"mean": [0.25]}, lambda s: s.spec.mean, (0.25,)),
    "std": ({"std": [0.5]}, lambda s: s.spec.std, (0.5,)),
    "drop": ({"drop": 0.25}, lambda s: s.arch["model_args"]["drop_rate"], 0.25),
    "drop_path": ({"model": "cifar_vit_patch4", "model_args": {"depth": 2, "embed_dim": 12, "num_heads": 2},
                   "drop_path": 0.25}, lambda s: s.arch["model_args"]["drop_path_rate"], 0.25),
    "model_args": ({"model_args": {"width": 8}}, lambda s: s.arch["model_args"]["width"], 8),
    "loader": ({"loader": "processes"}, lambda s: s.training.decoding is not None, True),
    "early_epoch": ({**LINEAR, "early_epoch": 2}, lambda s: max(epochs(s)), 2),
    "late_epoch": ({**LINEAR, "late_epoch": 2}, lambda s: min(epochs(s)), 2),
    "at_epoch": ({"schedule": "constant", "at_epoch": 2}, lambda s: set(epochs(s)), {2}),
    "val_split": ({"val_split": 0.5}, lambda s: s.val and len(s.val.images), 32),
}  # fmt: skip


@pytest.mark.parametrize("name", LOOKS)
def test_it_does_what_it_says(name: str, data: Path) -> None:
    given, look, expected = LOOKS[name]
    session = opened(tiny(data, **given))
    near = pytest.approx(expected) if isinstance(expected, float | list) else expected
    assert name in given and look(session) == near
    assert not said(session, list(given)), "an option with an effect is not said to have none"


def test_the_seed_of_the_data_chooses_the_images(data: Path) -> None:
    first, again, other = (opened(tiny(data, data_seed=seed)).splits.digest for seed in (0, 0, 1))
    assert first == again != other


def test_crops_of_files_are_as_small_as_they_may_be(tmp_path: Path) -> None:
    config = tiny(make_photos(tmp_path / "photos"), img_size=12, scale_min=0.125)
    decoding = opened(config).training.decoding
    assert decoding is not None and "scale=(0.125, 1.0)" in repr(decoding.loader.dataset.transform)


def test_deterministic_algorithms_are_on_while_it_trains() -> None:
    with ranks("cpu") as team, settings(TrainConfig(deterministic=True), team):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


# --- options without an effect ---------------------------------------------------------------------------------------

IDLE: dict[str, tuple[dict[str, Any], str]] = {
    "mixup_prob": ({"mixup_prob": 0.5}, "neither --mixup nor --cutmix"),
    "mixup_switch_prob": ({"mixup": 0.2, "mixup_switch_prob": 0.9}, "only one of"),
    "aug_repeats": ({"aug_repeats": 1}, "once"),
    "iso_steps": ({"iso_steps": True}, "all images"),
    "data_seed": ({"val_split": 0.0, "data_seed": 4}, "nothing is chosen"),
    "probe_images": ({"probe_images": 9}, "--probe-every"),
    "epochs": ({"steps": 12, "val_every": 3, "epochs": 7}, "--steps"),
    "warmup_epochs": ({"warmup_steps": 2, "warmup_epochs": 3.0}, "--warmup-steps"),
    "warmup_lr": ({"warmup_epochs": 0, "warmup_lr": 0.1}, "no warm-up"),
    "decay_rate": ({"decay_rate": 0.5}, "--sched is cosine"),
    "decay_epochs": ({"decay_epochs": 2}, "--sched is cosine"),
    "decay_milestones": ({"decay_milestones": [2]}, "--sched is cosine"),
    "cooldown_steps": ({"cooldown_steps": 2}, "--sched is cosine"),
    "min_lr": ({"sched": "constant", "min_lr": 0.01}, "--sched is constant"),
    "model_ema_decay": ({"model_ema_decay": 0.5}, "--model-ema"),
    "momentum": ({"opt": "adamw", "momentum": 0.5}, "--opt adamw"),
    **{name: ({name: value}, "--schedule is none") for name, value in {
        "early_step": 3, "at_epoch": 2.0, "weighted_mean": True, "schedule_seed": 4, "convert": ["layer3*"],
        "max_key_grid": 9, "soft_epochs": 2.0, "recast_args": {"gate": 2.0}, "content_stride": 100, "content_maps": 1,
        "anneal_epochs": 0.5, "anneal_gate": 3.0, "anneal_locality": 1.0, "new_lr_mult": 2.0, "gate_lr_mult": 2.0,
    }.items()},
    "late_step": ({"schedule": "constant", "at_epoch": 2, "late_step": 3}, "--at-epoch says when"),
    "at_step": ({"schedule": "linear", "at_step": 3}, "--schedule is linear"),
    "schedule_args": ({"schedule": "linear", "schedule_args": {"x": 1}}, "--schedule is linear"),
    "anneal_steps": ({"schedule": "soft", "anneal_steps": 3}, "ramps"),
}  # fmt: skip


@pytest.mark.parametrize("name", IDLE)
def test_an_option_without_an_effect_is_said(name: str) -> None:
    given, reason = IDLE[name]
    config = TrainConfig.of({"model": "cifar_resnet8", **given})
    assert reason in idle(config, list(given))[name]
    assert not idle(config, []), "what a recipe says is nobody's mistake"


HERE: dict[str, tuple[dict[str, Any], str]] = {
    "mixup_off_epoch": ({"mixup": 0.2, "mixup_off_epoch": 100}, "4 epochs"),
    "checkpoint_every": ({"checkpoint_every": 9}, "4 epochs"),
    "checkpoint_at": ({"checkpoint_at": [9]}, "4 epochs"),
    "checkpoint_at_step": ({"checkpoint_at_step": [30]}, "12 steps"),
    "log_interval": ({"log_interval": 50}, "12 steps"),
    "decay_epochs": ({"sched": "step", "decay_epochs": 8}, "4 epochs"),
    "decay_milestones": ({"sched": "multistep", "decay_milestones": [8]}, "4 epochs"),
    "scale_min": ({"scale_min": 0.5}, "an array"),
    "skip_bad": ({"skip_bad": True}, "an array"),
    "workers": ({"workers": 3}, "an array"),
    "sync_bn": ({"sync_bn": True}, "one process"),
    "drop_path": ({"drop_path": 0.2}, "drop_path_rate"),
    "probe_every": ({"probe_every": 9}, "only spectra of its beginning"),
    "warmup_epochs": ({"warmup_epochs": 4}, "never reached"),
}


def test_what_the_length_the_images_and_the_model_make_idle_is_said(data: Path) -> None:
    given = {key: value for options, _ in HERE.values() for key, value in options.items()}
    one = tiny(data, **{**given, "sched": "step", "decay_epochs": 8, "decay_milestones": []})
    other = tiny(data, sched="multistep", decay_milestones=[8])
    remarks = [*said(opened(one), list(given)), *said(opened(other), ["decay_milestones"])]
    for name, (_, reason) in HERE.items():
        flag = f"--{name.replace('_', '-')}"
        assert any(reason in text and (flag in text or "never" in reason) for text in remarks), (name, remarks)


def test_it_is_said_before_the_first_step(data: Path, tmp_path: Path) -> None:
    listener = At((9, None), lambda: None)
    config = tiny(data, epochs=1, early_epoch=0, late_epoch=0, mixup=0.2, mixup_off_epoch=100)
    train(config, tmp_path / "run", progress=listener, asked=["mixup_off_epoch"])
    assert "--mixup-off-epoch changes nothing: the training has 1 epochs." in listener.notes


def test_one_key_for_content_is_refused(data: Path) -> None:
    with pytest.raises(TrainingError, match=r"--content-stride 100: .* has keys of .*, which would become one"):
        opened(tiny(data, schedule="linear", content_stride=100))
