"""The one way to write a file: whole or not at all. Imports errors only."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from fourier_probe.errors import OutputError

_NUMBERS = re.compile(r"\[\n\s+([^\[\]{}\"]+?)\n\s*\]")  # no string of JSON holds a line break
_BREAK = re.compile(r"\n\s*")
_LONGEST = 120  # characters of a name
_TEMPORARY = ".fourier-probe-"  # prefix of a file still being written; `sweep` removes strays


def write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, never a part.

    Missing folders are made; if writing fails, they go again.

    Raises:
        OutputError: the bytes do not fit or the place cannot be written; the old file is intact.
    """
    path = Path(path)
    try:
        with made(path.parent):
            _replace(path, data)
    except OSError as error:
        number = errno.errorcode.get(error.errno or 0, str(error.errno))
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        advice = "free some space and run again" if full else "choose another place with --out"
        raise OutputError(
            f"cannot write {len(data)} bytes to {_final(path)}: {error.strerror} ({number}); "
            f"what was there before is intact; {advice}."
        ) from error


def _replace(path: Path, data: bytes) -> None:
    handle, name = tempfile.mkstemp(prefix=_TEMPORARY, suffix=f".{os.getpid()}", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)  # gone already where all went well


@contextlib.contextmanager
def made(folder: Path, *, keep: bool = True) -> Iterator[None]:
    """`folder` is there inside the block; what was made of it goes again, where empty, if the block fails.

    Args:
        folder: made if missing, with its parents.
        keep: false removes what was made even if the block succeeds.
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    stays = False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
        stays = keep
    finally:
        if not stays:
            with contextlib.suppress(OSError):  # not empty, or never made
                for path in missing:
                    path.rmdir()


def write_text(path: Path | str, text: str) -> None:
    """`write_bytes` of UTF-8; what UTF-8 cannot hold (a name of a file that is no text) is written as an escape."""
    write_bytes(path, text.encode(errors="backslashreplace"))


def write_json(path: Path | str, value: object) -> None:
    """`write_bytes` of JSON, a list of numbers on one line; NaN and infinity are refused: no JSON reader takes them."""
    text = json.dumps(value, indent=1, allow_nan=False)
    text = _NUMBERS.sub(lambda found: f"[{re.sub(_BREAK, ' ', found[1])}]", text)
    write_bytes(path, (text + "\n").encode())


def sweep(folder: Path) -> list[Path]:
    """Remove temporary files that a killed process left in `folder`; returns what was removed."""
    strays = [stray for stray in folder.glob(f"{_TEMPORARY}*") if not _is_running(stray.suffix[1:])]
    for stray in strays:
        if stray.is_dir():
            shutil.rmtree(stray, ignore_errors=True)
        else:
            stray.unlink(missing_ok=True)
    return strays


def output_folder(folder: Path | str, *, results: tuple[str, ...] = (), force: bool = False) -> Path:
    """Make sure, before any work is done, that results can be written into `folder`; returns it. Leaves no trace.

    Args:
        folder: need not be there: `write_bytes` and `staged` make it when the first file is ready.
        results: globs of files that must not be there yet, unless `force`.
        force: existing results may be overwritten.

    Raises:
        OutputError: it is a file, cannot be made or written, or holds results already.
    """
    folder = Path(folder)
    try:
        with made(folder, keep=False):
            sweep(folder)
            handle, name = tempfile.mkstemp(prefix=_TEMPORARY, suffix=f".{os.getpid()}", dir=folder)
            os.close(handle)
            Path(name).unlink()
    except OSError as error:
        raise OutputError(
            f"cannot write into {folder}: {error.strerror or error}; choose another place with --out."
        ) from error
    present = sorted(path.name for pattern in results for path in folder.glob(pattern))
    if present and not force:
        raise OutputError(
            f"{folder} already holds {', '.join(present[:3])}: pass --force to overwrite, or another --out."
        )
    _no_folders(folder, present)
    return folder


@contextlib.contextmanager
def staged(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """A folder to write several files into, which take their places in `folder` together, once all are written.

    Args:
        folder: where they belong, made if missing; those of `names` that were not written are removed from it.
        names: of all files that may be written, the last one moved last.

    Raises:
        OutputError: no such folder can be made. Whatever goes wrong inside, `folder` stays as it was.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(made(folder))
            stage = Path(tempfile.mkdtemp(prefix=_TEMPORARY, suffix=f".{os.getpid()}", dir=folder))
        except OSError as error:
            raise OutputError(
                f"cannot write into {folder}: {error.strerror or error}; what was there is intact."
            ) from error
        stack.callback(shutil.rmtree, stage, ignore_errors=True)
        yield stage
        _no_folders(folder, names)
        try:
            for name in names:
                if (stage / name).exists():
                    (stage / name).replace(folder / name)
                else:
                    (folder / name).unlink(missing_ok=True)
            _sync_folder(folder)
        except OSError as error:
            raise OutputError(f"cannot move all results into {folder}: {error}; run again with --force.") from error


def _no_folders(folder: Path, names: Iterable[str]) -> None:
    """Raise where a folder has the name of a result: it is nobody's to remove."""
    taken = [name for name in names if (folder / name).is_dir()]
    if taken:
        raise OutputError(f"{folder / taken[0]} is a folder and would be a file: move it, or choose another --out.")


def _final(path: Path) -> Path:
    """Where a file that is staged will be: what a reader knows of."""
    return Path(*(part for part in path.parts if not part.startswith(_TEMPORARY)))


def safe_name(name: str) -> str:
    """A file name from any string: no separators, no leading dot, at most 120 characters, the same on every machine.

    Where characters beyond printable ASCII, or the end of a long name, are left out, six hex digits of all of it
    follow, so that two such names have two files.

    >>> safe_name("../../etc/passwd"), safe_name("timm:resnet18"), safe_name("ü.pt"), safe_name("ä.pt")
    ('etc-passwd', 'timm-resnet18', 'pt-18dbb8', 'pt-707eb5')
    """
    clean = re.sub(r"[^A-Za-z0-9._+-]+", "-", name).strip("-.")
    clean = re.sub(r"(\.\.)+-?", "", clean).strip("-.")
    if name.isascii() and name.isprintable() and len(clean) <= _LONGEST and (clean or not name):
        return clean or "unnamed"
    digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:6]
    return f"{clean[: _LONGEST - 7].strip('-.') or 'unnamed'}-{digest}"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _is_running(pid: str) -> bool:
    """Whether the writer of a temporary file may still be at work."""
    if not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of another user
        pass
    return True
