"""The log folder of a host: files `AGENT/GENERATION.ATTEMPT.STREAM` in the format of `paglets.worker.logs`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from paglets.worker import logs
from paglets.worker.logs import LogChunk

STREAMS = ("out", "err")
FILE = re.compile(r"([0-9]{1,18})\.([0-9]{1,18})\.(?:out|err)(?:\.([0-9]+))?")

BLOCK_BYTES = 4096
"""The minimum size with which a log is counted, so that the size limit also limits the number of small logs."""

TRIM_SHARE = 0.9
"""The fraction of a limit to which `trim` reduces the logs, so that new lines do not cause the next trim at once."""

MOST_REMOVALS = 5_000
"""The maximum number of attempts whose logs one trim removes. The next trim continues."""

Key = tuple[str, int, int]
"""A paglet's id, generation and attempt."""


@dataclass(slots=True, kw_only=True)
class _Kept:
    """The last write time and the total size of the logs of one attempt."""

    used_at: float = 0.0
    size_bytes: int = 0


class LogFolder:
    """The log files of all paglets of a host. Each call lists the folder again. May be used from any thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, agent_id: str, generation: int, attempt: int, stream: str) -> str:
        return str(self._folder / agent_id / f"{generation}.{attempt}.{stream}")

    def attempts(self, agent_id: str) -> tuple[tuple[int, int], ...]:
        """Return (generation, attempt) of each existing log of one paglet."""
        return tuple(sorted({(generation, attempt) for generation, attempt, _ in self._files(agent_id)}))

    def read(self, agent_id: str, generation: int, attempt: int, stream: str, offset: int, most_bytes: int) -> LogChunk:
        """Return a piece of a log, empty if there is no such log."""
        return logs.read(self.path(agent_id, generation, attempt, stream), offset, most_bytes)

    def trim(self, most_bytes: int, most_attempts: int, running: Callable[[], frozenset[Key]]) -> int:
        """Remove the least recently written logs if the logs exceed a limit, down to TRIM_SHARE of both limits.

        `running` returns the attempts whose logs are kept. Folders without a log are removed, too. Return the number of
        attempts whose logs were removed.
        """
        kept: dict[Key, _Kept] = {}
        for agent_id in self._agents():
            self._measure(agent_id, kept)
        total = sum(entry.size_bytes for entry in kept.values())
        left = len(kept)
        if total <= most_bytes and left <= most_attempts:
            return 0
        at_work = running()
        removed = 0
        for key in sorted(kept, key=lambda key: (kept[key].used_at, key)):
            fits = total <= most_bytes * TRIM_SHARE and left <= most_attempts * TRIM_SHARE
            if fits or removed >= MOST_REMOVALS:
                break
            if key not in at_work:
                self._remove(key)
                total -= kept[key].size_bytes
                left -= 1
                removed += 1
        return removed

    def _measure(self, agent_id: str, kept: dict[Key, _Kept]) -> None:
        found = False
        for generation, attempt, entry in self._files(agent_id):
            found = True
            with suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                of_attempt = kept.setdefault((agent_id, generation, attempt), _Kept())
                of_attempt.used_at = max(of_attempt.used_at, status.st_mtime)
                of_attempt.size_bytes += -(-status.st_size // BLOCK_BYTES) * BLOCK_BYTES or BLOCK_BYTES
        if not found:
            with suppress(OSError):
                os.rmdir(self._folder / agent_id)

    def _remove(self, key: Key) -> None:
        agent_id, generation, attempt = key
        for of_generation, of_attempt, entry in list(self._files(agent_id)):
            if (of_generation, of_attempt) == (generation, attempt):
                with suppress(OSError):
                    os.unlink(entry.path)
        with suppress(OSError):
            os.rmdir(self._folder / agent_id)

    def _agents(self) -> Iterator[str]:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield entry.name

    def _files(self, agent_id: str) -> Iterator[tuple[int, int, os.DirEntry[str]]]:
        """Yield generation, attempt and entry of each log file of a paglet."""
        with suppress(OSError), os.scandir(self._folder / agent_id) as entries:
            for entry in entries:
                named = FILE.fullmatch(entry.name)
                if named is not None:
                    yield int(named[1]), int(named[2]), entry
