"""The map that a fused attention applies, made again from its queries and keys. Imports torch and tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from fourier_probe.trace.tensors import Operation


def scores_of_fused(operation: Operation) -> Tensor:
    """The map that a fused attention applies, made again from its queries and keys."""
    named = operation.named
    query, key = named["query"].float(), named["key"].float()
    mask, scale = named.get("attn_mask", named.get("attn_bias")), named.get("scale")
    scores: Tensor = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if named.get("is_causal"):
        scores = scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -torch.inf)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1)


def scores_of_multi_head(operation: Operation) -> Tensor:
    """The map of torch's own multi-head attention where it runs as one operation."""
    query, key, _, width, heads, weight, bias = operation.args[:7]
    q, k = (
        torch.nn.functional.linear(source, part, offset)
        .reshape(*source.shape[:2], heads, width // heads)
        .transpose(1, 2)
        for source, part, offset in zip((query, key), weight.chunk(3)[:2], bias.chunk(3)[:2], strict=True)
    )
    scores: Tensor = q.float() @ k.float().transpose(-2, -1) * (width // heads) ** -0.5
    return scores.softmax(-1)
