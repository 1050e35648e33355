"""`fourier-probe analyze`: from a checkpoint and images to spectra, their files and two figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fourier_probe.cli import options
from fourier_probe.io import atomic

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from fourier_probe.results.spectra import Spectra
    from fourier_probe.verbs.targets import Target

FILES = (
    *("spectra.json", "spectra.npz", "spectra.csv", "spectra.pdf", "spectra.png", "depth.pdf", "depth.png"),
    *("attention.pdf", "attention.png"),
)
MAPS = 64  # images whose attention maps are looked at


@click.command()
@click.argument("target", callback=options.existing)
@options.model_options
@options.image_options
@click.option("--points", metavar="GLOB", multiple=True, help="Listen at the modules or points of this name instead.")
@click.option(
    "--branches/--no-branches",
    default=True,
    show_default=True,
    help="Also the branches of EIT and the halves of gated attention.",
)
@click.option("--metrics", type=click.Choice(["all", "diagonal"]), default="all", show_default=True)
@click.option("--axis", type=click.Choice(["true", "paper"]), default="true", show_default=True, help="Frequency axis.")
@click.option("--log", type=click.Choice(["floor", "log1p", "plain"]), default="floor", help="Which logarithm of |F|.")
@click.option("--floor", type=float, default=1e-6, show_default=True, help="Of ln(|F| + floor).")
@click.option("--window", type=click.Choice(["none", "hann"]), default="none", show_default=True)
@click.option("--maps", is_flag=True, help="Keep the mean 2-D log-amplitude of each point in spectra.npz.")
@click.option("--attention", is_flag=True, help=f"Also attention distance, response and gates, on {MAPS} images.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the results.  [default: results/NAME]")
@click.option("--force", is_flag=True, help="Overwrite results that are there.")
@click.option("--json", "as_json", is_flag=True, help="Print spectra.json on stdout instead of the table.")
def command(target: str, out: Path | None, force: bool, as_json: bool, **given: Any) -> None:
    """Relative log-amplitude spectra of every layer of TARGET over a set of images.

    TARGET is a checkpoint (.pt .pth .th .tar .ckpt .safetensors), a run folder, or timm:NAME.

    \b
    fourier-probe analyze timm:resnet50 --data photos/
    fourier-probe analyze ckpt.pt --model resnet18 --model-arg num_classes=10 --data test.npz
    fourier-probe analyze runs/cifar_resnet20 --untrained --out results/before
    torchrun --nproc-per-node 2 -m fourier_probe analyze ckpt.pt --data photos/
    """  # noqa: D301
    folder = out or Path("results") / atomic.safe_name(target + ("-untrained" if given["untrained"] else ""))
    with options.ranks() as rank:
        if rank == 0:
            atomic.output_folder(folder, results=FILES, force=force)  # before any work
        result, label = run(target, **given)
        if rank:
            return
        written = write(result, label, folder)
    if as_json:
        click.echo(json.dumps(result.to_json(), allow_nan=False))
    else:
        print_table(result, label)
        options.say(f"written to {folder}: {', '.join(written)}")


def run(target: str, **given: Any) -> tuple[Spectra, str]:
    """Resolve, open, analyze: what `analyze`, `compare` and `demo` share; returns the result and the target's label."""
    from fourier_probe.verbs.targets import resolve

    names = ("model", "model_args", "pretrained", "use_ema", "untrained")
    found = resolve(target, **{name: given[name] for name in names})
    if found.spectra is not None:
        raise click.UsageError(f"{target} is a saved result already; `fourier-probe compare` draws it again.")
    return analyze_target(found, **{key: value for key, value in given.items() if key not in names}), found.label


def analyze_target(
    target: Target,
    *,
    data: str | None,
    split: str,
    limit: int | None,
    batch_size: int,
    workers: int,
    skip_bad: bool,
    device: str,
    amp: str,
    img_size: tuple[int, int] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    points: tuple[str, ...] = (),
    branches: bool = True,
    metrics: str = "all",
    axis: str = "true",
    log: str = "floor",
    floor: float = 1e-6,
    window: str = "none",
    maps: bool = False,
    attention: bool = False,
) -> Spectra:
    """Spectra of a resolved target over a source of images; notes and a progress bar go to stderr."""
    import torch

    from fourier_probe.data import batches, choose, open_data
    from fourier_probe.probe.analyze import analyze
    from fourier_probe.probe.metrics import Definition

    if target.model is None:
        raise click.UsageError(f"{target.label} is a saved result: there is no model to analyze.")
    definition = Definition(log=log, floor=floor, window=window, axis=axis, metrics=metrics)  # type: ignore[arg-type]
    source = options.data_source(data, target.data)
    images = choose(open_data(source, split, limit=limit), limit=limit, skip_bad=skip_bad)
    spec = target.input_spec(img_size=img_size, mean=mean, std=std, arrays=images.array_size)
    if images.pixels is not None and min(spec.size) > min(images.pixels.shape[1:3]):
        small = "x".join(map(str, images.pixels.shape[1:3]))
        options.note(
            f"the images of {source} are {small} and are enlarged to {spec.size[0]}x{spec.size[1]} for this model: "
            "the highest frequencies hold no image content. Give larger images with --data, or --img-size if it was "
            "trained on small ones."
        )
    rank, world = options.rank_and_world()
    stream = batches(images, spec, batch_size=batch_size, shard=(rank, world), workers=workers)
    with options.progress(f"analyze {target.label}", len(range(rank, len(images), world))) as advance:
        result = analyze(
            target.model,
            stream,
            definition=definition,
            points=points,
            branches=branches,
            maps=maps,
            device=options.device_of(device),
            amp={"none": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp],
            target=target.provenance,
            source={
                "source": source,
                "split": split,
                "size": list(spec.size),
                "mean": list(spec.mean),
                "std": list(spec.std),
                "skipped": images.skipped,
            },
            classes=len(images.classes) if images.classes is not None else None,
            progress=advance,
        )
    for excluded in result.excluded:
        options.note(f"{excluded['name']} is left out: {excluded['reason']}.")
    if attention and rank == 0:
        result.attention = _attention(target, choose(images, limit=MAPS), spec, batch_size, options.device_of(device))
    return result


def _attention(target: Target, images: Any, spec: Any, batch_size: int, device: str) -> list[dict[str, Any]]:
    """The measures of each attention layer as plain values; a note says what has none, and why."""
    import torch

    from fourier_probe.data import batches
    from fourier_probe.errors import ProbeError
    from fourier_probe.probe.attention import attention_layers

    stream = batches(images, spec, batch_size=min(batch_size, 8))
    model = target.model or torch.nn.Identity()  # there is one: the spectra came of it
    try:
        layers, left_out = attention_layers(model.to(torch.device(device)), (batch.images for batch in stream))
    except Exception as error:  # the spectra are done: whatever a foreign network raises here must not lose them
        reason = str(error) if isinstance(error, ProbeError) else f"{type(error).__name__}: {error}"
        options.note(f"attention is left out: {(reason.strip().splitlines() or [''])[0].rstrip('.')}.")
        return []
    for name, reason in list(left_out.items())[:3]:
        options.note(f"attention of {name} is left out: {reason}.")
    return [{**layer.to_json(), "images": len(images)} for layer in layers]


def write(result: Spectra, label: str, folder: Path) -> list[str]:
    """The three result files, then the figures; returns the names of what was written."""
    from fourier_probe.plots import depth_figure, save_each, spectra_figure
    from fourier_probe.plots.attention import attention_figure
    from fourier_probe.results.comparison import has_frequencies

    with atomic.staged(folder, (*FILES[1:], FILES[0])) as place:  # the result itself last, old figures go
        result.save(place)
    figures: dict[str, Callable[[], Figure]] = {"spectra": lambda: spectra_figure([result], [label])}
    if has_frequencies(result):
        figures["depth"] = lambda: depth_figure([result], [label])
        left_out_note([result])
    else:
        options.note("no point has two usable frequencies, so there is no depth profile to draw.")
    if result.attention:
        figures["attention"] = lambda: attention_figure(result.attention, label)
    save_each(figures, folder)
    return [name for name in FILES if (folder / name).exists()]


def left_out_note(results: list[Spectra]) -> None:
    """Say which points a depth profile cannot show."""
    from fourier_probe.results.profile import profile, view_of

    view = view_of(results)
    names = list(dict.fromkeys(name for result in results for name in profile(result, view).left_out))
    if names:
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        options.note(f"maps too small to have {view.heading} are not in the profile: {', '.join(names[:5])}{more}.")


def print_table(result: Spectra, label: str) -> None:
    """One line a point, and what the columns mean."""
    from fourier_probe.results.comparison import has_frequencies
    from fourier_probe.results.profile import profile, view_of

    values: dict[str, str] = {}
    heading, meaning = "delta", "delta: ln amplitude relative to DC, nats"
    if has_frequencies(result):
        view = view_of(result)
        heading, meaning = view.heading, view.why
        along = profile(result, view)
        for name, value, error in zip(along.names, along.value, along.stderr, strict=True):
            values[name] = f"{value:+.2f}" + (f" ± {along.quantile * error:.2f}" if error == error else "")

    def show(value: float | None, form: Callable[[float], str]) -> str:
        return form(value) if value is not None and value == value else "-"

    rows = [
        [
            point.name,
            point.op,
            "x".join(map(str, point.grid)),
            str(point.channels),
            f"{point.depth:.2f}",
            values.get(point.name, "-"),
            show(point.scalars.get("hfd_share"), "{:.3f}".format),
            show(point.hfd_share_white, "{:.3f}".format),
            show(point.scalars.get("slope"), "{:+.2f}".format),
        ]
        for point in result.points
    ]
    seen, top1 = result.images, "" if result.top1 is None else f", top-1 {100 * result.top1:.1f} %"
    title = f"{label} ({result.target.get('weights')} weights), {seen['n']} images of {seen['source']}{top1}"
    columns = ["point", "op", "grid", "ch", "depth", heading, "HFD share", "white", "slope"]
    options.table(title, columns, rows)
    click.echo(
        f"{meaning.rstrip('.')}; nats, ± 95 % over images. HFD share: power beyond half Nyquist, beside white noise's; "
        "slope: of ln power density on ln frequency."
    )
    if 20 <= seen["n"] < 60:
        click.echo("under 60 images an interval of 95 % of variance or ac_dc holds .87 to .91 of the time.")
