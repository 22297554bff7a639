"""The output of jobs, written out: bytes as they are into a file or pipe, and harmless text on a terminal."""

from __future__ import annotations

import codecs
import sys
from typing import TextIO

from paglets.core.text import harmless

KEPT = "\n\r\t"
"""A carriage return is kept for the sake of progress bars: it can only write over its own line."""


class LogOutput:
    """Writes a job's stdout to stdout and its stderr to stderr, each piece at once.

    On a terminal, escape sequences and other invisible characters are shown as text (`\\x1b`), unless `raw`.
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None, *, raw: bool = False) -> None:
        self._raw = raw
        self._files = {"out": out or sys.stdout, "err": err or sys.stderr}
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {stream: decoder("replace") for stream in self._files}

    def write(self, stream: str, data: bytes) -> None:
        file = self._files[stream]
        if file.isatty() and not self._raw:
            file.write(harmless(self._decoders[stream].decode(data), KEPT))
        else:
            file.flush()
            file.buffer.write(data)
        file.flush()

    def gap(self, stream: str, count: int) -> None:
        """Say on stderr that bytes are missing here, if they are."""
        if count > 0:
            self._files[stream].flush()
            print(f"[paglets: {count:,} bytes are not kept]", file=self._files["err"], flush=True)
