"""Records of the routes about notes: what paglets tell their users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What a paglet or job told its user at `at`, in seconds since the epoch by the clock of its host `host_name`.

    Of a job `group_id` (None: of no group) and `job_key` say which.
    """

    at: float
    level: Level
    text: str
    host_name: str
    agent_id: str
    class_name: str
    name: str | None = None
    group_id: str | None = None
    job_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notes:
    """`GET /v1/notes?after=N&limit=N&group=ID`: notes of paglets whose home this host is, the newest last.

    Without `after` the newest ones; with it the oldest beyond. `next` is the `after` for those that follow.
    """

    notes: tuple[Note, ...]
    next: int
