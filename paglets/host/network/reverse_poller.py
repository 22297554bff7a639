"""Long polls of a host that accepts no connections. With them, it fetches the requests that other hosts have for it.

The host keeps one poll open at each online host that accepts connections. It passes each fetched request to its own
router, with the original sender. It sends the reply back in a separate request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from paglets.api.hosts import MeshHost
from paglets.api.limits import MAX_CALL_SECONDS
from paglets.api.pull import Pull, Pulled, PulledAnswer, PulledRequest
from paglets.codec.strict_json import loads
from paglets.core.errors import InternalError, PagletsError, TimedOut, Unreachable
from paglets.core.record import from_json
from paglets.host.runtime.backoff import Backoff
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.wire.base64_text import from_base64, to_base64
from paglets.wire.request import PendingResponse, Request, Response, dump_json, reply_error

WAIT_SECONDS = 20.0
"""Seconds that a poll waits for a request. Three polls a minute also keep the connection open in NAT routers that drop
idle connections after a minute."""

MARGIN_SECONDS = 5.0
"""Seconds by which the reply to a poll may be late. Later, the connection counts as broken: the machine may have slept
or changed its address."""

LOOK_AGAIN_SECONDS = 5.0
"""The maximum seconds between two reads of the table of hosts. Some changes, such as a lost host, wake no part."""

SHORT_SECONDS = 1.0
"""An empty reply to a poll within this many seconds counts as a failure. The following pause prevents a busy loop."""

WORK_SECONDS = MAX_CALL_SECONDS + 5.0
"""Seconds after which a fetched request is answered with `TimedOut`. The HTTP server has the same limit."""

ANSWER_SECONDS = 30.0
KEEP_ANSWER_SECONDS = 60.0
"""Seconds for which the sending of a reply is retried. After that, the sender of the request no longer waits."""

Handle = Callable[[Request], "Response | PendingResponse"]


@dataclass(slots=True, kw_only=True, eq=False)
class _Work:
    """A request fetched from `mesh_host`, kept until that host confirms the reply.

    `due` is the time of the next try to send the reply.
    """

    mesh_host: MeshHost
    request: PulledRequest
    came_at: float
    response: Response | None = None
    answered_at: float = 0.0
    due: float = 0.0
    tries: int = 0
    is_sent: bool = False


class ReversePoller:
    """The runner part `reverse_poller`. It does nothing on a host that accepts connections.

    The application sets `handle` to the method of the router when the host is ready.
    """

    name = "reverse_poller"

    def __init__(self, services: HostServices, gossip: Gossiper) -> None:
        self._services = services
        self._gossip = gossip
        self._backoff = Backoff(services.entropy)
        self._work: dict[tuple[str, str], _Work] = {}
        self.handle: Handle = not_yet

    @property
    def is_idle(self) -> bool:
        """Return True if no fetched request is in progress and no reply is in flight."""
        return not self._work

    def tick(self, now: float) -> float | None:
        if self._services.settings.reachable:
            return None
        mesh_hosts = [mesh_host for mesh_host in self._gossip.online() if mesh_host.reachable]
        for mesh_host in mesh_hosts:
            self._backoff.contacted(mesh_host.store_id, self._gossip.last_seen_at(mesh_host.store_id))
            if self._backoff.may_send(mesh_host.store_id, now):
                self._pull(mesh_host, now)
        due = [now + LOOK_AGAIN_SECONDS, *(self._look_after(work, now) for work in list(self._work.values()))]
        first = self._backoff.next_due([mesh_host.store_id for mesh_host in mesh_hosts], now)
        return min(due if first is None else [first, *due])

    # Methods that fetch requests.

    def _pull(self, mesh_host: MeshHost, now: float) -> None:
        self._backoff.sent(mesh_host.store_id)
        came: list[PulledRequest] = []
        at_work = tuple(request_id for store_id, request_id in self._work if store_id == mesh_host.store_id)
        request = Request(
            method="POST",
            target="/v1/outbox/pull",
            body=dump_json(Pull(at_work=at_work, wait_seconds=WAIT_SECONDS)),
            repeatable=True,
            keep=lambda body: came.extend(_requests(body)),
        )
        self._services.transport.send(
            mesh_host.ref,
            request,
            lambda outcome: self._pulled(mesh_host, came, outcome, now),
            timeout_seconds=WAIT_SECONDS + MARGIN_SECONDS,
        )

    def _pulled(
        self, mesh_host: MeshHost, came: list[PulledRequest], outcome: Response | PagletsError, began: float
    ) -> None:
        now = self._services.clock.monotonic()
        self._begin(mesh_host, came, now)
        good = isinstance(outcome, Response) and outcome.status < 400
        if good and (came or now - began >= SHORT_SECONDS):
            self._backoff.succeeded(mesh_host.store_id)
        else:
            self._backoff.failed(mesh_host.store_id, now)
        self._services.runner.wake(self.name)
        if isinstance(outcome, Unreachable):
            # Do this last, because it writes to the store and raises an error if the disk is full.
            self._gossip.record_failure(mesh_host.store_id)

    # Methods that handle the fetched requests.

    def _begin(self, mesh_host: MeshHost, came: Iterable[PulledRequest], now: float) -> None:
        for request in came:
            key = (mesh_host.store_id, request.request_id)
            if key not in self._work:  # Ignore a request that arrived before.
                work = self._work[key] = _Work(mesh_host=mesh_host, request=request, came_at=now)
                self._services.blobs.run_in_background(partial(self._perform, work))

    def _perform(self, work: _Work) -> None:
        """Handle a fetched request like the HTTP server does. This runs on a background thread."""
        asked = work.request
        try:
            body = from_base64(asked.body, "the body of a fetched request")
            request = Request(
                method=asked.method, target=asked.target, body=body, sender=asked.sender or work.mesh_host.store_id
            )
            answer = self.handle(request)
        except PagletsError as error:
            answer = reply_error(error)
        except Exception:
            self._services.logger(self.name).exception(
                f"internal error in {asked.method} {asked.target} (fetched by poll)"
            )
            answer = reply_error(InternalError("the host failed with an internal error; see its log", log="host.log"))
        if isinstance(answer, PendingResponse):
            answer.on_complete(lambda response: self._services.runner.call_soon(partial(self._done, work, response)))
        else:
            self._services.runner.call_soon(partial(self._done, work, answer))

    def _done(self, work: _Work, response: Response) -> None:
        if work.response is None:
            work.response = response
            work.answered_at = work.due = self._services.clock.monotonic()
            self._services.runner.wake(self.name)

    # Methods that send the replies.

    def _look_after(self, work: _Work, now: float) -> float:
        """Send the reply to a request if it is due. Return the monotonic time at which to call this method again."""
        if work.response is None and now >= work.came_at + WORK_SECONDS:
            self._done(
                work, reply_error(TimedOut(f"no answer within {WORK_SECONDS:g} s; the request is still in progress"))
            )
        if work.response is None:
            return work.came_at + WORK_SECONDS
        if now >= work.answered_at + KEEP_ANSWER_SECONDS:
            self._forget(work)
        elif not work.is_sent and work.due <= now:
            self._send(work, work.response)
        return max(work.due, work.answered_at + KEEP_ANSWER_SECONDS) if work.is_sent else work.due

    def _send(self, work: _Work, response: Response) -> None:
        work.is_sent = True

        def load() -> bytes:
            answer = PulledAnswer(
                request_id=work.request.request_id, status=response.status, body=to_base64(response.body)
            )
            return dump_json(answer)

        request = Request(method="POST", target="/v1/outbox/answer", load=load, repeatable=True)
        host = self._gossip.address(work.mesh_host.ref)
        self._services.transport.send(host, request, partial(self._sent, work), timeout_seconds=ANSWER_SECONDS)

    def _sent(self, work: _Work, outcome: Response | PagletsError) -> None:
        if isinstance(outcome, Response) and outcome.status < 500:
            self._forget(work)
        else:
            work.is_sent, work.tries = False, work.tries + 1
            work.due = self._services.clock.monotonic() + min(5.0, 0.1 * 2.0**work.tries)
        self._services.runner.wake(self.name)

    def _forget(self, work: _Work) -> None:
        self._work.pop((work.mesh_host.store_id, work.request.request_id), None)


def _requests(body: bytes) -> tuple[PulledRequest, ...]:
    """Parse the reply to a poll. Do not call this on the runner, because the requests may be large."""
    return from_json(Pulled, loads(body), "fetched requests").requests


def not_yet(request: Request) -> Response | PendingResponse:
    """Raise Unreachable. This function replaces the router while the host starts."""
    raise Unreachable("the host is starting and did not handle the request", hint=["try again in a few seconds"])
