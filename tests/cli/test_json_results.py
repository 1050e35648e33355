"""--json of the verbs that print a table otherwise: one value of JSON on stdout, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from fourier_probe.cli import group


def printed(*words: str) -> object:
    done = CliRunner().invoke(group, list(words))
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_figures_are_listed_as_json() -> None:
    listed = printed("figures", "--list", "--json")
    assert isinstance(listed, list) and {"name", "shows"} == set(listed[0])


def test_heatmaps_are_printed_as_their_file(tmp_path: Path) -> None:
    words = ("heatmap", "timm:cifar_resnet8", "--images", "4", "--bands", "2", "--points", "layer3*")
    words += ("--out", str(tmp_path / "one"), "--json")
    assert printed(*words) == json.loads((tmp_path / "one" / "heatmap.json").read_text())
