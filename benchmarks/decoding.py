"""What decoding in a thread saves: the same `analyze`, whole processes, with the thread and without, alternating.

    python benchmarks/decoding.py --images photos/ --model resnet18 --count 200 --repeats 5

Reported are medians of the ratios of neighbours, thread over none, of seconds on the clock and of processor seconds. On
the clock it saves where a core is idle while the network runs; processor seconds say what it costs in any case, also
where other programs are running.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path

from commands import Cost, run


def child(arguments: list[str]) -> None:
    """Run the command in this process; `here` decodes in the main thread, which waits for it."""
    from fourier_probe.cli import main as command
    from fourier_probe.data import loading

    how, *rest = arguments
    if how == "here":
        loading._decoded_ahead = loading._here
    sys.argv = ["fourier-probe", *rest]
    command()


def main() -> None:
    """Print the table."""
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", required=True, help="a folder of image files")
    parser.add_argument("--model", default="resnet18", help="of timm")
    parser.add_argument("--count", type=int, default=200, help="of images")
    parser.add_argument("--repeats", type=int, default=5, help="pairs of runs")
    args = parser.parse_args()
    costs: dict[str, list[Cost]] = {"ahead": [], "here": []}
    with tempfile.TemporaryDirectory() as folder:
        words = ["analyze", f"timm:{args.model}", "--data", args.images, "--images", str(args.count), "--force"]
        words += ["--out", str(Path(folder) / "out")]
        for turn in range(args.repeats):
            for how in ("ahead", "here") if turn % 2 == 0 else ("here", "ahead"):
                costs[how].append(run([sys.executable, __file__, "--child", how, *words])[0])
    print(f"{args.model}, {args.count} images, {args.repeats} pairs: thread over none")
    print("| | with the thread, s | without, s | median of ratios |\n|---|---|---|---|")
    for name in ("wall", "cpu"):
        ahead, here = ([getattr(cost, name) for cost in costs[how]] for how in ("ahead", "here"))
        ratio = statistics.median(a / b for a, b in zip(ahead, here, strict=True))
        print(f"| {name} | {statistics.median(ahead):.1f} | {statistics.median(here):.1f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
