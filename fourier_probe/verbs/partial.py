"""What an interrupted heat map has done so far, in a file per rank; read with its types checked. May import io."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fourier_probe.errors import ResultError
from fourier_probe.io import atomic
from fourier_probe.io.typed import read_result
from fourier_probe.probe.heatmap import Response
from fourier_probe.runtime.distributed import of_first, rank_and_world
from fourier_probe.runtime.messages import note

STATE = "partial.json"
SCHEMA, VERSION = "fourier-probe/heatmap-partial", 3
_OF_A_RANK = re.compile(r"partial(-\d+)?\.json")


class _Row(msgspec.Struct, frozen=True):
    number: int
    response: Response


class _State(msgspec.Struct, frozen=True):
    schema: str
    version: int
    key: str
    digest: str  # of the rows: a number that was changed is still a number
    rows: list[_Row]


@dataclass
class Partial:
    """Responses by the number of the noise or filter, saved after every addition where there is a folder.

    Every rank writes a file of its own and reads those of all, so that a run goes on with another number of ranks.

    Attributes:
        path: of this rank's file; None keeps nothing.
        key: of the network, the images and the options, which fix the numbers.
        done: number -> response, of whatever rank, when the run began.
        own: what this rank's file holds.
    """

    path: Path | None
    key: str
    done: dict[int, Response] = field(default_factory=dict)
    own: dict[int, Response] = field(default_factory=dict)

    @classmethod
    def begin(cls, folder: Path | None, key: str, n: int) -> Partial:
        """What earlier runs with the same key left in `folder`; a damaged or another one's file is begun anew.

        Args:
            folder: where results go.
            key: see above.
            n: images, which no count can exceed.
        """
        if folder is None:
            return cls(None, key)
        rank = rank_and_world()[0]
        files = {path: _rows(path, key, n) for path in sorted(_files(folder))} if rank == 0 else {}
        by_name = of_first({path.name: rows for path, rows in files.items()})
        path = folder / (STATE if rank == 0 else f"partial-{rank}.json")
        done = {number: response for rows in by_name.values() for number, response in rows.items()}
        return cls(path, key, done, dict(by_name.get(path.name, {})))

    def add(self, responses: Mapping[int, Response]) -> None:
        """Take responses of this rank in, and write its file."""
        self.done.update(responses)
        self.own.update(responses)
        if self.path is not None:
            rows = [_Row(number, response) for number, response in self.own.items()]
            state = _State(SCHEMA, VERSION, self.key, _digest(rows), rows)
            atomic.write_json(self.path, msgspec.to_builtins(state))

    @staticmethod
    def remove(folder: Path) -> None:
        """The work is done: the files go."""
        for path in list(_files(folder)):
            path.unlink(missing_ok=True)

    @staticmethod
    def left_in(folder: Path) -> bool:
        """Whether there is something to go on from, of one of several targets too."""
        return any(True for _ in _files(folder)) or any(True for _ in folder.glob(f"*/{STATE}"))


def _files(folder: Path) -> Iterator[Path]:
    """Those of any rank; a file or folder of the user's own, such as partial-notes.json, is none."""
    yield from (path for path in folder.glob("partial*.json") if _OF_A_RANK.fullmatch(path.name) and not path.is_dir())


def _digest(rows: list[_Row]) -> str:
    return hashlib.sha256(msgspec.json.encode(rows)).hexdigest()


def _rows(path: Path, key: str, n: int) -> dict[int, Response]:
    """The responses in a file; none, with a note, where they cannot be used."""
    try:
        state = read_result(path, _State, schema=SCHEMA, version=VERSION, again="it is begun anew")
    except ResultError as error:
        note(str(error))
        return {}
    if state.digest != _digest(state.rows):
        note(f"{path} is damaged, its numbers are not those that were written: it is begun anew.")
        return {}
    if not all(row.number >= 0 and _possible(row.response, n) for row in state.rows):
        note(f"{path} is damaged, it counts more than {n} images or fewer than none: it is begun anew.")
        return {}
    if state.key != key:
        note(f"{path} is of another model, images or options, and is begun anew.")
        return {}
    return {row.number: row.response for row in state.rows}


def _possible(response: Response, n: int) -> bool:
    counts = response.wrong or 0, response.broken, response.mended
    sums = [total for pair in response.change.values() if pair is not None for total in pair]
    return all(0 <= count <= n for count in counts) and all(total >= 0 for total in sums)
