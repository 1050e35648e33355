"""A file -> a model, safely; a model -> a file.

files      bytes -> plain values, refusing what is damaged (pickles: what is no plain data)
formats    plain values -> `Checkpoint`, whoever wrote them
pretraining the network inside what self-supervised training saves
misfits    weights that do not fit: the likeliest cause
building   `Checkpoint` -> model, every key matched
writing    plain values -> file, whole or not at all
"""

from fourier_probe.checkpoints.building import architecture, build
from fourier_probe.checkpoints.formats import Checkpoint, read
from fourier_probe.checkpoints.pretraining import encoder
from fourier_probe.checkpoints.writing import save

__all__ = ["Checkpoint", "architecture", "build", "encoder", "read", "save"]
