"""A run of a study and its folder: what is there already, and what a child process is to do about it.

`job.json` in the run folder is the whole of what a child needs to know (`studies.job`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from fourier_probe.errors import OutputError, ProbeError, ResultError, TrainingError
from fourier_probe.io import atomic
from fourier_probe.io.decode import decode_json
from fourier_probe.io.regular import read_regular
from fourier_probe.studies.plan import Analysis, Entry, SweepPlan
from fourier_probe.training.config import TrainConfig
from fourier_probe.training.naming import content
from fourier_probe.training.record import read_metrics
from fourier_probe.training.runs import Run

LOG = "log.txt"
_STARTED = "=== started "


class Begin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The run, of the same study, and the epoch whose state another run begins from."""

    run: str
    epoch: int


class Job(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """job.json: options, what to begin from, epochs whose state is kept for others only, and what to do afterwards."""

    config: TrainConfig
    fork: Begin | None = None
    kept: tuple[int, ...] = ()
    analyze: Analysis | None = None

    @classmethod
    def read(cls, folder: Path) -> Job:
        """What is to be done in a run folder; raises TrainingError where it does not say, or is damaged."""
        return decode_json(folder / "job.json", cls, TrainingError)


@dataclass(eq=False)
class Task:
    """One run of a study.

    Attributes:
        entry: its name and options.
        folder: where it is.
        analysis: what is to follow the training.
        standing: what was there: `new`, `resume`, `analyze` (trained, not analyzed), `finished`, or `failed` where the
            folder cannot be used.
        state: `waiting`, `running`, `finished`, `failed` or `interrupted`.
        error: of a failed one, in a line.
        fork: the run and the epoch to begin from; None for the start.
        keep: epochs after which its state is kept for others.
        seconds: in this sweep; None before it ran.
    """

    entry: Entry
    folder: Path
    analysis: Analysis | None = None
    standing: str = "new"
    state: str = "waiting"
    error: str = ""
    fork: tuple[Task, int] | None = None
    keep: tuple[int, ...] = ()
    seconds: float | None = None
    _since: float = 0.0

    @property
    def name(self) -> str:
        """That of the entry and of the folder."""
        return self.entry.name

    def state_after(self, epoch: int) -> Path:
        """Where the state after so many epochs is, if it was kept."""
        return self.folder / f"epoch-{epoch:03d}.pt"

    def inspect(self) -> None:
        """Find out what the folder holds already."""
        try:
            self.standing, self.error = self._standing(), ""
        except ProbeError as error:
            self.standing, self.error = "failed", " ".join(str(error).split())
        self.state = self.standing if self.standing in ("finished", "failed") else "waiting"

    def _standing(self) -> str:
        if not (self.folder / "config.json").exists():
            return "new"
        run = Run.read(self.folder)
        theirs, ours = content(run.config), content(self.entry.config)
        if theirs != ours:
            other = ", ".join(name for name in run.config.to_json() if theirs.get(name) != ours.get(name))
            raise OutputError(f"{self.folder} holds a run of another {other}: choose another --out, or remove it.")
        trained = (self.folder / "last.pt").exists()
        if not run.result:
            return "resume" if trained else "new"
        return "analyze" if trained and not self.is_analyzed() else "finished"

    def is_analyzed(self) -> bool:
        """Whether the analysis that the plan asks for, if any, is in the folder."""
        return self.analysis is None or holds_analysis(self.folder, self.analysis)

    def epochs_done(self) -> int:
        """Epochs in its log."""
        return len(read_metrics(self.folder))

    def lengthened(self) -> tuple[int, ...]:
        """Epochs whose state was kept for forks only, in this sweep or an earlier one."""
        try:
            earlier = Job.read(self.folder).kept
        except ProbeError:  # none, or it is written anew
            earlier = ()
        return tuple(sorted({*self.keep, *earlier}))

    def write_job(self) -> None:
        """Make the folder and say in job.json what is to be done there.

        Raises:
            OutputError: it cannot be written.
        """
        atomic.output_folder(self.folder)
        kept_for_others, config = self.lengthened(), self.entry.config
        config = replace(config, checkpoint_at=tuple(sorted({*config.checkpoint_at, *kept_for_others})))
        fork = None if self.fork is None else Begin(self.fork[0].name, self.fork[1])
        atomic.write_json(
            self.folder / "job.json", msgspec.to_builtins(Job(config, fork, kept_for_others, self.analysis))
        )

    def started(self) -> None:
        """It runs from now on."""
        self.state, self._since = "running", time.monotonic()

    @property
    def running_for(self) -> float:
        """Seconds since it started, or that it took."""
        if self.state == "running":
            return time.monotonic() - self._since
        return self.seconds or 0.0

    def ended(self, code: int) -> None:
        """Its child ended with an exit code."""
        self.seconds = time.monotonic() - self._since
        self.state = {0: "finished", 130: "interrupted", 143: "interrupted"}.get(code, "failed")
        self.error = ""
        if code < 0:
            self.error = f"killed by signal {-code}" + (" (out of memory?)" if code == -9 else "")
        elif self.state == "failed":
            self.error = last_line(self.folder) or f"exit code {code}"

    def failed(self, error: str) -> None:
        """It could not be started, or what ran it gave up."""
        self.state, self.error = "failed", " ".join(error.split())


def find_tasks(plan: SweepPlan, out: Path) -> list[Task]:
    """The runs of a study in its folder, each looked at."""
    tasks = [Task(entry, out / entry.name, plan.analysis) for entry in plan.entries]
    for task in tasks:
        task.inspect()
    return tasks


def log_header() -> str:
    """The line that begins an attempt in log.txt."""
    return f"{_STARTED}{time.strftime('%Y-%m-%d %H:%M:%S')}\n"


def last_line(folder: Path) -> str:
    """The last line of the last attempt in log.txt; empty if there is none."""
    try:
        text = read_regular(folder / LOG).decode(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.rpartition(_STARTED)[2].splitlines()[1:] if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else ""


class _Images(msgspec.Struct):
    asked: Analysis | None = None


class _Analyzed(msgspec.Struct):
    """Of spectra.json, what is looked at here."""

    images: _Images


def holds_analysis(folder: Path, asked: Analysis) -> bool:
    """Whether a run folder holds the analysis that was asked for: with this number of images, with attention or not."""
    try:
        return decode_json(folder / "spectra.json", _Analyzed, ResultError).images.asked == asked
    except ProbeError:  # none, or damaged: it is made again
        return False
