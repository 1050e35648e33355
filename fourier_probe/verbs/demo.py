"""`demo`: the planted task, three ways to solve it or not, in one picture. May import everything but cli."""

from __future__ import annotations

ARMS: dict[str, dict[str, str | float]] = {
    "cnn": {"schedule": "none"},
    "prs": {"schedule": "linear"},
    "attention": {"schedule": "constant", "at_epoch": 0, "anneal_epochs": 0},
}
"""Name of a run -> its options of `train`, beside the planted task and its recipe."""
SOLVED = 0.95
"""Top-1 at which the task counts as solved: the bound of a convolution is 87.5 %."""
