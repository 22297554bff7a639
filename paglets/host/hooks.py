"""What is due next in the life of a paglet: steps of its row, each within a transaction."""

from __future__ import annotations

from paglets.codec.text import dumps, loads
from paglets.host.runner import note
from paglets.store.db import Tx


def set_hook(tx: Tx, agent_id: str, hook: str | None) -> None:
    tx.run("UPDATE paglets SET hook = ? WHERE agent_id = ?", hook, agent_id)
    tx.wake("mailbox")


def hook_done(tx: Tx, agent_id: str, entry: str, then_run: bool) -> None:
    """The hook came to its end: what is due next."""
    if entry in ("dispatching", "disposing"):
        intent = tx.value("SELECT intent FROM paglets WHERE agent_id = ?", agent_id)
        ready = None if intent is None else dumps({**loads(intent), "ready": True})
        tx.run("UPDATE paglets SET hook = NULL, intent = ? WHERE agent_id = ?", ready, agent_id)
    else:
        if entry == "activation":
            _wake_up(tx, agent_id)
        hook = "run" if then_run and entry != "run" else None
        tx.run("UPDATE paglets SET hook = iif(inactive, NULL, ?) WHERE agent_id = ?", hook, agent_id)
    tx.wake("mailbox", "scheduler")


def hook_failed(tx: Tx, agent_id: str, entry: str, error: str, now: float) -> None:
    """The hook raised or its process ended: it is not run again, and a move is dropped."""
    if entry == "disposing":
        hook_done(tx, agent_id, entry, False)
    else:
        if entry == "activation":
            _wake_up(tx, agent_id)
        dropped = "json_extract(intent, '$.then'), intent = NULL" if entry == "dispatching" else "NULL"
        tx.run(f"UPDATE paglets SET hook = {dropped}, hook_error = ? WHERE agent_id = ?", error[:4000], agent_id)
    tx.touch(agent_id)
    tx.wake("mailbox", "scheduler")
    note(tx, now, "hook_failed", agent_id, f"{entry}: {error}")


def fall_asleep(tx: Tx, agent_id: str, seconds: float | None, now: float) -> None:
    """It is inactive from now on, and a `run` that was due is not. `activation` is its next entry."""
    at = None if seconds is None else now + seconds
    tx.run("UPDATE paglets SET inactive = 1, wakes_at = ?, hook = NULL, intent = NULL WHERE agent_id = ?", at, agent_id)
    tx.wake("mailbox")


def _wake_up(tx: Tx, agent_id: str) -> None:
    tx.run("UPDATE paglets SET inactive = 0, wakes_at = NULL WHERE agent_id = ?", agent_id)


def is_inactive(tx: Tx, agent_id: str) -> bool:
    return bool(tx.value("SELECT inactive FROM paglets WHERE agent_id = ?", agent_id))


def next_waking(tx: Tx, wall: float) -> float | None:
    """When, after `wall`, the next inactive paglet is to be woken, in seconds since the epoch."""
    at: float | None = tx.value("SELECT min(wakes_at) FROM paglets WHERE wakes_at > ?", wall)
    return at
