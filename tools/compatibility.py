"""Read networks that others wrote, compare with what their code says and with numbers made here, and write the table.

    python tools/compatibility.py                       all networks; run again to go on (build/compatibility.jsonl)
    python tools/compatibility.py --only 'timm/*swin*'  these, anew
    python tools/compatibility.py --write               put the table into docs/compatibility.md

The networks, and what their code says of them, are in tools/networks.py. Of each network is compared:

- the number of steps: stem, residual additions and subsamplings, counted by hand;
- the numbers: own hooks, own reading of each tensor (four dimensions by the image's proportions, tokens by the leading
  and trailing ones that the table says), log-amplitudes in float64 by tests/reference.py;
- the check of places: what it says of a network that is read rightly (a false alarm), and whether it sees the same
  points when they are read wrongly on purpose (detection).
"""

from __future__ import annotations

import argparse
import collections
import fnmatch
import json
import math
import random
import re
import signal
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tools")]

from networks import NETWORKS, Network  # noqa: E402
from reference import log_amplitude  # noqa: E402

from fourier_probe.errors import ProbeError  # noqa: E402
from fourier_probe.probe.measuring import Listen  # noqa: E402
from fourier_probe.probe.places import check_places  # noqa: E402
from fourier_probe.probe.points import Point  # noqa: E402
from fourier_probe.probe.survey import survey  # noqa: E402
from fourier_probe.results.analysis import analyze  # noqa: E402
from fourier_probe.trace.calling import run  # noqa: E402

DOC = ROOT / "docs" / "compatibility.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"
BAD = {"FAILS", "WRONG, SILENT", "wrong, flagged"}
TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}
"""Nats, away from the Nyquist bin. A channel that is all but empty at a frequency costs digits in the logarithm."""


# --- own reading -----------------------------------------------------------------------------------------------------


def own_maps(features: Tensor, network: Network) -> Tensor | None:
    """A tensor as (B, C, H, W), by its shape, the image's proportions and what the table says; None if it is no map."""
    size = network.size
    if features.ndim == 4:
        nchw, nhwc = fits(features.shape[2:], size), fits(features.shape[1:3], size)
        if nchw and (not nhwc or not network.channels_last):
            return features
        return features.permute(0, 3, 1, 2) if nhwc else None
    if features.ndim == 3:
        tokens = features.transpose(0, 1) if network.sequence_first else features
        for before, after in network.ends:
            count = tokens.shape[1] - before - after
            grid = next((g for g in grids(count) if fits(g, size)), None)
            if grid is not None:
                inside = tokens[:, before : before + count]
                return inside.transpose(1, 2).reshape(len(tokens), -1, *grid)
    return None


def grids(count: int) -> list[tuple[int, int]]:
    """(H, W) of so many positions, the squarest first."""
    found = [(h, count // h) for h in range(1, count + 1) if count % h == 0]
    return sorted(found, key=lambda g: abs(math.log(g[0] / g[1])))


def fits(grid: Any, size: tuple[int, int]) -> bool:
    """Whether a grid has the proportions of the image, up to rounding to whole cells."""
    (h, w), (H, W) = grid, size
    return abs(h * W - w * H) <= max(H, W)


def tensors(value: Any) -> list[Tensor]:
    """Tensors in whatever a module takes or returns."""
    if isinstance(value, Tensor):
        return [value]
    items: list[Any] = (
        list(value.values())
        if isinstance(value, dict)
        else list(value)
        if isinstance(value, list | tuple)
        else list(vars(value).values())
        if hasattr(value, "__dataclass_fields__")
        else []
    )
    return [tensor for item in items for tensor in tensors(item)]


def heard(model: nn.Module, points: list[Point], images: Tensor) -> dict[str, Tensor]:
    """The tensor at each point, as it is in memory, by hooks of our own."""
    found: dict[str, Tensor] = {}
    counts: dict[tuple[str, str], int] = collections.Counter()
    handles = []
    by_hook: dict[tuple[str, str], list[Point]] = collections.defaultdict(list)
    for point in points:
        if not point.addition:
            by_hook[point.module, point.side].append(point)

    def listen(key: tuple[str, str], value: Any) -> None:
        call, counts[key] = counts[key], counts[key] + 1
        for point in by_hook[key]:
            if point.call == call:
                numel = point.layout.fits
                found[point.name] = next(t for t in tensors(value) if numel(t)).detach().clone()

    modules = dict(model.named_modules(remove_duplicate=False))
    for name, side in by_hook:
        if side == "output":
            handles.append(modules[name].register_forward_hook(lambda _m, _a, out, key=(name, side): listen(key, out)))
        else:
            handles.append(
                modules[name].register_forward_pre_hook(
                    lambda _m, args, kwargs, key=(name, side): listen(key, [args, kwargs]), with_kwargs=True
                )
            )
    seed()
    with torch.no_grad(), _Sums(model, [point for point in points if point.addition], found):
        run(model, images)
    for handle in handles:
        handle.remove()
    return found


class _Sums(TorchDispatchMode):
    """What a module's own forward adds up to, where no hook reaches: the last of these additions, by their results."""

    supports_higher_order_operators = True

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        return True

    def __init__(self, model: nn.Module, points: list[Point], found: dict[str, Tensor]) -> None:
        super().__init__()
        self.points, self.found, self.running, self.results = points, found, [], collections.defaultdict(list)
        calls: dict[str, int] = collections.Counter()
        self.handles = []
        for name, module in model.named_modules() if points else ():

            def begin(_module: nn.Module, _inputs: Any, name: str = name) -> None:
                self.running.append((name, calls[name]))
                calls[name] += 1

            self.handles.append(module.register_forward_pre_hook(begin, prepend=True))
            self.handles.append(module.register_forward_hook(lambda _m, _i, _o: self.running.pop() and None))

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if self.running and re.match(r"aten\.(add|sub|lerp|addcmul)_?\.", str(function)):
            self.results[self.running[-1]].append(result.detach().clone())
        return result

    def __exit__(self, *raised: Any) -> None:
        super().__exit__(*raised)
        for handle in self.handles:
            handle.remove()
        for point in self.points:
            fitting = [each for each in self.results[point.module, point.call] if point.layout.fits(each)]
            self.found[point.name] = fitting[point.addition[0]]


def seed() -> None:
    """The same random numbers in every forward, for networks that draw some."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - a model's forward may draw from it


def photographs(network: Network, count: int = 2) -> Tensor:
    """Noise of large and small scales, which is no constant anywhere."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(count, network.channels, 8, 8, generator=generator)
    fine = torch.randn(count, network.channels, *network.size, generator=generator)
    return nn.functional.interpolate(coarse, size=network.size, mode="bilinear") + 0.3 * fine


# --- one network -----------------------------------------------------------------------------------------------------


def row(network: Network, seconds: int) -> dict[str, Any]:
    """One line of the log: what was read, how far from what the code says, and the verdict."""
    out: dict[str, Any] = {
        "library": network.library, "name": network.name, "size": list(network.size),
        "expected": network.expected, "why": network.why, "reason": "",
    }  # fmt: skip
    start = time.time()
    signal.alarm(seconds)
    try:
        seed()
        model = network.build().eval()
        images = photographs(network)
        out |= judged(model, images, network)
    except ProbeError as error:
        out |= {"verdict": "refused, said" if network.expected == 0 else "FAILS", "reason": str(error)}
    except Exception as error:  # whatever a foreign network raises is what the table is for
        out |= {"verdict": "FAILS", "reason": f"{type(error).__name__}: {(str(error) or '-').splitlines()[0]}"}
    finally:
        signal.alarm(0)
    return out | {"seconds": round(time.time() - start, 1)}


def judged(model: nn.Module, images: Tensor, network: Network) -> dict[str, Any]:
    """What is read of a network, against the table and own numbers."""
    seen = survey(model, images[:1])
    points, coverage = seen.own, seen.coverage
    difference, elsewhere = numbers(model, images, points, network)
    ops = collections.Counter(point.op for point in points)
    check = coverage.self_check
    flagged = [] if check is None else [each.name for each in check.misplaced]
    unread = collections.Counter(step.reason for step in coverage.unread)
    out = {
        "points": len(points), "steps": coverage.steps, "read": coverage.read, "ops": dict(ops),
        "attention": network.attention, "unread": dict(unread), "flagged": flagged,
        "tested": 0 if check is None else len(check.tested) - len(check.undecided),
        "difference": difference, "elsewhere": elsewhere[:5],
        "folded": sum(point.layout.kind == "folded" for point in points),
        "names": [point.name for point in points],
        "grids": list(dict.fromkeys(f"{H}x{W}" for H, W in (point.layout.grid for point in points))),
    }  # fmt: skip
    counted = len(points) + len(coverage.unread) == network.expected or (network.expected < 0 < len(coverage.unread))
    attention = ops["attention"] + network.joined
    operations = network.attention in (None, attention) or (bool(coverage.unread) and attention < network.attention)
    right = counted and not elsewhere and operations
    if right:
        out["verdict"] = "in part, said" if coverage.unread else "right, flagged" if flagged else "right"
        out["detection"] = detection(model, images[:1], points)
        try:
            double = numbers(model.double(), images.double(), points, network)
            out |= {"double": double[0], "verdict": "WRONG, SILENT" if double[1] else out["verdict"]}
        except Exception as error:  # a network that makes float32 tensors itself
            out["double"] = None
            print(f"    not in float64: {(str(error) or '-').splitlines()[0][:100]}")
    else:
        out["verdict"] = "wrong, flagged" if flagged else "WRONG, SILENT"
    if coverage.unread:
        out["reason"] = "; ".join(f"{count} steps: {reason}" for reason, count in unread.items())
    return out


def numbers(model: nn.Module, images: Tensor, points: list[Point], network: Network) -> tuple[float, list[str]]:
    """Largest difference of a log-amplitude from ours, and the points that lie elsewhere or differ by too much."""
    seed()
    result = analyze(model, [images], listen=Listen(self_check=False))
    named = {point.name: point for point in result.points}
    raw = heard(model, points, images)
    largest, elsewhere = 0.0, []
    for point in points:
        spectrum = named.get(point.name)
        if spectrum is None:
            continue
        if point.layout.kind == "folded" and network.folded:
            maps = point.layout(raw[point.name])
        else:
            own = own_maps(raw[point.name], network)
            if own is None or tuple(own.shape[-2:]) != point.layout.grid:
                elsewhere.append(point.name)
                continue
            maps = own
        ours = log_amplitude(maps.double().numpy())[: spectrum.usable]
        gap = float(np.abs(ours - np.asarray(spectrum.log_amplitude)[: spectrum.usable]).max())
        largest = max(largest, gap)
        if gap > TOLERANCE[images.dtype]:
            elsewhere.append(f"{point.name} by {gap:.1e}")
    return largest, elsewhere


def detection(model: nn.Module, image: Tensor, points: list[Point]) -> dict[str, bool]:
    """Whether the check of places sees the same points read wrongly on purpose, by kind of misreading."""
    seen: dict[str, bool] = {}
    for name, change in MISREADINGS.items():
        wrong = [replace(point, layout=changed) for point in points if (changed := change(point.layout)) is not None]
        if wrong and min(wrong[0].layout.grid) >= 4:
            check = check_places(model, image, wrong)
            seen[name] = check is not None and bool(check.misplaced)
    return seen


def shifted(layout: Any) -> Any:
    """Tokens before the grid taken for positions: the map begins too late by half a row and one."""
    H, W = layout.grid
    shift = W // 2 + 1
    return (
        replace(layout, prefix=layout.prefix + shift, grid=(H - 2, W), suffix=layout.suffix + 2 * W - shift)
        if (layout.kind in ("tokens", "ncl") and H > 4)
        else None
    )


def transposed(layout: Any) -> Any:
    """Rows taken for columns."""
    H, W = layout.grid
    return replace(layout, grid=(W, H)) if layout.kind in ("tokens", "ncl") and H != W else None


def channels_as_rows(layout: Any) -> Any:
    """(B, C, H, W) read as (B, H, W, C), and the reverse."""
    H, W = layout.grid
    if layout.kind == "nchw":
        return replace(layout, kind="nhwc", grid=(layout.channels, H), channels=W)
    return replace(layout, kind="nchw", grid=(W, layout.channels), channels=H) if layout.kind == "nhwc" else None


def windows(layout: Any) -> Any:
    """Tokens in rows taken for tokens in windows of half a side."""
    H, W = layout.grid
    if layout.kind not in ("tokens", "ncl") or H % 2 or W % 2 or layout.prefix or layout.suffix or layout.batch:
        return None
    parts = (("y", 2, H // 2), ("x", 2, W // 2), ("y", H // 2, 1), ("x", W // 2, 1))
    features = (("f", layout.channels, 1),)
    rest = (parts, features) if layout.kind == "tokens" else (features, parts)
    return replace(layout, kind="folded", fold=((("b", 2, 1),), *rest))


MISREADINGS = {"shifted": shifted, "channels as rows": channels_as_rows, "windows": windows, "transposed": transposed}


# --- the document ----------------------------------------------------------------------------------------------------


def table(rows: list[dict[str, Any]]) -> str:
    """Counts, the two rates, one line per network, and what cannot be read."""
    verdicts = collections.Counter(each["verdict"] for each in rows)
    lines = [f"{len(rows)} networks: " + ", ".join(f"{n} {verdict}" for verdict, n in verdicts.most_common()) + ".", ""]
    lines += [*rates(rows), ""]
    lines += [
        "| library | network | size | points found / expected | by hand | coverage | places | difference | verdict |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for each in rows:
        size = "x".join(map(str, each["size"]))
        known = "points" in each
        places = "-"
        if known:
            places = "WRONG" if each["flagged"] else f"{each['tested']} checked" if each["tested"] else "undecided"
        coverage = f"{each['read']} of {each['steps']}" if known else "-"
        gap = f"{each['difference']:.0e}" + (" (folded)" if each["folded"] else "") if known else "-"
        gap += f", {each['double']:.0e}" if each.get("double") is not None else ""
        found = f"{each.get('points', 0)} / {each['expected']}"
        cells = [each["library"], f"`{each['name']}`", size, found, each["why"], coverage, places, gap, each["verdict"]]
        lines.append(f"| {' | '.join(cells)} |")
    left = [each for each in rows if each["verdict"] not in ("right", "right, flagged")]
    if left:
        lines += ["", "What is not read, or not all of it:", "", "| network | why |", "|---|---|"]
        for each in left:
            reason = each["reason"].replace("|", "/").replace("\n", " ")
            lines.append(f"| {each['library']} `{each['name']}` | {reason[:400] or each['verdict']} |")
    return "\n".join(lines)


def rates(rows: list[dict[str, Any]]) -> list[str]:
    """False alarms and detections of the check of places."""
    right = [each for each in rows if each["verdict"] in ("right", "right, flagged", "in part, said")]
    alarms = [each for each in right if each["flagged"]]
    tested = [each for each in right if each["tested"]]
    lines = [
        f"The check of places flags {len(alarms)} of {len(right)} networks that are read rightly (false alarms; in "
        f"{len(right) - len(tested)} it can decide nothing).",
        "Of the same networks read wrongly on purpose it sees:",
    ]
    lines += ["", "| misreading | networks | seen |", "|---|---|---|"]
    for kind in MISREADINGS:
        answers = [each["detection"][kind] for each in right if kind in each.get("detection", {})]
        if answers:
            lines.append(f"| {kind} | {len(answers)} | {sum(answers)} ({sum(answers) / len(answers):.0%}) |")
    return lines


def main() -> None:
    """Read what the log lacks, then print what is not right or write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--log", type=Path, default=ROOT / "build" / "compatibility.jsonl")
    parser.add_argument("--only", metavar="GLOB", help="these networks, LIBRARY/NAME, again")
    parser.add_argument("--again", action="store_true", help="again what is not right")
    parser.add_argument("--seconds", type=int, default=240, help="limit a network")
    parser.add_argument("--write", action="store_true", help="write the table into docs/compatibility.md")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)

    def give_up(_number: int, _frame: object) -> None:
        raise TimeoutError(f"over {args.seconds} s")

    signal.signal(signal.SIGALRM, give_up)
    args.log.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in args.log.read_text().splitlines()] if args.log.exists() else []
    names = {network.path: network for network in NETWORKS}
    chosen = set(fnmatch.filter(names, args.only)) if args.only else set()
    bad = {path(each) for each in rows if each["verdict"] not in ("right", "refused, said")} if args.again else set()
    done = {path(each): each for each in rows if path(each) in names and path(each) not in chosen | bad}
    args.log.write_text("".join(json.dumps(each) + "\n" for each in done.values()))
    for name, network in names.items():
        if name in done or (args.only and name not in chosen) or args.write:
            continue
        done[name] = row(network, args.seconds)
        with args.log.open("a") as log:
            log.write(json.dumps(done[name]) + "\n")
        show(done[name])
    rows = [done[name] for name in names if name in done]
    print(", ".join(f"{n} {verdict}" for verdict, n in collections.Counter(each["verdict"] for each in rows).items()))
    if args.write:
        text = DOC.read_text()
        DOC.write_text(text.split(BEGIN)[0] + BEGIN + "\n" + table(rows) + "\n" + END + text.split(END)[1])
    elif any(each["verdict"] in BAD for each in rows):
        sys.exit(1)


def path(each: dict[str, Any]) -> str:
    """Library and name."""
    return f"{each['library']}/{each['name']}"


def show(each: dict[str, Any]) -> None:
    """What a row says, at length where it is not right."""
    print(
        f"{each['verdict']:15s} {path(each)} {each.get('points', 0)}/{each['expected']} {each['seconds']} s", flush=True
    )
    if each["verdict"] != "right":
        keys = ("ops", "attention", "unread", "flagged", "elsewhere", "difference", "grids", "names", "reason")
        print("    " + "\n    ".join(f"{key}: {str(each[key])[:700]}" for key in keys if each.get(key)), flush=True)


if __name__ == "__main__":
    main()
