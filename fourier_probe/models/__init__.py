"""Networks by name: timm's, ours for small images, or a factory in a file. Importing this registers ours with timm."""

from fourier_probe.models import eit, patch_resnet, small
from fourier_probe.models.zoo import Stats, create, input_spec, names, stats

__all__ = ["Stats", "create", "eit", "input_spec", "names", "patch_resnet", "small", "stats"]
