"""`sweep`: a plan file -> its runs, each once. May import studies; no click."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from fourier_probe.errors import TrainingError
from fourier_probe.runtime.messages import note
from fourier_probe.training.runs import Run

if TYPE_CHECKING:
    from fourier_probe.studies import SweepPlan, Watch
    from fourier_probe.studies.dry_run import DryRun


@overload
def sweep(
    plan: Path | str | SweepPlan,
    *,
    out: Path | str | None = None,
    jobs: int = 1,
    launcher: str = "local",
    slurm: Mapping[str, object] | None = None,
    dry_run: Literal[False] = False,
    watch: Watch | None = None,
) -> list[Run]: ...


@overload
def sweep(
    plan: Path | str | SweepPlan, *, out: Path | str | None = None, jobs: int = 1, dry_run: Literal[True]
) -> DryRun: ...


def sweep(
    plan: Path | str | SweepPlan,
    *,
    out: Path | str | None = None,
    jobs: int = 1,
    launcher: str = "local",
    slurm: Mapping[str, object] | None = None,
    dry_run: bool = False,
    watch: Watch | None = None,
) -> list[Run] | DryRun:
    """Run the study of a plan file; the same call again does what is left of it.

    Args:
        plan: a TOML file (docs/sweep.md), or a plan that was read.
        out: folder of the runs; runs/PLAN by default.
        jobs: runs at a time.
        launcher: "local" processes, or "slurm" through submitit.
        slurm: parameters of submitit.
        dry_run: write nothing and run nothing; say what there is to do, and how long it takes.
        watch: who listens; nobody by default.

    Returns:
        The finished runs, in order of their folders; of a dry run, the plan of them.

    Raises:
        TrainingError: a run failed, after the others have gone on; names it and why. The same call tries it again.

    >>> runs = sweep("studies/small.toml", out="runs/small", jobs=2)  # doctest: +SKIP
    """
    from fourier_probe.studies import SweepPlan
    from fourier_probe.studies import sweep as run_study
    from fourier_probe.studies.run import failures

    study = plan if isinstance(plan, SweepPlan) else SweepPlan.read(Path(plan))
    folder = Path(out) if out is not None else Path("runs") / study.name
    if dry_run:
        from fourier_probe.studies.dry_run import dry_run as foresee

        for text in study.notes:
            note(text)
        return foresee(study, folder, jobs=jobs)
    rows = run_study(study, folder, jobs=jobs, launcher=launcher, slurm=dict(slurm or {}), watch=watch)
    failed = failures(rows)
    if failed:
        name, reason = failed[0]
        raise TrainingError(
            f"{len(failed)} of {len(rows)} runs failed, the first {name}: {reason}. The same call tries them again."
        )
    return [run for run in (Run.read(folder / str(row["name"])) for row in rows) if run.result is not None]
