"""A hook of mkdocs: what the pages show or link outside docs/ is copied beside them or linked at the repository."""

from __future__ import annotations

import posixpath
import re
import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\]\()((?:\.\./)+[^)#\s]+)")


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    """Links that leave docs/ become links to copies; the pages themselves read the same on the forge."""
    folder = posixpath.dirname(page.file.src_uri)

    def inside(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", folder, found[2]))
        up = "../" * folder.count("/") + ("../" if folder else "")
        return found[0] if target.startswith(("docs/", "..")) else f"{found[1]}{up}{_address(target)}"

    return LINK.sub(inside, markdown)


def on_files(files: Any, config: Any) -> Any:
    """Files outside docs/ that pages name, so that links to them are known."""
    from mkdocs.structure.files import File

    for page in sorted((ROOT / "docs").rglob("*.md")):
        for found in LINK.finditer(page.read_text(encoding="utf-8")):
            path = (page.parent / found[2]).resolve()
            if path.is_file() and ROOT in path.parents and ROOT / "docs" not in path.parents:
                uri = _address(path.relative_to(ROOT).as_posix())
                if files.get_file_from_path(uri) is None:
                    copy = File(uri, str(_copies(path, uri)), config["site_dir"], use_directory_urls=False)
                    files.append(copy)
    return files


def _address(path: str) -> str:
    """Where the copy of a file of the repository lies in the site; a page of Markdown is shown as text."""
    return f"files/{path}" + ".txt" * path.endswith(".md")


def _copies(path: Path, uri: str) -> Path:
    """A folder that holds a copy of the file under its address."""
    folder = ROOT / "build" / "linked"
    (folder / uri).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, folder / uri)
    return folder
