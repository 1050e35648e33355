"""What the user named -> a model with its provenance, or a saved result. May import everything above `plots`.

target      `Target`: what is probed          options   how to make its model
kinds       the kinds of TARGET, a list       resolve() finds out which kind a name is
weights     checkpoints and run folders       pretrained_folder   a folder of transformers' `save_pretrained`
"""

from fourier_probe.targets.kinds import has_saved, resolve
from fourier_probe.targets.options import ModelOptions
from fourier_probe.targets.target import Target

__all__ = ["ModelOptions", "Target", "has_saved", "resolve"]
