"""`fourier-probe report`: saved results and runs as one HTML page that needs no network."""

from __future__ import annotations

from pathlib import Path

import click

from fourier_probe.cli import options, printing


@click.command()
@click.argument("results", nargs=-1, required=True, metavar="RUN_OR_RESULTS...", type=options.NAMED)
@click.option("-o", "--out", type=options.FILE_PATH, default=Path("report.html"), show_default=True, help="The page.")
@click.option("--title", metavar="TEXT", help="Heading of the page.  [default: the names of the targets]")
@options.labels_option("analysis")
@options.force_option("a page that is there")
@options.json_option("Print what the page shows as JSON.")
def command(
    results: tuple[str, ...], out: Path, title: str | None, labels: tuple[str, ...], force: bool, as_json: bool
) -> None:
    """One self-contained HTML page of RUN_OR_RESULTS: summary, spectra to pick and hover, depth profiles, provenance.

    Each is a spectra.json or its folder, a run folder (its analysis, else the last one made while it trained), a
    validation.json, a heatmap.json, the cka.json of `compare --cka` or its folder, or a folder that holds several of
    these. All analyses must be of the same images.

    \b
    fourier-probe report results/timm-resnet50
    fourier-probe report results/a results/b/spectra.json -o ab.html
    fourier-probe report results/analyze-a results/validate-a results/heatmap-a
    fourier-probe report results/a results/b results/compare-a-b
    fourier-probe report runs/study -o study.html --title "PRS, 10 % of the data"
    """  # noqa: D301
    from fourier_probe.verbs.report import report

    page = report(results, out=out, title=title, labels=labels, force=force)
    written = f"written to {out}: {page.about}, {len(page.html.encode()) / 1e3:.0f} kB"
    printing.answer(as_json, lambda: {"page": str(out), **page.to_json()}, lambda: [written])
