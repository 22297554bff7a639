"""The transport of a host: threads that send queued requests, so that the runner never blocks."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from paglets.core.clock import Clock
from paglets.core.errors import InternalError, PagletsError, ShuttingDown, Unreachable
from paglets.core.refs import HostRef
from paglets.wire.fair_queue import FairQueue
from paglets.wire.pooled_client import PooledClient
from paglets.wire.request import Completion, QueueKey, Request, Response, queue_of

MOST_THREADS = 128
IDLE_THREAD_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sending:
    host: HostRef
    request: Request
    done: Completion
    deadline: float


class ThreadedTransport:
    """A `request.Transport` with at most `most_threads` threads. A `FairQueue` limits the requests to each host.

    `deliver` runs a function on the runner. A request that was not sent before its deadline ends as Unreachable.
    """

    def __init__(
        self,
        client: PooledClient,
        *,
        deliver: Callable[[Callable[[], None]], None],
        clock: Clock,
        most_threads: int = MOST_THREADS,
    ) -> None:
        self._client = client
        self._deliver = deliver
        self._clock = clock
        self._most_threads = most_threads
        self._changed = threading.Condition()
        self._queue: FairQueue[_Sending] = FairQueue()
        self._threads = 0
        self._idle = 0
        self._called = 0
        self._closed = False

    def send(self, host: HostRef, request: Request, done: Completion, *, timeout_seconds: float) -> None:
        deadline = self._clock.monotonic() + timeout_seconds
        refusal = self._enqueue(_Sending(host=host, request=request, done=done, deadline=deadline))
        if refusal is not None:
            self._deliver(partial(done, refusal))

    def close(self) -> None:
        """Complete waiting requests with ShuttingDown, and end idle threads. Requests in progress run to their end."""
        with self._changed:
            self._closed = True
            waiting = self._queue.take_waiting()
            self._changed.notify_all()
        for each in waiting:
            self._deliver(partial(each.done, ShuttingDown("this host is shutting down")))
        self._client.close()

    def _enqueue(self, sending: _Sending) -> PagletsError | None:
        key = queue_of(sending.host.url, sending.request)
        with self._changed:
            if self._closed:
                return ShuttingDown("this host is shutting down")
            if self._queue.is_full(key):
                name = sending.host.name or sending.host.url
                return Unreachable(f"too many requests are waiting for {name}; this one was not sent")
            if self._queue.put(key, sending):
                self._wake_thread()
        return None

    def _wake_thread(self) -> None:
        """Wake or start a thread. The caller holds the lock. `_called` counts woken threads that do not run yet."""
        if self._idle > self._called:
            self._called += 1
            self._changed.notify()
        elif self._threads < self._most_threads:
            self._threads += 1
            threading.Thread(target=self._work, name="transport", daemon=True).start()

    def _work(self) -> None:
        while True:
            taken = self._next()
            if taken is None:
                return
            key, sending = taken
            try:
                self._deliver(partial(sending.done, self._perform(sending)))
            finally:
                with self._changed:
                    self._queue.end(key)

    def _next(self) -> tuple[QueueKey, _Sending] | None:
        """Wait for a request that may be sent, and return it. Return None if this thread is to end."""
        with self._changed:
            while not self._closed:
                taken = self._queue.next()
                if taken is not None:
                    return taken
                self._idle += 1
                woken = self._changed.wait(IDLE_THREAD_SECONDS)
                self._idle -= 1
                if self._called:
                    self._called -= 1
                elif not woken:
                    break
            self._threads -= 1
            return None

    def _perform(self, sending: _Sending) -> Response | PagletsError:
        host, left = sending.host, sending.deadline - self._clock.monotonic()
        if not host.url:
            return Unreachable(f"{host.name or host.store_id} is not a known host of this mesh")
        if left <= 0:
            name = host.name or host.url
            return Unreachable(f"{name} did not answer earlier requests in time; this one was not sent")
        try:
            request = sending.request.loaded()
            response = self._client.request(host.url, host.store_id or None, request, timeout_seconds=left)
            return request.kept(response)
        except PagletsError as error:
            return error
        # `load` and `keep` may raise anything, and `done` must be called, because the caller waits.
        except Exception as error:
            return InternalError(f"a request to {host.url} failed because of a bug: {error!r}")
