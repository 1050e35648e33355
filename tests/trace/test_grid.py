"""Any layout of features -> (B, C, H, W): closed forms, properties, and layouts told from evidence, never guessed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from fourier_probe.errors import PointError
from fourier_probe.trace.grid import PREFIX_LIMIT, Layout, infer_layout


@pytest.mark.parametrize("grid", [(4, 5), (5, 4), (1, 1), (1, 7), (3, 3)])
@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_every_layout_gives_the_same_maps(grid: tuple[int, int], prefix: int) -> None:
    H, W = grid
    maps = torch.rand(2, 3, H, W, generator=torch.Generator().manual_seed(0))
    rows: list[Tensor] = [maps[:, :, y, x] for y in range(H) for x in range(W)]  # by a loop over positions
    tokens = torch.stack([torch.full((2, 3), -1.0)] * prefix + rows, dim=1)
    assert torch.equal(Layout("tokens", grid, 3, prefix)(tokens), maps)
    assert torch.equal(Layout("nhwc", grid, 3)(torch.stack(rows, dim=1).reshape(2, H, W, 3)), maps)
    assert Layout("nchw", grid, 3)(maps) is maps


def test_layouts_are_views() -> None:
    tokens, nhwc = torch.zeros(2, 22, 3), torch.zeros(2, 4, 5, 3)
    assert Layout("tokens", (4, 5), 3, 2)(tokens).data_ptr() == tokens[:, 2:].data_ptr()
    assert Layout("nhwc", (4, 5), 3)(nhwc).data_ptr() == nhwc.data_ptr()


@pytest.mark.parametrize(
    ("layout", "shape", "expected"),
    [
        (Layout("nchw", (4, 5), 3), (2, 3, 4, 6), r"\(B, 3, 4, 5\) \(nchw\)"),
        (Layout("nchw", (4, 5), 3), (2, 3, 5, 4), r"\(B, 3, 4, 5\) \(nchw\)"),  # turned round
        (Layout("nhwc", (4, 5), 3), (2, 3, 4, 5), r"\(B, 4, 5, 3\) \(nhwc\)"),
        (Layout("tokens", (4, 5), 3, 1), (2, 20, 3), r"\(B, 21, 3\) \(tokens\)"),
        (Layout("tokens", (4, 5), 3, 1), (2, 21), r"\(B, 21, 3\) \(tokens\)"),
    ],
)
def test_other_shapes_are_refused_by_name(layout: Layout, shape: tuple[int, ...], expected: str) -> None:
    with pytest.raises(PointError, match=rf"^here gave features of shape .*, expected {expected}"):
        layout(torch.zeros(shape), name="here")


@pytest.mark.parametrize(
    ("shape", "known", "evidence", "expected"),
    [
        ((2, 197, 192), [(224, 224), (14, 14)], None, Layout("tokens", (14, 14), 192, 1)),
        ((2, 16, 8), [(2, 8)], None, Layout("tokens", (2, 8), 8)),  # never 4 x 4
        ((2, 16, 8), [(2, 8), (4, 4)], None, Layout("tokens", (4, 4), 8)),  # the latest that fits
        ((2, 17, 8), [(4, 4), (3, 5)], None, Layout("tokens", (4, 4), 8, 1)),  # the fewest prefix tokens
        ((2, 15 + PREFIX_LIMIT + 1, 8), [(3, 5)], None, None),  # too many to be a prefix
        ((2, 100, 8), [], None, None),  # a square number is no evidence
        ((2, 1, 8), [(14, 14)], None, None),  # the class token alone
        ((2, 1, 8), [(1, 1)], None, Layout("tokens", (1, 1), 8)),
        ((2, 7, 7, 96), [(7, 7)], None, Layout("nhwc", (7, 7), 96)),
        ((2, 96, 7, 9), [(7, 9)], None, Layout("nchw", (7, 9), 96)),
        ((2, 96, 1, 1), [(14, 14)], "nchw", Layout("nchw", (1, 1), 96)),
        ((2, 7, 7, 7), [(7, 7)], None, None),  # evidence for both
        ((2, 7, 7, 7), [(7, 7)], "nhwc", Layout("nhwc", (7, 7), 7)),
        ((2, 3, 197, 197), [(14, 14)], None, None),  # an attention map is no feature map
        ((2, 10), [(14, 14)], None, None),
    ],
)
def test_layout_from_evidence(shape: Any, known: Any, evidence: Any, expected: Layout | None) -> None:
    assert infer_layout(shape, known, evidence=evidence) == expected
