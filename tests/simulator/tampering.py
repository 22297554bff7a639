"""Hooks that inject bugs into a run without a change to any module of the host."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paglets.core.errors import PagletsError
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
    host. `wakes` changes the names of the parts that a COMMIT wakes.
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
