"""What a run writes beside its own files: progress, TensorBoard, spectra."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from fourier_probe.data import batches, choose
from fourier_probe.errors import TrainingError
from fourier_probe.io import atomic

if TYPE_CHECKING:
    from fourier_probe.training.session import Session


@contextlib.contextmanager
def writer(session: Session) -> Iterator[None]:
    """Keep a TensorBoard writer open for the run, if it was asked for.

    Raises:
        TrainingError: TensorBoard is not installed.
    """
    if session.config.log != "tensorboard" or not session.ranks.first:
        yield
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainingError("--log tensorboard needs a package: pip install 'fourier-probe[tensorboard]'.") from error
    session.board = SummaryWriter(str(session.folder.path / "tensorboard"), purge_step=session.state.epoch)
    try:
        yield
    finally:
        session.board.close()
        session.board = None


def epoch(session: Session, row: dict[str, object]) -> None:
    """Pass on a finished epoch."""
    session.progress.epoch(row)
    if session.board is not None:
        for name, value in row.items():
            if isinstance(value, int | float) and name not in ("epoch", "step"):
                session.board.add_scalar(name, value, row["epoch"])


def probe(session: Session) -> None:
    """Spectra of the weights as they are, on validation images (training images where there are none)."""
    from fourier_probe.results.analysis import analyze
    from fourier_probe.results.records import ImagesInfo, Provenance

    config, state = session.config, session.state
    if not config.probe_every:
        return
    split = session.splits.val or session.splits.train
    images = choose(split, limit=config.probe_images)
    shard = (session.ranks.rank, session.ranks.world)
    target = Provenance.of(
        {
            "source": str(session.folder.path),
            **session.arch,
            "weights": "raw" if state.ema is None else "ema",
            **{key: getattr(config, key) for key in ("data", "data_scale", "schedule", "seed")},
            "epoch": state.epoch,
        }
    )
    source = ImagesInfo.of(
        {"source": config.data, "split": "val" if session.splits.val else "train", **session.input()}
    )
    dtype = next(state.judged.parameters()).dtype
    stream = batches(images, session.spec, batch_size=64, shard=shard)
    result = analyze(
        state.judged,
        (batch._replace(images=batch.images.to(dtype)) for batch in stream),
        device=session.ranks.device,
        target=target,
        source=source,
    )
    if session.ranks.first:
        path = session.folder.spectra(state.epoch)
        path.parent.mkdir(exist_ok=True)
        atomic.write_json(path, result.to_json())
