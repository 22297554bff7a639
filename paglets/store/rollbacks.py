"""Rollbacks of hand-offs that their targets have not answered, and fences against older copies on other hosts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from paglets.api.paglets import ResidenceRow
from paglets.codec.strict_json import dumps, loads
from paglets.core.record import from_json, to_json
from paglets.core.refs import HostRef
from paglets.store import paglets, residence
from paglets.store.db import Tx
from paglets.store.handoffs import Key
from paglets.store.pages import FIRST_PLACE, Budget, Page, Place, page_of

UNWANTED = "unwanted"
DISPOSE = "dispose"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedHandoff:
    """A hand-off without an answer, with the source's `epoch`, the requested `recall`, and the last `problem`."""

    agent_id: str
    epoch: int
    target: HostRef
    recall: str
    problem: str

    @property
    def key(self) -> Key:
        return (self.agent_id, self.epoch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """A notice to the host `target` that a newer copy of the paglet, under `epoch`, is on another host."""

    agent_id: str
    epoch: int
    target: HostRef


def request(tx: Tx, agent_id: str, recall: str) -> bool:
    """Request the rollback `recall` of a leaving paglet. Return False if the paglet is not leaving.

    UNWANTED is for jobs only, and is not replaced by DISPOSE.
    """
    changed = tx.run(
        "UPDATE handoffs SET recall = ? WHERE agent_id = ? AND (? != 'unwanted' OR kind = 'job')"
        " AND recall NOT IN ('unwanted', ?)",
        recall,
        agent_id,
        recall,
        recall,
    )
    if changed:
        tx.wake("rollback")
        tx.touch(agent_id)
    return tx.value("SELECT 1 FROM handoffs WHERE agent_id = ?", agent_id) is not None


def requested(tx: Tx, most: int, skip: Iterable[str] = ()) -> list[UnfinishedHandoff]:
    """Return the hand-offs with a requested rollback, except those of the paglets in `skip`."""
    rows = tx.all(
        "SELECT agent_id, epoch, target, recall, problem FROM handoffs WHERE recall != ''"
        " AND agent_id NOT IN (SELECT value FROM json_each(?)) ORDER BY agent_id LIMIT ?",
        dumps(list(skip)),
        most,
    )
    return [_under_way(row) for row in rows]


def by_keys(tx: Tx, keys: Iterable[Key]) -> list[UnfinishedHandoff]:
    """Return the hand-offs with these keys that still have no answer."""
    sql = "SELECT agent_id, epoch, target, recall, problem FROM handoffs WHERE agent_id = ? AND epoch = ?"
    return [_under_way(row) for key in keys if (row := tx.one(sql, *key)) is not None]


def to_target(tx: Tx, target_store: str, most: int) -> list[UnfinishedHandoff]:
    """Return the `most` oldest hand-offs to the host with the store id `target_store`."""
    rows = tx.all(
        "SELECT agent_id, epoch, target, recall, problem FROM handoffs WHERE target_store = ?"
        " ORDER BY began_at, agent_id LIMIT ?",
        target_store,
        most,
    )
    return [_under_way(row) for row in rows]


def discard_job(tx: Tx, agent_id: str, epoch: int, now: float, *, tell: bool = True) -> bool:
    """End a cancelled job that is leaving. The target's answer is not awaited. Return False if it is not leaving.

    If the target has accepted the job, its own status reconciliation ends the job there. With `tell`, this host later
    acknowledges to the target that the hand-off is over. The originals of the job's files are kept, because their
    arrival is unknown.
    """
    target = tx.value("SELECT target FROM handoffs WHERE agent_id = ? AND epoch = ? AND kind = 'job'", agent_id, epoch)
    if target is None:
        return False
    tx.run("DELETE FROM handoffs WHERE agent_id = ?", agent_id)
    paglets.remove_bytes(tx, agent_id)
    residence.become(tx, agent_id, epoch + 1, "disposed", from_json(HostRef, loads(target)), now, told=not tell)
    tx.wake("cleanup")
    tx.touch(agent_id)
    return True


# The functions below handle hand-offs to hosts that were removed from the mesh.


def passed_on(tx: Tx, each: UnfinishedHandoff, found: ResidenceRow, now: float) -> bool:
    """Complete a hand-off whose target moved the paglet to a third host. Return False if it was already complete."""
    if not residence.acknowledged(tx, each.agent_id, each.epoch + 1, now):
        return False
    residence.become(tx, each.agent_id, found.epoch, "gone", found.peer or each.target, now)
    return True


def fence(tx: Tx, fenced: Fence) -> bool:
    """Store a fence. Return False, and keep the old one, if there is one with the same or a higher epoch."""
    changed = tx.run(
        "INSERT INTO fences (agent_id, target_store, epoch, target) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE"
        " SET epoch = excluded.epoch, target = excluded.target WHERE excluded.epoch > fences.epoch",
        fenced.agent_id,
        fenced.target.store_id,
        fenced.epoch,
        dumps(to_json(fenced.target)),
    )
    tx.wake("eviction")
    return changed == 1


def fenced(tx: Tx) -> dict[str, int]:
    """Return the highest epoch in the fences of each paglet that has any."""
    rows = tx.all("SELECT agent_id, max(epoch) AS epoch FROM fences GROUP BY agent_id ORDER BY agent_id")
    return {row["agent_id"]: row["epoch"] for row in rows}


def fences(tx: Tx, target_store: str, budget: Budget, after: Place = FIRST_PLACE) -> Page[Fence]:
    """Return the next fences for a host after the position `after`, by the ids of their paglets."""
    rows = tx.each(
        "SELECT agent_id, epoch, target FROM fences WHERE target_store = ? AND agent_id > ? ORDER BY agent_id LIMIT ?",
        target_store,
        after[1],
        budget.items + 1,
    )
    page = page_of(rows, budget, lambda row: 0, lambda row: (0.0, row["agent_id"]))
    items = [
        Fence(agent_id=row["agent_id"], epoch=row["epoch"], target=from_json(HostRef, loads(row["target"])))
        for row in page.items
    ]
    return Page(items=items, after=page.after)


def fenced_stores(tx: Tx) -> list[str]:
    return [row["target_store"] for row in tx.all("SELECT DISTINCT target_store FROM fences ORDER BY target_store")]


def unfence(tx: Tx, fenced: Fence) -> None:
    """Delete a fence that its target has acknowledged."""
    tx.run(
        "DELETE FROM fences WHERE agent_id = ? AND target_store = ? AND epoch = ?",
        fenced.agent_id,
        fenced.target.store_id,
        fenced.epoch,
    )


def stop_acknowledging(tx: Tx, target_store: str) -> None:
    """Cancel the acknowledgements to a host that was removed from the mesh."""
    tx.run(
        "UPDATE residence SET told = 1 WHERE told = 0 AND json_extract(peer, '$.store_id') = ?",
        target_store,
    )


def moves_to(tx: Tx, target_store: str, most: int) -> list[str]:
    """Return the paglets on this host with a pending move to that host, except collectors.

    A collector keeps its pending move, because it moves home if that host returns.
    """
    rows = tx.all(
        "SELECT agent_id FROM paglets WHERE intent IS NOT NULL AND kind != 'collector'"
        " AND json_extract(intent, '$.move.store_id') = ? ORDER BY agent_id LIMIT ?",
        target_store,
        most,
    )
    return [row["agent_id"] for row in rows]


def _under_way(row: sqlite3.Row) -> UnfinishedHandoff:
    return UnfinishedHandoff(
        agent_id=row["agent_id"],
        epoch=row["epoch"],
        target=from_json(HostRef, loads(row["target"])),
        recall=row["recall"],
        problem=row["problem"],
    )
