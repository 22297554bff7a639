"""Backpressure: an attempt waits while its host cannot store one of its files. The job does not fail for it.

The disk, its quota and its permissions belong to the host. The part `runs` repeats the operation at each tick until the
error is gone or a person has fixed it. The job shows the reason. Its time limit and a cancellation still apply.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from paglets.core.content import disk_error
from paglets.core.errors import NoRoom, StoreTransient
from paglets.host.records.run_repository import Run
from paglets.store import queue
from paglets.store.db import Tx

CODE = "no_room"
FILE_OPERATIONS = ("reserve_space", "publish")

OF_THE_DISK = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO))
"""The disk errors that affect every process. One job may have caused any other error, which must not block others."""


def as_host_error(result: Any) -> Any:
    """Return the result, with an OSError converted to an error that explains the problem of the disk."""
    if not isinstance(result, OSError):
        return result
    place = Path(result.filename) if isinstance(result.filename, str) else Path()
    return disk_error(result, place.parent)


def must_retry(run: Run, name: str, result: Any) -> bool:
    """Return True if the operation must be repeated, while the process waits for its reply."""
    if isinstance(result, StoreTransient):
        return True
    waits = name in FILE_OPERATIONS and run.entry == "attempt"
    return waits and isinstance(result, NoRoom) and result.passes


def blocked_by(run: Run, name: str, args: Any, result: Any) -> str | None:
    """Return what blocks the attempt, "" if nothing does, or None if this operation does not show it."""
    if name not in FILE_OPERATIONS or run.entry != "attempt" or isinstance(result, StoreTransient):
        return None
    if must_retry(run, name, result):
        return f"a file of it waits: {result.message}"
    # There is space again, but the last write failed and the next one has not finished.
    return f"a file of it waits: {args.problem}" if name == "reserve_space" and args.problem else ""


def store(tx: Tx, run: Run, now: float) -> None:
    """Store the current reason why the attempt is blocked."""
    queue.set_blocked(tx, run.agent_id, run.stamp.attempt, CODE if run.blocked_by else "", run.blocked_by, now)
