"""What a whole `analyze` costs beside the script a user would write: whole processes, from the shell to the figure.

    python benchmarks/commands.py --images photos/                            the table of docs/benchmarks.md
    python benchmarks/commands.py --images photos/ --only resnet50            a part of it
    python benchmarks/commands.py --images photos/ --count 100 --repeats 1    a smoke run

Each run that is done is written to --log (build/commands.jsonl) and not done again: a stopped one goes on, parts add up
to the whole table. Delete the file for new numbers.

`photos/` is a folder of classes, as torchvision's ImageFolder reads it. Of each pair of runs one follows the other, in
alternating order, after a warm read of the images; reported are medians, of the ratios too. The peer is `peer` below:
timm, ImageFolder and DataLoader at batch 32, features cloned by hooks, the published full-FFT steps, one plot. Ours is
`fourier-probe analyze` as it comes: all metrics, three files and two figures. Weights are random in both.

Peak memory is that of the process. CPU seconds (user and system, all threads) say more than wall time where other
programs are running too. The second table says where our time goes, in a run of its own, timed from inside. Image files
are decoded in a thread meanwhile: its seconds are its own and not part of the sum.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

MODELS = ("resnet50", "efficientnet_b0", "vit_tiny_patch16_224")


@dataclass(frozen=True)
class Cost:
    """What a process took: seconds on the clock, seconds of processors, peak resident memory in MB."""

    wall: float
    cpu: float
    peak: float


@dataclass(frozen=True)
class Seconds:
    """On the clock, and of processors in this process."""

    wall: float
    cpu: float

    @classmethod
    def since(cls, start: tuple[float, float]) -> Seconds:
        """From a reading of both clocks to now."""
        return cls(time.perf_counter() - start[0], time.process_time() - start[1])

    def __add__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)

    def __sub__(self, other: Seconds) -> Seconds:
        return Seconds(self.wall - other.wall, self.cpu - other.cpu)


# --- the peer --------------------------------------------------------------------------------------------------------


def peer(name: str, folder: str, count: int, figure: str) -> None:
    """Child process: relative log-amplitude of each block, as it is written from a notebook."""
    import matplotlib
    import timm
    import torch
    from timm.data import create_transform, resolve_data_config
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import ImageFolder

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    model = timm.create_model(name).eval()
    images = ImageFolder(folder, create_transform(**resolve_data_config({}, model=model)))
    chosen = [len(images) * i // count for i in range(count)] if count < len(images) else range(len(images))
    features: list[torch.Tensor] = []

    def keep(_module: torch.nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        features.append(output.detach().clone())

    def keep_input(_module: torch.nn.Module, inputs: Any) -> None:
        features.append(inputs[0].detach().clone())

    for path, module in model.named_modules():
        stage, _, rest = path.partition(".")
        if name.startswith("vit") and stage == "blocks" and rest.isdigit():
            module.norm2.register_forward_pre_hook(keep_input)  # between attention and MLP
            module.register_forward_hook(keep)
        elif (stage.startswith("layer") and rest.isdigit()) or (stage == "blocks" and rest.count(".") == 1):
            module.register_forward_hook(keep)
    total: list[torch.Tensor] = []
    with torch.no_grad():
        for batch, _ in DataLoader(Subset(images, chosen), batch_size=32):
            features.clear()
            model(batch)
            for index, maps in enumerate(features):
                if maps.ndim == 3:  # tokens: drop the class token, back to a square
                    side = int((maps.shape[1] - 1) ** 0.5)
                    maps = maps[:, 1:].transpose(1, 2).reshape(len(maps), -1, side, side)
                spectrum = torch.fft.fftshift(torch.fft.fft2(maps), dim=(-2, -1))
                logs = torch.log(spectrum.abs() + 1e-6).mean(dim=(0, 1))
                diagonal = logs.diagonal()[len(logs) // 2 :]
                delta = (diagonal - diagonal[0]) * len(batch)
                if index == len(total):
                    total.append(delta)
                else:
                    total[index] += delta
    figure_, axes = plt.subplots()
    for delta in total:
        axes.plot(torch.linspace(0, 1, len(delta)), delta / len(chosen))
    figure_.savefig(figure)


# --- where our time goes ---------------------------------------------------------------------------------------------


def parts(arguments: list[str]) -> None:
    """Child process: run the command in this process, with a clock around its parts; print the seconds of each."""
    start = time.perf_counter(), time.process_time()
    import fourier_probe.plots  # noqa: F401 - part of what is imported
    from fourier_probe.cli import group
    from fourier_probe.data import loading
    from fourier_probe.probe import measuring
    from fourier_probe.runtime import allocator
    from fourier_probe.verbs import analyze, opening

    spent: dict[str, Seconds] = {"imports": Seconds.since(start)}

    def clocked(holder: Any, name: str, part: str) -> None:
        function: Callable[..., Any] = getattr(holder, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            begin = time.perf_counter(), time.process_time()
            try:
                return function(*args, **kwargs)
            finally:
                spent[part] = spent.get(part, Seconds(0, 0)) + Seconds.since(begin)

        setattr(holder, name, timed)

    clocked(opening, "resolve", "making the model")
    clocked(measuring, "survey", "tracing")
    clocked(measuring, "feeding", "choosing the layout")
    clocked(measuring, "run", "forward")
    clocked(measuring, "image_statistics", "statistics")
    clocked(analyze, "write", "files and drawing")
    decode, decoding = loading._Blocks.__getitem__, [0.0]

    def decoded(self: Any, number: int) -> Any:
        begin = time.thread_time()
        try:
            return decode(self, number)
        finally:
            decoding[0] += time.thread_time() - begin

    loading._Blocks.__getitem__ = decoded  # type: ignore[method-assign]
    allocator.tame()
    group(arguments, standalone_mode=False)
    whole = Seconds.since(start)
    spent["forward"] -= spent["statistics"]
    spent["rest"] = whole - sum(spent.values(), Seconds(0, 0))
    spent["whole"] = whole
    where = [f"{part} {value.wall:.1f} ({value.cpu:.1f})" for part, value in spent.items()]
    print("PARTS", *where, f"decoding, beside, ({decoding[0]:.1f})", sep="|")


# --- measuring -------------------------------------------------------------------------------------------------------


def run(command: list[str]) -> tuple[Cost, str]:
    """Run a process to its end; what it took, and what it printed."""
    with tempfile.TemporaryFile("w+") as printed:
        start = time.perf_counter()
        pid = os.posix_spawn(command[0], command, os.environ, file_actions=[
            (os.POSIX_SPAWN_DUP2, printed.fileno(), 1), (os.POSIX_SPAWN_DUP2, printed.fileno(), 2),
        ])  # fmt: skip
        _, status, usage = os.wait4(pid, 0)  # of this child alone
        wall = time.perf_counter() - start
        printed.seek(0)
        text = printed.read()
    if status:
        raise SystemExit(f"{' '.join(command)} failed:\n{text[-2000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024), text


class Log:
    """Runs that are done, a line of JSON each."""

    def __init__(self, path: Path, images: str, count: int) -> None:
        self.path, self.of = path, [str(Path(images).resolve()), count]
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = map(json.loads, path.read_text().splitlines() if path.exists() else [])
        self.done = {tuple(line["run"]): line["result"] for line in lines if line["of"] == self.of}

    def result(self, run: tuple[str, ...], make: Callable[[], Any]) -> Any:
        """The result of a run, made if it is not there."""
        if run not in self.done:
            self.done[run] = make()
            with self.path.open("a") as file:
                file.write(json.dumps({"of": self.of, "run": run, "result": self.done[run]}) + "\n")
        return self.done[run]


def measure(name: str, args: argparse.Namespace, folder: Path, log: Log) -> tuple[str, str]:
    """The row of each table for one model."""
    count = str(args.count)
    analyze = ["analyze", f"timm:{name}", "--data", args.images, "--images", count, "--force", "--out", str(folder)]
    commands = {
        "peer": [sys.executable, __file__, "--peer", name, args.images, count, str(folder / "peer.png")],
        "ours": [sys.executable, "-m", "fourier_probe", *analyze],
    }
    costs: dict[str, list[Cost]] = {"peer": [], "ours": []}
    for turn in range(args.repeats):
        for side in ("peer", "ours") if turn % 2 == 0 else ("ours", "peer"):
            of = (name, side, str(turn))
            costs[side].append(Cost(*log.result(of, lambda side=side: astuple(run(commands[side])[0]))))

    def middle(side: str, of: Callable[[Cost], float]) -> float:
        return statistics.median(map(of, costs[side]))

    def ratio(of: Callable[[Cost], float]) -> float:
        return statistics.median(of(a) / of(b) for a, b in zip(costs["ours"], costs["peer"], strict=True))

    wall, cpu, peak = (lambda c: c.wall), (lambda c: c.cpu), (lambda c: c.peak)
    row = [
        name, f"{middle('peer', wall):.1f}", f"{middle('ours', wall):.1f}", f"**{ratio(wall):.2f}**",
        f"{middle('peer', cpu):.1f}", f"{middle('ours', cpu):.1f}", f"{ratio(cpu):.2f}",
        f"{middle('peer', peak):.0f}", f"{middle('ours', peak):.0f}",
    ]  # fmt: skip

    def inside() -> str:
        text = run([sys.executable, __file__, "--parts", *analyze])[1]
        return next(line for line in text.splitlines() if line.startswith("PARTS|"))

    line = log.result((name, "parts"), inside)
    where = ", ".join(line.split("|")[1:])
    return f"| {' | '.join(row)} |", f"| {name} | {where} |"


def main() -> None:
    """Print the two tables."""
    if sys.argv[1:2] == ["--peer"]:
        name, folder, count, figure = sys.argv[2:]
        return peer(name, folder, int(count), figure)
    if sys.argv[1:2] == ["--parts"]:
        return parts(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", required=True, metavar="FOLDER", help="a folder of classes of photographs")
    parser.add_argument("--only", "--models", dest="models", nargs="+", default=MODELS, metavar="MODEL")
    parser.add_argument("--log", type=Path, default=Path("build/commands.jsonl"), help="runs that are done")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    files = [path for path in Path(args.images).rglob("*") if path.is_file()]
    size = sum(len(path.read_bytes()) for path in files)  # the warm read
    print(
        f"{args.count} of {len(files)} files ({size / 1e6:.0f} MB), {args.repeats} pairs, {os.cpu_count()} cores of "
        f"{platform.machine()}, load before {os.getloadavg()[0]:.1f}; seconds, MB\n"
    )
    print("| model | peer | ours | ratio | peer, CPU | ours, CPU | ratio | peer, peak | ours, peak |")
    print("|---|---|---|---|---|---|---|---|---|", flush=True)
    rows = []
    log = Log(args.log, args.images, args.count)
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            row, where = measure(name, args, Path(folder), log)
            print(row, flush=True)
            rows.append(where)
    print("\n| model | where our seconds go (CPU seconds) |\n|---|---|\n" + "\n".join(rows))


if __name__ == "__main__":
    main()
