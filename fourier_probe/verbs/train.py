"""`train`: a model, images and a schedule -> a finished run. May import training; no click."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fourier_probe.training.config import TrainConfig
from fourier_probe.training.folder import check_record
from fourier_probe.training.naming import run_name
from fourier_probe.training.progress import Progress, drawn
from fourier_probe.training.record import read_record
from fourier_probe.training.runs import Run


def train(
    config: TrainConfig | Mapping[str, object] | None = None,
    *,
    out: Path | str | None = None,
    resume: bool = False,
    fork: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
    **options: object,
) -> Run:
    """Train a model; with `schedule` its convolutions become attention, layer by layer (PRS).

    Every option of `fourier-probe train` is a keyword here, with the same default: `model="resnet18"`,
    `data="photos/"`, `schedule="linear"`, `epochs=90`, ... (`TrainConfig` lists them).

    Args:
        config: options, or a whole config; `options` come before it.
        out: the run folder; by default runs/NAME, as on the command line.
        resume: continue the run in it, exactly; options may then be left out.
        fork: RUN@EPOCH, another run whose state to begin from.
        force: overwrite the run in it.
        progress: who listens; by default a bar and a line per epoch on stderr.
        **options: fields of `TrainConfig`.

    Returns:
        The run: `.config`, `.result`, `.metrics`, `.conversions`, `.spectra`, `.path`.

    Raises:
        ProbeError: a leaf of it that says what is wrong and what to do; the last good checkpoint is kept.

    >>> run = train(model="patch_resnet", data="planted", data_scale=0.01, epochs=1, out="runs/tiny")  # doctest: +SKIP
    >>> run.result.test_acc  # doctest: +SKIP
    0.5...
    """
    from fourier_probe.training.trainer import train as run_training

    complete = _config(config, Path(out) if out is not None else None, resume, options)
    asked = {*(config if isinstance(config, Mapping) else ()), *options}
    folder = Path(out) if out is not None else Path("runs") / run_name(complete)
    if progress is not None:
        run_training(complete, folder, resume=resume, force=force, fork=fork, progress=progress, asked=asked)
    else:
        with drawn() as bar:
            run_training(complete, folder, resume=resume, force=force, fork=fork, progress=bar, asked=asked)
    return Run.read(folder)


def _config(
    config: TrainConfig | Mapping[str, object] | None, out: Path | None, resume: bool, options: Mapping[str, object]
) -> TrainConfig:
    """The config to run; when resuming, the run's own with what was given on top."""
    if isinstance(config, TrainConfig):
        return TrainConfig.from_json({**config.to_json(), **options}) if options else config
    chosen = {**(config or {}), **options}
    if resume and out is not None and (out / "config.json").exists():
        record = read_record(out)
        check_record(record, chosen, str(out))
        return TrainConfig.from_json({**record.config.to_json(), **chosen})
    return TrainConfig.of(chosen)
