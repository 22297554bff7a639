"""The residence of paglets: a row for each paglet with its epoch and status (here, leaving, gone, refused, disposed).

Only these rows decide a hand-off. On the source the paglet is `leaving` with epoch e, and its envelope has epoch e + 1.
The target always gives the same answer for the same epoch.
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
"""A function that returns the reason why this host does not accept an envelope, or None if it accepts it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClosedHandoff:
    """A finished hand-off, for which this host, the source, has stored the target's answer."""

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
    """Return the id of the paglet with that name on this host, or else the argument, which may be an id."""
    return _named(tx, id_or_name) or id_or_name


def _named(tx: Tx, name: str) -> str | None:
    found = tx.value("SELECT agent_id FROM paglets WHERE name = ?", name)
    return None if found is None else str(found)


def holder_of(tx: Tx, name: str) -> str | None:
    """Return the id of the paglet that has this name on this host, or None.

    A leaving paglet keeps its name until it is gone, because its hand-off may be rolled back.
    """
    holder = _named(tx, name)
    if holder is None:
        holder = tx.value("SELECT agent_id FROM handoffs WHERE kind = 'paglet' AND name = ?", name)
    return None if holder is None else str(holder)


def get_here(tx: Tx, agent_id: str) -> ResidenceRow:
    """Return the residence of a paglet with the status `here`. Raises Unknown for any other paglet."""
    row = find(tx, agent_id)
    if row is None or row.status != "here":
        raise Unknown(f"paglet {agent_id} is not on this host")
    return row


def create(tx: Tx, envelope: Envelope, now: float) -> bool:
    """Store a new paglet on this host. Return False if its id exists already, as after a repeated request."""
    if find(tx, envelope.agent_id) is not None:
        return False
    _arrive(tx, envelope, None, now)
    return True


def replace_gone(tx: Tx, envelope: Envelope, now: float) -> bool:
    """Store a new paglet with the id of one that has left or ended.

    Return False if the old one is here or leaving, or the new epoch is not higher.
    """
    known = find(tx, envelope.agent_id)
    if known is not None and (known.status in ("here", "leaving") or known.epoch >= envelope.epoch):
        return False
    _forget_older(tx, envelope.agent_id)
    _arrive(tx, envelope, None, now)
    return True


def take(tx: Tx, envelope: Envelope, source: HostRef, now: float, refuse: Refuse) -> TransferAnswer:
    """Accept or refuse an envelope, or repeat the earlier answer.

    If blobs of the envelope are missing, answer `missing` and change nothing.
    """
    known = known_answer(tx, envelope.agent_id, envelope.epoch)
    if known is not None:
        return known
    lacking = blobs.missing(tx, envelope.blobs())
    if lacking:
        text = f"{len(lacking)} of its files are not on this host"
        return TransferAnswer(agent_id=envelope.agent_id, epoch=envelope.epoch, verdict="missing", reason=text)
    reason = refuse(tx, envelope)
    _forget_older(tx, envelope.agent_id)
    if reason is not None:
        _refuse(tx, envelope.agent_id, envelope.epoch, source, now, reason)
        return TransferAnswer(agent_id=envelope.agent_id, epoch=envelope.epoch, verdict="refused", reason=reason)
    _arrive(tx, envelope, source, now)
    return TransferAnswer(agent_id=envelope.agent_id, epoch=envelope.epoch, verdict="taken")


def has_stale_scratch(tx: Tx, agent_id: str) -> bool:
    """Return True if the scratch directory is from an earlier stay of the paglet, so its files may be outdated."""
    return bool(tx.value("SELECT stale_scratch FROM residence WHERE agent_id = ?", agent_id))


def mark_scratch_stale(tx: Tx, agent_id: str) -> None:
    """Mark the scratch directory of a paglet as stale. It is emptied before code runs in it again."""
    tx.run("UPDATE residence SET stale_scratch = 1 WHERE agent_id = ?", agent_id)


def mark_scratch_clean(tx: Tx, agent_id: str) -> None:
    """Record that the scratch directory of a paglet belongs to its current stay on this host."""
    tx.run("UPDATE residence SET stale_scratch = 0 WHERE agent_id = ? AND stale_scratch = 1", agent_id)


def known_answer(tx: Tx, agent_id: str, epoch: int) -> TransferAnswer | None:
    """Return the answer to an envelope that was answered before or is older than the residence row, else None.

    This does not need the envelope, which may be large.
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
    """Delete the rows of a paglet, even a leaving one, because a higher epoch makes them obsolete.

    If the paglet is `here`, it did not leave: another host rolled back the hand-off to this host. Then the originals of
    its registered files are kept.
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
    """Convert a paglet on this host to an envelope for `target`. Raises Conflict if its code runs or it has a lease."""
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
    """Set a paglet to `gone`, since the target accepted it under `epoch`. Return False if no such hand-off exists."""
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
    """Roll back the hand-off with the epoch `epoch` - 1, so that the paglet is on this host again. Return the hand-off.

    The new epoch is `epoch`, because the target will never accept the paglet. But if the target was removed from the
    mesh, it may have accepted the paglet, and the new epoch is `under`. A job keeps its place in the queue. Return None
    if there is no such hand-off.
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
    """Answer whether the envelope of `epoch` was accepted. If not, store a refusal, so that it is never accepted."""
    known = find(tx, agent_id)
    if known is not None and known.epoch >= epoch:
        taken = known.epoch > epoch or known.status != "refused"
        return TransferAnswer(agent_id=agent_id, epoch=epoch, verdict="taken" if taken else "refused")
    _forget_older(tx, agent_id)
    _refuse(tx, agent_id, epoch, source, now, "rolled back by its source")
    return TransferAnswer(agent_id=agent_id, epoch=epoch, verdict="refused")


def dispose(tx: Tx, agent_id: str, now: float) -> None:
    """End a paglet on this host: delete its rows and set its residence to `disposed`."""
    row = get_here(tx, agent_id)
    paglets.remove(tx, agent_id)
    paglets.remove_bytes(tx, agent_id)
    become(tx, agent_id, row.epoch, "disposed", None, now)
    tx.touch(agent_id)


def closed_handoffs(tx: Tx, most: int) -> list[ClosedHandoff]:
    """Return finished hand-offs whose target has no acknowledgement yet, at most `most` for each target.

    Without the limit for each target, hand-offs to unreachable hosts could block all others.
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
    """Record that the targets of these hand-offs have received the acknowledgements."""
    tx.run_many(
        "UPDATE residence SET told = 1 WHERE agent_id = ? AND epoch = ?",
        [(handoff.agent_id, handoff.epoch) for handoff in closed],
    )


def close(tx: Tx, agent_id: str, epoch: int) -> None:
    """Record that the source of a paglet will not send its envelope of that epoch again."""
    tx.run("UPDATE residence SET settled = 1 WHERE agent_id = ? AND epoch >= ? AND settled = 0", agent_id, epoch)


def forget(tx: Tx, before: float, most: int) -> int:
    """Delete at most `most` rows of paglets that left, ended or were refused before `before`. Return their number.

    A row stays until the acknowledgements `settled` and `told` are stored.
    """
    return tx.run(
        "DELETE FROM residence WHERE agent_id IN (SELECT agent_id FROM residence"
        " WHERE status IN ('gone', 'refused', 'disposed') AND settled = 1 AND told = 1 AND since_at < ? LIMIT ?)",
        before,
        most,
    )


def _arrive(tx: Tx, envelope: Envelope, source: HostRef | None, now: float) -> None:
    """Insert the rows of a paglet that arrived from `source`, or was created on this host if `source` is None."""
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
    """Change the residence row of a paglet, except its columns `settled` and `stale_scratch`."""
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
    """Return the epoch of a paglet on this host, or None for any other paglet."""
    epoch: int | None = tx.value("SELECT epoch FROM residence WHERE agent_id = ? AND status = 'here'", agent_id)
    return epoch
