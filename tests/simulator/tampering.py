"""Hooks that inject bugs into a run without a change to any module of the host."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paglets.core.errors import PagletsError
from paglets.core.parts import Part
from paglets.host.runtime.runner import Runner
from paglets.wire.request import Request, Response
from paglets.worker.host.worker_pool import WorkerPool, WorkerProcesses
from paglets.worker.launch import LaunchEvents
from paglets.worker.protocol import Go
from tests.fakes.blobs import MemoryBlobs
from tests.simulator.templates import SimTemplates
from tests.simulator.workers import SimWorker


def plain_commit(connection: sqlite3.Connection) -> None:
    connection.execute("COMMIT")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tampering:
    """Functions that inject bugs. By default they inject none.

    `connect` wraps the connection to a database, `commit` runs its COMMIT, and `blobs` stores bytes. `filter_reply`
    changes the reply of a host, and `lie` the error that ends a request. `templates` makes the templates of a launcher,
    `pool` its pool of warm workers, and `worker` one of their processes.
    `state_of` returns the state in the memory of a process that starts, and `frame` changes a frame of a process to its
    host. `wakes` changes the names of the parts that a COMMIT wakes, and `tick` calls a part.
    """

    connect: Callable[[sqlite3.Connection], sqlite3.Connection] = lambda database: database
    commit: Callable[[sqlite3.Connection], None] = plain_commit
    blobs: type[MemoryBlobs] = MemoryBlobs
    filter_reply: Callable[[Request, Response], Response] = lambda request, response: response
    lie: Callable[[PagletsError], PagletsError] = lambda error: error
    templates: type[SimTemplates] = SimTemplates
    pool: Callable[[WorkerProcesses, LaunchEvents], WorkerPool] = WorkerPool
    worker: type[SimWorker] = SimWorker
    state_of: Callable[[Go], dict[str, Any]] = lambda go: dict(go.state)
    frame: Callable[[dict[str, Any]], dict[str, Any]] = lambda frame: frame
    wakes: Callable[[tuple[str, ...]], tuple[str, ...]] = lambda parts: parts
    tick: Callable[[Part, float], float | None] = lambda part, now: part.tick(now)

    def replace_parts(self, runner: Runner) -> None:
        """Let the runner call its parts through `tick`."""
        for part in list(runner._parts.values()):
            runner.add(_TamperedPart(part, self.tick))


class _TamperedPart:
    """A part of a host that is called through `Tampering.tick`."""

    def __init__(self, part: Part, tick: Callable[[Part, float], float | None]) -> None:
        self.name = part.name
        self._part = part
        self._tick = tick

    def tick(self, now: float) -> float | None:
        return self._tick(self._part, now)
