"""What an interrupted heat map has done so far, in a file of its own; read with its types checked. May import io."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from fourier_probe.errors import ResultError
from fourier_probe.io import atomic
from fourier_probe.io.typed import read_json
from fourier_probe.probe.heatmap import Response
from fourier_probe.runtime.messages import note

STATE = "partial.json"
SCHEMA, VERSION = "fourier-probe/heatmap-partial", 1
Frequency = tuple[int, int]


class _Row(msgspec.Struct, frozen=True):
    frequency: Frequency
    response: Response


class _State(msgspec.Struct, frozen=True):
    schema: str
    version: int
    key: str
    rows: list[_Row]


@dataclass
class Partial:
    """Responses by frequency, saved after every addition where there is a folder.

    Attributes:
        path: of the file; None keeps nothing.
        key: of the network, the images and the options.
        done: frequency -> response.
    """

    path: Path | None
    key: str
    done: dict[Frequency, Response] = field(default_factory=dict)

    @classmethod
    def begin(cls, folder: Path | None, key: str, n: int) -> Partial:
        """What an earlier run with the same key left in `folder`; a damaged or another one's file is begun anew.

        Args:
            folder: where results go.
            key: see above.
            n: images, which no count can exceed.
        """
        partial = cls(None if folder is None else folder / STATE, key)
        if partial.path is None or not partial.path.exists():
            return partial
        try:
            state = read_json(partial.path, _State, schema=SCHEMA, version=VERSION, again="it is begun anew")
        except ResultError as error:
            note(str(error))
            return partial
        if not all(_possible(row.response, n) for row in state.rows):
            note(f"{partial.path} is damaged, it counts more than {n} images or fewer than none: it is begun anew.")
            return partial
        if state.key != key:
            note(f"{partial.path} is of another model, images or options, and is begun anew.")
            return partial
        partial.done = {row.frequency: row.response for row in state.rows}
        return partial

    def add(self, responses: Mapping[Frequency, Response]) -> None:
        """Take responses in, and write the file."""
        self.done.update(responses)
        if self.path is not None:
            rows = [_Row(frequency, response) for frequency, response in self.done.items()]
            atomic.write_json(self.path, msgspec.to_builtins(_State(SCHEMA, VERSION, self.key, rows)))

    @staticmethod
    def remove(folder: Path) -> None:
        """The work is done: the file goes."""
        (folder / STATE).unlink(missing_ok=True)


def _possible(response: Response, n: int) -> bool:
    counts = response.wrong or 0, response.broken, response.mended
    sums = [total for pair in response.change.values() if pair is not None for total in pair]
    return all(0 <= count <= n for count in counts) and all(total >= 0 for total in sums)
