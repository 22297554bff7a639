"""The heads of HTTP/1.1 messages, read strictly: what two readers could take for two things is refused.

Both sides of the wire use this. Only what paglets needs is here: no chunked bodies, no continuation lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus

from paglets.core.errors import BadRequest, TooLarge
from paglets.remote.stream import SocketStream

MOST_HEAD_BYTES = 16 << 10
MOST_FIELDS = 64
JSON_TYPE = "application/json"
BYTES_TYPE = "application/octet-stream"

_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE = re.compile(rb"([A-Z][A-Z0-9_-]{0,30}) ([\x21-\x7e]+) HTTP/1\.1")
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([2-5][0-9]{2})(?: [\x20-\x7e]*)?")
_NAME = re.compile(_WORD.encode())
_BAD_IN_VALUE = re.compile(rb"[^\t\x20-\x7e\x80-\xff]")
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
_LENGTH = re.compile(r"[0-9]{1,15}")

SINGLE = frozenset(
    (
        "host",
        "content-length",
        "content-type",
        "transfer-encoding",
        "connection",
        "expect",
        "authorization",
        "origin",
        "sec-fetch-site",
    )
)
"""Fields that decide something: two of them would let two readers decide differently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestHead:
    """Field names are in lower case."""

    method: str
    target: str
    fields: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplyHead:
    status: int
    fields: Mapping[str, str]


def read_request_head(stream: SocketStream, *, most_bytes: int, most_fields: int, deadline: float) -> RequestHead:
    """The next request's head. Raises BadRequest, TooLarge, OSError; after any of them the stream is of no use."""
    lines = _read_lines(stream, REQUEST_LINE, most_bytes, deadline)
    method, target = lines[0].decode("ascii").split(" ")[:2]
    return RequestHead(method=method, target=target, fields=parse_fields(lines[1:], most_fields))


def read_reply_head(stream: SocketStream, *, deadline: float) -> ReplyHead:
    """The next reply's head. Raises BadRequest, TooLarge, OSError."""
    lines = _read_lines(stream, STATUS_LINE, MOST_HEAD_BYTES, deadline)
    return ReplyHead(status=int(lines[0][9:12]), fields=parse_fields(lines[1:], MOST_FIELDS))


def _read_lines(stream: SocketStream, first: re.Pattern[bytes], most_bytes: int, deadline: float) -> list[bytes]:
    """Read up to the empty line. What is wrong is refused as soon as it is seen: the other side may wait for us."""
    seen = 0
    first_is_good = False
    while True:
        end = stream.buffer.find(b"\r\n\r\n", max(0, seen - 3))
        stop = len(stream.buffer) if end < 0 else end
        _refuse_bare_line_feed(stream.buffer, max(0, seen - 1), stop)
        if not first_is_good and stream.buffer:
            first_is_good = _first_line_is_good(stream.buffer, first)
        if stop > most_bytes:
            raise TooLarge(f"the header is over {most_bytes} bytes")
        if end >= 0:
            return stream.take(end + 4)[:-4].split(b"\r\n")
        seen = len(stream.buffer)
        stream.fill(deadline)


def _refuse_bare_line_feed(buffer: bytearray, start: int, stop: int) -> None:
    if _BARE_LINE_FEED.search(buffer, start, stop):
        raise BadRequest("a line of the header ends without a carriage return")


def _first_line_is_good(buffer: bytearray, first: re.Pattern[bytes]) -> bool:
    """Whether the first line is here and well formed. Raises BadRequest as soon as it cannot become so."""
    end = buffer.find(b"\r\n")
    if end < 0 and 0x41 <= buffer[0] <= 0x5A:
        return False
    if end < 0 or not first.fullmatch(bytes(buffer[:end])):
        raise BadRequest("this is not HTTP/1.1; TLS, HTTP/0.9, 1.0 and 2 are not spoken here")
    return True


def parse_fields(lines: list[bytes], most_fields: int) -> dict[str, str]:
    """Header fields by lower-case name. Raises BadRequest, TooLarge."""
    if len(lines) > most_fields:
        raise TooLarge(f"the header has over {most_fields} fields")
    fields: dict[str, str] = {}
    for line in lines:
        raw_name, colon, raw_value = line.partition(b":")
        if not colon or not _NAME.fullmatch(raw_name) or _BAD_IN_VALUE.search(raw_value):
            raise BadRequest("a line of the header is malformed")
        name, value = raw_name.decode("ascii").lower(), raw_value.strip(b" \t").decode("latin-1")
        if name not in fields:
            fields[name] = value
        elif name in SINGLE or name.startswith("x-paglets-"):
            raise BadRequest(f"the header field {name} is there twice")
        else:
            fields[name] += ", " + value
    return fields


def content_length(fields: Mapping[str, str]) -> int | None:
    """The announced length of the body; None where none is announced. Raises BadRequest."""
    text = fields.get("content-length")
    if text is None:
        return None
    if not _LENGTH.fullmatch(text):
        raise BadRequest("Content-Length is not a plain number of at most 15 digits")
    return int(text)


def wants_close(fields: Mapping[str, str]) -> bool:
    return "close" in [option.strip().lower() for option in fields.get("connection", "").split(",")]


def render_request(head: RequestHead, body: bytes) -> bytes:
    """Head and body in one piece: two sends would wait for one another (Nagle against delayed acknowledgement)."""
    return _render(f"{head.method} {head.target} HTTP/1.1", head.fields, body)


def render_reply(head: ReplyHead, body: bytes) -> bytes:
    return _render(f"HTTP/1.1 {head.status} {_PHRASES.get(head.status, '')}", head.fields, body)


_PHRASES = {status.value: status.phrase for status in HTTPStatus}


def _render(first: str, fields: Mapping[str, str], body: bytes) -> bytes:
    lines = [f"{name}: {value}".encode("latin-1") for name, value in fields.items()]
    for line in lines:
        if _BAD_IN_VALUE.search(line):
            raise ValueError("a header field would carry a control character")
    return b"\r\n".join([first.encode("ascii"), *lines, b"", body])
