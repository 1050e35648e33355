"""How many directions the tokens of an image use: effective rank, singular values. Imports torch and registered.

The tokens of an image are the vectors over channels at its positions, X (N, C), of a convolution's map too. With s_i
its singular values in descending order and p_i = s_i^2 / sum s^2:

- effective rank: exp(-sum p_i ln p_i), from 1 (all tokens on one line) to min(N, C) (Roy & Vetterli 2007);
- spectrum: ln(s_i / s_1), nats, no less than ln(1e-6), which is as far as float32 features go.

Tokens are not centred: a common mean is a direction of its own, as in studies of rank collapse (Dong et al. 2021, arXiv
2103.03404).
"""

from __future__ import annotations

import torch
from torch import Tensor

from fourier_probe.probe.registered import Metric
from fourier_probe.runtime.accelerator import wide

FLOOR = 1e-6
"""Least ratio of a singular value to the first that is told apart from 0."""


def token_statistics(features: Tensor) -> dict[str, Tensor]:
    """Statistics of maps (B, C, H, W), image by image, to be summed as those of `image_statistics`.

    Returns:
        `rank` (B,): effective rank; `singular` (B, min(H W, C)): ln(s_i / s_1); both 0 for an image whose map is 0
        everywhere, and `ranked` (B,): 1, or 0 for such an image. NaN where features are not finite.

    >>> token_statistics(torch.ones(1, 3, 2, 2))["rank"]
    tensor([1.], dtype=torch.float64)
    """
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        X = wide(features).flatten(2)  # (B, C, N)
        X = X / X.abs().amax((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float64).tiny)
        products = X @ X.transpose(1, 2) if X.shape[1] <= X.shape[2] else X.transpose(1, 2) @ X
        finite = products.isfinite().all(2).all(1)
        products = torch.where(finite[:, None, None], products, 0.0)
        squares = torch.linalg.eigvalsh(products).flip(1).clamp_min(0)  # (B, min(N, C)), descending
        total = squares.sum(1)
        live = total > 0
        share = squares / torch.where(live, total, 1.0)[:, None]
        entropy = -torch.special.xlogy(share, share).sum(1)
        first = torch.where(live, squares[:, 0], 1.0)
        ratios = 0.5 * (squares / first[:, None]).clamp_min(FLOOR**2).log()
        nothing = torch.where(finite, 0.0, torch.nan)
        return {
            "rank": torch.where(live, entropy.exp(), 0.0) + nothing,
            "ranked": live.double() + nothing,
            "singular": torch.where(live[:, None], ratios, 0.0) + nothing[:, None],
        }


effective_rank = Metric(
    name="effective_rank",
    label="effective rank",
    unit="",
    kind="scalar",
    summary="directions that the tokens of an image use, exp of the entropy of squared singular values",
    measure=lambda request: token_statistics(request.maps),
    estimate=lambda sums, _grid: sums["rank"] / sums["ranked"],
    shared=("rank", "ranked"),
    asked=True,
)
