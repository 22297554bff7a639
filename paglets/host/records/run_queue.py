"""The run queue: the paglets with pending work, according to their rows in the database."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

from paglets.codec.strict_json import loads
from paglets.host.records.in_host import IN_HOST_CLASSES
from paglets.store.db import Tx


@dataclass(frozen=True, slots=True, kw_only=True)
class Runnable:
    """A paglet with pending work. The file `schema.sql` describes the columns `intent` and `problem`.

    `intent_text` is the stored JSON text of `intent`. `is_to_wake` is True if the wake time of the paglet has passed.
    """

    agent_id: str
    kind: str
    class_name: str
    hook: str | None
    intent: dict[str, Any] | None
    intent_text: str | None
    has_posts: bool
    problem: str
    inactive: bool
    is_to_wake: bool

    @property
    def runs_in_host(self) -> bool:
        return self.class_name in IN_HOST_CLASSES


def runnable_paglets(tx: Tx, after: str, most: int, wall: float) -> list[Runnable]:
    """Return up to `most` paglets with a scheduled hook, an intent, a waiting post, or a wake time that has passed.

    The ids are greater than `after` and in ascending order. `wall` is the current time in epoch seconds.
    """
    rows = tx.all(
        "SELECT agent_id, kind, class_name, hook, intent, problem, inactive, wakes_at <= ? AS is_to_wake,"
        " EXISTS (SELECT 1 FROM inbox i WHERE i.agent_id = p.agent_id AND i.status = 'waiting') AS has_posts"
        " FROM paglets p WHERE p.agent_id IN ("
        "  SELECT * FROM (SELECT agent_id FROM paglets WHERE hook IS NOT NULL AND agent_id > ?2 ORDER BY 1 LIMIT ?3)"
        "  UNION"
        "  SELECT * FROM (SELECT agent_id FROM paglets WHERE intent IS NOT NULL AND agent_id > ?2 ORDER BY 1 LIMIT ?3)"
        "  UNION SELECT agent_id FROM paglets WHERE wakes_at <= ?1"
        f"  UNION SELECT * FROM ({_WITH_POSTS} LIMIT ?3))"
        " AND agent_id > ?2 ORDER BY agent_id LIMIT ?3",
        wall,
        after,
        most,
    )
    return [_due(row) for row in rows]


_WITH_POSTS = (
    "WITH RECURSIVE addressees (id) AS ("
    " SELECT (SELECT min(agent_id) FROM inbox WHERE status = 'waiting' AND agent_id > ?2) UNION ALL"
    " SELECT (SELECT min(agent_id) FROM inbox WHERE status = 'waiting' AND agent_id > id) FROM addressees"
    " WHERE id IS NOT NULL) SELECT id FROM addressees WHERE id IS NOT NULL"
)
"""A query for all paglets that have waiting posts.

It jumps from paglet to paglet in the index, so its cost does not depend on the number of posts.
"""


def is_still_pending(tx: Tx, due: Runnable) -> bool:
    """Return True if the paglet is on this host and its intent is still the one in `due`.

    A request to the host can change the intent at any time.
    """
    text: str | None = tx.value("SELECT intent FROM paglets WHERE agent_id = ?", due.agent_id)
    return text is not None and text == due.intent_text


def _due(row: sqlite3.Row) -> Runnable:
    intent = row["intent"]
    return Runnable(
        agent_id=row["agent_id"],
        kind=row["kind"],
        class_name=row["class_name"],
        hook=row["hook"],
        intent=None if intent is None else loads(intent),
        intent_text=intent,
        has_posts=bool(row["has_posts"]),
        problem=row["problem"],
        inactive=bool(row["inactive"]),
        is_to_wake=bool(row["is_to_wake"]),
    )
