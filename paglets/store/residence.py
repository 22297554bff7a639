"""The residence of paglets: one row per paglet, here, leaving, gone, refused or disposed, with its epoch.

These rows alone decide a hand-off. The source is `leaving` at epoch e and sends the envelope under e + 1. The target
always gives the same answer for the same epoch.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from paglets.api.paglets import ResidenceRow
from paglets.api.transfers import TransferAnswer
from paglets.codec.envelope import Envelope
from paglets.codec.strict_json import dumps, loads
from paglets.core.errors import Conflict, Unknown
from paglets.core.record import from_json, to_json
from paglets.core.refs import HostRef
from paglets.store import artifacts, blobs, files, handoffs, paglets
from paglets.store.db import Tx
from paglets.store.handoffs import Handoff

Refuse = Callable[[Tx, Envelope], str | None]
"""A function that returns why this host does not accept an envelope, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedHandoff:
    """A hand-off whose answer the source has stored."""

    agent_id: str
    epoch: int
    target: HostRef


def find(tx: Tx, agent_id: str) -> ResidenceRow | None:
    row = tx.one("SELECT * FROM residence WHERE agent_id = ?", agent_id)
    return None if row is None else _residence(row)


def _residence(row: sqlite3.Row) -> ResidenceRow:
    peer = row["peer"]
    return ResidenceRow(
        agent_id=row["agent_id"],
        epoch=row["epoch"],
        status=row["status"],
        peer=None if peer is None else from_json(HostRef, loads(peer)),
    )


def id_of(tx: Tx, id_or_name: str) -> str:
    """Return the id of the paglet here with that name. If there is none, return the argument, which may be an id."""
    return _named(tx, id_or_name) or id_or_name


def _named(tx: Tx, name: str) -> str | None:
    found = tx.value("SELECT agent_id FROM paglets WHERE name = ?", name)
    return None if found is None else str(found)


def holder_of(tx: Tx, name: str) -> str | None:
    """Return the paglet with this name here. A leaving paglet keeps its name until it is gone, as it may come back."""
    holder = _named(tx, name)
    if holder is None:
        holder = tx.value("SELECT agent_id FROM handoffs WHERE kind = 'paglet' AND name = ?", name)
    return None if holder is None else str(holder)


def get_here(tx: Tx, agent_id: str) -> ResidenceRow:
    """Return the row of a paglet that is here. Raises Unknown if it is not here."""
    row = find(tx, agent_id)
    if row is None or row.status != "here":
        raise Unknown(f"paglet {agent_id} is not on this host")
    return row


def create(tx: Tx, envelope: Envelope, now: float) -> bool:
    """Store a new paglet here. Return False if its id exists already (a repeated request)."""
    if find(tx, envelope.agent_id) is not None:
        return False
    _arrive(tx, envelope, None, now)
    return True


def replace_gone(tx: Tx, envelope: Envelope, now: float) -> bool:
    """Store a new paglet with a used id and a higher epoch. Return False if the old one is here or leaving."""
    known = find(tx, envelope.agent_id)
    if known is not None and (known.status in ("here", "leaving") or known.epoch >= envelope.epoch):
        return False
    _forget_older(tx, envelope.agent_id)
    _arrive(tx, envelope, None, now)
    return True


def take(tx: Tx, envelope: Envelope, source: HostRef, now: float, refuse: Refuse) -> TransferAnswer:
    """Accept, refuse or recognise an envelope. If its blobs are not here, answer `missing` and change nothing."""
    known = known_answer(tx, envelope.agent_id, envelope.epoch)
    if known is not None:
        return known
    lacking = blobs.missing(tx, envelope.blobs())
    if lacking:
        text = f"{len(lacking)} of its files are not here"
        return TransferAnswer(agent_id=envelope.agent_id, epoch=envelope.epoch, verdict="missing", reason=text)
    reason = refuse(tx, envelope)
    _forget_older(tx, envelope.agent_id)
    if reason is not None:
        _refuse(tx, envelope.agent_id, envelope.epoch, source, now, reason)
        return TransferAnswer(agent_id=envelope.agent_id, epoch=envelope.epoch, verdict="refused", reason=reason)
    _arrive(tx, envelope, source, now)
    return TransferAnswer(agent_id=envelope.agent_id, epoch=envelope.epoch, verdict="taken")


def has_stale_scratch(tx: Tx, agent_id: str) -> bool:
    """Return True if the scratch directory is from an earlier stay, so that its files may be outdated."""
    return bool(tx.value("SELECT stale_scratch FROM residence WHERE agent_id = ?", agent_id))


def mark_scratch_stale(tx: Tx, agent_id: str) -> None:
    """Mark the scratch directory as stale: it is emptied before code runs in it again."""
    tx.run("UPDATE residence SET stale_scratch = 1 WHERE agent_id = ?", agent_id)


def mark_scratch_clean(tx: Tx, agent_id: str) -> None:
    """Mark the scratch directory as in use by the present stay."""
    tx.run("UPDATE residence SET stale_scratch = 0 WHERE agent_id = ? AND stale_scratch = 1", agent_id)


def known_answer(tx: Tx, agent_id: str, epoch: int) -> TransferAnswer | None:
    """Return the answer to an envelope that was answered before, or is older than the row here; else None.

    The envelope itself, which may be large, is not necessary.
    """
    known = find(tx, agent_id)
    if known is None or known.epoch < epoch:
        return None
    verdict = "settled"
    if known.epoch == epoch:
        verdict = "refused" if known.status == "refused" else "taken"
    reason = tx.value("SELECT reason FROM residence WHERE agent_id = ?", agent_id)
    return TransferAnswer(
        agent_id=agent_id,
        epoch=epoch,
        verdict=verdict,  # type: ignore[arg-type]
        reason=reason if verdict == "refused" else "",
    )


def _forget_older(tx: Tx, agent_id: str) -> None:
    """Delete the rows of a lower epoch, even `leaving`: an envelope of a higher epoch proves that they are obsolete.

    A paglet that was `here` did not leave: another host rolled back its hand-off, so the sources of its files stay.
    """
    known = find(tx, agent_id)
    tx.run("DELETE FROM leases WHERE agent_id = ?", agent_id)
    tx.run("DELETE FROM runs WHERE agent_id = ?", agent_id)
    paglets.remove(tx, agent_id)
    if known is not None and known.status == "here":
        files.remove(tx, agent_id)
        tx.wake("runs", "scheduler", "cleanup")
    else:
        files.release_sources(tx, agent_id)
    artifacts.remove(tx, agent_id)
    tx.run("DELETE FROM handoffs WHERE agent_id = ?", agent_id)


def leave(tx: Tx, agent_id: str, target: HostRef, now: float) -> None:
    """Convert the paglet to an envelope for `target`. Raises Conflict while its code runs or it holds a lease."""
    row = get_here(tx, agent_id)
    if tx.value("SELECT 1 FROM runs WHERE agent_id = ?", agent_id) is not None:
        raise Conflict(f"paglet {agent_id} is running; it can move when its code has ended")
    if tx.value("SELECT 1 FROM leases WHERE agent_id = ?", agent_id) is not None:
        raise Conflict(f"paglet {agent_id} holds a slot; it can move when the attempt has ended")
    envelope, storage = paglets.outline(tx, agent_id, row.epoch + 1, now), paglets.storage_text(tx, agent_id)
    handoffs.add(tx, envelope, storage, target, now)
    paglets.remove(tx, agent_id)
    become(tx, agent_id, row.epoch, "leaving", target, now)
    tx.touch(agent_id)


def acknowledged(tx: Tx, agent_id: str, epoch: int, now: float) -> bool:
    """Set the row to `gone`, as the target has the envelope of `epoch`. Return False if there is no such hand-off."""
    row = tx.one("SELECT target FROM handoffs WHERE agent_id = ? AND epoch = ?", agent_id, epoch - 1)
    if row is None:
        return False
    tx.run("DELETE FROM handoffs WHERE agent_id = ?", agent_id)
    files.release_sources(tx, agent_id)
    artifacts.remove(tx, agent_id)
    become(tx, agent_id, epoch, "gone", from_json(HostRef, loads(row["target"])), now, told=False)
    tx.touch(agent_id)
    return True


def put_back(tx: Tx, agent_id: str, epoch: int, now: float, *, under: int = 0) -> Handoff | None:
    """Roll back a hand-off that the target will never accept: the paglet is here again, with the age of a job kept.

    Its epoch is `epoch`, or `under` if the target may have accepted it and cannot be asked. Return None if there is no
    such hand-off.
    """
    handoff = handoffs.find(tx, agent_id, epoch - 1)
    if handoff is None:
        return None
    under_way = max(0.0, now - tx.value("SELECT began_at FROM handoffs WHERE agent_id = ?", agent_id))
    tx.run("DELETE FROM handoffs WHERE agent_id = ?", agent_id)
    become(tx, agent_id, under or epoch, "here", None, now)
    paglets.insert(tx, handoff.envelope, now)
    tx.run("UPDATE requests SET queued_at = queued_at - ? WHERE agent_id = ?", under_way, agent_id)
    tx.wake("garbage")
    tx.touch(agent_id)
    return handoff


def settle(tx: Tx, agent_id: str, epoch: int, source: HostRef, now: float) -> TransferAnswer:
    """Answer whether `epoch` was accepted. If not, store a refusal first, so that it never will be."""
    known = find(tx, agent_id)
    if known is not None and known.epoch >= epoch:
        taken = known.epoch > epoch or known.status != "refused"
        return TransferAnswer(agent_id=agent_id, epoch=epoch, verdict="taken" if taken else "refused")
    _forget_older(tx, agent_id)
    _refuse(tx, agent_id, epoch, source, now, "rolled back by its source")
    return TransferAnswer(agent_id=agent_id, epoch=epoch, verdict="refused")


def dispose(tx: Tx, agent_id: str, now: float) -> None:
    """End a paglet that is here: delete its rows and set its residence to `disposed`."""
    row = get_here(tx, agent_id)
    paglets.remove(tx, agent_id)
    paglets.remove_bytes(tx, agent_id)
    become(tx, agent_id, row.epoch, "disposed", None, now)
    tx.touch(agent_id)


def closed_handoffs(tx: Tx, most: int) -> list[ClosedHandoff]:
    """Return ended hand-offs that are not acknowledged to their target, at most `most` for each target.

    The limit per target keeps hand-offs to offline hosts from blocking the others.
    """
    rows = tx.all(
        "SELECT agent_id, epoch, peer FROM (SELECT agent_id, epoch, peer, row_number()"
        " OVER (PARTITION BY json_extract(peer, '$.store_id') ORDER BY agent_id) AS place"
        " FROM residence WHERE told = 0) WHERE place <= ? ORDER BY agent_id",
        most,
    )
    return [
        ClosedHandoff(agent_id=row["agent_id"], epoch=row["epoch"], target=from_json(HostRef, loads(row["peer"])))
        for row in rows
    ]


def target_acknowledged(tx: Tx, closed: Iterable[ClosedHandoff]) -> None:
    """Record that the targets have got the acknowledgements."""
    tx.run_many(
        "UPDATE residence SET told = 1 WHERE agent_id = ? AND epoch = ?",
        [(handoff.agent_id, handoff.epoch) for handoff in closed],
    )


def close(tx: Tx, agent_id: str, epoch: int) -> None:
    """Record that the source of that epoch will not send it again."""
    tx.run("UPDATE residence SET settled = 1 WHERE agent_id = ? AND epoch >= ? AND settled = 0", agent_id, epoch)


def forget(tx: Tx, before: float, most: int) -> int:
    """Delete rows of paglets that are gone, disposed or refused since before `before`. Return how many."""
    return tx.run(
        "DELETE FROM residence WHERE agent_id IN (SELECT agent_id FROM residence"
        " WHERE status IN ('gone', 'refused', 'disposed') AND settled = 1 AND told = 1 AND since_at < ? LIMIT ?)",
        before,
        most,
    )


def _arrive(tx: Tx, envelope: Envelope, source: HostRef | None, now: float) -> None:
    """Insert the rows of a paglet that arrived, or was created here (no source)."""
    _begin_row(tx, envelope.agent_id, envelope.epoch, "here", source, now, "")
    paglets.insert(tx, envelope, now)
    paglets.insert_bytes(tx, envelope, now)


def _refuse(tx: Tx, agent_id: str, epoch: int, source: HostRef, now: float, reason: str) -> None:
    _begin_row(tx, agent_id, epoch, "refused", source, now, reason)


def _begin_row(tx: Tx, agent_id: str, epoch: int, status: str, source: HostRef | None, now: float, reason: str) -> None:
    tx.run(
        "INSERT INTO residence (agent_id, epoch, status, peer, reason, settled, since_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (agent_id) DO UPDATE SET epoch = excluded.epoch, status = excluded.status, peer = excluded.peer,"
        " reason = excluded.reason, settled = excluded.settled, told = 1, since_at = excluded.since_at,"
        " stale_scratch = 1",
        agent_id,
        epoch,
        status,
        None if source is None else dumps(to_json(source)),
        reason,
        int(source is None),
        now,
    )


def become(tx: Tx, agent_id: str, epoch: int, status: str, peer: HostRef | None, now: float, told: bool = True) -> None:
    """Change the residence of a paglet that was here. The column `settled` stays unchanged."""
    tx.run(
        "UPDATE residence SET epoch = ?, status = ?, peer = ?, reason = '', told = ?, since_at = ? WHERE agent_id = ?",
        epoch,
        status,
        None if peer is None else dumps(to_json(peer)),
        int(told),
        now,
        agent_id,
    )


def epoch_here(tx: Tx, agent_id: str) -> int | None:
    """Return the epoch of a paglet that is here, else None."""
    epoch: int | None = tx.value("SELECT epoch FROM residence WHERE agent_id = ? AND status = 'here'", agent_id)
    return epoch
