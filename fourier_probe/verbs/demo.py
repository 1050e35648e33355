"""`demo`: what the tool is for, end to end and small, in one picture. May import everything but cli."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from fourier_probe.errors import DataError
from fourier_probe.io import atomic
from fourier_probe.io.tables import write_frame
from fourier_probe.results.filenames import COMPARE, DEMO
from fourier_probe.results.text_table import TextTable

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from fourier_probe.results.comparison import Comparison
    from fourier_probe.results.spectra import Spectra
    from fourier_probe.training.runs import Run

ARMS: dict[str, dict[str, str | float | dict[str, float]]] = {
    "cnn": {"schedule": "none"},
    "prs": {"schedule": "linear"},
    "attention": {"schedule": "constant", "at_epoch": 0, "anneal_epochs": 0.0,
                  "recast_args": {"gate": 1.0, "locality_strength": 1.0}},
}  # fmt: skip
"""Name of a run -> its options of `train`, beside the planted task and its recipe."""
BUNDLED: dict[str, dict[str, str | float | list[str]]] = {
    "cnn": {"model": "cifar_resnet8", "schedule": "none"},
    "prs": {"model": "cifar_resnet8", "schedule": "linear", "early_epoch": 0.6, "late_epoch": 0.3,
            "convert": ["layer3*"]},
    "vit": {"model": "cifar_vit_patch4", "schedule": "none"},
}  # fmt: skip
"""Likewise, on the bundled images."""
SOLVED = 0.95
"""Top-1 at which the task counts as solved: the bound of a convolution is 87.5 %."""
LOOKED_AT = 500  # test images of spectra and reliance


@dataclass(frozen=True, repr=False)
class Demo:
    """What a demo made.

    Attributes:
        out: the folder, with a run folder for each name.
        runs, spectra: by name.
        seconds: it took.
        comparison: of the bundled models; none on the planted task.
    """

    out: Path
    runs: dict[str, Run]
    spectra: dict[str, Spectra] = field(default_factory=dict)
    seconds: float = 0.0
    comparison: Comparison | None = None

    def table(self) -> pd.DataFrame:
        """A row per run: test top-1, that of images whose cue contradicts the label, the bound; per cent."""
        import pandas as pd

        rows = []
        for name, run in self.runs.items():
            result = run.result
            bound = None if result is None or result.bound is None else result.bound.top1
            shares = {
                "top-1, %": None if result is None else result.test_acc,
                "where cue and label conflict, %": None if result is None else result.test_conflict_acc,
                "bound, %": bound,
            }
            rows.append({"run": name} | {key: None if v is None else round(100 * v, 1) for key, v in shares.items()})
        return pd.DataFrame(rows).set_index("run")

    def to_json(self) -> dict[str, object]:
        """Plain values: the folder, the time it took, and what came of each run."""
        runs = {name: None if run.result is None else dict(run.result.numbers()) for name, run in self.runs.items()}
        return {"out": str(self.out), "seconds": round(self.seconds, 1), "runs": runs}

    def tables(self) -> list[TextTable | str]:
        """What `fourier-probe demo` prints."""
        minutes, seconds = divmod(round(self.seconds), 60)
        done = f"done in {minutes} min {seconds} s: look at"
        if self.comparison is not None:
            pictures = f"{self.out / 'spectra.png'} and {self.out / 'depth.png'}"
            return [*self.comparison.tables(), f"{done} {pictures}"]
        frame = self.table().astype(object)
        rows = tuple(tuple(map(str, row)) for row in frame.where(frame.notna(), "-").itertuples())
        columns = ("run", "test top-1, %", "where cue and label conflict, %", "bound, %")
        return [TextTable("the planted task", columns, rows), f"{done} {self.out / 'demo.png'}"]

    def plot(self) -> Figure:
        """The picture: top-1 by step with the bound, which halves PRS relies on, and how their spectra part."""
        from fourier_probe.data.planted import BOUNDS
        from fourier_probe.plots.demo import Curve, demo_figure

        if self.comparison is not None:
            return self.comparison.plot()
        curves = []
        for name, run in self.runs.items():
            rows = [row for row in run.metrics if row.step is not None and row.val_acc is not None]
            switches = sorted({epoch * run.plan.steps for epoch in run.plan.schedule.epochs.values()} - {0})
            curves.append(Curve(name, [row.step or 0 for row in rows], [row.val_acc or 0.0 for row in rows], switches))
        prs = self.spectra["prs"]
        return demo_figure(curves, BOUNDS["mixed"], prs.reliance, prs.points)

    def __repr__(self) -> str:
        reached = [
            f"{name} {result.test_acc:.1%}"
            for name, run in self.runs.items()
            if (result := run.result) is not None and result.test_acc is not None
        ]
        return f"Demo({str(self.out)!r}, {', '.join(reached)}, {self.seconds:.0f} s)"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>{self.table().to_html(na_rep='')}"


def demo(
    out: Path | str = "results/demo",
    *,
    images: Literal["planted", "bundled"] = "planted",
    steps: int | None = None,
    epochs: int = 8,
    data_scale: float = 1.0,
    seed: int = 0,
    device: str = "auto",
    force: bool = False,
) -> Demo:
    """Train a CNN, a PRS model and attention from the start on the planted task, probe them, and draw one picture.

    On the planted task (docs/planted.md) a convolution of this size cannot pass 87.5 %; attention can.

    Args:
        out: folder for three run folders, the picture and a table.
        images: "planted", or "bundled": a CNN, a PRS model and a ViT on the bundled images, compared.
        steps: of each run on the planted task; 2,400 by its recipe.
        epochs: of each run on the bundled images.
        data_scale: part of the training images, bundled.
        seed: of all runs.
        device: auto, cpu, cuda, cuda:1, mps, xpu.
        force: overwrite what an earlier demo left there.

    >>> import fourier_probe as fp
    >>> fp.demo("results/demo")  # doctest: +SKIP
    Demo('results/demo', cnn 79.2%, prs 100.0%, attention 100.0%, 150 s)
    """
    if images not in ("planted", "bundled"):
        raise DataError(f"a demo is on planted or bundled images, not on {images!r}.")
    start = time.monotonic()
    folder = atomic.output_folder(Path(out), results=(*DEMO, *COMPARE, "*/config.json"), force=force)
    if images == "bundled":
        result = _bundled(folder, epochs, data_scale, seed, device)
    else:
        result = _planted(folder, steps, seed, device)
    return Demo(result.out, result.runs, result.spectra, time.monotonic() - start, result.comparison)


def _planted(folder: Path, steps: int | None, seed: int, device: str) -> Demo:
    from fourier_probe.plots import save_each
    from fourier_probe.verbs.analyze import analyze
    from fourier_probe.verbs.train import train

    runs: dict[str, Run] = {}
    spectra: dict[str, Spectra] = {}
    for name, settings in ARMS.items():
        length = {} if steps is None else {"steps": steps}
        shared = {"data": "planted", "seed": seed, "device": device}
        runs[name] = train({**shared, **settings, **length}, out=folder / name, force=True)
        spectra[name] = analyze(
            folder / name, "planted", images=LOOKED_AT, attention=True, batch_size=50, out=folder / name, force=True
        )
    made = Demo(folder, runs, spectra)
    write_frame(folder / "demo.csv", made.table(), index=True)
    save_each({"demo": made.plot}, folder)
    return made


def _bundled(folder: Path, epochs: int, data_scale: float, seed: int, device: str) -> Demo:
    from fourier_probe.verbs.compare import compare, write
    from fourier_probe.verbs.train import train

    shared = {"data": "bundled", "epochs": epochs, "data_scale": data_scale, "seed": seed, "device": device}
    runs = {name: train({**settings, **shared}, out=folder / name, force=True) for name, settings in BUNDLED.items()}
    comparison = compare([folder / name for name in BUNDLED], batch_size=50)
    for result, name in zip(comparison.results, BUNDLED, strict=True):
        result.save(folder / name, force=True)
    write(comparison, folder)
    return Demo(folder, runs, dict(zip(BUNDLED, comparison.results, strict=True)), comparison=comparison)
