"""Networks by name: timm's, ours for small images, or a factory in a file. Importing this registers ours with timm."""

from fourier_probe.models import eit, small
from fourier_probe.models.zoo import Stats, create, input_spec, names, stats

__all__ = ["Stats", "create", "eit", "input_spec", "names", "small", "stats"]
