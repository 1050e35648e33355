"""What the axes of a tensor run over: images, rows, columns, features. Pure algebra; imports nothing of ours.

An axis is a sequence of parts, major to minor. Rows and columns of the image keep their names through every view,
permutation, slice and concatenation, so that the order of a token sequence, its class token, a partition into windows
or an axis of channels are known and not guessed from sizes.

>>> rows, columns = (Part("y", 4),), (Part("x", 6),)
>>> tokens = view((IMAGES, FEATURES, rows, columns), (2, 8, 4, 6), (2, 8, 24))
>>> [show(axis) for axis in tokens]
['b', 'f', 'y4 x6']
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

Along = Literal["b", "y", "x", "f", "n", "?", "~", "i"]


@dataclass(frozen=True)
class Part:
    """A factor of an axis.

    Attributes:
        along: "b" images of the batch; "y" rows, "x" columns of a map; "f" features, or anything without a place; "n" a
            token sequence with other tokens at its ends; "?" positions in an order that is not known (gathered,
            dropped); "~" not followed; "i" of size 1: the numbers are complex.
        size: how many.
        stride: step in rows or columns from one to the next, negative when flipped.
        inside: of "n", the parts of the positions. before, after: of "n", the other tokens.
    """

    along: Along
    size: int
    stride: int = 1
    inside: tuple[Part, ...] = ()
    before: int = 0
    after: int = 0


Axis = tuple[Part, ...]
Axes = tuple[Axis, ...]
IMAGES: Axis = (Part("b", 2),)
FEATURES: Axis = (Part("f", 8),)


def features(size: int) -> Axis:
    """An axis without a place."""
    return () if size == 1 else (Part("f", size),)


def complex_numbers(axes: Axes) -> Axes:
    """The axes of a tensor of complex numbers."""
    return ((*axes[0], Part("i", 1)), *axes[1:]) if axes else axes


def lost(size: int) -> Axis:
    """An axis that was not followed."""
    return () if size == 1 else (Part("~", size),)


def plain(shape: Sequence[int]) -> Axes:
    """Axes of a tensor that comes from no image: weights, constants."""
    return tuple(features(int(size)) for size in shape)


def of_images(shape: Sequence[int]) -> Axes:
    """Axes of (B, C, H, W) images."""
    B, C, H, W = (int(size) for size in shape)
    return ((Part("b", B),), features(C), (Part("y", H),), (Part("x", W),))


def along(axis: Axis) -> set[str]:
    """What an axis runs over, a token sequence counted as the positions inside."""
    kinds: set[str] = {part.along for part in axis if part.along != "n"}
    return kinds.union(*(along(part.inside) for part in axis))


def has_positions(axis: Axis) -> bool:
    """Whether an axis runs over places in the image, in whatever order."""
    return bool(along(axis) & {"y", "x", "?"})


def grid(axis: Axis) -> tuple[int, int] | None:
    """(H, W) of an axis that runs over positions row by row, each once; None otherwise. Ends are not counted."""
    parts = axis[0].inside if len(axis) == 1 and axis[0].along == "n" else axis
    rows = [part for part in parts if part.along == "y"]
    columns = [part for part in parts if part.along == "x"]
    if len(rows) + len(columns) != len(parts) or parts != (*rows, *columns) or not parts:
        return None
    if not (_ordered(rows) and _ordered(columns)):
        return None
    return math.prod(part.size for part in rows), math.prod(part.size for part in columns)


def _ordered(parts: Sequence[Part]) -> bool:
    """Whether parts are one direction from its beginning to its end."""
    return len(parts) <= 1 and all(part.stride > 0 for part in parts)


def ends(axis: Axis) -> tuple[int, int]:
    """Tokens before and after the positions of an axis."""
    return (axis[0].before, axis[0].after) if len(axis) == 1 else (0, 0)


def simplify(parts: Iterable[Part]) -> Axis:
    """Parts joined where one continues the other."""
    out: list[Part] = []
    for part in parts:
        if part.along == "n" and not (part.before or part.after):
            out.extend(part.inside)
            continue
        if part.along == "f" and part.size == 1:
            continue
        last = out[-1] if out else None
        if last is not None and last.along == part.along:
            if part.along in "f~?b":
                out[-1] = replace(last, size=last.size * part.size)
                continue
            if part.along in "yx" and last.stride == part.size * part.stride:
                out[-1] = replace(part, size=last.size * part.size)
                continue
        out.append(part)
    return tuple(out)


def view(axes: Axes, old: Sequence[int], new: Sequence[int]) -> Axes:
    """Axes of the same memory under another shape."""
    if 0 in old or 0 in new:
        return plain(new)
    out: list[Axis] = []
    i = j = 0
    while i < len(old) or j < len(new):
        first, begin = i, j
        have = want = 1
        if i < len(old):
            have, i = old[i], i + 1
        if j < len(new):
            want, j = new[j], j + 1
        while have != want:
            if have < want:
                have, i = have * old[i], i + 1
            else:
                want, j = want * new[j], j + 1
        parts = simplify(part for axis in axes[first:i] for part in axis)
        if j > begin:
            out.extend(_dealt(parts, list(new[begin:j])))
        elif out:
            out[-1] = simplify([*out[-1], *parts])
    return tuple(out)


def _dealt(parts: Axis, sizes: list[int]) -> list[Axis]:
    """Parts dealt out over dimensions of these sizes, split where they must be."""
    if len(sizes) == 1:
        return [parts]
    queue = [part for part in parts if part.size > 1]
    out: list[Axis] = []
    for size in sizes:
        own: list[Part] = []
        missing = size
        while missing > 1:
            if not queue:
                return _undone(parts, sizes)
            part = queue.pop(0)
            if missing % part.size == 0:
                own.append(part)
                missing //= part.size
            elif part.size % missing == 0 and part.along != "n":
                minor = part.size // missing
                own.append(replace(part, size=missing, stride=part.stride * minor))
                queue.insert(0, replace(part, size=minor))
                missing = 1
            else:
                return _undone(parts, sizes)
        out.append(simplify(own))
    return out


def _undone(parts: Axis, sizes: list[int]) -> list[Axis]:
    """What is left to say of parts that a view cuts through."""
    kinds = along(parts)
    if kinds <= {"f"}:
        return [features(size) for size in sizes]
    return [lost(size) if size != 1 else () for size in sizes]


def cut(axis: Axis, start: int, stop: int, step: int) -> Axis:
    """The axis of a slice."""
    size = math.prod(part.size for part in axis)
    count = max(0, -(-(stop - start) // step))
    if count == size and start == 0:
        return axis
    kinds = along(axis)
    if kinds <= {"f"}:
        return features(count)
    if kinds <= {"f", "~"}:
        return lost(count)
    if len(axis) == 1:
        part = axis[0]
        if part.along == "b":
            return (replace(part, size=count),)
        if part.along in "yx":
            return (replace(part, size=count, stride=part.stride * step),)
        if part.along == "n":
            first, last = part.before, part.size - part.after
            if stop <= first or start >= last:
                return features(count)
            if step == 1 and start <= first and stop >= last:
                return simplify([replace(part, size=count, before=first - start, after=stop - last)])
            return (Part("?", count),)
    if [part.along for part in axis] == ["y", "x"] and step == 1:
        W = axis[1].size
        if start % W == 0 and stop % W == 0:
            return (replace(axis[0], size=(stop - start) // W), axis[1])
    return (Part("?" if has_positions(axis) else "~", count),) if count != 1 else ()


def joined(axes: Sequence[Axis], sizes: Sequence[int]) -> Axis:
    """The axis along which pieces are concatenated."""
    total = sum(sizes)
    kinds = [along(axis) for axis in axes]
    if all(kind <= {"f"} for kind in kinds):
        return features(total)
    placed = [index for index, axis in enumerate(axes) if has_positions(axis)]
    if len(placed) == 1:
        index = placed[0]
        axis = axes[index]
        before, after = ends(axis)
        inside = axis[0].inside if len(axis) == 1 and axis[0].along == "n" else axis
        return (Part("n", total, 1, inside, before + sum(sizes[:index]), after + sum(sizes[index + 1 :])),)
    if all(kind in ({"b"}, {"y"}, {"x"}) and kind == kinds[0] for kind in kinds):
        return (Part(axes[0][0].along, total),)
    return (Part("?" if placed else "~", total),)


def resized(axis: Axis, size: int) -> Axis:
    """The axis of a map after a convolution, a pooling, a padding or an interpolation made it this long."""
    kinds = along(axis)
    if kinds in ({"y"}, {"x"}):
        return (Part(axis[0].along, size, 1 if axis[0].stride > 0 else -1),)
    if kinds <= {"f"}:
        return features(size)
    return (Part("?", size),) if has_positions(axis) else lost(size)


def flipped(axis: Axis) -> Axis:
    """The axis run through backwards."""
    if all(part.along in "yx" for part in axis):
        return tuple(replace(part, stride=-part.stride) for part in axis)
    return axis if not has_positions(axis) else (Part("?", math.prod(part.size for part in axis)),)


def show(axis: Axis) -> str:
    """An axis in a few letters, for messages and tests."""
    words = []
    for part in axis:
        if part.along == "n":
            words.append(f"{part.before}+({show(part.inside)})+{part.after}")
        elif part.along in "yx":
            words.append(f"{part.along}{part.size}" + (f"/{part.stride}" if part.stride != 1 else ""))
        else:
            words.append(part.along)
    return " ".join(words) or "1"
