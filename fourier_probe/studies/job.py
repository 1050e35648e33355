"""One run of a study in a process of its own: `python -m fourier_probe.studies.job RUN`, told by RUN/job.json.

Trains it (from the start, from where it was left, or from the state of another run), then analyzes its last weights.
It lives no longer than its parent, whose end it sees by the end of standard input: then it saves and stops, as on
SIGTERM.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from fourier_probe.errors import DataError, PointError, ProbeError, Terminated, printable
from fourier_probe.io.locks import BusyError
from fourier_probe.plugins import load_installed
from fourier_probe.studies.plan import Analysis
from fourier_probe.studies.tasks import Begin, Job, holds_analysis
from fourier_probe.training.config import FREE, TrainConfig
from fourier_probe.training.folder import check_record
from fourier_probe.training.progress import Progress
from fourier_probe.training.record import read_record

PATIENCE = 120.0  # seconds that an orphan of a killed sweep may take to save and leave
ATTENTION = 64  # images whose attention is looked at


def main() -> None:
    """Entry point of the child: exit code 0, 1 (error, in the last line of stderr), 130 or 143 (stopped, saved)."""
    import argparse

    parser = argparse.ArgumentParser(prog="python -m fourier_probe.studies.job", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--leash", action="store_true", help="stop when standard input ends")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _terminate)
    if arguments.leash:
        threading.Thread(target=_leash, daemon=True).start()
    try:
        load_installed()  # and the files that the sweep was given with --plugin
        run_job(arguments.run, threads=arguments.threads)
    except ProbeError as error:
        sys.exit(f"error: {printable(' '.join(str(error).split()))}")
    except KeyboardInterrupt:
        sys.exit(130)


def run_job(folder: Path, *, threads: int = 0) -> None:
    """Do what RUN/job.json asks for and is not done yet.

    Args:
        folder: the run.
        threads: of the CPU, where its options leave them to torch.

    Raises:
        ProbeError: of the training or the analysis; what was saved before stays.
    """
    job = Job.read(folder)
    config = replace(job.config, threads=job.config.threads or threads)
    _train(folder, config, job.fork)
    wanted = job.analyze
    if wanted is not None and not holds_analysis(folder, wanted) and (folder / "last.pt").exists():
        analyze_run(folder, config, wanted)


def _train(folder: Path, config: TrainConfig, fork: Begin | None) -> None:
    from fourier_probe.training import train

    progress = Said()
    if (folder / "last.pt").exists() and (folder / "config.json").exists():
        record = read_record(folder)
        if record.result:
            return
        before = record.config  # options that are not read, such as `none`'s, may differ
        named = {name: value for name, value in config.to_json().items() if before.to_json()[name] == value}
        check_record(record, {**named, "data": config.data}, str(folder))  # the plan is the user's word
        now = replace(before, data=config.data, **{name: getattr(config, name) for name in FREE})
        _patiently(lambda: train(now, folder, resume=True, progress=progress))
        return
    if (folder / "config.json").exists() and read_record(folder).result:
        return  # finished elsewhere, and brought here without its weights
    if fork is not None:
        base, epoch = folder.parent / fork.run, fork.epoch
        if (base / f"epoch-{epoch:03d}.pt").exists():
            (folder / "config.json").unlink(missing_ok=True)  # of an attempt that saved nothing
            try:
                _patiently(lambda: train(config, folder, force=True, fork=f"{base}@{epoch}", progress=progress))
                return
            except ProbeError as error:
                if (folder / "config.json").exists():  # it did begin
                    raise
                progress.note(f"cannot begin from {base.name}: {error} Training from the start.")
        else:
            progress.note(f"{base.name} has no state after {epoch} epochs: training from the start.")
    _patiently(lambda: train(config, folder, force=True, progress=progress))


def analyze_run(folder: Path, config: TrainConfig, asked: Analysis) -> None:
    """Spectra of a run's last weights on its test images (validation images where it has none), into its folder.

    Args:
        folder: with last.pt; spectra.json, .npz and .csv are written beside it.
        config: of the run. A `file.py:factory` in it is the user's word: the plan names it, not the checkpoint.
        asked: at most so many images, spread evenly over the split; and whether also the measures of attention
            layers, on up to 64 of them, and reliance, on all, where the model has any.
    """
    from fourier_probe.data import batches, choose
    from fourier_probe.models.zoo import FACTORY
    from fourier_probe.probe.attention import attention_layers
    from fourier_probe.results.analysis import analyze
    from fourier_probe.results.attention import attention_record
    from fourier_probe.results.measured_reliance import measure
    from fourier_probe.results.records import ImagesInfo
    from fourier_probe.runtime.distributed import ranks
    from fourier_probe.targets import ModelOptions, resolve
    from fourier_probe.training.session import settings
    from fourier_probe.training.splits import open_splits

    target = resolve(
        str(folder / "last.pt"), ModelOptions(model=config.model if FACTORY.fullmatch(config.model) else None)
    )
    splits = open_splits(config)
    split = next(name for name in ("test", "val", "train") if getattr(splits, name) is not None)
    chosen, spec = choose(getattr(splits, split), limit=asked.images), target.input_spec()
    if target.model is None:
        raise DataError(f"{folder / 'last.pt'} holds no model.")
    with ranks(config.device) as team, settings(config, team):
        dtype = next(target.model.parameters()).dtype
        stream = batches(chosen, spec, batch_size=50, workers=config.workers if chosen.pixels is None else 0)
        result = analyze(
            target.model,
            (batch._replace(images=batch.images.to(dtype)) for batch in stream),
            device=team.device,
            target=msgspec.structs.replace(
                target.provenance, source=f"{folder.name}/last.pt"
            ),  # not where it lay on this machine
            source=ImagesInfo(
                source=config.data,
                split=split,
                size=list(spec.size),
                mean=list(spec.mean),
                std=list(spec.std),
                asked=asked.to_json(),
            ),
            classes=splits.classes,
        )
        if asked.attention:
            few = choose(chosen, limit=ATTENTION)
            looked = (batch.images for batch in batches(few, spec, batch_size=8))
            with contextlib.suppress(PointError):  # no attention
                layers, _ = attention_layers(target.model.to(team.device), looked)
                result.attention = [attention_record(layer, len(few)) for layer in layers]
            result.reliance = measure(target.model, chosen, spec, 50, named=True)
    result.save(folder, force=True)
    print(f"analyzed on {len(chosen)} {split} images", file=sys.stderr)


class Said(Progress):
    """A line per epoch, for log.txt."""

    def epoch(self, row: dict[str, Any]) -> None:
        """Losses and accuracies of an epoch."""
        numbers = " ".join(f"{key} {value:.4f}" for key, value in row.items() if key.endswith(("_loss", "_acc")))
        print(f"epoch {row['epoch'] + 1}: {numbers} converted {row['converted']}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A remark."""
        print(f"note: {text}", file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """A warning."""
        print(f"warning: {text}", file=sys.stderr, flush=True)


def _patiently(work: Callable[[], object]) -> None:
    """Wait for the orphan of a sweep that was killed to let go of the folder."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            work()
            return
        except BusyError:
            if time.monotonic() > until:
                raise
            time.sleep(0.2)


def _leash() -> None:
    """Wait until the parent is gone."""
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _terminate(_number: int, _frame: object) -> NoReturn:
    raise Terminated


if __name__ == "__main__":
    main()
