"""Which paglets are here, on their way, gone, refused or ended: one row for each, moved by epoch.

A hand-off is decided by these rows alone. The source is `leaving` at epoch e and sends the envelope
under e + 1; the target answers the same for the same epoch, for ever.
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
"""Why this host does not take an envelope, or None."""


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
    """The id of the paglet of that name that is here; what is no such name is taken for an id."""
    return _named(tx, id_or_name) or id_or_name


def _named(tx: Tx, name: str) -> str | None:
    found = tx.value("SELECT agent_id FROM paglets WHERE name = ?", name)
    return None if found is None else str(found)


def holder_of(tx: Tx, name: str) -> str | None:
    """The paglet that has this name here. One that is leaving keeps it until it is gone: it may come back."""
    holder = _named(tx, name)
    if holder is None:
        holder = tx.value("SELECT agent_id FROM handoffs WHERE kind = 'paglet' AND name = ?", name)
    return None if holder is None else str(holder)


def get_here(tx: Tx, agent_id: str) -> ResidenceRow:
    """The row of a paglet that is here. Raises Unknown where it is not."""
    row = find(tx, agent_id)
    if row is None or row.status != "here":
        raise Unknown(f"paglet {agent_id} is not on this host")
    return row


def create(tx: Tx, envelope: Envelope, now: float) -> bool:
    """A new paglet, here; False where its id is known already (the same request once more)."""
    if find(tx, envelope.agent_id) is not None:
        return False
    _arrive(tx, envelope, None, now)
    return True


def replace_gone(tx: Tx, envelope: Envelope, now: float) -> bool:
    """Store a new paglet under an id that had one, with an epoch above it; False where that one is here or leaving."""
    known = find(tx, envelope.agent_id)
    if known is not None and (known.status in ("here", "leaving") or known.epoch >= envelope.epoch):
        return False
    _forget_older(tx, envelope.agent_id)
    _arrive(tx, envelope, None, now)
    return True


def take(tx: Tx, envelope: Envelope, source: HostRef, now: float, refuse: Refuse) -> TransferAnswer:
    """Take, refuse or recognise an envelope of another host; `missing`, and nothing changes, without its blobs."""
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
    """Whether what lies in its scratch directory is of an earlier stay: its files may be others by now."""
    return bool(tx.value("SELECT stale_scratch FROM residence WHERE agent_id = ?", agent_id))


def mark_scratch_stale(tx: Tx, agent_id: str) -> None:
    """Have the scratch directory emptied before code runs in it again."""
    tx.run("UPDATE residence SET stale_scratch = 1 WHERE agent_id = ?", agent_id)


def mark_scratch_clean(tx: Tx, agent_id: str) -> None:
    """Its scratch directory was emptied if it had to be, and its code runs there from now on."""
    tx.run("UPDATE residence SET stale_scratch = 0 WHERE agent_id = ? AND stale_scratch = 1", agent_id)


def known_answer(tx: Tx, agent_id: str, epoch: int) -> TransferAnswer | None:
    """Return the answer to an envelope that was answered before, or is older than the row here; the envelope itself is
    not needed for it, and may be large."""
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
    """An envelope of a higher epoch proves that what is here of a lower one, even `leaving`, is settled.

    One that was `here` was not given away: it was taken back from here, and the sources of its files have not moved.
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
    """Freeze the paglet into an envelope for `target`. Raises Conflict while its code runs or it holds a lease."""
    row = get_here(tx, agent_id)
    if tx.value("SELECT 1 FROM runs WHERE agent_id = ?", agent_id) is not None:
        raise Conflict(f"paglet {agent_id} is at work; it can move when that has ended")
    if tx.value("SELECT 1 FROM leases WHERE agent_id = ?", agent_id) is not None:
        raise Conflict(f"paglet {agent_id} holds a slot; it can move when that has ended")
    envelope, storage = paglets.outline(tx, agent_id, row.epoch + 1, now), paglets.storage_text(tx, agent_id)
    handoffs.add(tx, envelope, storage, target, now)
    paglets.remove(tx, agent_id)
    become(tx, agent_id, row.epoch, "leaving", target, now)
    tx.touch(agent_id)


def acknowledged(tx: Tx, agent_id: str, epoch: int, now: float) -> bool:
    """The target has the envelope of `epoch`: the row becomes `gone`. False where that is settled already."""
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
    """The target will never take `epoch`: the paglet is here again, under that epoch, a job with its age.

    `under`: under that one, since the target may have taken it and cannot be asked.
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
    """Was `epoch` taken? If not, it never will be: a refusal is stored before it is said."""
    known = find(tx, agent_id)
    if known is not None and known.epoch >= epoch:
        taken = known.epoch > epoch or known.status != "refused"
        return TransferAnswer(agent_id=agent_id, epoch=epoch, verdict="taken" if taken else "refused")
    _forget_older(tx, agent_id)
    _refuse(tx, agent_id, epoch, source, now, "taken back by its source")
    return TransferAnswer(agent_id=agent_id, epoch=epoch, verdict="refused")


def dispose(tx: Tx, agent_id: str, now: float) -> None:
    """End a paglet that is here: its rows go, the residence row stays as `disposed`."""
    row = get_here(tx, agent_id)
    paglets.remove(tx, agent_id)
    paglets.remove_bytes(tx, agent_id)
    become(tx, agent_id, row.epoch, "disposed", None, now)
    tx.touch(agent_id)


def closed_handoffs(tx: Tx, most: int) -> list[ClosedHandoff]:
    """Hand-offs whose answer is stored here, and whose target was not told so: at most so many for each target, that
    those to hosts that are away hold up no others."""
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
    """Their target has taken note."""
    tx.run_many(
        "UPDATE residence SET told = 1 WHERE agent_id = ? AND epoch = ?",
        [(handoff.agent_id, handoff.epoch) for handoff in closed],
    )


def close(tx: Tx, agent_id: str, epoch: int) -> None:
    """The source of that epoch will not send it again."""
    tx.run("UPDATE residence SET settled = 1 WHERE agent_id = ? AND epoch >= ? AND settled = 0", agent_id, epoch)


def forget(tx: Tx, before: float, most: int) -> int:
    """Drop rows of paglets that are long gone, ended or refused; gives how many."""
    return tx.run(
        "DELETE FROM residence WHERE agent_id IN (SELECT agent_id FROM residence"
        " WHERE status IN ('gone', 'refused', 'disposed') AND settled = 1 AND told = 1 AND since_at < ? LIMIT ?)",
        before,
        most,
    )


def _arrive(tx: Tx, envelope: Envelope, source: HostRef | None, now: float) -> None:
    """What came from elsewhere, or was made here (no source)."""
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
    """A step of a paglet that was here: whether its source settled stays as it is."""
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
