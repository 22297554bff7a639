"""What jobs printed, printed: bytes as they are into a file or pipe, on a terminal nothing that could trick it."""

from __future__ import annotations

import codecs
import sys
from typing import TextIO

from paglets.core.text import printable

HARMLESS = "\n\r\t"


class LogOutput:
    """A job's stdout goes to stdout, its stderr to stderr; each piece is there at once."""

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None) -> None:
        self._files = {"out": out or sys.stdout, "err": err or sys.stderr}
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {stream: decoder("replace") for stream in self._files}

    def write(self, stream: str, data: bytes) -> None:
        file = self._files[stream]
        if file.isatty():
            file.write("".join(_shown(letter) for letter in self._decoders[stream].decode(data)))
        else:
            file.flush()
            file.buffer.write(data)
        file.flush()

    def gap(self, stream: str, count: int) -> None:
        """Say on stderr that bytes are missing here, if they are."""
        if count > 0:
            self._files[stream].flush()
            print(f"[paglets: {count:,} bytes are not kept]", file=self._files["err"], flush=True)


def _shown(letter: str) -> str:
    return letter if letter in HARMLESS else printable(letter)
