"""Find the probe points of every model timm registers, print what fails, and write the table of docs/points.md.

    python tools/try_all_models.py --log build/points.jsonl            all models; run again to resume
    python tools/try_all_models.py --log build/points.jsonl --each 1   one of each family, the first by its name
    python tools/try_all_models.py --log build/points.jsonl --write    put the table into docs/points.md

Models are built on torch's meta device, where nothing is allocated or computed, each at its own input size; one whose
constructor or forward reads values is built in full.
"""

from __future__ import annotations

import argparse
import collections
import json
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import timm
import torch

from fourier_probe.errors import ProbeError
from fourier_probe.probe.points import locate

DOC = Path(__file__).parents[1] / "docs" / "points.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"


def attempt(name: str, device: str) -> dict[str, Any]:
    """The points of one model, or why there are none."""
    with torch.device(device):
        model: Any = timm.create_model(name).eval()
        channels, height, width = model.pretrained_cfg.get("input_size", (3, 224, 224))
        found = locate(model, torch.zeros(1, channels, height, width))
    points = found.own
    kinds = collections.Counter(point.op for point in points)
    reasons = collections.Counter(step.reason for step in found.coverage.unread)
    return {
        "points": len(points),
        "ops": dict(kinds),
        "grids": sorted({p.layout.grid for p in points}, reverse=True),
        "steps": found.coverage.steps,
        "unread": dict(reasons),
        "evidence": sorted(set(found.coverage.evidence.values())),
    }


def row(name: str, seconds: int) -> dict[str, Any]:
    """One line of the log."""
    found: dict[str, Any] = {"name": name, "family": timm.models.model_entrypoint(name).__module__.rsplit(".", 1)[-1]}
    start = time.time()
    for device in ("meta", "cpu"):
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            found |= attempt(name, device) | {"device": device, "error": None}
            break
        except ProbeError as error:  # an answer, and the same on any device
            found |= {"error": str(error), "device": device}
            break
        except Exception as error:  # whatever a model raises is what the table is for
            found |= {
                "error": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
                "device": device,
            }
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
    return found | {"seconds": round(time.time() - start, 1)}


def table(rows: list[dict[str, Any]]) -> str:
    """Families with their counts, then every model that is not read, or not all of it."""
    families = collections.defaultdict(list)
    for each in rows:
        families[each["family"]].append(each)
    good = [each for each in rows if each["error"] is None]
    whole = [each for each in good if not each["unread"]]
    lines = [
        f"Of timm's {(known := len(registered()))} models (timm {timm.__version__}) {len(rows)} were tried"
        f"{', of every family some' if len(rows) < known else ''}; "
        f"{len(good)} of these have points, and of {len(whole)} every step is read.",
        "",
    ]
    lines += ["| family | models tried | with points | every step read | an example |", "|---|---|---|---|---|"]
    for family, members in sorted(families.items()):
        fine = [each for each in members if each["error"] is None]
        example = "-"
        if fine:
            ops = ", ".join(f"{count} {op}" for op, count in sorted(fine[0]["ops"].items()))
            example = f"`{fine[0]['name']}`: {fine[0]['points']} points ({ops})"
        full = sum(not each["unread"] for each in fine)
        lines.append(f"| {family} | {len(members)} | {len(fine)} | {full} | {example} |")
    part = [each for each in good if each["unread"]]
    if part:
        lines += ["", "What is read in part:", "", "| model | steps read | not read |", "|---|---|---|"]
        for each in part:
            said = "; ".join(f"{count}: {reason}" for reason, count in each["unread"].items())
            lines.append(f"| `{each['name']}` | {each['points']} of {each['steps']} | {said[:300].replace('|', '/')} |")
    failed = [each for each in rows if each["error"] is not None]
    if failed:
        lines += ["", "What fails:", "", "| model | why |", "|---|---|"]
        lines += [f"| `{each['name']}` | {each['error'][:160].replace('|', '/')} |" for each in failed]
    return "\n".join(lines)


def registered() -> list[str]:
    """The models that timm itself registers."""
    return [name for name in timm.list_models() if "fourier_probe" not in timm.models.model_entrypoint(name).__module__]


def main() -> None:
    """Try what the log lacks, then print the failures or write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--filter", default="*")
    parser.add_argument("--each", type=int, help="at most so many of each family")
    parser.add_argument("--seconds", type=int, default=60, help="processor time for a model")
    parser.add_argument("--retry", action="store_true", help="try again what failed")
    parser.add_argument("--write", action="store_true")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)

    def give_up(_number: int, _frame: object) -> None:
        raise TimeoutError(f"over {args.seconds} s of processor time")

    signal.signal(signal.SIGPROF, give_up)
    args.log.parent.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in args.log.read_text().splitlines()] if args.log.exists() else []
    if args.retry:
        rows = [each for each in rows if each["error"] is None]
        args.log.write_text("".join(json.dumps(each) + "\n" for each in rows))
    done = {each["name"] for each in rows}
    tried = collections.Counter(each["family"] for each in rows)
    for name in timm.list_models(args.filter):
        home = timm.models.model_entrypoint(name).__module__
        family = home.rsplit(".", 1)[-1]
        if name in done or args.write or "fourier_probe" in home or (args.each and tried[family] >= args.each):
            continue
        tried[family] += 1
        rows.append(row(name, args.seconds))
        with args.log.open("a") as log:
            log.write(json.dumps(rows[-1]) + "\n")
        if rows[-1]["error"]:
            print(name, rows[-1]["error"], flush=True)
    print(f"{sum(each['error'] is None for each in rows)} of {len(rows)} have points")
    if args.write:
        text = DOC.read_text()
        head, tail = text.split(BEGIN)[0], text.split(END)[1]
        DOC.write_text(head + BEGIN + "\n" + table(sorted(rows, key=lambda r: r["name"])) + "\n" + END + tail)


if __name__ == "__main__":
    main()
