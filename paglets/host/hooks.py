"""What is due next in the life of a paglet: steps of its row, each within a transaction."""

from __future__ import annotations

from typing import Any

from paglets.codec.envelope import check_seconds
from paglets.codec.text import dumps, loads
from paglets.core.record import to_json
from paglets.host.runner import note
from paglets.store.db import Tx
from paglets.worker.protocol import Intent


def ask_for(tx: Tx, agent_id: str, intent: dict[str, Any] | None) -> None:
    """Ask for this instead of what was asked for; None: of nothing. A `run` that waits for a move still does."""
    then = _intent_of(tx, agent_id).get("then")
    if intent is None:
        change = "intent = NULL, problem = '', hook = coalesce(hook, ?)"
        tx.run(f"UPDATE paglets SET {change} WHERE agent_id = ?", then, agent_id)
    else:
        text = dumps(intent if then is None else {**intent, "then": then})
        tx.run("UPDATE paglets SET intent = ?, problem = '' WHERE agent_id = ?", text, agent_id)
    tx.wake("mailbox")


READY_BY = {"dispatching": "move", "disposing": "dispose"}
"""What a hook asks for of its own kind needs no further hook: that would ask again."""


def intend(tx: Tx, agent_id: str, entry: str, intent: Intent) -> None:
    """What the code of a paglet asks for. Raises Invalid. One that is to end does so, whatever its code asks."""
    if entry != "disposing" and "dispose" in _intent_of(tx, agent_id):
        return
    tree: dict[str, Any] | None = None
    if intent.dispose:
        tree = {"dispose": True}
    elif intent.move is not None:
        tree = {"move": to_json(intent.move)}
    elif intent.rest is not None:
        tree = {"rest": None if intent.rest.seconds is None else check_seconds(intent.rest.seconds)}
    if tree is not None and READY_BY.get(entry) in tree:
        tree["ready"] = True
    if tree is not None or intent.stay:
        ask_for(tx, agent_id, tree)


def begin_hook(tx: Tx, agent_id: str, hook: str, intent: dict[str, Any]) -> None:
    """`on_dispatching` or `on_disposing` is to run, for this intent."""
    text = dumps({**intent, "begun": True})
    tx.run("UPDATE paglets SET hook = ?, intent = ? WHERE agent_id = ?", hook, text, agent_id)
    tx.wake("mailbox")


def _intent_of(tx: Tx, agent_id: str) -> dict[str, Any]:
    text = tx.value("SELECT intent FROM paglets WHERE agent_id = ?", agent_id)
    return {} if text is None else loads(text)


def set_hook(tx: Tx, agent_id: str, hook: str | None) -> None:
    tx.run("UPDATE paglets SET hook = ? WHERE agent_id = ?", hook, agent_id)
    tx.wake("mailbox")


def hook_done(tx: Tx, agent_id: str, entry: str, then_run: bool) -> None:
    """The hook came to its end: what is due next."""
    if entry in ("dispatching", "disposing"):
        intent = _intent_of(tx, agent_id)
        if "begun" in intent:
            ready = dumps({**intent, "ready": True})
            tx.run("UPDATE paglets SET hook = NULL, intent = ? WHERE agent_id = ?", ready, agent_id)
        else:
            _next_wish(tx, agent_id, intent)
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
        if entry == "dispatching":
            _next_wish(tx, agent_id, _intent_of(tx, agent_id))
        else:
            set_hook(tx, agent_id, None)
        tx.run("UPDATE paglets SET hook_error = ? WHERE agent_id = ?", error[:4000], agent_id)
    tx.touch(agent_id)
    tx.wake("mailbox", "scheduler")
    note(tx, now, "hook_failed", agent_id, f"{entry}: {error}")


def _next_wish(tx: Tx, agent_id: str, intent: dict[str, Any]) -> None:
    """The move that the hook ran for is dropped; what was asked for meanwhile stands, and a `run` is due again."""
    then = intent.pop("then", None)
    left = None if "begun" in intent or not intent else dumps(intent)
    tx.run("UPDATE paglets SET hook = ?, intent = ? WHERE agent_id = ?", then, left, agent_id)


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
