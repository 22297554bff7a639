"""The rollback of a hand-off at its source: restore or end the paglet, in one transaction."""

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
"""The number of possible first epochs in an era, each about a thousand moves before the next."""


def epoch_of_next_era(epoch: int, entropy: Entropy) -> int:
    """Return an epoch for a paglet that may still live on its target, or on a host that the target passed it to.

    It is in the next era, and therefore higher than any epoch that moves from `epoch` can reach. The place in the era
    is random: two hosts may roll back the same paglet without contact, and equal epochs would keep both copies alive.
    """
    first = (epoch // ERA + 1) * ERA
    return first + entropy.pick(ERA_STARTS) * (ERA // ERA_STARTS)


def roll_back(tx: Tx, key: Key, reason: str, now: float, *, asked_again: bool = False) -> HostRef | None:
    """Restore a paglet that the target will never accept, and place it again. Return the target.

    A job whose cancellation is requested ends instead: return None. With `asked_again`, a requested move stays pending.
    It always stays pending for a finished job of a group, which takes its files elsewhere.
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
        # Replace the move, so that its files are kept, and `on_arrival` does not run at the source.
        set_pending_action(tx, agent_id, {"dispose": True})
    return handoff.target


def roll_back_from_removed(tx: Tx, key: Key, under: int, now: float) -> bool:
    """Restore a paglet whose target host was removed, `under` the epoch from `epoch_of_next_era`. Drop its move.

    Return False if the hand-off was over, or if the paglet is a job of a group. Such a job may have run on the target,
    so it ends here, and only its collector may resubmit it as a new generation.
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
    """End a job of a group on its way to a removed host. Return the number of its files that became artifacts here."""
    files = give_up(tx, key, now, tell=False)
    record_event(tx, now, "given_up", key[0], "it was on its way to a host that was forgotten")
    tx.wake("groups", "reconciliation")
    return files


def cancel_move(tx: Tx, agent_id: str, problem: str, now: float) -> int:
    """Cancel a pending move, and resume everything that waited for it: posts, the slot and the end of a job.

    `problem` is the reason as text, "" if the paglet has arrived already. The files of a finished job become artifacts
    here. Return their number.
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
    """Turn the files of a finished job into artifacts here, and discard the job. Return the number of files."""
    is_under_way = tx.value("SELECT 1 FROM handoffs WHERE agent_id = ? AND epoch = ?", *key) is not None
    files = keep_files(tx, key[0], now) if is_under_way else 0
    rollbacks.discard_job(tx, *key, now, tell=tell)
    return files


def replacement_text(gossip: Gossiper, target: HostRef) -> str:
    """Return why a move waits if another store is online under the target's name or address, else ""."""
    if replacement_of(gossip, target) is None:
        return ""
    return (
        f"it waits for store {target.store_id[:SHORT_ID_CHARACTERS]} of {target.name}, but the {target.name} that is "
        f"online has another store; if the old one is lost, run: paglets mesh forget {target.store_id}"
    )


def replacement_of(gossip: Gossiper, target: HostRef) -> MeshHost | None:
    """Return the host that is online under the target's name or address with another store, or None."""
    for host in gossip.online():
        is_same_place = host.name == target.name or host.url == gossip.address(target).url
        if is_same_place and host.store_id != target.store_id:
            return host
    return None


def dropped_text(name: str) -> str:
    """Return why a paglet does not move to a host that was removed."""
    return f"its move to {name} was dropped: that host was forgotten"


def _ends(tx: Tx, key: Key, now: float) -> bool:
    """End a job whose cancellation was requested. Return False for any other paglet."""
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
    """Request the move again. A collector needs no request: its `on_arrival` notices where it is and moves on."""
    if handoff.envelope.hook == "arrival" and handoff.envelope.kind != "collector":
        intent = dumps({"move": to_json(handoff.target)})
        tx.run("UPDATE paglets SET hook = NULL, intent = ? WHERE agent_id = ?", intent, handoff.agent_id)
