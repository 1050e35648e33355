"""The report page: saved results in, one self-contained HTML file out. Never sees models."""

from fourier_probe.page.answered import Answered, split
from fourier_probe.page.inputs import Entry, gather, labelled
from fourier_probe.page.page import LIMIT, render

__all__ = ["LIMIT", "Answered", "Entry", "gather", "labelled", "render", "split"]
