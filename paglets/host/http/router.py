"""The router: finds the handler of a request in one table, without sockets.

Server threads call `handle`. It reads or writes the store and wakes parts, or returns a PendingResponse that the runner
completes.
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
    """A parsed request. `path`: the values of the template's placeholders. `body`: the record that the route takes."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    sender: str

    def number(self, name: str, default: int, most: int) -> int:
        """Return a non-negative number of the query, at most `most`. Raise BadRequest."""
        text = self.query.get(name, str(default))
        if not text.isascii() or not text.isdecimal() or len(text) > MAX_NUMBER_DIGITS:
            raise BadRequest(f"query parameter {name!r} must be a number, got {text[:40]!r}")
        return min(int(text), most)

    def require_sender(self, stores: Iterable[str]) -> None:
        """Raise Invalid if a host signed the request and `stores` names another host. A host acts only for itself."""
        others = sorted(set(stores) - {self.sender})
        if self.sender and others:
            raise Invalid(f"the request names the store {others[0][:80]} and is signed by {self.sender}")


Answer = Callable[[Any, ParsedRequest], Any]
"""A handler: (host, asked) -> a record for a 200 reply, a Response, or a PendingResponse."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row of the table. `takes` and `gives` are records of `paglets.api`, or bytes.

    `most_at_once`: requests of one other host that are handled at the same time. Further ones get 503.
    """

    method: str
    path: str
    takes: type | None
    gives: type
    about: str
    answer: Answer
    most_at_once: int = 32


def route(method: str, path: str, takes: type | None, gives: type, about: str, answer: Answer) -> Route:
    """Return a route with default limits, written in one line."""
    return Route(method=method, path=path, takes=takes, gives=gives, about=about, answer=answer)


class Router:
    """The router of one host, for the table `routes`."""

    def __init__(self, host: Any, routes: tuple[Route, ...]) -> None:
        self._host = host
        self._limits = RequestLimits()
        self._routes: dict[tuple[int, str], list[tuple[list[str], Route]]] = {}
        for route in routes:
            template = route.path.strip("/").split("/")
            self._routes.setdefault(_lookup_key(template), []).append((template, route))

    def handle(self, request: Request) -> Response | PendingResponse:
        """Return the reply, now or later. PagletsError becomes a reply; the server logs any other exception."""
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
        fitting = [(route, path) for template, route in known if (path := _match(template, parts)) is not None]
        if not fitting:
            raise NoSuchRoute(f"there is no route {raw[:200]!r}; see docs/reference/protocol.md")
        # GET answers HEAD, too; the server omits the body.
        wanted = "GET" if method == "HEAD" else method
        for route, path in fitting:
            if route.method == wanted:
                return route, path
        allowed = ", ".join(sorted({route.method for route, _ in fitting}))
        raise MethodNotAllowed(f"{raw[:200]!r} takes {allowed}, not {method[:20]!r}")


class RequestLimits:
    """A limit on the requests of each host that are in progress on each route. Any thread may call the methods.

    A host whose request times out sends the next one, while the first still waits for a busy writer. So each host has a
    limited number of requests of each route here.
    """

    def __init__(self) -> None:
        self._lock = Mutex()
        self._counts: Counter[tuple[str, str, str]] = Counter()

    @contextmanager
    def one(self, sender: str, route: Route) -> Iterator[None]:
        """Count one request of `sender` while the block runs. Raise Overloaded if too many are in progress."""
        key = (sender, route.method, route.path)
        with self._lock:
            if self._counts[key] >= route.most_at_once:
                raise Overloaded(f"{route.most_at_once} of your requests {route.method} {route.path} are in progress")
            self._counts[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._counts[key] -= 1
                if not self._counts[key]:
                    del self._counts[key]


def _lookup_key(parts: list[str]) -> tuple[int, str]:
    """Return what a path and the templates that may match it have in common: length, version and first literal."""
    return len(parts), "/".join(parts[:2])


def _part(text: str) -> str:
    # Bytes that are not UTF-8 become U+FFFD, which no id and no name contains.
    part = unquote(text)
    if "\ufffd" in part or len(part) > MAX_PARAMETER_CHARACTERS or not part.isprintable() or "/" in part:
        raise BadRequest("a part of the path is too long or has characters that have no place there")
    return part


def _match(template: list[str], parts: list[str]) -> dict[str, str] | None:
    """Return the values of the placeholders, or None.

    Templates of one length never overlap, except for literals listed first.
    """
    values = {}
    for wanted, part in zip(template, parts, strict=True):
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
