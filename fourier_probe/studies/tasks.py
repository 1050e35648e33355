"""A run of a study and its folder: what is there already, and what a child process is to do about it.

`job.json` in the run folder is the whole of what a child needs to know (`sweep.job`).
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fourier_probe.errors import OutputError, ProbeError
from fourier_probe.io import atomic
from fourier_probe.studies.plan import Analysis, Entry, SweepPlan
from fourier_probe.training.naming import content
from fourier_probe.training.runs import Run

LOG = "log.txt"
_STARTED = "=== started "


@dataclass(eq=False)
class Task:
    """One run of a study.

    Attributes:
        entry: its name and options.
        folder: where it is.
        analysis: what is to follow the training.
        found: what was there: `new`, `resume`, `analyze` (trained, not analyzed), `finished`, or `failed` where the
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
    found: str = "new"
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

    def kept(self, epoch: int) -> Path:
        """Where the state after so many epochs is, if it was kept."""
        return self.folder / f"epoch-{epoch:03d}.pt"

    def look(self) -> None:
        """Find out what the folder holds already."""
        try:
            self.found, self.error = self._look(), ""
        except ProbeError as error:
            self.found, self.error = "failed", " ".join(str(error).split())
        self.state = self.found if self.found in ("finished", "failed") else "waiting"

    def _look(self) -> str:
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
        return self.analysis is None or holds_analysis(self.folder, self.analysis.to_json())

    def epochs_done(self) -> int:
        """Epochs in its log."""
        return len(Run(self.folder, self.entry.config, {}).metrics)

    def lengthened(self) -> tuple[int, ...]:
        """Epochs whose state was kept for forks only, in this sweep or an earlier one."""
        return tuple(sorted({*self.keep, *_read_job(self.folder).get("kept", [])}))

    def write_job(self) -> None:
        """Make the folder and say in job.json what is to be done there.

        Raises:
            OutputError: it cannot be written.
        """
        atomic.output_folder(self.folder)
        kept, config = self.lengthened(), self.entry.config.to_json()
        config["checkpoint_at"] = sorted({*config["checkpoint_at"], *kept})
        job: dict[str, Any] = {
            "config": config,
            "fork": None if self.fork is None else {"run": self.fork[0].name, "epoch": self.fork[1]},
            "kept": list(kept),
            "analyze": None if self.analysis is None else self.analysis.to_json(),
        }
        atomic.write_json(self.folder / "job.json", job)

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
        task.look()
    return tasks


def log_header() -> str:
    """The line that begins an attempt in log.txt."""
    return f"{_STARTED}{time.strftime('%Y-%m-%d %H:%M:%S')}\n"


def last_line(folder: Path) -> str:
    """The last line of the last attempt in log.txt; empty if there is none."""
    try:
        text = (folder / LOG).read_text(errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.rpartition(_STARTED)[2].splitlines()[1:] if line.strip()]
    return lines[-1].removeprefix("error: ") if lines else ""


def _read_job(folder: Path) -> dict[str, Any]:
    try:
        job = json.loads((folder / "job.json").read_text())
    except (OSError, ValueError):
        return {}
    return job if isinstance(job, dict) else {}


def holds_analysis(folder: Path, asked: dict[str, Any]) -> bool:
    """Whether a run folder holds the analysis that was asked for: with this number of images, with attention or not."""
    try:
        images = json.loads((folder / "spectra.json").read_text())["images"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return bool(images.get("asked") == asked)
