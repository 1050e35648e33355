"""What makes a run on several processes, or in several parts, another run than on one. Imports torch only."""

from __future__ import annotations

from torch import nn

from fourier_probe.training.config import TrainConfig

_RATES = ("p", "drop_prob", "drop_path", "dropout")


def differences(model: nn.Module, config: TrainConfig, world: int) -> list[str]:
    """Why this many processes do not train the very model that one would, in one part; empty if they do."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    parts = config.grad_accum_steps
    reasons = []
    if norms and parts > 1:
        reasons.append(
            f"BatchNorm normalises over the images of each of {parts} parts of a batch (--grad-accum-steps), not over "
            "the batch: with another number of parts another model is trained."
        )
    if world == 1:
        return reasons
    if config.sam_rho:
        reasons.append(
            "--sam-rho climbs by the gradient of each process's own images, as its authors do: the same command on "
            "another number of processes trains a different model."
        )
    random = next((name for name, module in model.named_modules() if draws(module)), None)
    if random is not None:
        reasons.append(
            f"{random or type(model).__name__} draws at random in training, each process its own numbers: the same "
            "command on another number of processes trains a slightly different model."
        )
    if norms and not config.sync_bn:
        reasons.append(
            f"BatchNorm normalises over the images of each of {world} processes, not over the batch: the same command "
            "on another number of processes trains a different model. --sync-bn normalises over the batch."
        )
    return reasons


def draws(module: nn.Module) -> bool:
    """Whether a module is dropout, stochastic depth or the like, with a rate above 0."""
    if "drop" not in type(module).__name__.lower():
        return False
    rates = [getattr(module, name, None) for name in _RATES]
    return any(isinstance(rate, int | float) and rate > 0 for rate in rates)
