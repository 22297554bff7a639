"""Pending actions of a paglet: a move, a disposal or a deactivation. They start when no code of the paglet runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from paglets.core.errors import PagletsError, StoreTransient
from paglets.core.record import from_json
from paglets.core.refs import HostRef
from paglets.host.blobs.pusher import BlobPusher
from paglets.host.records import in_host, outcomes
from paglets.host.records.in_host import HostView
from paglets.host.records.lifecycle import UNDELIVERED, deactivate, keep_files, start_hook
from paglets.host.records.rollback import cancel_move, dropped_text, replacement_text
from paglets.host.records.run_queue import Runnable, is_still_pending
from paglets.host.runtime.services import HostServices
from paglets.host.runtime.status import BLOCKED
from paglets.mesh.gossip import Gossiper
from paglets.slots import states
from paglets.store import jobfiles, paglets, queue, residence
from paglets.store.db import Tx
from paglets.worker.host.supervisor import ZYGOTE_LABEL


class PendingActions:
    """The service that starts pending actions (column `paglets.intent` of the schema). Used only on the runner."""

    def __init__(self, services: HostServices, gossip: Gossiper, host_view: HostView, blob_pusher: BlobPusher) -> None:
        self._services = services
        self._gossip = gossip
        self._host_view = host_view
        self._blob_pusher = blob_pusher

    def serve(self, due: Runnable) -> bool:
        """Start the pending action. Return False if it is a move that must wait for its target or its files.

        Until the move starts, the paglet continues on this host.
        """
        assert due.intent is not None
        if "move" in due.intent:
            return self._serve_move(due, from_json(HostRef, due.intent["move"]))
        if "dispose" in due.intent:
            self._effect(due, lambda tx: self._dispose(tx, due))
        else:
            seconds = due.intent["rest"]
            self._effect(due, lambda tx: deactivate(tx, due.agent_id, seconds, self._services.clock.wall()))
        return True

    def _serve_move(self, due: Runnable, target: HostRef) -> bool:
        is_there = target.store_id == self._services.own.store_id
        if is_there or (due.kind != "collector" and self._gossip.is_forgotten(target.store_id)):
            problem = "" if is_there else dropped_text(target.name)
            self._effect(due, lambda tx: cancel_move(tx, due.agent_id, problem, self._services.clock.wall()))
        elif problem := self._problem(due.agent_id, target):
            if problem != due.problem:
                write_or_log(self._services, lambda tx: paglets.set_problem(tx, due.agent_id, problem))
            return False
        else:
            self._effect(due, lambda tx: self._depart(tx, due, target))
        return True

    def _effect(self, due: Runnable, change: Callable[[Tx], object]) -> None:
        """Apply a change unless the pending action was replaced since it was read. The next tick starts the new one."""
        write_or_log(self._services, lambda tx: change(tx) if is_still_pending(tx, due) else None)

    def bytes_go_first(self, due: Runnable) -> bool:
        """Return True if the paglet should move before its `run` starts, because the target of the move is online.

        If `run` started on this host first, it might never end, and would block the move.
        """
        move = None if due.intent is None else due.intent.get("move")
        return move is not None and self._gossip.is_online(from_json(HostRef, move).store_id)

    def _problem(self, agent_id: str, target: HostRef) -> str:
        """Return why a move cannot start yet, or "". The target must be online, have room, and have the blobs."""
        if not self._gossip.is_online(target.store_id):
            other = replacement_text(self._gossip, target)
            return other or f"it moves to {target.name} once that host is online"
        mesh_host = self._gossip.by_store(target.store_id)
        full = "" if mesh_host is None else mesh_host.properties.get(BLOCKED, "")
        # A zygote that cannot start does not block the move, because the paglet can wait for its process on the target.
        if full and not full.startswith(ZYGOTE_LABEL):
            return f"it moves to {target.name} once that host has room: {full}"
        needs = self._services.store.read(lambda tx: paglets.blobs_here(tx, agent_id))
        return "" if self._blob_pusher.ready(target, needs) else self._blob_pusher.reason(target, needs)

    def _dispose(self, tx: Tx, due: Runnable) -> None:
        now = self._services.clock.wall()
        if (
            due.runs_in_host
            or due.intent is None
            or due.intent.get("ready")
            or jobfiles.has_failed_hook(tx, due.agent_id)
        ):
            if due.intent is not None and due.intent.get(UNDELIVERED):
                keep_files(tx, due.agent_id, now)
            outcomes.end_by_hand(tx, due.agent_id, self._services.own, now)
        else:
            start_hook(tx, due.agent_id, "disposing", due.intent)

    def _depart(self, tx: Tx, due: Runnable, target: HostRef) -> None:
        if due.runs_in_host:
            in_host.run_hook(tx, self._host_view, due.agent_id, "on_dispatching")
        elif due.intent is not None and not due.intent.get("ready"):
            # Store the due hook, so that it becomes due again if `on_dispatching` raises and the move is dropped.
            then = due.hook or due.intent.get("then")
            start_hook(tx, due.agent_id, "dispatching", {**due.intent, "then": then})
            return
        # The caller chose the target host, so a moved job waits for a slot on that host and is not placed again.
        queue.move(tx, due.agent_id, "PLACING", states.move("PLACING", "queued"))
        paglets.set_arrival(tx, due.agent_id)
        residence.leave(tx, due.agent_id, target, self._services.clock.wall())


def write_or_log(services: HostServices, change: Callable[[Tx], Any]) -> Any:
    """Commit a change that may run code of a paglet inside the host, and return its result.

    If it raises PagletsError, log the error and return None. StoreTransient is raised, so that the runner
    retries the part.
    """
    try:
        return services.store.write(change)
    except StoreTransient:
        raise
    except PagletsError as error:
        services.logger("mailbox").error(f"a paglet inside the host failed: {error!r}")
        return None
