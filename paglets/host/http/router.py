"""The router: find the handler of a request in the table of routes, and call it. The router uses no sockets.

Server threads call `Router.handle`. A handler reads or writes the store and wakes parts of the host. It returns the
reply, or a PendingResponse that is completed later.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote

from paglets.codec.strict_json import loads
from paglets.core.clock import Mutex
from paglets.core.errors import BadRequest, Invalid, MethodNotAllowed, NoSuchRoute, Overloaded, PagletsError
from paglets.core.record import from_json
from paglets.wire.request import PendingResponse, Request, Response, reply, reply_error

MAX_PARAMETER_CHARACTERS = 1_000
MAX_NUMBER_DIGITS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedRequest:
    """A parsed request. `path` maps the placeholders of the route's path to values. `body` is the route's input record.

    `sender` is the store id of the host that signed the request, or "" for a client.
    """

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    sender: str

    def number(self, name: str, default: int, most: int) -> int:
        """Return the query parameter `name` as a number from 0 to `most`; `default` if missing. Raises BadRequest."""
        text = self.query.get(name, str(default))
        if not text.isascii() or not text.isdecimal() or len(text) > MAX_NUMBER_DIGITS:
            raise BadRequest(f"query parameter {name!r} must be a number, got {text[:40]!r}")
        return min(int(text), most)

    def require_sender(self, stores: Iterable[str]) -> None:
        """Check that a host that signed the request acts only for itself. `stores` are the store ids in the request.

        Raises Invalid.
        """
        others = sorted(set(stores) - {self.sender})
        if self.sender and others:
            raise Invalid(f"the request names the store {others[0][:80]} but is signed by {self.sender}")


Answer = Callable[[Any, ParsedRequest], Any]
"""A request handler. It takes the host and the request, and returns a record, a Response or a PendingResponse.

A record becomes the body of a reply with status 200.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row of the table of routes. `takes` and `gives` are the classes of request and reply; None: no body.

    `most_at_once` limits the requests from one other host that are handled at the same time. Further requests get the
    status 503. `about` describes the route in the documentation.
    """

    method: str
    path: str
    takes: type | None
    gives: type
    about: str
    answer: Answer
    most_at_once: int = 32


def route(method: str, path: str, takes: type | None, gives: type, about: str, answer: Answer) -> Route:
    """Return a route with the default limit. Positional arguments let a table of routes have one line for each."""
    return Route(method=method, path=path, takes=takes, gives=gives, about=about, answer=answer)


class Router:
    """The router of one host. `routes` is the table of routes."""

    def __init__(self, host: Any, routes: tuple[Route, ...]) -> None:
        self._host = host
        self._limits = RequestLimits()
        self._routes: dict[tuple[int, str], list[tuple[list[str], Route]]] = {}
        for route in routes:
            pattern = route.path.strip("/").split("/")
            self._routes.setdefault(_lookup_key(pattern), []).append((pattern, route))

    def handle(self, request: Request) -> Response | PendingResponse:
        """Handle a request. Return its reply, or a PendingResponse for a later reply.

        A PagletsError becomes an error reply. Any other exception is raised, and the server logs it.
        """
        try:
            raw, _, query = request.target.partition("?")
            route, path = self._find(request.method, raw)
            if not request.sender:
                return self._answer(request, route, path, query)
            with self._limits.one(request.sender, route):
                self._host.gossip.record_contact(request.sender)
                return self._answer(request, route, path, query)
        except PagletsError as error:
            return reply_error(error)

    def _answer(self, request: Request, route: Route, path: dict[str, str], query: str) -> Response | PendingResponse:
        body: Any = None
        if route.takes is bytes:
            body = request.body
        elif route.takes is not None:
            body = from_json(route.takes, loads(request.body), "body")
        elif request.body:
            raise BadRequest(f"{route.method} {route.path} takes no body")
        asked = ParsedRequest(path=path, query=_query(query), body=body, sender=request.sender)
        value = route.answer(self._host, asked)
        return value if isinstance(value, (Response, PendingResponse)) else reply(value)

    def _find(self, method: str, raw: str) -> tuple[Route, dict[str, str]]:
        parts = [_part(part) for part in raw.strip("/").split("/")]
        known = self._routes.get(_lookup_key(parts), ())
        fitting = [(route, path) for pattern, route in known if (path := _match(pattern, parts)) is not None]
        if not fitting:
            raise NoSuchRoute(f"there is no route {raw[:200]!r}", hint=["see docs/reference/protocol.md"])
        # The handler of GET also handles HEAD. The server then omits the body of the reply.
        wanted = "GET" if method == "HEAD" else method
        for route, path in fitting:
            if route.method == wanted:
                return route, path
        allowed = ", ".join(sorted({route.method for route, _ in fitting}))
        raise MethodNotAllowed(f"{raw[:200]!r} takes {allowed}, not {method[:20]!r}")


class RequestLimits:
    """A limit on the requests in progress, for each sending host and route. Methods may be called from any thread.

    A host whose request times out sends another one while the first still waits for the database. Without a limit, the
    requests of such a host would occupy all threads.
    """

    def __init__(self) -> None:
        self._lock = Mutex()
        self._counts: Counter[tuple[str, str, str]] = Counter()

    @contextmanager
    def one(self, sender: str, route: Route) -> Iterator[None]:
        """Count a request of `sender` while the `with` block runs. Raises Overloaded if too many are in progress."""
        key = (sender, route.method, route.path)
        with self._lock:
            if self._counts[key] >= route.most_at_once:
                many = f"{route.most_at_once} of your requests {route.method} {route.path} are in progress"
                raise Overloaded(many, hint=["try again later"])
            self._counts[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._counts[key] -= 1
                if not self._counts[key]:
                    del self._counts[key]


def _lookup_key(parts: list[str]) -> tuple[int, str]:
    """Return the key under which routes for a path are listed: the number of its parts, and the first two parts."""
    return len(parts), "/".join(parts[:2])


def _part(text: str) -> str:
    # `unquote` replaces bytes that are not UTF-8 with U+FFFD, which no id and no name contains.
    part = unquote(text)
    if "\ufffd" in part or len(part) > MAX_PARAMETER_CHARACTERS or not part.isprintable() or "/" in part:
        raise BadRequest("a part of the path is too long or has characters that are not allowed in a path")
    return part


def _match(pattern: list[str], parts: list[str]) -> dict[str, str] | None:
    """Return the values of the placeholders in the path pattern of a route, or None if the path does not match.

    A path may match a pattern with a literal and another with a placeholder. Then the one with the literal is listed
    first.
    """
    values = {}
    for wanted, part in zip(pattern, parts, strict=True):
        if wanted.isupper():
            values[wanted] = part
        elif wanted != part:
            return None
    return values


def _query(text: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, keep_blank_values=True, strict_parsing=bool(text), max_num_fields=20))
    except ValueError as error:
        raise BadRequest(f"the query is malformed: {error}") from error
