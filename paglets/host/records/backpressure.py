"""Backpressure: while the host cannot store a file of an attempt, the attempt waits instead of failing.

A full disk, a used-up quota or a wrong permission is a problem of the host, not of the job. The class `Runs` therefore
repeats the operation at each tick until it succeeds. The reason is stored with the job, where the user can read it. The
time limit of the job still applies, and the user can still cancel the job.
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
"""The error codes of disk problems that affect every job.

Any other error may be the fault of a single job, so it must not stop the host from starting other jobs.
"""


def as_host_error(result: Any) -> Any:
    """Convert an OSError to an error that describes the disk problem. Return any other result unchanged."""
    if not isinstance(result, OSError):
        return result
    place = Path(result.filename) if isinstance(result.filename, str) else Path()
    return disk_error(result, place.parent)


def must_retry(run: Run, name: str, result: Any) -> bool:
    """Return True if the operation failed with a host problem and must be repeated until it succeeds."""
    if isinstance(result, StoreTransient):
        return True
    waits = name in FILE_OPERATIONS and run.entry == "attempt"
    return waits and isinstance(result, NoRoom) and result.passes


def blocked_by(run: Run, name: str, args: Any, result: Any) -> str | None:
    """Return the reason why the attempt is blocked, or "" if it is not blocked.

    Return None if the result of this operation does not show whether the attempt is blocked.
    """
    if name not in FILE_OPERATIONS or run.entry != "attempt" or isinstance(result, StoreTransient):
        return None
    if must_retry(run, name, result):
        return f"the host cannot store a file of the job yet: {result.message}"
    # The space was reserved, but the previous write of the file failed, and the next one has not finished.
    retries_write = name == "reserve_space" and args.problem
    return f"the host cannot store a file of the job yet: {args.problem}" if retries_write else ""


def store(tx: Tx, run: Run, now: float) -> None:
    """Store the reason why the attempt is blocked, or clear it if the attempt is no longer blocked."""
    queue.set_blocked(tx, run.agent_id, run.stamp.attempt, CODE if run.blocked_by else "", run.blocked_by, now)
