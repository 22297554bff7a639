"""Requests and replies of the routes for notes, the messages of paglets to their users."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Level = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note of a paglet or job to its user. `at`: epoch seconds by the clock of its host `host_name`.

    `group_id`, `job_key`: the job that wrote the note; null and "" if the paglet is not a job of a group.
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
    """The notes of paglets whose home is this host, newest last: `GET /v1/notes?after=N&limit=COUNT&group=ID`.

    Without `after`, these are the newest notes; with `after`, the oldest notes after note N. `next`: the `after` of the
    next page.
    """

    notes: tuple[Note, ...]
    next: int
