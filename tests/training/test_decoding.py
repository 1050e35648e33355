"""Image files in loader processes: what is wrong with a file is said, and no process is left behind."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fourier_probe.data.decode import BadImageError
from fourier_probe.errors import DataError
from fourier_probe.training import TrainConfig, inputs, session, train, trainer

from .tiny import last, make_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


def config(photos: Path, **more: Any) -> TrainConfig:
    given = {"model": "cifar_resnet8", "model_args": {"width": 4}, "img_size": 16, "batch_size": 4, "epochs": 1}
    return TrainConfig.of({**given, "data": str(photos), "workers": 1, "val_split": 0.25, "device": "cpu", **more})


def truncate(photos: Path) -> Path:
    path = photos / "class0" / "2.png"
    path.write_bytes(path.read_bytes()[:200])
    return path


def no_children(patience: float = 30.0) -> bool:
    """Whether every child process ends; on a busy machine that takes a while."""
    until = time.monotonic() + patience
    while multiprocessing.active_children() and time.monotonic() < until:
        time.sleep(0.05)
    return not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_file_is_named_whoever_decodes_it(photos: Path, tmp_path: Path, workers: int) -> None:
    path = truncate(photos)
    with pytest.raises(BadImageError, match=rf"{path.name} .*--skip-bad"):
        train(config(photos, workers=workers, val_split=0.0), tmp_path / "run")
    assert no_children()


def test_bad_files_are_left_out_if_asked_and_counted(photos: Path, tmp_path: Path) -> None:
    truncate(photos)
    train(config(photos, workers=0, skip_bad=True), tmp_path / "run")
    images = json.loads((tmp_path / "run" / "config.json").read_text())["images"]
    assert images["skipped"] == 1
    assert images["train"] + images["val"] == 23


def test_a_failure_of_any_kind_ends_the_workers(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They ignore SIGTERM, so that the interpreter would wait for one that is left at its end."""

    def fail(*_: Any, **__: Any) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(trainer, "train_step", fail)
    with pytest.raises(MemoryError) as held:  # whose traceback holds the loop, and with it the loader
        train(config(photos), tmp_path / "run")
    assert no_children()
    assert "no room" in str(held.value)


def test_a_signal_that_ends_a_loader_of_the_validation_too_saves_the_epoch(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a scheduler signals the whole group, and the processes that decode the validation images die first."""

    def dying(*given: Any, **options: Any) -> Iterator[Any]:
        yield next(iter(real(*given, **options)))
        if monkeyed:
            os.kill(os.getpid(), signal.SIGTERM)
            raise DataError("a loader process failed")

    real, monkeyed = inputs.batches, [True]
    monkeypatch.setattr(session, "HELD", 0)
    monkeypatch.setattr(inputs, "batches", dying)
    with pytest.raises(SystemExit) as end:
        train(config(photos, workers=0), tmp_path / "run")
    assert end.value.code == 143
    assert (last(tmp_path / "run")["epoch"], last(tmp_path / "run")["step"]) == (0, 4)
    monkeypatch.undo()
    train(config(photos, workers=0), tmp_path / "run", resume=True)
    assert last(tmp_path / "run")["epoch"] == 1
