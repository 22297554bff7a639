"""The rollback of a hand-off on its source host: restore or end the paglet, in one transaction."""

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
"""The number of epochs in an era. No paglet moves that often, so only a rollback can start the next era."""

ERA_STARTS = 1 << 20
"""The number of epochs, 1,024 apart, at which an era can start. A rollback draws one of them at random."""


def epoch_of_next_era(epoch: int, entropy: Entropy) -> int:
    """Return a random epoch of the next era, for a paglet of which another host may have a copy.

    The result is higher than any epoch that the other copy can reach by moves from `epoch`. It is random because two
    hosts that have no contact may roll back the same paglet. With equal epochs, both copies would stay alive.
    """
    first = (epoch // ERA + 1) * ERA
    return first + entropy.pick(ERA_STARTS) * (ERA // ERA_STARTS)


def roll_back(tx: Tx, key: Key, reason: str, now: float, *, asked_again: bool = False) -> HostRef | None:
    """Restore a paglet that the target will never accept. Return the target, or None if nothing was restored.

    A job that waited for a slot is placed again. A job whose cancellation is requested ends instead. If `asked_again`
    is True, a requested move stays pending. For a finished job of a group, it always stays pending, because the move
    delivers the files of the job.
    """
    agent_id, epoch = key
    if _ends(tx, key, now):
        return None
    handoff = residence.put_back(tx, agent_id, epoch + 1, now)
    if handoff is None:
        return None
    _place_anew(tx, handoff, f"{handoff.target.name} did not accept the job: {reason}", now)
    is_to_end = handoff.recall == rollbacks.DISPOSE
    if is_to_end or asked_again or jobfiles.finished_job(tx, agent_id) is not None:
        _try_later(tx, handoff)
    if is_to_end:
        # Replace the pending move by a disposal, so that the files are kept and `on_arrival` does not run on this host.
        set_pending_action(tx, agent_id, {"dispose": True})
    return handoff.target


def roll_back_from_removed(tx: Tx, key: Key, under: int, now: float) -> bool:
    """Restore a paglet whose target host was removed from the mesh, and drop its move. Return True if restored.

    The paglet gets the epoch `under`, a result of `epoch_of_next_era`. A job of a group is not restored: it may have
    run on the target, so it ends on this host, and only its collector may resubmit it as a new generation.
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
    _place_anew(tx, handoff, f"its target host {name} was removed with `mesh forget`", now)
    paglets.set_problem(tx, agent_id, dropped_text(name))
    record_event(tx, now, "taken_back", agent_id, f"restored: its target host {name} was removed with `mesh forget`")
    if handoff.recall == rollbacks.DISPOSE:
        _try_later(tx, handoff)
        set_pending_action(tx, agent_id, {"dispose": True})
    return True


def abandon_to_removed(tx: Tx, key: Key, now: float) -> int:
    """End a job of a group, because the target host of its move was removed from the mesh.

    The files of a finished job become artifacts of this host. Return their number.
    """
    files = give_up(tx, key, now, tell=False)
    record_event(tx, now, "given_up", key[0], "its target host was removed with `mesh forget`")
    tx.wake("groups", "reconciliation")
    return files


def cancel_move(tx: Tx, agent_id: str, problem: str, now: float) -> int:
    """Cancel the pending move of a paglet, and resume what waited for the move, such as posts or a request for a slot.

    `problem` is the reason as text, or "" if the paglet is already at its target. The files of a finished job become
    artifacts of this host. Return their number.
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
    """End a leaving job. The files of a finished job become artifacts of this host. Return their number.

    With `tell`, this host later acknowledges to the target that the hand-off is over.
    """
    is_under_way = tx.value("SELECT 1 FROM handoffs WHERE agent_id = ? AND epoch = ?", *key) is not None
    files = keep_files(tx, key[0], now) if is_under_way else 0
    rollbacks.discard_job(tx, *key, now, tell=tell)
    return files


def replacement_text(gossip: Gossiper, target: HostRef) -> str:
    """Return why a move waits, if a host with another store is online under the target's name or address, else ""."""
    if replacement_of(gossip, target) is None:
        return ""
    return (
        f"the move waits for store {target.store_id[:SHORT_ID_CHARACTERS]} of {target.name}, but the {target.name} "
        f"that is online has another store; if the old one is lost, run: paglets mesh forget {target.store_id}"
    )


def replacement_of(gossip: Gossiper, target: HostRef) -> MeshHost | None:
    """Return the online host that has the target's name or address but another store, or None."""
    for host in gossip.online():
        is_same_place = host.name == target.name or host.url == gossip.address(target).url
        if is_same_place and host.store_id != target.store_id:
            return host
    return None


def dropped_text(name: str) -> str:
    """Return a text that says why a paglet does not move to a host that was removed from the mesh."""
    return f"its move to {name} was dropped: that host was removed with `mesh forget`"


def _ends(tx: Tx, key: Key, now: float) -> bool:
    """End a job whose cancellation was requested, and return True. Return False for any other paglet."""
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
    """Request the move again. A collector needs no request, because its `on_arrival` requests the next move itself."""
    if handoff.envelope.hook == "arrival" and handoff.envelope.kind != "collector":
        intent = dumps({"move": to_json(handoff.target)})
        tx.run("UPDATE paglets SET hook = NULL, intent = ? WHERE agent_id = ?", intent, handoff.agent_id)
