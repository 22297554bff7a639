"""An attempt whose file its host does not take just now waits for its answer: that is never the job's failure.

The disk, its quota or its rights are the host's. What passes by itself, or when a person mends it, is asked for again
with each turn of the part `runs`; the job says so, and its time-out and a cancel end it as they end any other.
"""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

from paglets.core.content import no_place
from paglets.core.errors import NoRoom, StoreTransient
from paglets.host.records.run_repository import Run
from paglets.store import queue
from paglets.store.db import Tx

CODE = "no_room"
FILE_OPERATIONS = ("reserve_space", "publish")

OF_THE_DISK = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO))
"""What is the disk's and would meet every process. Anything else may be one job's doing, and must not stop others."""


def as_host_error(result: Any) -> Any:
    """The same result, but what the disk itself has against it in words."""
    if not isinstance(result, OSError):
        return result
    place = Path(result.filename) if isinstance(result.filename, str) else Path()
    return no_place(result, place.parent)


def must_retry(run: Run, name: str, result: Any) -> bool:
    """Whether the process waits for its answer, and the same is performed once more."""
    if isinstance(result, StoreTransient):
        return True
    waits = name in FILE_OPERATIONS and run.entry == "attempt"
    return waits and isinstance(result, NoRoom) and result.passes


def blocked_by(run: Run, name: str, args: Any, result: Any) -> str | None:
    """What holds up the attempt by now, "": nothing; None where this operation does not tell."""
    if name not in FILE_OPERATIONS or run.entry != "attempt" or isinstance(result, StoreTransient):
        return None
    if must_retry(run, name, result):
        return f"a file of it waits: {result.message}"
    # There is room by now, but the last try to write there failed, and the next has not come to its end.
    return f"a file of it waits: {args.problem}" if name == "reserve_space" and args.problem else ""


def store(tx: Tx, run: Run, now: float) -> None:
    """Note what holds up the attempt, as it stands by now."""
    queue.set_blocked(tx, run.agent_id, run.stamp.attempt, CODE if run.held_up else "", run.held_up, now)
