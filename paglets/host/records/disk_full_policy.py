"""The policy after an attempt met a full disk of its host: place the job again, or let it fail."""

from __future__ import annotations

from typing import Literal

MOST_TIMES = 3
PAUSES_SECONDS = (5.0, 60.0, 300.0)
"""The delays before the job is placed again, in which other jobs may end and a person may free space."""

UNASKED_BYTES = 1 << 30
"""The scratch bytes of a job without a disk request above which the job itself counts as the cause of a full disk."""

Verdict = Literal["again", "limit", "failed"]


def verdict(times: int, scratch_bytes: int, asked_bytes: int) -> Verdict:
    """Decide after a full disk. The job met one `times` before, and its scratch directory has `scratch_bytes`."""
    if scratch_bytes > allowed(asked_bytes):
        return "limit"
    return "again" if times < MOST_TIMES else "failed"


def allowed(asked_bytes: int) -> int:
    return asked_bytes or UNASKED_BYTES


def pause_seconds(times: int) -> float:
    """Return the delay for a job that has met a full disk `times`, including this one."""
    return PAUSES_SECONDS[min(max(times, 1), len(PAUSES_SECONDS)) - 1]
