"""A LaTeX table and a caption of names from anywhere: text, whatever they hold."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from fourier_probe.papers.exhibit import Exhibit, to_latex


def cells(*names: str) -> list[str]:
    text = to_latex([{"run": name} for name in names], {"run": "run"}, "a caption")
    return [line.removesuffix(r" \\") for line in text.split("\\midrule\n")[1].split("\n\\bottomrule")[0].splitlines()]


def test_what_latex_would_take_for_its_own_is_text() -> None:
    hostile = (
        r"\input{/etc/passwd}",
        "a_b%c&d#e$f",
        "[2cm]x",
        "*x",
        "x--y---z",
        "~^",
        "two\n\nlines",
        "\x1b[31m\0",
        "\udcff",
    )
    assert cells(*hostile) == [
        r"\textbackslash{}input\{/etc/passwd\}",
        r"a\_b\%c\&d\#e\$f",
        "{[}2cm{]}x",  # behind the \\ of the row above it would be a length
        "{*}x",
        "x-{}-y-{}-{}-z",
        r"\textasciitilde{}\textasciicircum{}",
        r"two\textbackslash{}n\textbackslash{}nlines",
        r"\textbackslash{}x1b{[}31m\textbackslash{}x00",
        r"\textbackslash{}udcff",
    ]


def test_an_empty_line_ends_no_caption(tmp_path: Path) -> None:
    Exhibit(Figure(), [{"run": "a"}], "one\n\ntwo \x1b[31m", table={"run": "run"}).write(tmp_path)
    assert (
        r"\caption{one\textbackslash{}n\textbackslash{}ntwo \textbackslash{}x1b{[}31m}"
        in (tmp_path / "figure.tex").read_text()
    )
    assert (tmp_path / "figure.txt").read_text() == "one\\n\\ntwo \\x1b[31m\n"
