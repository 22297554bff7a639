"""An attempt that met a full disk of its host: whether the job is placed again, and when it fails for good."""

from __future__ import annotations

from typing import Literal

MOST_TIMES = 3
PAUSES_SECONDS = (5.0, 60.0, 300.0)
"""Before the job is placed again. Other jobs end meanwhile, and somebody may make room."""

UNASKED_BYTES = 1 << 30
"""What a job without a request for disk may have in its scratch directory before it counts as what fills the disk."""

Verdict = Literal["again", "limit", "failed"]


def verdict(times: int, scratch_bytes: int, asked_bytes: int) -> Verdict:
    """Decide after an attempt that met a full disk; `times` it did so before, and used `scratch_bytes` itself."""
    if scratch_bytes > allowed(asked_bytes):
        return "limit"
    return "again" if times < MOST_TIMES else "failed"


def allowed(asked_bytes: int) -> int:
    return asked_bytes or UNASKED_BYTES


def pause_seconds(times: int) -> float:
    """How long a job waits that has met a full disk `times`, this one included."""
    return PAUSES_SECONDS[min(max(times, 1), len(PAUSES_SECONDS)) - 1]
