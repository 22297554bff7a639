"""The folder of logs of a host: `AGENT/GENERATION.ATTEMPT.STREAM`, each a log as `worker.logs` has it."""

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
"""What a file takes at least, so that very many small logs are bounded as well."""

TRIM_SHARE = 0.9
"""Of the bound, to which the logs are brought once they exceed it: not every new line is a reason to look again."""

MOST_REMOVALS = 5_000
"""Attempts whose logs go in one trim; the next one goes on."""

Key = tuple[str, int, int]
"""Id of a paglet, generation, attempt."""


@dataclass(slots=True, kw_only=True)
class _Kept:
    """The logs of one attempt."""

    used_at: float = 0.0
    size_bytes: int = 0


class LogFolder:
    """Any thread; nothing of it is remembered between calls."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, agent_id: str, generation: int, attempt: int, stream: str) -> str:
        return str(self._folder / agent_id / f"{generation}.{attempt}.{stream}")

    def attempts(self, agent_id: str) -> tuple[tuple[int, int], ...]:
        """(generation, attempt) of the logs of one paglet that are there."""
        return tuple(sorted({(generation, attempt) for generation, attempt, _ in self._files(agent_id)}))

    def read(self, agent_id: str, generation: int, attempt: int, stream: str, offset: int, most_bytes: int) -> LogChunk:
        """A piece of a log; an empty one where there is none."""
        return logs.read(self.path(agent_id, generation, attempt, stream), offset, most_bytes)

    def trim(self, most_bytes: int, most_attempts: int, running: Callable[[], frozenset[Key]]) -> int:
        """Remove the logs not used for longest where they exceed a bound in all; return of how many attempts.

        Logs of attempts at work stay. Folders without a log are removed, too.
        """
        kept: dict[Key, _Kept] = {}
        for agent_id in self._agents():
            self._look(agent_id, kept)
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

    def _look(self, agent_id: str, kept: dict[Key, _Kept]) -> None:
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
        """Generation, attempt and entry of every file of every log of a paglet."""
        with suppress(OSError), os.scandir(self._folder / agent_id) as entries:
            for entry in entries:
                named = FILE.fullmatch(entry.name)
                if named is not None:
                    yield int(named[1]), int(named[2]), entry
