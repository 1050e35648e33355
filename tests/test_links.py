"""Every link of README and the pages of docs leads to something that is here, without a network; the site names all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def heading(text: str) -> str:
    """The anchor that a forge gives a heading."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]", "", text).lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for match in LINK.finditer(CODE.sub("", page.read_text(encoding="utf-8"))):
        link = match[1] or match[2]
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            broken.append(link)
        elif anchor and target.suffix == ".md":
            anchors = [heading(line.lstrip("# ")) for line in target.read_text().splitlines() if line.startswith("#")]
            broken += [link] * (anchor not in anchors)
    assert not broken


def test_the_site_has_every_page_once() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    named = re.findall(r"[\w/-]+\.md", nav)
    assert sorted(named) == sorted(page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md"))


def test_what_the_reference_names_is_there() -> None:
    import importlib

    for name in re.findall(r"^::: ([\w.]+)$", (ROOT / "docs/api.md").read_text(), flags=re.MULTILINE):
        module, _, last = name.rpartition(".")
        found = (
            importlib.import_module(name)
            if name == "fourier_probe.errors"
            else getattr(importlib.import_module(module), last)
        )
        assert found.__doc__, name


def test_citation_and_bibtex_name_the_papers() -> None:
    for page in ("README.md", "CITATION.cff"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert all(arxiv in text for arxiv in ("2202.06709", "2210.01370", "2203.07116")), page
