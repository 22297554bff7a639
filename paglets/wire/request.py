"""Classes of requests and responses, and the interface through which a host sends requests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from paglets.codec.strict_json import dump_bytes, loads
from paglets.core.errors import PagletsError, error_from_wire
from paglets.core.record import from_json, to_json
from paglets.core.refs import HostRef

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request to a host.

    `target`: path and query, as on the request line. `sender`: the store id of the host that signed the request, or ""
    for a client.

    `repeatable`: the request is idempotent, so the transport repeats it if the connection ends without a reply. GET and
    HEAD requests are always repeatable. The field is not sent.

    `load`: returns the body. `keep`: stores the body of a successful reply. Both may be slow: the transport calls them
    in a thread that may block. If one raises an error, that error is the outcome of the request.

    `by_name`: a successful reply is a piece of a blob. Its bytes are not signed, because the receiver checks the hash
    of the whole blob.

    `queue`: for a relayed request, its kind in `wire.fair_queue`; "" for a direct request.
    """

    method: str
    target: str
    body: bytes = b""
    sender: str = ""
    repeatable: bool = False
    load: Callable[[], bytes] | None = None
    keep: Callable[[bytes], None] | None = None
    by_name: bool = False
    queue: str = ""

    def loaded(self) -> Request:
        """Return this request with the body that `load` returns."""
        return self if self.load is None else replace(self, body=self.load(), load=None)

    def kept(self, response: Response) -> Response:
        """Pass the body of a successful response to `keep`, and return the response without it."""
        if self.keep is None or response.status >= 400:
            return response
        self.keep(response.body)
        return replace(response, body=b"")


QueueKey = tuple[str, str]
"""A pair of a URL and a kind of requests. The kind is a key of `wire.fair_queue.LIMITS`."""


def queue_of(url: str, request: Request) -> QueueKey:
    """Return the queue for a request to `url`."""
    path = request.target.partition("?")[0]
    if request.queue:  # relayed requests have their own queue, so that they never delay requests to the relay itself
        return url + path, request.queue
    if path.endswith("/call"):
        return url, "calls"
    if path == "/v1/outbox/pull":
        return url, "pulls"
    return url, "bytes" if path.startswith(("/v1/blobs", "/v1/artifacts")) else "control"


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """A response: status 2xx with a JSON body, or the status of an error with `PagletsError.to_wire` as body.

    Names in `headers` are in lower case. Headers are not signed: do not rely on them for security. `by_name`: as in
    `Request`; the signature then covers the status and an empty body.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    by_name: bool = False

    @property
    def signed_body(self) -> bytes:
        return b"" if self.by_name else self.body

    def parse(self, cls: type[T]) -> T:
        """Return the record in a successful response. Raises the error that any other response contains."""
        return from_json(cls, self.json())

    def json(self) -> Any:
        tree = loads(self.body)
        if self.status >= 400:
            raise error_from_wire(tree)
        return tree


def parsed(outcome: Response | PagletsError, cls: type[T]) -> T:
    """Return the record in the outcome of a request (see `Completion`). Raises the error if the request failed."""
    if isinstance(outcome, PagletsError):
        raise outcome
    return outcome.parse(cls)


def dump_json(value: Any) -> bytes:
    """Return a record or JSON tree as bytes of JSON. Raises Invalid for values that `codec.strict_json` refuses."""
    return dump_bytes(to_json(value))


def reply(value: Any) -> Response:
    return Response(status=200, body=dump_json(value))


def reply_error(error: PagletsError) -> Response:
    return Response(status=error.status, body=dump_json(error.to_wire()))


class PendingResponse:
    """A response that will be set later: `Router.handle` returns this object, and the runner completes it.

    Only the first `complete` has an effect. No lock is needed, because each step is an atomic append or pop of a list.
    `complete` stores the response before it looks for callbacks, and `on_complete` adds the callback before it looks
    for the response. So at least one of them sees both, and only one of them pops the callback.
    """

    def __init__(self) -> None:
        self._responses: list[Response] = []
        self._callbacks: list[Callable[[Response], None]] = []

    @property
    def response(self) -> Response | None:
        """Return the response, or None if it is not set yet. A server sets one when it stops waiting."""
        return self._responses[0] if self._responses else None

    def complete(self, response: Response) -> None:
        """Set the response, unless it is already set. May be called from any thread."""
        if not self._responses:
            self._responses.append(response)
        self._call_back()

    def on_complete(self, callback: Callable[[Response], None]) -> None:
        """Call `callback(response)` once: now, or later in the thread that calls `complete`. It must not block."""
        self._callbacks.append(callback)
        if self._responses:
            self._call_back()

    def _call_back(self) -> None:
        while self._callbacks:
            try:
                callback = self._callbacks.pop()
            except IndexError:  # another thread has popped the callback and calls it
                return
            callback(self._responses[0])


Completion = Callable[["Response | PagletsError"], None]
"""A callback that gets the outcome of a request: a response of any status, or an error."""


class Transport(Protocol):
    """A sender of requests that does not block."""

    def send(self, host: HostRef, request: Request, done: Completion, *, timeout_seconds: float) -> None:
        """Send a request. Later, the runner calls `done` once with a response of any status, or with an error.

        Errors: Unreachable (the host received nothing), CallOutcomeUnknown, PeerReplaced (another host answers at the
        URL), NotAllowed, WrongClock. If `store_id` of `host` is empty, any host at the URL may answer.
        """
        ...
