"""The messages of a host to its user. They go to the terminal, or to the log after a background host has detached."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from paglets.core.errors import PagletsError
from paglets.core.text import counted, home_path, printable
from paglets.host.datadir.data_directory import LOG_NAME
from paglets.host.runtime.services import Settings
from paglets.slots.amounts import bytes_text

Log = Callable[[str], None]

BACKGROUND = "PAGLETS_BACKGROUND"
"""The environment variable with which `paglets host --background` marks the process that it starts."""


class Console:
    """The output of a host. It writes to stderr. A background host that is ready writes to its log instead."""

    def __init__(self, *, background: bool = False) -> None:
        self.background = background
        self._log: Log | None = None

    def print(self, text: str) -> None:
        """Print a line to stderr, or write it to the log after `detach`."""
        if self._log is not None:
            self._log(text.removeprefix("paglets: "))
            return
        # If the terminal or the pipe is gone, nobody reads the line, and the host continues.
        with suppress(OSError):
            print(printable(text), file=sys.stderr, flush=True)  # The text may come from another host.

    def warn(self, warning: str) -> None:
        """Print a warning, unless it is empty."""
        if warning:
            self.print(f"paglets: warning: {warning}")

    def fail(self, error: PagletsError) -> None:
        """Print an error with its hints."""
        self.print(f"paglets: {error.message}")
        for line in error.advice():
            self.print(line)

    def announce(self, log: Log, text: str) -> None:
        """Write a message to the log, and also print it if this host has not detached from its terminal.

        The first line is the message. Further lines are hints.
        """
        first, *hints = text.splitlines()
        for line in (first, *hints):
            log(line)
        if self._log is None:
            self.print(f"paglets: {first}")
            for line in hints:
                self.print(line)

    def detach(self, log: Log, take_output: Callable[[], None]) -> None:
        """Write all further messages to the log, if this host runs in the background.

        `take_output` redirects stdout and stderr to the log. This closes the pipe to the command that started the host,
        and the command then knows that the host is ready.
        """
        if self.background:
            self._log = log
            take_output()


def ready_line(settings: Settings, folder: Path) -> str:
    """Return a line such as `host laptop is ready (8 cores, 31 GiB); log: ~/.paglets/hosts/laptop/host.log`."""
    offered = settings.offered
    parts = [counted(offered.cpu_cores, "core"), bytes_text(offered.memory_bytes)]
    parts += [counted(offered.gpus, "GPU")] if offered.gpus else []
    return f"host {settings.name} is ready ({', '.join(parts)}); log: {home_path(folder / LOG_NAME)}"


def address_line(settings: Settings, folder: Path) -> str:
    """Return the line with the URL for other hosts, the mesh version, the tags and the data directory."""
    tags = f", tags {' '.join(settings.tags)}" if settings.tags else ""
    return f"listening at {settings.url} (mesh {settings.mesh_version}{tags}); data in {home_path(folder)}"
