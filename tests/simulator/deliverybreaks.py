"""Deliberate bugs in the delivery of waiting items, made like those in `breaks`."""

from __future__ import annotations

import sqlite3
from collections import Counter
from functools import partial
from typing import Any, cast

from paglets.core.parts import Part
from paglets.host.runtime.delivery import DeliveryLanes
from tests.simulator.breaks import Break, RewritingConnection, by_sql, moving, posting, rewritten
from tests.simulator.network import Weather
from tests.simulator.tampering import Tampering


def _lost_events(name: str) -> Tampering:
    """Never wake the part of this name after a COMMIT, and let it not read on its own what waits."""

    def wakes(parts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(part for part in parts if part != name)

    def tick(part: Part, now: float) -> float | None:
        due = part.tick(now)
        return None if isinstance(part, DeliveryLanes) and part.name == name and due == part._reconcile_at else due

    return Tampering(wakes=wakes, tick=tick)


class Requeueing(RewritingConnection):
    """A connection that adds a post to the outbox again, once, when its acknowledgement deletes it."""

    def execute(self, sql: str, args: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        if sql == "DELETE FROM outbox WHERE n = ?":
            added = self._inner.execute(
                "INSERT INTO outbox (agent_id, host, host_store, created_at, problem)"
                " SELECT agent_id, host, host_store, created_at, 'again' FROM outbox"
                " WHERE n = ? AND problem != 'again'",
                args,
            )
            if added.rowcount:
                copy = "INSERT INTO outbox_messages SELECT ?, message FROM outbox_messages WHERE n = ?"
                self._inner.execute(copy, (added.lastrowid, *args))
        return super().execute(sql, args)


def _queued_again() -> Tampering:
    return Tampering(connect=lambda database: cast(sqlite3.Connection, Requeueing(database, (), Counter())))


DELIVERY_BREAKS: tuple[Break, ...] = (
    Break(
        name="a post is committed, its event is lost, and no reconciliation follows",
        tamper=partial(_lost_events, "outbox"),
        profile=posting(),
    ),
    Break(
        name="a hand-off is committed, its event is lost, and no reconciliation follows",
        tamper=partial(_lost_events, "handoff"),
        profile=moving(Weather()),
    ),
    Break(name="a post that is settled is queued again", tamper=_queued_again, profile=posting()),
    by_sql(
        "a page of posts is skipped after a failed request",
        rewritten("WHERE host_store = ? AND n > ?", "WHERE host_store = ? AND n > ? AND problem = ''"),
        profile=posting(Weather(refused=0.5)),
    ),
    by_sql(
        "a page of hand-offs is skipped after a failed request",
        rewritten("WHERE target_store = ? AND (began_at", "WHERE target_store = ? AND problem = '' AND (began_at"),
        profile=moving(Weather(refused=0.5)),
    ),
)
