"""A hand-off that ends at its source: what becomes of the paglet, within one transaction."""

from __future__ import annotations

from paglets.codec.text import dumps
from paglets.core.record import to_json
from paglets.core.refs import HostRef
from paglets.host.hooks import ask_for
from paglets.host.runner import note
from paglets.slots import states
from paglets.store import paglets, queue, recalls, residence
from paglets.store.db import Tx
from paglets.store.recalls import Fence, Key
from paglets.store.residence import Handoff


def come_back(tx: Tx, key: Key, reason: str, now: float, *, asked_again: bool = False) -> HostRef | None:
    """The target will never have this: the paglet is here again, and looks for a host anew; gives that target.

    A job that nobody wants ends instead. `asked_again`: a move that was asked for stays asked for.
    """
    agent_id, epoch = key
    if _ends(tx, key, now):
        return None
    handoff = residence.put_back(tx, agent_id, epoch + 1, now)
    if handoff is None:
        return None
    _place_anew(tx, handoff, f"{handoff.target.name} did not take it: {reason}", now)
    if handoff.recall == recalls.DISPOSE:
        ask_for(tx, agent_id, {"dispose": True})
    elif asked_again:
        _try_later(tx, handoff)
    return handoff.target


def come_back_from_forgotten(tx: Tx, key: Key, now: float) -> None:
    """The target is forgotten: the paglet is here again, under an epoch that is beyond any that this target can have.

    A move that was asked for is dropped.
    """
    agent_id, epoch = key
    if _ends(tx, key, now):
        return
    handoff = residence.put_back(tx, agent_id, epoch + 1, now, beyond=True)
    if handoff is None:
        return
    name = handoff.target.name
    recalls.fence(tx, Fence(agent_id=agent_id, epoch=epoch + 2, target=handoff.target))
    _place_anew(tx, handoff, f"it was on its way to {name}, which was forgotten", now)
    paglets.set_problem(tx, agent_id, dropped_text(name))
    note(tx, now, "taken_back", agent_id, f"from the way to {name}, which was forgotten")
    if handoff.recall == recalls.DISPOSE:
        ask_for(tx, agent_id, {"dispose": True})


def dropped_text(name: str) -> str:
    """Why a paglet does not move, in words."""
    return f"its move to {name} was dropped: that host was forgotten"


def _ends(tx: Tx, key: Key, now: float) -> bool:
    """Whether it was a job that nobody wants, which is over now."""
    if tx.value("SELECT recall FROM handoffs WHERE agent_id = ? AND epoch = ?", *key) != recalls.UNWANTED:
        return False
    tx.wake("groups", "census")
    return recalls.give_up(tx, *key, now)


def _place_anew(tx: Tx, handoff: Handoff, text: str, now: float) -> None:
    job = handoff.envelope.job
    if job is not None and job.status == "WAITING_FOR_SLOT":
        queue.move(tx, handoff.agent_id, "WAITING_FOR_SLOT", states.move("WAITING_FOR_SLOT", "taken_back"))
    if job is not None:
        queue.say_why(tx, handoff.agent_id, "refused", text, False, now)
    tx.wake("placer", "groups", "mailbox")


def _try_later(tx: Tx, handoff: Handoff) -> None:
    """(A collector's `on_arrival` sees where it is, and asks anew.)"""
    if handoff.envelope.hook == "arrival" and handoff.envelope.kind != "collector":
        intent = dumps({"move": to_json(handoff.target)})
        tx.run("UPDATE paglets SET hook = NULL, intent = ? WHERE agent_id = ?", intent, handoff.agent_id)
