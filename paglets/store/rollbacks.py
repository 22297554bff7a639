"""Hand-offs that are to end before their targets have answered for them, and what such targets are to be told later."""

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

UNWANTED = "unwanted"
DISPOSE = "dispose"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedHandoff:
    """A hand-off that is to end: under the epoch of the source, with what is wished and what is in its way."""

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
    """What a target is to be told: the paglet is elsewhere, under `epoch`."""

    agent_id: str
    epoch: int
    target: HostRef


def request(tx: Tx, agent_id: str, recall: str) -> bool:
    """Wish this of a paglet that is leaving; False where it is not. A job that nobody wants stays unwanted."""
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
    """Hand-offs of which something is wished, without those of the paglets in `skip`."""
    rows = tx.all(
        "SELECT agent_id, epoch, target, recall, problem FROM handoffs WHERE recall != ''"
        " AND agent_id NOT IN (SELECT value FROM json_each(?)) ORDER BY agent_id LIMIT ?",
        dumps(list(skip)),
        most,
    )
    return [_under_way(row) for row in rows]


def by_keys(tx: Tx, keys: Iterable[Key]) -> list[UnfinishedHandoff]:
    """These hand-offs, as far as they are still under way."""
    sql = "SELECT agent_id, epoch, target, recall, problem FROM handoffs WHERE agent_id = ? AND epoch = ?"
    return [_under_way(row) for key in keys if (row := tx.one(sql, *key)) is not None]


def to_target(tx: Tx, target_store: str, most: int) -> list[UnfinishedHandoff]:
    """The oldest hand-offs to that host."""
    rows = tx.all(
        "SELECT agent_id, epoch, target, recall, problem FROM handoffs WHERE target_store = ?"
        " ORDER BY began_at, agent_id LIMIT ?",
        target_store,
        most,
    )
    return [_under_way(row) for row in rows]


def discard_job(tx: Tx, agent_id: str, epoch: int, now: float, *, tell: bool = True) -> bool:
    """A job that nobody wants ends here, whatever its target has of it; False where it is not leaving under `epoch`.

    Should the target have taken it, it has it under the epoch in which it ends here, and ends it with its own census;
    `tell`: it is told, when it can be, that this hand-off is over. The sources of its files stay, as nobody saw them
    arrive.
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


# Of hosts that were forgotten.


def passed_on(tx: Tx, each: UnfinishedHandoff, found: ResidenceRow, now: float) -> bool:
    """Its target had it and passed it on, as a row of another host shows; False where it is not leaving any more."""
    if not residence.acknowledged(tx, each.agent_id, each.epoch + 1, now):
        return False
    residence.become(tx, each.agent_id, found.epoch, "gone", found.peer or each.target, now)
    return True


def fence(tx: Tx, fenced: Fence) -> bool:
    """False where there is one of this epoch, or of a higher one, which stays."""
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
    """The paglets of all fences, and under which epoch each is elsewhere at least."""
    rows = tx.all("SELECT agent_id, max(epoch) AS epoch FROM fences GROUP BY agent_id ORDER BY agent_id")
    return {row["agent_id"]: row["epoch"] for row in rows}


def fences(tx: Tx, target_store: str, most: int) -> list[Fence]:
    rows = tx.all(
        "SELECT agent_id, epoch, target FROM fences WHERE target_store = ? ORDER BY agent_id LIMIT ?",
        target_store,
        most,
    )
    return [
        Fence(agent_id=row["agent_id"], epoch=row["epoch"], target=from_json(HostRef, loads(row["target"])))
        for row in rows
    ]


def fenced_stores(tx: Tx) -> list[str]:
    return [row["target_store"] for row in tx.all("SELECT DISTINCT target_store FROM fences ORDER BY target_store")]


def unfence(tx: Tx, fenced: Fence) -> None:
    """The target has taken note."""
    tx.run(
        "DELETE FROM fences WHERE agent_id = ? AND target_store = ? AND epoch = ?",
        fenced.agent_id,
        fenced.target.store_id,
        fenced.epoch,
    )


def stop_acknowledging(tx: Tx, target_store: str) -> None:
    """That host is not told of hand-offs that are over: nobody expects it back."""
    tx.run(
        "UPDATE residence SET told = 1 WHERE told = 0 AND json_extract(peer, '$.store_id') = ?",
        target_store,
    )


def moves_to(tx: Tx, target_store: str, most: int) -> list[str]:
    """Paglets here that are to move to that host; no collectors, which go home if it ever comes back."""
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
