"""`fourier-probe heatmap`: what noise of each frequency does to a model's answers and features."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fourier_probe.cli import options
from fourier_probe.io import atomic

if TYPE_CHECKING:
    from fourier_probe.probe.heatmap import NoiseProbe, Response
    from fourier_probe.verbs.targets import Target

FILES = ("heatmap.csv", "heatmap.pdf", "heatmap.png", "bands.csv", "bands.pdf", "bands.png")
STATE = "partial.json"
CHUNK = 16  # frequencies between two saves


@click.command()
@click.argument("target")
@options.model_options
@options.image_options
@click.option("--points", metavar="GLOB", multiple=True, help="Also the mean change of features at these probe points.")
@click.option(
    "--eps", type=float, help="L2 norm of the noise a channel, pixels in [0, 1].  [default: 4.0 at 32 pixels]"
)
@click.option("--stride", type=click.IntRange(min=1), default=1, show_default=True, help="Every so many frequencies.")
@click.option("--bands", type=click.IntRange(min=2), help="Instead: noise limited to each of so many bands of radii.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the noise.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the results.  [default: results/NAME-heatmap]")
@click.option("--force", is_flag=True, help="Overwrite results that are there.")
def command(target: str, out: Path | None, force: bool, **given: Any) -> None:
    """Top-1 error of TARGET under Fourier-basis noise, frequency by frequency (Yin et al. 2019).

    A run that was stopped goes on where it was when it is started again with the same options.

    \b
    fourier-probe heatmap runs/cifar_resnet20 --images 200
    fourier-probe heatmap runs/cifar_resnet20 --images 200 --stride 2 --points 'layer3*'
    fourier-probe heatmap timm:resnet50 --pretrained --data photos/ --bands 8
    """  # noqa: D301
    folder = out or Path("results") / atomic.safe_name(f"{target}-heatmap")
    atomic.output_folder(folder, results=FILES, force=force)
    bands, eps, stride, seed = (given.pop(name) for name in ("bands", "eps", "stride", "seed"))
    probe, source = _probe(target, **given)
    size = (probe.pixels.shape[2], probe.pixels.shape[3])
    from fourier_probe.probe.heatmap import default_eps
    from fourier_probe.trace.forward import giving

    eps = default_eps(size) if eps is None else eps
    with giving(probe.model, probe.pixels):
        clean = 1 - probe.clean().wrong / len(probe.pixels)
    if bands:
        written = _bands(probe, bands, eps, seed, clean, folder)
    else:
        key = {**source, "eps": eps, "stride": stride, "seed": seed, "points": [point.name for point in probe.points]}
        written = _heat_map(probe, size, eps, stride, seed, key, folder)
    click.echo(f"{len(probe.pixels)} images, eps {eps:.2f}; top-1 without noise {_percent(clean)}")
    click.echo(f"written to {folder}: {', '.join(written)}")


def _percent(share: float) -> str:
    return f"{share:.1%}" if share == share else "unknown (no labels of the model's classes)"


def _probe(
    target: str,
    *,
    data: str | None,
    split: str,
    limit: int,
    batch_size: int,
    workers: int,
    skip_bad: bool,
    device: str,
    amp: str,
    img_size: tuple[int, int] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    points: tuple[str, ...],
    **how: Any,
) -> tuple[NoiseProbe, dict[str, Any]]:
    """The target on its device, and the images as pixels in memory."""
    import torch

    from fourier_probe.data import batches, choose, open_data
    from fourier_probe.probe.heatmap import NoiseProbe
    from fourier_probe.probe.points import find_points
    from fourier_probe.verbs.targets import resolve

    if amp != "none":
        raise click.UsageError("--amp is not for heatmap: differences of features need the digits.")
    found = resolve(target, **how)
    if found.model is None:
        raise click.UsageError(f"{target} is a saved result: there is no model to disturb.")
    source = options.data_source(data, found.data)
    images = choose(open_data(source, split), limit=limit, skip_bad=skip_bad)
    spec = found.input_spec(img_size=img_size, mean=mean, std=std)
    read = list(batches(images, spec, batch_size=batch_size, workers=workers))
    back = [torch.tensor(list(value)).view(1, -1, 1, 1) for value in (spec.std, spec.mean)]
    pixels = torch.cat([batch.images for batch in read]) * back[0] + back[1]
    labels = None
    if images.labels is not None and _classes(found, images) == getattr(found.model, "num_classes", None):
        labels = torch.cat([batch.labels for batch in read if batch.labels is not None])
    if labels is None and not points:
        raise click.UsageError(
            f"{source} has no labels of the classes of {found.label}, so there is no error to map: "
            "name probe points with --points, or images with --data."
        )
    where = torch.device(options.device_of(device))
    model = found.model.to(where)
    listen = find_points(model, read[0].images[:1].to(where), select=list(points)) if points else []
    digest = sum(batch.digest.sum(0) for batch in read)
    key = {
        "target": found.provenance.get("sha256") or target,
        **{name: found.provenance.get(name) for name in ("weights", "arch", "model_args")},
        "images": str(digest.tolist()),  # type: ignore[union-attr]
        "size": spec.size,
        "mean": spec.mean,
        "std": spec.std,
    }
    key = json.loads(json.dumps(key, default=str))  # as it is read back
    probe = NoiseProbe(model, pixels.clamp_(0, 1), labels, spec.mean, spec.std, listen, batch_size, where)
    return probe, key


def _heat_map(
    probe: NoiseProbe, size: tuple[int, int], eps: float, stride: int, seed: int, key: dict[str, Any], folder: Path
) -> list[str]:
    from fourier_probe.plots import save
    from fourier_probe.plots.heatmap import heat_map_figure
    from fourier_probe.probe.heatmap import distinct_frequencies, full_plane

    wanted = distinct_frequencies(size, stride)
    done = _saved(folder / STATE, key)
    missing = [frequency for frequency in wanted if frequency not in done]
    if done:
        options.note(f"{len(done)} of {len(wanted)} frequencies are done already; going on.")
    with options.progress("heat map", len(missing)) as advance:
        for first in range(0, len(missing), CHUNK):
            found = probe.frequencies(missing[first : first + CHUNK], eps, seed=seed, progress=advance)
            done |= {frequency: _row(response, len(probe.pixels)) for frequency, response in found.items()}
            rows = [[*frequency, values] for frequency, values in done.items()]
            atomic.write_json(folder / STATE, {"key": key, "rows": rows})
    columns = list(next(iter(done.values())))
    table = [[*frequency, *(done[frequency][name] for name in columns)] for frequency in wanted]
    _csv(folder / "heatmap.csv", ["ky", "kx", *columns], table)
    planes = {name: full_plane({k: float(done[k][name]) for k in wanted}, size) for name in columns}
    save(heat_map_figure({_title(name): plane for name, plane in planes.items()}), folder / "heatmap")
    (folder / STATE).unlink()
    return ["heatmap.csv", "heatmap.pdf", "heatmap.png"]


def _bands(probe: NoiseProbe, bands: int, eps: float, seed: int, clean: float, folder: Path) -> list[str]:
    import numpy as np

    from fourier_probe.plots import save
    from fourier_probe.plots.heatmap import bands_figure

    n = len(probe.pixels)
    with options.progress("bands", bands) as advance:
        found = probe.bands(bands, eps, seed=seed, progress=advance)
    rows = {band: _row(response, n) for band, response in found.items()}
    columns = list(rows[0])
    table = [[band / bands, (band + 1) / bands, *(row[name] for name in columns)] for band, row in rows.items()]
    _csv(folder / "bands.csv", ["from", "to", *columns], table)
    if "error" not in columns:
        return ["bands.csv"]
    accuracy = 1 - np.array([row["error"] for row in rows.values()])
    save(bands_figure(accuracy, np.sqrt(accuracy * (1 - accuracy) / n), clean), folder / "bands")
    return ["bands.csv", "bands.pdf", "bands.png"]


def _row(response: Response, n: int) -> dict[str, float]:
    """Means over images: top-1 error where there are labels, change of features at each point."""
    error = {"error": response.wrong / n} if response.wrong == response.wrong else {}
    return error | {f"change:{name}": value / n for name, value in response.change.items()}


def _title(column: str) -> str:
    return "Top-1 error" if column == "error" else f"Change at {column.removeprefix('change:')}"


def _saved(path: Path, key: dict[str, Any]) -> dict[tuple[int, int], dict[str, float]]:
    """What an earlier run with the same options has done."""
    if not path.exists():
        return {}
    try:
        state = json.loads(path.read_text())
        same = state["key"] == key
    except (ValueError, KeyError, TypeError):
        same = False
    if not same:
        options.note(f"{path} is of another model, images or options, and is begun anew.")
        return {}
    return {(ky, kx): values for ky, kx, values in state["rows"]}


def _csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerows([header, *rows])
    atomic.write_text(path, buffer.getvalue())


def _classes(target: Target, images: Any) -> int | None:
    """Number of classes the labels are of: of their names, else of the largest label where the model has fewer."""
    if images.labels is None:
        return None
    if images.classes is not None:
        return len(images.classes)
    seen = int(images.labels.max()) + 1
    ours = getattr(target.model, "num_classes", None)
    return seen if isinstance(ours, int) and seen > ours else None
