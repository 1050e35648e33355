"""The allocator is tamed by the commands alone, on glibc alone, and only where glibc says that it took it."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from fourier_probe.runtime import allocator

GLIBC = (os.confstr("CS_GNU_LIBC_VERSION") or "") if sys.platform == "linux" else ""
on_glibc = pytest.mark.skipif(not GLIBC.startswith("glibc"), reason="needs glibc")

MAPPED = """
import ctypes, numpy
class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int) for name in "arena ordblks smblks hblks hblkhd a b c d e".split()]
mallinfo = ctypes.CDLL(None).mallinfo
mallinfo.restype = Info
before = mallinfo().hblks
held = numpy.empty(2**24, numpy.uint8)
print("mapped", mallinfo().hblks - before)
"""


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in allocator.SETTINGS:
        monkeypatch.setenv(name, "")  # so that what `tame` sets goes again
        monkeypatch.delenv(name)


def libc(monkeypatch: pytest.MonkeyPatch, *refuses: int) -> list[tuple[int, int]]:
    """A C library in place of ours that writes down what it is told, and refuses some values."""
    told: list[tuple[int, int]] = []

    def mallopt(what: int, value: int) -> int:
        told.append((what, value))
        return int(value not in refuses)

    monkeypatch.setattr(os, "confstr", lambda _name: "glibc 2.36")
    monkeypatch.setattr(ctypes, "CDLL", lambda _name: SimpleNamespace(mallopt=mallopt))
    return told


def python(code: str, **environment: str) -> str:
    plain = {name: value for name, value in os.environ.items() if name not in allocator.SETTINGS}
    done = subprocess.run([sys.executable, "-c", code], env=plain | environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@on_glibc
def test_large_blocks_come_from_the_heap_here_and_in_child_processes() -> None:
    assert python(MAPPED) == "mapped 1\n"
    tamed = "from fourier_probe.runtime.allocator import tame; assert tame();"
    assert python(tamed + MAPPED) == "mapped 0\n"
    assert python(f"{tamed} import subprocess, sys; subprocess.run([sys.executable, '-c', {MAPPED!r}])") == "mapped 0\n"


def test_both_thresholds_are_set_and_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    told = libc(monkeypatch)
    assert allocator.tame()
    assert told == [(-3, 2**30), (-1, 2**31 - 1)]
    assert os.environ["MALLOC_MMAP_THRESHOLD_"] == str(2**30)
    assert os.environ["MALLOC_TRIM_THRESHOLD_"] == str(2**31 - 1)


def test_a_refused_threshold_is_tried_smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    told = libc(monkeypatch, 2**30)
    assert allocator.tame()
    assert told == [(-3, 2**30), (-3, 2**25), (-1, 2**31 - 1)]
    assert os.environ["MALLOC_MMAP_THRESHOLD_"] == str(2**25)


@pytest.mark.parametrize("refuses", [(2**30, 2**25), (2**31 - 1,)])
def test_what_is_refused_is_said_and_not_handed_on(monkeypatch: pytest.MonkeyPatch, refuses: tuple[int, ...]) -> None:
    libc(monkeypatch, *refuses)
    assert not allocator.tame()
    assert not set(allocator.SETTINGS) & set(os.environ)


@pytest.mark.parametrize("version", ["musl 1.2", None, ValueError("unrecognized"), AttributeError()])
def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch, version: str | Exception | None) -> None:
    told = libc(monkeypatch)

    def confstr(_name: str) -> str | None:
        if isinstance(version, Exception):
            raise version
        return version

    monkeypatch.setattr(os, "confstr", confstr)
    assert not allocator.tame()
    assert told == []


@pytest.mark.parametrize("name", allocator.SETTINGS)
def test_what_the_user_set_is_left(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    told = libc(monkeypatch)
    monkeypatch.setenv(name, "131072")
    assert not allocator.tame()
    assert told == []


@pytest.mark.slow
@on_glibc
def test_the_command_does_it_and_the_library_does_not() -> None:
    show = "import json, os; print(json.dumps(sorted(k for k in os.environ if k.startswith('MALLOC'))))"
    library = "import fourier_probe, fourier_probe.cli, fourier_probe.verbs.analyze;"
    assert json.loads(python(library + show)) == []
    command = f"""
import sys, atexit
atexit.register(lambda: exec({show!r}))
sys.argv = ["fourier-probe", "figures", "--list"]
from fourier_probe.cli import main
main()
"""
    last = python(command).splitlines()[-1]
    assert json.loads(last) == ["MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"]
