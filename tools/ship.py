"""Copy the finished runs of a study into checkpoints/, small: `python tools/ship.py RUNS [OUT]`.

Of every run config.json, metrics.csv, conversions.csv, spectra.json and the spectra while training. Of the runs of
one seed (`--seed`) also the weights of last.pt in half precision, without optimizer state, and the sums behind the
spectra (spectra.npz); `--weights GLOB` keeps those to some runs by name. Folders are taken out of what names a file.
What other runs of OUT there are stays, and all of OUT where the whole would be over LIMIT. OUT/manifest.json lists
every run with what it is, its accuracy, and the SHA-256 of its files.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import tempfile
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import msgspec
import torch

from fourier_probe import checkpoints
from fourier_probe.io import atomic
from fourier_probe.training.naming import placeless
from fourier_probe.training.record import RunResult
from fourier_probe.training.runs import Run, read_runs

LOGS = ("metrics.csv", "conversions.csv")
KEPT = ("arch", "model_args", "epoch", "step", "metrics", "finished", "data_fingerprint")
LISTED = ("model", "model_args", "data", "data_scale", "train_images", "schedule", "seed")
DIGITS = 5  # of the numbers in spectra: less than half as many bytes as all of them
OF_ERRORS = 3  # and of their standard errors
LIMIT = 20_000_000  # bytes; all tracked files together may have 40 MB


def main() -> None:
    """Ship what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path("checkpoints"))
    parser.add_argument("--seed", type=int, default=0, help="whose weights go along (default: 0)")
    parser.add_argument("--weights", nargs="*", default=["*"], metavar="GLOB", help="of which runs (default: all)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        staged = Path(name)
        for run in read_runs(asked.runs):
            if run.result is None:
                print(f"{run.path.name} is not finished: left out")
                continue
            chosen = any(fnmatchcase(run.path.name, pattern) for pattern in asked.weights)
            ship(run, staged / run.path.name, weights=chosen and run.config.seed == asked.seed)
        new = sorted(staged.iterdir())
        kept = [folder for folder in asked.out.glob("*/") if not (staged / folder.name).exists()]
        total = sum(size(folder) for folder in (*new, *kept))
        if total > LIMIT:
            raise SystemExit(f"{total / 1e6:.1f} MB is over {LIMIT / 1e6:.0f}: choose fewer with --weights.")
        for folder in new:
            shutil.rmtree(asked.out / folder.name, ignore_errors=True)
            shutil.copytree(folder, asked.out / folder.name)
    listed = [entry(run) for run in read_runs(asked.out)]
    atomic.write_json(asked.out / "manifest.json", listed)
    print(f"{len(listed)} runs, {sum(each['weights'] for each in listed)} with weights, {total / 1e6:.1f} MB")


def size(folder: Path) -> int:
    """Bytes of all files in it."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def ship(run: Run, folder: Path, *, weights: bool) -> None:
    """One run into a new `folder`."""
    folder.mkdir()
    for name in LOGS:
        if (run.path / name).exists():
            shutil.copy(run.path / name, folder)
    atomic.write_json(folder / "config.json", homeless(msgspec.to_builtins(run.record)))
    if (run.path / "spectra.json").exists():
        spectra(run.path / "spectra.json", folder)
    for path in sorted((run.path / "spectra").glob("epoch-*.json")):
        (folder / "spectra").mkdir(exist_ok=True)
        spectra(path, folder / "spectra")
    if weights:
        if (run.path / "spectra.npz").exists():
            shutil.copy(run.path / "spectra.npz", folder)
        payload = checkpoints.read(run.path / "last.pt").payload
        small = {key: payload[key] for key in KEPT if key in payload}
        small |= {key: homeless(payload[key]) for key in ("config", "conversions") if key in payload}
        small |= {key: half(payload[key]) for key in ("state_dict", "state_dict_ema") if key in payload}
        checkpoints.save(folder / "last.pt", small)


def half(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Floating tensors as float16; raises where a value has no room there."""
    out = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    for name, value in out.items():
        if not torch.isfinite(value).all():
            raise SystemExit(f"{name} does not fit into half precision: the largest is {state[name].abs().max():.3g}.")
    return out


def spectra(path: Path, folder: Path) -> None:
    """A result with its sources named without folders, its numbers rounded."""
    record = json.loads(path.read_text())
    if Path(record["target"].get("source") or "").is_absolute():  # a run folder, while training
        record["target"]["source"] = Path(record["target"]["source"]).name
    for part, key in (("target", "data"), ("images", "source")):
        if isinstance(record[part].get(key), str):
            record[part][key] = placeless(record[part][key])
    compact = json.dumps(rounded(record), separators=(",", ":"), allow_nan=False)  # a fifth fewer bytes
    atomic.write_text(folder / path.name, compact + "\n")


def rounded(value: Any, digits: int = DIGITS) -> Any:
    """Nested values, floats to so many digits, those under a name with `stderr` in it to OF_ERRORS."""
    if isinstance(value, dict):
        return {key: rounded(each, OF_ERRORS if "stderr" in key else digits) for key, each in value.items()}
    if isinstance(value, list):
        return [rounded(each, digits) for each in value]
    return float(f"{value:.{digits}g}") if isinstance(value, float) else value


def homeless(value: Any) -> Any:
    """Nested values without the folders of data, models and forks."""
    if isinstance(value, dict):
        names = ("data", "model", "arch", "fork")
        return {
            key: placeless(each) if key in names and isinstance(each, str) else homeless(each)
            for key, each in value.items()
        }
    return [homeless(each) for each in value] if isinstance(value, list) else value


def entry(run: Run) -> dict[str, Any]:
    """What the manifest says of a run."""
    files = sorted(path for path in run.path.rglob("*") if path.is_file() and path.name != ".lock")
    result = msgspec.to_builtins(run.result or RunResult())
    return {
        "name": run.path.name,
        **{name: getattr(run.config, name) for name in LISTED},
        "result": result,
        "weights": (run.path / "last.pt").exists(),
        "files": {
            path.relative_to(run.path).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
        },
    }


if __name__ == "__main__":
    main()
