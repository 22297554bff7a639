"""A request and a reply as values, and the seam through which a host sends."""

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
    """`target` is path and query as on the request line; `sender` the store id that signed it ("" for a client).

    `repeatable` says that doing it twice is the same as doing it once: it carries ids, or it only reads (GET and
    HEAD are always taken so). A sender that lost the connection without a reply then repeats it by itself.
    It does not travel.

    `load` gives the body where that takes time, `keep` takes the body of a good reply where that takes time: a
    transport calls both where it may wait, so that the runner need not. What they raise is the outcome.

    `by_name`: a good reply is a piece of a blob, which whoever asked proves by its name when all of it is there; its
    bytes are not signed one by one.

    `queue`: that of a request which another host passes on (`wire.fair_queue`); "" for what goes straight there.
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
        """The same with its body at hand."""
        return self if self.load is None else replace(self, body=self.load(), load=None)

    def kept(self, response: Response) -> Response:
        """`response`, without its body once that is kept."""
        if self.keep is None or response.status >= 400:
            return response
        self.keep(response.body)
        return replace(response, body=b"")


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """`status` 2xx with a JSON body, or an error's status with `PagletsError.to_wire` as body.

    Names in `headers` are in lower case, on both sides. They are not signed: nothing may depend on them for safety.
    `by_name`: as in the Request; the signature covers the status, and an empty body in the place of this one.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    by_name: bool = False

    @property
    def signed_body(self) -> bytes:
        return b"" if self.by_name else self.body

    def parse(self, cls: type[T]) -> T:
        """The record in a good reply; raises the error in a bad one."""
        return from_json(cls, self.json())

    def json(self) -> Any:
        tree = loads(self.body)
        if self.status >= 400:
            raise error_from_wire(tree)
        return tree


def parsed(outcome: Response | PagletsError, cls: type[T]) -> T:
    """The record that a request which was sent came back with (see `Completion`); raises what went wrong instead."""
    if isinstance(outcome, PagletsError):
        raise outcome
    return outcome.parse(cls)


def dump_json(value: Any) -> bytes:
    """Bytes of a record or JSON tree. Raises Invalid for what `paglets.codec.strict_json` does not write."""
    return dump_bytes(to_json(value))


def reply(value: Any) -> Response:
    return Response(status=200, body=dump_json(value))


def reply_error(error: PagletsError) -> Response:
    return Response(status=error.status, body=dump_json(error.to_wire()))


class PendingResponse:
    """An answer that comes later: `Router.handle` gives it back, the runner completes it.

    The first `complete` counts. No lock is needed: each step is one append or pop of a list, which Python
    does whole. `complete` stores before it looks for callbacks, `on_complete` adds before it looks for the
    response, so at least one of them sees the other; and a callback is popped by one of them only.
    """

    def __init__(self) -> None:
        self._responses: list[Response] = []
        self._callbacks: list[Callable[[Response], None]] = []

    @property
    def response(self) -> Response | None:
        """The answer, once there is one. Also set where whoever waited gave up: then nobody needs an answer."""
        return self._responses[0] if self._responses else None

    def complete(self, response: Response) -> None:
        """Answer; does nothing where there is an answer already. Any thread."""
        if not self._responses:
            self._responses.append(response)
        self._tell()

    def on_complete(self, callback: Callable[[Response], None]) -> None:
        """`callback(response)` is called once: now, or in the thread that completes. It must not block."""
        self._callbacks.append(callback)
        if self._responses:
            self._tell()

    def _tell(self) -> None:
        while self._callbacks:
            try:
                callback = self._callbacks.pop()
            except IndexError:  # the other side took it
                return
            callback(self._responses[0])


Completion = Callable[["Response | PagletsError"], None]


class Transport(Protocol):
    """Sends without blocking. `done` is called once, later, on the runner.

    It gets a Response (of any status), or an error: Unreachable (no byte was taken),
    CallOutcomeUnknown, PeerReplaced (another store answers there), NotAllowed, WrongClock. An empty
    `store_id` means whoever answers at that URL.
    """

    def send(self, host: HostRef, request: Request, done: Completion, *, timeout_seconds: float) -> None: ...
