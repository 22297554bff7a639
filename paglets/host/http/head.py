"""Strict checks of a request header before `http.server` parses it. They refuse every ambiguous header.

`http.server` and `email` accept bare line feeds, continued lines, a space before the colon, HTTP/0.9, and two
Content-Length fields. Each of these allows request smuggling, and neither library gives access to the raw lines. So
this module reads and checks each line as it arrives.
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
"""The maximum length of the target of a forwarded request. In other requests, the size of the header limits it."""

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
"""The fields that a request may contain only once, because they decide how it is read and checked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """The header of a request. `target` is unchanged from the request line. Field names are in lower case."""

    method: str
    target: str
    fields: Mapping[str, str]


def check_request_line(method: str, target: str) -> None:
    """Check the method and the target of a forwarded request. Raises BadRequest."""
    line = f"{method} {target} HTTP/1.1\r\n".encode(errors="replace")
    if len(target) > MOST_TARGET_CHARACTERS or not _REQUEST_LINE.fullmatch(line):
        raise BadRequest(f"{method[:20]!r} {target[:200]!r} is not a valid method and target of a request")


def read_head(source: BufferedIOBase, *, most_bytes: int, most_fields: int) -> tuple[bytes, bytes]:
    """Read a header. Return its request line, and its field lines up to and including the empty line.

    Raises BadRequest or TooLarge as soon as an error is found, because the client may wait for a reply before it sends
    more. Raises OSError. After any error the connection is unusable.
    """
    # Check the first byte alone, because a client that uses TLS or another protocol may never send the end of a line.
    if not b"A" <= source.peek(1)[:1] <= b"Z":  # type: ignore[attr-defined]  # a BufferedReader, as makefile gives it
        raise _not_http()
    first = _line(source, most_bytes)
    if not _REQUEST_LINE.fullmatch(first):
        raise _not_http()
    lines: list[bytes] = []
    size = len(first)
    while (line := _line(source, most_bytes - size)) != b"\r\n":
        if not _FIELD_LINE.fullmatch(line):
            raise BadRequest(f"the line {line[:60]!r} of the header is malformed")
        if len(lines) == most_fields:
            raise TooLarge(f"the header has over {most_fields} fields")
        lines.append(line)
        size += len(line)
    return first, b"".join([*lines, line])


def _line(source: BufferedIOBase, most_bytes: int) -> bytes:
    line = source.readline(most_bytes + 1)
    if len(line) > most_bytes:
        raise TooLarge("the header of the request is too long")
    if not line.endswith(b"\n"):
        raise ConnectionError("the connection was closed before the whole header arrived")
    return line


def _not_http() -> BadRequest:
    return BadRequest("the request is not HTTP/1.1: this host supports neither TLS nor other versions of HTTP")


def single_fields(message: Message) -> dict[str, str]:
    """Return the header fields by lower-case name. Raises BadRequest if a field of `SINGLE` occurs twice."""
    fields: dict[str, str] = {}
    for given, value in message.items():
        name, value = given.lower(), value.strip(" \t")
        if name not in fields:
            fields[name] = value
        elif name in SINGLE or name.startswith("x-paglets-"):
            raise BadRequest(f"the header field {name} occurs twice")
        else:
            fields[name] += ", " + value
    return fields


def content_length(fields: Mapping[str, str]) -> int:
    """Return the value of Content-Length, or 0 if the field is missing. Raises BadRequest."""
    text = fields.get("content-length", "0")
    if not _LENGTH.fullmatch(text):
        raise BadRequest("Content-Length must be a number of at most 15 digits")
    return int(text)
