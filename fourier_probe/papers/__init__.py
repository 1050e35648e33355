"""The figures and tables of the papers, one function each, from finished runs; see `EXHIBITS`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fourier_probe.papers import eit, interpolation, prs, scales
from fourier_probe.papers.exhibit import Exhibit, MissingRunsError
from fourier_probe.training.runs import Run

EXHIBITS: dict[str, tuple[Callable[[Sequence[Run]], Exhibit], str]] = {
    "accuracy-by-scale": (scales.accuracy_by_scale, "A1, A3: accuracy against data scale, and crossovers with the CNN"),
    "spectra-by-scale": (scales.spectra_by_scale, "A2: spectra of every model at every data scale"),
    "depth-profile-by-scale": (scales.depth_profile_by_scale, "A2: high frequencies against depth by data scale"),
    "interpolation": (interpolation.interpolation, "A4: spectra and coordinate against the switch epoch"),
    "schedules": (prs.schedules_figure, "when each layer converts, for every kind of schedule"),
    "schedule-table": (prs.schedule_table, "A6, A7: accuracy and cost of every schedule and control"),
    "gates-by-depth": (prs.gates_by_depth, "A5: gates against steps since the switch"),
    "training-trajectory": (prs.training_trajectory, "spectra while training, across the switches"),
    "eit-table": (eit.eit_table, "EIT: parameters, multiply-adds, accuracy beside published"),
    "eit-ablation": (eit.eit_ablation, "EIT without one of its ideas"),
    "eit-hfd-share": (eit.eit_hfd_share, "EIT: high-frequency share of both branches by depth"),
    "eit-head-diversity": (eit.eit_head_diversity, "EIT: diversity of the attention heads by depth"),
}
"""Name -> (function from runs to an `Exhibit`, what it shows)."""

__all__ = ["EXHIBITS", "Exhibit", "MissingRunsError"]
