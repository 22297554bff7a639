"""The writer for the output of jobs. Files and pipes get the bytes unchanged, terminals get escaped text."""

from __future__ import annotations

import codecs
import sys
from typing import TextIO

from paglets.core.text import escaped

KEPT = "\n\r\t"
"""The control characters that are not escaped on a terminal. Progress bars need the carriage return."""


class LogOutput:
    r"""A writer that copies a job's stdout to stdout and its stderr to stderr, and flushes each piece.

    On a terminal, escape sequences and other invisible characters are shown as text (`\x1b`), unless `raw` is set.
    """

    def __init__(self, out: TextIO | None = None, err: TextIO | None = None, *, raw: bool = False) -> None:
        self._raw = raw
        self._files = {"out": out or sys.stdout, "err": err or sys.stderr}
        decoder = codecs.getincrementaldecoder("utf-8")
        self._decoders = {stream: decoder("replace") for stream in self._files}

    def write(self, stream: str, data: bytes) -> None:
        file = self._files[stream]
        if file.isatty() and not self._raw:
            file.write(escaped(self._decoders[stream].decode(data), KEPT))
        else:
            file.flush()
            file.buffer.write(data)
        file.flush()

    def gap(self, stream: str, count: int) -> None:
        """Report on stderr that the next `count` bytes of the stream are missing. Do nothing if `count` is 0."""
        if count > 0:
            self._files[stream].flush()
            print(f"[paglets: {count:,} bytes are missing]", file=self._files["err"], flush=True)
