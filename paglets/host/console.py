"""What a host says to its user: on the terminal, or in its log once it has left that."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress

from paglets.core.text import printable

Log = Callable[[str], None]

BACKGROUND = "PAGLETS_BACKGROUND"
"""The variable by which `paglets host --background` tells its process that it is one."""


class Console:
    """Speaks to the user on stderr; a host in the background speaks there only until it is ready."""

    def __init__(self, *, background: bool = False) -> None:
        self.background = background
        self._log: Log | None = None

    def print(self, text: str) -> None:
        """Print a line for the person at the terminal; data never goes to stderr, nor this to stdout."""
        if self._log is not None:
            self._log(text.removeprefix("paglets: "))
            return
        # Where the terminal or the pipe is gone nobody listens: the host goes on.
        with suppress(OSError):
            print(printable(text), file=sys.stderr, flush=True)  # it may have come from another host

    def warn(self, warning: str) -> None:
        """Print a warning, if there is one."""
        if warning:
            self.print(f"paglets: warning: {warning}")

    def announce(self, log: Log, text: str) -> None:
        """Write a line to the log, and print it too while there is a terminal."""
        log(text)
        if self._log is None:
            self.print(f"paglets: {text}")

    def detach(self, log: Log, take_output: Callable[[], None]) -> None:
        """In the background: speak to the log from now on. `take_output` gives it stdout and stderr too, which tells
        the process that waits at the other end that this host is ready."""
        if self.background:
            self._log = log
            take_output()
