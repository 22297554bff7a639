"""Routes about the attempts of jobs and their logs."""

from __future__ import annotations

from base64 import b64encode

from paglets.api.logs import MAX_LOG_PIECE_BYTES, AskAttempts, Attempts, LogPiece
from paglets.core.errors import BadRequest
from paglets.core.record import INT_BOUND
from paglets.core.refs import check_agent_id
from paglets.host.datadir.logs import STREAMS
from paglets.host.host import Host
from paglets.host.http.router import ParsedRequest, Route
from paglets.host.records import attempts

MOST_NUMBER = 999_999_999_999


def job_attempts(host: Host, asked: ParsedRequest) -> Attempts:
    body: AskAttempts = asked.body
    return attempts.attempts(host.services.store, host.services.disk, body.job, host.services.own)


def log(host: Host, asked: ParsedRequest) -> LogPiece:
    agent_id = check_agent_id(asked.path["ID"])
    generation = asked.number("generation", 1, MOST_NUMBER)
    attempt = asked.number("attempt", 1, MOST_NUMBER)
    stream = asked.query.get("stream", "out")
    if stream not in STREAMS:
        raise BadRequest(f"stream is {stream[:40]!r}: it must be one of {', '.join(STREAMS)}")
    limit = max(1, asked.number("limit", MAX_LOG_PIECE_BYTES, MAX_LOG_PIECE_BYTES))
    # Before the log is read, check if the attempt has ended. Otherwise the attempt could print and end in between, and
    # the reader would stop before it has read the last output.
    ended = not host.services.store.read(lambda tx: attempts.is_at_work(tx, (agent_id, generation, attempt)))
    piece = host.services.disk.read_log(agent_id, generation, attempt, stream, _offset(asked), limit)
    return LogPiece(
        offset=piece.offset,
        data=b64encode(piece.data).decode("ascii"),
        next=piece.next,
        size_bytes=piece.size_bytes,
        ended=ended,
    )


def _offset(asked: ParsedRequest) -> int:
    """Return the offset in bytes. It may be larger than other numbers in queries, because a log can be very long."""
    text = asked.query.get("offset", "0")
    if not text.isascii() or not text.isdecimal() or len(text) > 19 or int(text) >= INT_BOUND:
        raise BadRequest(f"query parameter 'offset' must be a number of bytes, got {text[:40]!r}")
    return int(text)


ROUTES = (
    Route(
        method="POST",
        path="/v1/jobs/attempts",
        takes=AskAttempts,
        gives=Attempts,
        about="the attempts of a job that this host knows",
        answer=job_attempts,
    ),
    Route(
        method="GET",
        path="/v1/jobs/ID/log",
        takes=None,
        gives=LogPiece,
        about="read a piece of the log of an attempt",
        answer=log,
    ),
)
