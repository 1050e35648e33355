"""Runs on the planted task as the second study sees them (docs/studies/second.md): arm, scale, seed, when solved.

Reads finished runs; draws nothing. May import the selection of runs and the exhibit's error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fourier_probe.papers.captions import accuracy
from fourier_probe.papers.exhibit import MissingRunsError
from fourier_probe.papers.selection import grouped, is_planted, switches
from fourier_probe.training.runs import Run

SOLVED = 0.95  # validation top-1 at which the task counts as solved; the bound of a convolution is 87.5 %
AFTER = 1500  # steps after the last switch at which waiting is censored
PRIMARY = 10_000  # images at which the primary contrasts are
ARMS = ("none", "linear", "constant", "reverse", "attention")
FROM_THE_START = {"locality_strength": 1.0, "gate": 1.0}  # how `attention` is recast, as ConViT begins
THIRD = 900  # the step of `constant`, the mean of those of `linear`


@dataclass(frozen=True)
class Trial:
    """One run as the study sees it.

    Attributes:
        arm: none, linear, constant, reverse or attention (all from the start); "constant 300": at another step; one
            that was recast otherwise than in the plan says how, and is none of the plan's arms.
        variant: mixed, far or local. images: of training. seed: of weights and images.
        switched: step of the first and of the last switch; 0 without one.
        solved_at: step at which validation top-1 first reached SOLVED, seen after a round; None if it never did.
        top1: on the test set.
    """

    run: Run
    arm: str
    variant: str
    images: int
    seed: int
    switched: tuple[int, int]
    solved_at: int | None
    top1: float

    @classmethod
    def of(cls, run: Run) -> Trial:
        """What a finished run comes to."""
        at = sorted({epoch * run.plan.steps for epoch in switches(run).values()}) or [0]
        arm = run.config.schedule
        if arm == "constant":
            arm = "attention" if at == [0] else "constant" if at == [THIRD] else f"constant {at[0]}"
        if dict(run.config.recast_args) != (FROM_THE_START if arm == "attention" else {}):
            other = ", ".join(f"{name} {value}" for name, value in run.config.recast_args.items())
            arm = f"{'constant 0' if arm == 'attention' else arm}, recast with {other or 'its defaults'}"
        reached = next((row.step for row in run.metrics if row.val_acc is not None and row.val_acc >= SOLVED), None)
        variant = run.config.data.partition(":")[2] or "mixed"
        images = run.config.train_images or run.record.images.train
        return cls(run, arm, variant, images, run.config.seed, (at[0], at[-1]), reached, accuracy(run))

    @property
    def solved(self) -> bool:
        """Whether it reached SOLVED at all."""
        return self.solved_at is not None

    @property
    def wait(self) -> int:
        """Steps from the last switch until solved: 0 if it was before, AFTER if it was not within them."""
        return AFTER if self.solved_at is None else min(max(self.solved_at - self.switched[1], 0), AFTER)


def trials(runs: Sequence[Run], variant: str | None = None) -> list[Trial]:
    """The finished runs on the planted task that looked at the test set, of the length and rate most of them share.

    Raises:
        MissingRunsError: there is none.
    """
    judged = [run for run in runs if run.result is not None and run.result.test_acc is not None and is_planted(run)]
    designs = grouped(judged, _design)
    every = [Trial.of(run) for run in max(designs.values(), key=len, default=[])]
    chosen = [trial for trial in every if variant in (None, trial.variant)]
    if not chosen:
        raise MissingRunsError(
            "there is no finished run on the planted task: `fourier-probe sweep studies/planted.toml`, or "
            "`fourier-probe train --data planted --schedule linear`."
        )
    return chosen


def _design(run: Run) -> tuple[float, ...]:
    """What all runs of the study share: runs made to choose it, and those of the demo, are no part of it."""
    return run.config.steps, run.config.val_every, run.config.lr, run.config.cooldown_steps


def arms_of(chosen: Sequence[Trial]) -> list[str]:
    """The arms there are, in the order of ARMS, others after them."""
    return sorted({t.arm for t in chosen}, key=lambda arm: (ARMS.index(arm) if arm in ARMS else len(ARMS), arm))


def cells(chosen: Sequence[Trial]) -> dict[str, dict[int, Trial]]:
    """Trials of one variant and scale by arm and seed.

    Raises:
        MissingRunsError: two runs are of one arm and seed, so that it is not known which is meant.
    """
    by_arm: dict[str, dict[int, Trial]] = {arm: {} for arm in arms_of(chosen)}
    for trial in sorted(chosen, key=lambda t: t.seed):
        other = by_arm[trial.arm].setdefault(trial.seed, trial)
        if other is not trial:
            raise MissingRunsError(
                f"{other.run.path.name} and {trial.run.path.name} are both {trial.arm}, {trial.images} images, seed "
                f"{trial.seed}: move one away."
            )
    return by_arm
