"""Strict checks of a header before `http.server` parses it: what two readers could read differently is refused.

`http.server` and `email` are lenient: bare line feeds, continued lines, a space before the colon, HTTP/0.9, the first
of two lengths. Each of these lets one request hide in another, and none of their hooks sees the raw lines. So the lines
are read and checked here, one by one, as they arrive. What passes has only one meaning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from io import BufferedIOBase

from paglets.core.errors import BadRequest, TooLarge

MOST_FIELDS = 64
MOST_TARGET_CHARACTERS = 8_000
"""Length of the target of a forwarded request. One that arrives on a connection is limited with its header."""

_REQUEST_LINE = re.compile(rb"[A-Z][A-Z0-9_-]{0,30} [\x21-\x7e]+ HTTP/1\.1\r\n")
_FIELD_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*\r\n")
_LENGTH = re.compile(r"[0-9]{1,15}")

SINGLE = frozenset(
    [
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "expect",
        "authorization",
        "origin",
        "sec-fetch-site",
    ]
)
"""Fields that decide how a request is read. If one were given twice, two readers could decide differently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """The header of a request. `target` is as in the request line; field names are in lower case."""

    method: str
    target: str
    fields: Mapping[str, str]


def check_request_line(method: str, target: str) -> None:
    """Raise BadRequest unless a request may start with this line."""
    line = f"{method} {target} HTTP/1.1\r\n".encode(errors="replace")
    if len(target) > MOST_TARGET_CHARACTERS or not _REQUEST_LINE.fullmatch(line):
        raise BadRequest(f"{method[:20]!r} {target[:200]!r} cannot be the first line of a request")


def read_head(source: BufferedIOBase, *, most_bytes: int, most_fields: int) -> tuple[bytes, bytes]:
    """Read the first line of a request, and the lines of its fields up to and including the empty one.

    A fault is refused as soon as it is seen, because the other side may wait for an answer. Raise BadRequest, TooLarge,
    OSError; after any of them the connection is unusable.
    """
    # TLS and other protocols may never send the end of a line.
    if not b"A" <= source.peek(1)[:1] <= b"Z":  # type: ignore[attr-defined]  # a BufferedReader, as makefile gives it
        raise _not_http()
    first = _line(source, most_bytes)
    if not _REQUEST_LINE.fullmatch(first):
        raise _not_http()
    lines: list[bytes] = []
    size = len(first)
    while (line := _line(source, most_bytes - size)) != b"\r\n":
        if not _FIELD_LINE.fullmatch(line):
            raise BadRequest("a line of the header is malformed")
        if len(lines) == most_fields:
            raise TooLarge(f"the header has over {most_fields} fields")
        lines.append(line)
        size += len(line)
    return first, b"".join([*lines, line])


def _line(source: BufferedIOBase, most_bytes: int) -> bytes:
    line = source.readline(most_bytes + 1)
    if len(line) > most_bytes:
        raise TooLarge("the header is too long")
    if not line.endswith(b"\n"):
        raise ConnectionError("the connection ended within a header")
    return line


def _not_http() -> BadRequest:
    return BadRequest("this is not HTTP/1.1; TLS, HTTP/0.9, 1.0 and 2 are not spoken here")


def single_fields(message: Message) -> dict[str, str]:
    """Return the header fields by lower-case name. Raise BadRequest if a deciding field is given twice."""
    fields: dict[str, str] = {}
    for given, value in message.items():
        name, value = given.lower(), value.strip(" \t")
        if name not in fields:
            fields[name] = value
        elif name in SINGLE or name.startswith("x-paglets-"):
            raise BadRequest(f"the header field {name} is there twice")
        else:
            fields[name] += ", " + value
    return fields


def content_length(fields: Mapping[str, str]) -> int:
    """Return the announced length of the body, 0 if none is announced. Raise BadRequest."""
    text = fields.get("content-length", "0")
    if not _LENGTH.fullmatch(text):
        raise BadRequest("Content-Length is not a plain number of at most 15 digits")
    return int(text)
