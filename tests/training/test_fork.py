"""Runs that share their beginning: forked, they are what they would have been from the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from fourier_probe.errors import TrainingError
from fourier_probe.training import train

from .tiny import assert_same_run, last, log, tiny

EMA = {"model_ema": True, "mixup": 0.4}


@pytest.fixture(scope="module")
def linear(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its first switch is at epoch 1."""
    config = tiny(data, schedule="linear", checkpoint_at=(2,), **EMA)
    return train(config, tmp_path_factory.mktemp("fork") / "linear")


@pytest.mark.parametrize(
    "more",
    [
        {"schedule": "none"},
        {"schedule": "constant", "at_epoch": 2, "gate_lr_mult": 3.0},
        {"schedule": "reverse"},
        {"schedule": "linear", "recast_args": {"gate": 2.0}},
    ],
    ids=lambda more: str(more["schedule"]),
)
def test_a_forked_run_equals_one_from_the_start(
    more: dict[str, object], data: Path, linear: Path, tmp_path: Path
) -> None:
    config = tiny(data, **EMA, **more)
    train(config, tmp_path / "whole")
    train(config, tmp_path / "forked", fork=f"{linear}@1")
    assert_same_run(tmp_path / "whole", tmp_path / "forked")
    assert len(log(tmp_path / "forked")) == 4


def test_a_forked_run_resumes_without_the_fork(data: Path, linear: Path, tmp_path: Path) -> None:
    from .tiny import At, terminate

    config = tiny(data, schedule="reverse", **EMA)
    train(config, tmp_path / "whole")
    with pytest.raises(SystemExit):
        train(config, tmp_path / "forked", fork=f"{linear}@1", progress=At((2, 1), terminate))
    train(config, tmp_path / "forked", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "forked")


def test_the_last_state_can_be_forked_too(data: Path, tmp_path: Path) -> None:
    from .tiny import stop_at

    stop_at(tiny(data), tmp_path / "a", (1, None))
    train(tiny(data, schedule="constant", at_epoch=2), tmp_path / "b", fork=f"{tmp_path / 'a'}@2")
    assert last(tmp_path / "b")["finished"]


def test_more_than_the_schedule_differs(data: Path, linear: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"--lr 0.0125 \(now 0.02\), --seed 0 \(now 7\): a fork may differ in the sch"
    ):
        train(tiny(data, **EMA, lr=0.02, seed=7), tmp_path / "run", fork=f"{linear}@1")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_schedule_that_would_have_switched_before(data: Path, linear: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"by epoch 1 it had converted nothing, this schedule .*layer1.0.conv1"):
        train(tiny(data, schedule="constant", at_epoch=0, **EMA), tmp_path / "run", fork=f"{linear}@1")


def test_a_state_that_was_not_kept(data: Path, linear: Path, tmp_path: Path) -> None:
    with pytest.raises(
        TrainingError, match=r"no state after 3 epochs \(it has: epoch-001.pt, epoch-002.pt\).*--checkpoint-at 3"
    ):
        train(tiny(data, schedule="none", **EMA), tmp_path / "run", fork=f"{linear}@3")


def test_a_fork_after_the_first_switch_equals_the_whole_run(data: Path, linear: Path, tmp_path: Path) -> None:
    train(tiny(data, schedule="linear", soft_epochs=2, **EMA), tmp_path / "whole")  # without effect on `linear`
    train(tiny(data, schedule="linear", soft_epochs=2, **EMA), tmp_path / "forked", fork=f"{linear}@2")
    assert_same_run(tmp_path / "whole", tmp_path / "forked")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"recast_args": {"head_dim": 2}}, r"--recast-arg head_dim=\(default\) \(now 2\)"),
        ({"recast_args": {"gate": 2.0}}, r"--recast-arg gate=1.0 \(now 2.0\)"),
        ({"anneal_epochs": 0.0}, r"--anneal-epochs 0.1 \(now 0.0\)"),
        ({"anneal_gate": 5.0, "anneal_locality": 1.0}, r"--anneal-gate 6.0 .*--anneal-locality 0.0 \(now 1.0\)"),
        ({"new_lr_mult": 2.0, "gate_lr_mult": 3.0}, r"--new-lr-mult 1.0 \(now 2.0\), --gate-lr-mult 10.0 \(now 3.0\)"),
        ({"schedule": "soft"}, r"no ramp \(now a ramp to epoch 3\), which --schedule, --soft-epochs"),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_layers_converted_before_the_fork_keep_their_options(
    more: dict[str, object], words: str, data: Path, linear: Path, tmp_path: Path
) -> None:
    config = tiny(data, **{"schedule": "linear", **EMA, **more})
    with pytest.raises(TrainingError, match=rf"by then, with {words}.*: fork at .*linear@1, before the first switch"):
        train(config, tmp_path / "run", fork=f"{linear}@2")
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_switch_at_the_very_start_leaves_no_state_before_it(data: Path, tmp_path: Path) -> None:
    at_once = {"schedule": "constant", "at_epoch": 0}
    train(tiny(data, epochs=1, early_epoch=0, late_epoch=0, **at_once), tmp_path / "a")
    with pytest.raises(TrainingError, match=r"--gate-lr-mult 10.0 \(now 1.0\): leave --fork out"):
        config = tiny(data, epochs=1, early_epoch=0, late_epoch=0, gate_lr_mult=1.0, **at_once)
        train(config, tmp_path / "b", fork=f"{tmp_path / 'a'}@1")


def test_a_fork_at_the_beginning_is_a_run_of_its_own(data: Path, linear: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"linear@0: nothing is trained by epoch 0.*Leave --fork out"):
        train(tiny(data, schedule="none", **EMA), tmp_path / "run", fork=f"{linear}@0")


@pytest.mark.parametrize("source", ["nowhere@1", "nowhere"])
def test_no_such_run(source: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"holds no run|expected RUN@EPOCH"):
        train(tiny(data), tmp_path / "run", fork=source)


def test_a_fork_takes_over_the_spectra_of_the_shared_beginning(data: Path, tmp_path: Path) -> None:
    """So that its trajectory begins at epoch 0, as that of a run from the start does."""
    import json

    probe = {"probe_every": 1, "probe_images": 8}
    train(tiny(data, schedule="linear", **probe), tmp_path / "linear")
    config = tiny(data, schedule="constant", at_epoch=2, **probe)
    train(config, tmp_path / "whole")
    train(config, tmp_path / "forked", fork=f"{tmp_path / 'linear'}@1")
    files = sorted(path.name for path in (tmp_path / "whole" / "spectra").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "forked" / "spectra").iterdir())
    for name in files:
        one, other = (json.loads((tmp_path / run / "spectra" / name).read_text()) for run in ("whole", "forked"))
        assert other["target"].pop("source") == str(tmp_path / "forked")
        one["target"].pop("source")
        assert (one["target"], one["points"]) == (other["target"], other["points"])
