"""`fp.figures`: files that take their places together, and are never overwritten unasked."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from fourier_probe.errors import OutputError, ResultError, TrainingError
from fourier_probe.io import atomic
from fourier_probe.papers import FIGURES, register_figure
from fourier_probe.papers.exhibit import Exhibit, MissingRunsError
from fourier_probe.registry import RegistryError
from fourier_probe.runtime.messages import ProbeNote
from fourier_probe.training import TrainConfig
from fourier_probe.training.runs import Run
from fourier_probe.verbs.figures import UndrawnError, figures


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A folder with one run that is not finished: enough for figures that need none."""
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    record = {"config": TrainConfig.of({"data": "bundled"}).to_json(), "result": None, "plan": {"epochs": 1}}
    (folder / "config.json").write_text(json.dumps(record))
    (folder / "metrics.csv").write_text("epoch\n")
    return tmp_path / "runs"


@pytest.fixture
def added() -> Iterator[None]:
    """Two figures of a user's own."""

    @register_figure("one", "the first", tables=["differences"], latex=True)
    def one(runs: Sequence[Run]) -> Exhibit:
        rows = [{"a": 1.5, "b": "x_1 $ { \\"}]
        return Exhibit(_figure(), rows, "One & all.", {"differences": rows}, {"a": "a", "b": "b"})

    @register_figure("two")
    def two(runs: Sequence[Run]) -> Exhibit:
        """The second."""
        return Exhibit(_figure(), [], "Two.")

    @register_figure("wanting")
    def wanting(runs: Sequence[Run]) -> Exhibit:
        raise MissingRunsError("wanting needs more runs.")

    @register_figure("secretive")
    def secretive(runs: Sequence[Run]) -> Exhibit:
        return Exhibit(_figure(), [], "x", {"hidden": []})

    entries = FIGURES._entries
    yield
    for name in ("one", "two", "wanting", "secretive"):
        entries.pop(name)


def _figure() -> Figure:
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot([0, 1])
    return figure


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


ONE = ["one-differences.csv", "one.csv", "one.pdf", "one.png", "one.tex", "one.txt"]
TWO = ["two.csv", "two.pdf", "two.png", "two.txt"]


def test_what_is_drawn_is_returned_and_written(added: None, runs: Path, tmp_path: Path) -> None:
    exhibits = figures("one", "two", runs=runs)
    assert [exhibit.name for exhibit in exhibits] == ["one", "two"]
    assert repr(exhibits[0]) == "Exhibit('one', 1 rows: One & all....)"
    assert exhibits[0].to_frame()["a"].tolist() == [1.5]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["runs"]  # out=None writes nothing
    figures("one", "two", runs=[Run.read(runs / "a")], out=tmp_path / "deep" / "out")
    assert sorted(_digests(tmp_path / "deep" / "out")) == ONE + TWO
    assert (tmp_path / "deep" / "out" / "one-differences.csv").read_text() == "a,b\n1.5,x_1 $ { \\\n"
    text = (tmp_path / "deep" / "out" / "one.tex").read_text()
    assert r"1.5 & x\_1 \$ \{ \textbackslash{} \\" in text
    assert r"\caption{One \& all.}" in text
    assert {entry.name: entry.summary for entry in FIGURES.entries()}["two"] == "The second."


@pytest.mark.parametrize("name", ONE)
def test_no_file_of_a_figure_is_overwritten_unasked(name: str, added: None, runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for file in (name, "one-mine.csv"):
        (out / file).write_text("mine")
    with pytest.raises(OutputError, match=f"already holds {name}: pass --force"):
        figures("one", runs=runs, out=out)
    assert (out / name).read_text() == "mine"
    figures("one", runs=runs, out=out, force=True)
    assert sorted(_digests(out)) == sorted([*ONE, "one-mine.csv"])
    assert (out / name).read_bytes() != b"mine"
    assert (out / "one-mine.csv").read_text() == "mine"  # no figure's own


def test_all_old_figures_are_intact_where_the_last_new_one_does_not_fit(
    added: None, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    figures("one", "two", runs=runs, out=out)
    (out / "one.csv").write_text("old")
    before, write = _digests(out), atomic.write_bytes

    def full(path: Path | str, data: bytes) -> None:
        if Path(path).name == "two.png":
            raise OutputError("the disk is full")
        write(path, data)

    monkeypatch.setattr(atomic, "write_bytes", full)
    with pytest.raises(OutputError, match="the disk is full"):
        figures("one", "two", runs=runs, out=out, force=True)
    assert _digests(out) == before


def test_a_full_disk_leaves_old_figures_and_says_so(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for end in (".pdf", ".png", ".csv", ".tex", ".txt"):
        (out / f"eit-table{end}").write_text(f"old{end}")
    before = _digests(out)
    command = f"ulimit -f 8; exec {sys.executable} -m fourier_probe figures eit-table --force --runs {runs} --out {out}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)  # noqa: S607
    assert done.returncode == 1
    assert f"to {out / 'eit-table.pdf'}: File too large (EFBIG); what was there before is intact; free" in done.stderr
    assert "Traceback" not in done.stderr
    assert _digests(out) == before


def test_a_figure_that_cannot_be_drawn_costs_no_other(added: None, runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UndrawnError, match=r"1 of 2 figures could not be drawn .*:\n  wanting: wanting needs"):
        figures("one", "wanting", runs=runs, out=tmp_path / "out")
    assert sorted(_digests(tmp_path / "out")) == ONE
    with pytest.raises(ResultError, match=r"does not declare \(hidden\)"):
        figures("secretive", runs=runs)
    with pytest.raises(RegistryError, match=r"there is no figure 'wantin'. Did you mean wanting"):
        figures("wantin", runs=runs, out=tmp_path / "none")
    with pytest.raises(TrainingError, match="there is no run in"):
        figures("one", runs=tmp_path / "none", out=tmp_path / "none")
    with pytest.raises(RegistryError, match="cannot be the name"):
        register_figure("a/b")
    assert not (tmp_path / "none").exists()


def test_without_names_what_is_missing_is_remarked(
    added: None, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = {name: entry for name, entry in FIGURES._entries.items() if name in ("one", "wanting")}
    monkeypatch.setattr(FIGURES, "_entries", entries)
    with pytest.warns(ProbeNote, match="wanting is left out: wanting needs more runs."):
        assert [exhibit.name for exhibit in figures(runs=runs)] == ["one"]
