"""The mailbox, which starts the next action of each paglet: a hook, a pending action or a message handler.

It finds actions in the database and calls in a queue in memory. Each paglet runs one action at a time. A
collector of the default class runs inside the host, so its actions run at once. Other paglets run in processes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from paglets.api.calls import CallReply
from paglets.core.errors import CallOutcomeUnknown, PagletsError
from paglets.host.messaging.creation import elsewhere
from paglets.host.messaging.pending_actions import PendingActions, write_or_log
from paglets.host.records import in_host
from paglets.host.records.delivery import Delivery, PendingCall
from paglets.host.records.in_host import FailedPost, HostView
from paglets.host.records.lifecycle import entry_for_calls, hook_failed, next_wake_time, set_hook
from paglets.host.records.run_queue import Runnable, runnable_paglets
from paglets.host.runtime.services import HostServices
from paglets.store import paglets, posts, residence
from paglets.store.db import Tx

MAX_DUE = 200
MAX_ACTIVATIONS = 32
"""The maximum number of processes for hooks and messages at once. Processes of jobs are limited by slots instead."""

LOOK_AGAIN_SECONDS = 5.0
"""Seconds between two checks of blocked paglets, such as those that wait for another host.

The check is needed because some changes do not wake this part. An example is a disk that has free space again.
"""

NEXT_ROUND_SECONDS = 1.0
"""Seconds between a round of several pages and the next round, because paglets may have become due in pages that were
already read."""

LONGEST_WAIT_SECONDS = 3600.0
"""The maximum seconds between two checks of wake-up times. It is limited because these times use the wall clock, which
may be set at any time."""

POSTS_A_TURN = 100
RETRY_POST_SECONDS = (0.5, 2.0, 10.0, 60.0)
KEEP_REPLY_SECONDS = 120.0
"""Seconds for which a reply is kept for a caller that must repeat its request."""


StartEntry = Callable[[str, str], None]
"""A function (agent_id, entry) that starts a process of a paglet. The entry is a hook, `activation` or `message`."""


class Pump(Protocol):
    """A function that sends the next message to the paglet's process. It returns False if there is no process.

    Without `stay`, the process ends soon, whatever messages it has left.
    """

    def __call__(self, agent_id: str, stay: bool = True) -> bool: ...


class Mailbox:
    """The runner part `mailbox`."""

    name = "mailbox"

    def __init__(self, services: HostServices, host_view: HostView, pending_actions: PendingActions) -> None:
        self._services = services
        self._host_view = host_view
        self._pending_actions = pending_actions
        self._queued: dict[str, deque[PendingCall]] = {}
        self._parked: dict[str, list[PendingCall]] = {}
        self._by_id: dict[str, PendingCall] = {}
        self._paused: dict[int, float] = {}
        self._after = ""
        self._is_full = False
        self.start_entry: StartEntry = lambda agent_id, entry: None
        self.pump: Pump = lambda agent_id, stay=True: False
        self.activations: Callable[[], int] = lambda: 0

    # Methods that queue, park and deliver calls.

    def call(self, call: PendingCall, again: bool) -> None:
        """Queue a call to a paglet on this host that runs in a process. Used only on the runner.

        A repeated call (`again`) is not queued again: its caller gets the result of the first, or CallOutcomeUnknown if
        this host has restarted since.
        """
        known = self._by_id.get(call.call_id)
        if known is not None:
            if known.result is not None and call.answer is not None:
                call.answer(known.result)
            known.answer, known.deadline = call.answer, call.deadline
        elif again and call.answer is not None:
            call.answer(CallOutcomeUnknown("the host restarted during the call; its outcome is unknown"))
        else:
            self._by_id[call.call_id] = call
            self._enqueue(call)
            if not self.pump(call.agent_id):
                self._services.runner.wake(self.name)

    def _enqueue(self, call: PendingCall, *, first: bool = False) -> None:
        """Queue a call after the waiting calls of the same priority, or before them if `first` is True."""
        queue = self._queued.setdefault(call.agent_id, deque())
        own = call.message.priority
        before = [other for other in queue if other.message.priority >= own + first]
        queue.insert(len(before), call)

    def knows(self, call_id: str) -> bool:
        """Return True if that call waits, runs or has a stored reply. May be called from any thread."""
        return call_id in self._by_id

    def park(self, call: PendingCall, version: int, wait_seconds: float | None) -> None:
        """Park a call whose handler asked to wait.

        The call is handled again when the state of the paglet changes, or after `wait_seconds`.
        """
        now = self._services.clock.monotonic()
        call.parked_version = version
        call.parked_at = now if call.parked_at is None else call.parked_at
        call.wake_at = None if wait_seconds is None else now + wait_seconds
        self._services.runner.wake(self.name)
        self._parked.setdefault(call.agent_id, []).append(call)
        self.touched((call.agent_id,))

    def touched(self, agent_ids: tuple[str, ...]) -> None:
        """Queue parked calls again after a COMMIT changed these paglets. May be called from any thread."""
        if self._parked:
            self._services.runner.call_soon(lambda: self._unpark(agent_ids))

    def _unpark(self, agent_ids: tuple[str, ...]) -> None:
        for agent_id in agent_ids:
            calls = self._parked.get(agent_id)
            if not calls:
                continue
            version = self._version(agent_id)
            self._resume(agent_id, [call for call in calls if version is None or version != call.parked_version])

    def _resume(self, agent_id: str, due: list[PendingCall]) -> None:
        """Move these calls from the parked calls to the queue."""
        if not due:
            return
        left = [call for call in self._parked.get(agent_id, []) if call not in due]
        if left:
            self._parked[agent_id] = left
        else:
            self._parked.pop(agent_id, None)
        for call in due:
            self._enqueue(call)
        if not self.pump(agent_id):
            self._services.runner.wake(self.name)

    def _wake_parked(self, now: float) -> None:
        for agent_id, calls in list(self._parked.items()):
            self._resume(agent_id, [call for call in calls if call.wake_at is not None and call.wake_at <= now])

    def _version(self, agent_id: str) -> int | None:
        version: int | None = self._services.store.read(lambda tx: paglets.state_version(tx, agent_id))
        return version

    def next_delivery(self, agent_id: str) -> Delivery | None:
        """Return the next message for the paglet, or None: first calls, then posts that are due."""
        calls = self._queued.get(agent_id)
        if calls:
            call = calls.popleft()
            if not calls:
                del self._queued[agent_id]
            waited = 0.0 if call.parked_at is None else self._services.clock.monotonic() - call.parked_at
            return Delivery(message=call.message, call=call, waited_seconds=waited)
        waiting = self._ready_posts(agent_id)
        return Delivery(message=waiting[0].message, seq=waiting[0].seq) if waiting else None

    def _ready_posts(self, agent_id: str) -> list[posts.UnhandledPost]:
        """Return a list with the next post, or []. Skip posts that are paused because their handlers raised."""
        now = self._services.clock.monotonic()
        paused = [seq for seq, at in self._paused.items() if at > now]
        return self._services.store.read(lambda tx: posts.unhandled(tx, agent_id, 1, paused))

    def has_calls(self, agent_id: str) -> bool:
        """Return True if calls wait for a process of this paglet."""
        return agent_id in self._queued

    def requeue(self, delivery: Delivery) -> None:
        """Queue a call again if the process did not start its handler. A post is still in the inbox, so do nothing."""
        if delivery.call is not None:
            self._enqueue(delivery.call, first=True)

    def post_raised(self, seq: int, tries: int) -> None:
        """Schedule another try of a post whose handler raised for the `tries`-th time. Other posts are not delayed."""
        pause = RETRY_POST_SECONDS[min(max(tries, 1), len(RETRY_POST_SECONDS)) - 1]
        self._paused[seq] = self._services.clock.monotonic() + pause
        self._services.runner.wake(self.name)

    # Methods that the runner calls.

    def tick(self, now: float) -> float | None:
        self._is_full = False
        self._expire_calls(now)
        self._wake_parked(now)
        self._paused = {seq: at for seq, at in self._paused.items() if at > now}
        paged = bool(self._after)
        wall = self._services.clock.wall()
        page, wakes_at = self._next_due(wall)
        for due in page:
            self._serve(due)
        for agent_id in list(self._queued):
            self._serve_calls(agent_id)
        times = [call.deadline for call in self._by_id.values()]
        times += [call.wake_at for calls in self._parked.values() for call in calls if call.wake_at is not None]
        times += list(self._paused.values())
        times += [now + LOOK_AGAIN_SECONDS] if page else []
        times += [] if wakes_at is None else [now + min(LONGEST_WAIT_SECONDS, wakes_at - wall)]
        times += [now + NEXT_ROUND_SECONDS] if paged and not self._after else []
        return min(times, default=None)

    def join(self, tx: Tx) -> list[FailedPost]:
        """Let paglets inside the host arrive or handle posts in the COMMIT that stores them. Return the failed posts.

        A paglet that arrives here handles its posts in `tick`.
        """
        failed: list[FailedPost] = []
        for due in runnable_paglets(tx, "", MAX_DUE, self._services.clock.wall()):
            if due.runs_in_host and due.hook == "arrival":
                self._arrive(tx, due.agent_id)
            elif due.runs_in_host and due.has_posts and due.hook is None:
                failed += in_host.take_posts(tx, self._host_view, due.agent_id, POSTS_A_TURN, self._paused)[1]
        return failed

    def joined(self, failed: list[FailedPost]) -> None:
        for each in failed:
            self._services.logger(self.name).warning(each.text)
            self.post_raised(each.seq, each.tries)

    def _next_due(self, wall: float) -> tuple[list[Runnable], float | None]:
        """Return the next page of due paglets, and the time at which the next inactive one wakes up.

        Paging ensures that blocked paglets do not delay the others. Paglets whose wake-up time is `wall` or earlier are
        in one of the pages.
        """
        after = self._after
        page, wakes_at = self._services.store.read(
            lambda tx: (runnable_paglets(tx, after, MAX_DUE, wall), next_wake_time(tx, wall))
        )
        if len(page) == MAX_DUE:
            self._after = page[-1].agent_id
            self._services.runner.wake(self.name)
        else:
            self._after = ""
        return page, wakes_at

    def _serve(self, due: Runnable) -> None:
        if due.runs_in_host:
            self._serve_in_host(due)
        elif self.pump(due.agent_id, stay=due.hook is None and due.intent is None):
            return
        elif due.hook is not None and due.hook != "run":
            self._start(due.agent_id, due.hook)
        elif due.intent is not None and self._pending_actions.serve(due):
            return  # An action that a hook requested takes effect before the `run` that would follow the hook.
        elif due.hook is not None and not self._pending_actions.bytes_go_first(due):
            self._start(due.agent_id, due.hook)
        elif due.is_to_wake or (due.has_posts and self._ready_posts(due.agent_id)):
            self._start(due.agent_id, "activation" if due.inactive else "message")

    def _serve_calls(self, agent_id: str) -> None:
        if self.pump(agent_id):
            return
        row, entry = self._services.store.read(lambda tx: (residence.find(tx, agent_id), entry_for_calls(tx, agent_id)))
        if row is not None and row.status == "here":
            if entry:
                self._start(agent_id, entry)
            return
        for call in self._queued.pop(agent_id, ()):
            call.finish(elsewhere(agent_id, row))

    def _start(self, agent_id: str, entry: str) -> None:
        if self.activations() < MAX_ACTIVATIONS:
            self.start_entry(agent_id, entry)
        else:
            self._is_full = True

    def place_freed(self) -> None:
        """Start paglets that wait because of MAX_ACTIVATIONS. Called when a process has become a resident."""
        if self._is_full:
            self._services.runner.wake(self.name)

    def _expire_calls(self, now: float) -> None:
        for call_id, call in list(self._by_id.items()):
            if call.deadline > now:
                continue
            if call.answer is not None and call.result is None:
                call.answer(CallReply(waiting=True))
                call.answer, call.deadline = None, now + KEEP_REPLY_SECONDS
            else:
                del self._by_id[call_id]
                self._forget(call)

    def _forget(self, call: PendingCall) -> None:
        """Drop a waiting call whose caller did not repeat its request. If its handler runs, the handler continues."""
        for calls in (self._parked, self._queued):
            waiting = calls.get(call.agent_id)
            if waiting is not None and call in waiting:
                waiting.remove(call)
                if not waiting:
                    del calls[call.agent_id]

    # Methods for paglets that run inside the host.

    def _serve_in_host(self, due: Runnable) -> None:
        if due.hook == "arrival":
            write_or_log(self._services, lambda tx: self._arrive(tx, due.agent_id))
        elif due.has_posts and (handled := self._take_posts(due.agent_id)):
            if handled == POSTS_A_TURN:
                self._services.runner.wake(self.name)
        elif due.intent is not None:
            self._pending_actions.serve(due)

    def _take_posts(self, agent_id: str) -> int:
        """Let a paglet inside the host handle up to POSTS_A_TURN posts. Return the number handled."""
        host, paused = self._host_view, tuple(self._paused)
        taken = write_or_log(self._services, lambda tx: in_host.take_posts(tx, host, agent_id, POSTS_A_TURN, paused))
        count, failed = taken or (0, [])
        self.joined(failed)
        return int(count)

    def _arrive(self, tx: Tx, agent_id: str) -> None:
        try:
            with tx.savepoint():
                in_host.run_hook(tx, self._host_view, agent_id, "on_arrival")
        except (PagletsError, ValueError, TypeError, LookupError, AttributeError) as error:
            hook_failed(tx, agent_id, "arrival", repr(error), self._services.clock.wall(), own=self._services.own)
        else:
            set_hook(tx, agent_id, None)
