"""A hand-off that ends at its source: what becomes of the paglet, within one transaction."""

from __future__ import annotations

from paglets.api.hosts import MeshHost
from paglets.codec.strict_json import dumps
from paglets.core.clock import Entropy
from paglets.core.record import to_json
from paglets.core.refs import SHORT_ID_CHARACTERS, HostRef
from paglets.host.records import outcomes
from paglets.host.records.lifecycle import keep_files, set_pending_action
from paglets.mesh.gossip import Gossiper
from paglets.slots import states
from paglets.store import jobfiles, paglets, queue, residence, rollbacks
from paglets.store.db import Tx
from paglets.store.events import record_event
from paglets.store.handoffs import Handoff, Key
from paglets.store.rollbacks import Fence

ERA = 1 << 30
"""Epochs are parted into eras of so many. A paglet never moves so often: only coming back leads to the next era."""

BEGINNINGS = 1 << 20
"""In so many places an era may begin for a paglet, each a thousand moves before the next."""


def epoch_of_next_era(epoch: int, entropy: Entropy) -> int:
    """An epoch for a paglet that is taken back from where it may live, and may have been passed on from.

    It is above all that come of `epoch` by moves, as it is of the next era. Where in that era is drawn: two hosts may
    take back the same paglet while neither can ask the other, and equal epochs would leave both alive.
    """
    first = (epoch // ERA + 1) * ERA
    return first + entropy.pick(BEGINNINGS) * (ERA // BEGINNINGS)


def roll_back(tx: Tx, key: Key, reason: str, now: float, *, asked_again: bool = False) -> HostRef | None:
    """The target will never have this: the paglet is here again, and looks for a host anew; gives that target.

    A job that nobody wants ends instead. `asked_again`: a move that was asked for stays asked for, as it always does
    where a finished job of a group takes its files elsewhere.
    """
    agent_id, epoch = key
    if _ends(tx, key, now):
        return None
    handoff = residence.put_back(tx, agent_id, epoch + 1, now)
    if handoff is None:
        return None
    _place_anew(tx, handoff, f"{handoff.target.name} did not take it: {reason}", now)
    is_to_end = handoff.recall == rollbacks.DISPOSE
    if is_to_end or asked_again or jobfiles.finished_job(tx, agent_id) is not None:
        _try_later(tx, handoff)
    if is_to_end:
        # In place of the move, so that the files which were to move are kept; `on_arrival` is not due where it was.
        set_pending_action(tx, agent_id, {"dispose": True})
    return handoff.target


def roll_back_from_removed(tx: Tx, key: Key, under: int, now: float) -> bool:
    """The target is forgotten: the paglet is here again, `under` an epoch of its own (see `epoch_of_next_era`).

    A move that was asked for is dropped. False where the hand-off was over already, or ends here: a job of a group may
    have run there, so that it is its collector's to begin it anew, as a copy of another generation.
    """
    agent_id, epoch = key
    if tx.value("SELECT group_id FROM handoffs WHERE agent_id = ? AND epoch = ?", *key) is not None:
        abandon_to_removed(tx, key, now)
        return False
    handoff = residence.put_back(tx, agent_id, epoch + 1, now, under=under)
    if handoff is None:
        return False
    name = handoff.target.name
    rollbacks.fence(tx, Fence(agent_id=agent_id, epoch=under, target=handoff.target))
    _place_anew(tx, handoff, f"it was on its way to {name}, which was forgotten", now)
    paglets.set_problem(tx, agent_id, dropped_text(name))
    record_event(tx, now, "taken_back", agent_id, f"from the way to {name}, which was forgotten")
    if handoff.recall == rollbacks.DISPOSE:
        _try_later(tx, handoff)
        set_pending_action(tx, agent_id, {"dispose": True})
    return True


def abandon_to_removed(tx: Tx, key: Key, now: float) -> int:
    """End a job of a group on its way to a host that was forgotten. Return how many files of it became artifacts here,
    as those of one that has ended do."""
    files = give_up(tx, key, now, tell=False)
    record_event(tx, now, "given_up", key[0], "it was on its way to a host that was forgotten")
    tx.wake("groups", "reconciliation")
    return files


def cancel_move(tx: Tx, agent_id: str, problem: str, now: float) -> int:
    """A move that was asked for is not to be; what waited for it goes on: posts, a job's slot, a job's end.

    `problem`: why, in words; "" where it is over because the paglet is there. The files of a finished job become
    artifacts here. Return how many.
    """
    set_pending_action(tx, agent_id, None)
    if problem:
        paglets.set_problem(tx, agent_id, problem)
        tx.touch(agent_id)
    files = 0 if jobfiles.has_failed_hook(tx, agent_id) else keep_files(tx, agent_id, now)
    tx.wake("scheduler", "placer")
    outcomes.retire(tx, agent_id, now)
    return files


def give_up(tx: Tx, key: Key, now: float, *, tell: bool = True) -> int:
    """`recalls.give_up`; the files of a finished job become artifacts here first. Return how many."""
    is_under_way = tx.value("SELECT 1 FROM handoffs WHERE agent_id = ? AND epoch = ?", *key) is not None
    files = keep_files(tx, key[0], now) if is_under_way else 0
    rollbacks.discard_job(tx, *key, now, tell=tell)
    return files


def replacement_text(gossip: Gossiper, target: HostRef) -> str:
    """Return what a move waits for where another store is online under the target's name or address; "" elsewhere."""
    if replacement_of(gossip, target) is None:
        return ""
    return (
        f"it waits for store {target.store_id[:SHORT_ID_CHARACTERS]} of {target.name}; the {target.name} that is "
        f"online is another store; if the old one is gone for good: paglets mesh forget {target.store_id}"
    )


def replacement_of(gossip: Gossiper, target: HostRef) -> MeshHost | None:
    """Return the host that is online under the target's name or address, with another store."""
    for member in gossip.online():
        is_it = member.name == target.name or member.url == gossip.address(target).url
        if is_it and member.store_id != target.store_id:
            return member
    return None


def dropped_text(name: str) -> str:
    """Why a paglet does not move, in words."""
    return f"its move to {name} was dropped: that host was forgotten"


def _ends(tx: Tx, key: Key, now: float) -> bool:
    """Whether it was a job that nobody wants, which is over now."""
    if tx.value("SELECT recall FROM handoffs WHERE agent_id = ? AND epoch = ?", *key) != rollbacks.UNWANTED:
        return False
    tx.wake("groups", "reconciliation")
    give_up(tx, key, now)
    return True


def _place_anew(tx: Tx, handoff: Handoff, text: str, now: float) -> None:
    job = handoff.envelope.job
    if job is not None and job.status == "WAITING_FOR_SLOT":
        queue.move(tx, handoff.agent_id, "WAITING_FOR_SLOT", states.move("WAITING_FOR_SLOT", "taken_back"))
    if job is not None:
        queue.set_reason(tx, handoff.agent_id, "refused", text, False, now)
    tx.wake("placer", "groups", "mailbox")


def _try_later(tx: Tx, handoff: Handoff) -> None:
    """(A collector's `on_arrival` sees where it is, and asks anew.)"""
    if handoff.envelope.hook == "arrival" and handoff.envelope.kind != "collector":
        intent = dumps({"move": to_json(handoff.target)})
        tx.run("UPDATE paglets SET hook = NULL, intent = ? WHERE agent_id = ?", intent, handoff.agent_id)
