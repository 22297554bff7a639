"""Logs of jobs: the attempts that hosts know, and pieces of their output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from paglets.api.logs import AskAttempts, Attempts, AttemptView, LogPiece, UnfinishedJob
from paglets.client.fan_out import with_host_name
from paglets.client.mesh_client import MeshClient, quoted
from paglets.core.errors import BadRequest, PagletsError
from paglets.core.refs import HostRef
from paglets.wire.base64_text import from_base64


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAttempts:
    """The attempts of one job, newest last, its unfinished copies, and the errors of hosts that did not answer."""

    attempts: tuple[AttemptView, ...]
    unfinished: tuple[UnfinishedJob, ...]
    unreachable: tuple[PagletsError, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LogBytes:
    """A piece of a log: the fields of `api.LogPiece`, with `data` as bytes."""

    offset: int
    data: bytes
    next: int
    size_bytes: int
    ended: bool

    @property
    def is_last(self) -> bool:
        """Return True if the attempt has ended and no more bytes follow."""
        return self.ended and (not self.data or self.next >= self.size_bytes)


def ask_attempts(mesh: MeshClient, host: HostRef, job: str, timeout: float) -> tuple[HostRef, Attempts | PagletsError]:
    """Ask `host` for the attempts of a job. Return `host` with the reply, or with the error of the request."""
    try:
        return host, mesh.ask("POST", "/v1/jobs/attempts", AskAttempts(job=job), Attempts, host=host, timeout=timeout)
    except PagletsError as error:
        return host, with_host_name(host, error)


def merged_attempts(answers: Sequence[tuple[HostRef, Attempts | PagletsError]]) -> JobAttempts:
    """Merge the attempts of a job that hosts have returned. Raises the first error if no host answered.

    Use the address at which each host was asked, and not the addresses in the replies.
    """
    good = [(host, answer) for host, answer in answers if isinstance(answer, Attempts)]
    unreachable = tuple(answer for _, answer in answers if isinstance(answer, PagletsError))
    if unreachable and not good:
        raise unreachable[0]
    found = [replace(view, host=host) for host, answer in good for view in answer.attempts]
    return JobAttempts(
        attempts=tuple(sorted(found, key=_age)),
        unfinished=tuple(job for _, answer in good for job in answer.unfinished),
        unreachable=unreachable,
    )


def _age(view: AttemptView) -> tuple[int, int, bool, bool]:
    """Return a sort key that puts the newest attempt last.

    If several hosts have logs of one attempt, the host that ran it is last. The others may have the logs of hooks.
    """
    return view.generation, view.attempt, not view.ended, bool(view.status)


def read_log(mesh: MeshClient, attempt: AttemptView, stream: str, offset: int, limit: int, timeout: float) -> LogBytes:
    """Return a piece of a log. Raises BadRequest if the host sends a wrong piece, and Unreachable."""
    run = f"generation={attempt.generation}&attempt={attempt.attempt}"
    piece = mesh.ask(
        "GET",
        f"/v1/jobs/{quoted(attempt.agent_id)}/log?{run}&stream={quoted(stream)}&offset={offset}&limit={limit}",
        None,
        LogPiece,
        host=attempt.host,
        timeout=timeout,
    )
    data = from_base64(piece.data, f"the piece of a log from {attempt.host.name}")
    _check_piece(piece, data, attempt.host, offset, limit)
    return LogBytes(offset=piece.offset, data=data, next=piece.next, size_bytes=piece.size_bytes, ended=piece.ended)


def _check_piece(piece: LogPiece, data: bytes, host: HostRef, offset: int, limit: int) -> None:
    """Raise BadRequest if a piece does not continue the log, because a follower might then repeat bytes endlessly."""
    end = piece.offset + len(data)
    if data and not (len(data) <= limit and offset <= piece.offset and piece.next == end <= piece.size_bytes):
        raise BadRequest(
            f"{host.name} sent {len(data):,} bytes of a log from byte {piece.offset:,}, "
            f"expected at most {limit:,} bytes from byte {offset:,}"
        )
