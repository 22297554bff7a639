"""What jobs printed, as clients see it: the attempts that several hosts know of, and pieces of logs as bytes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass, replace

from paglets.api.logs import AskAttempts, Attempts, AttemptView, LogPiece, UnfinishedJob
from paglets.client.fan_out import with_host_name
from paglets.client.mesh_client import MeshClient, quoted
from paglets.core.errors import BadRequest, PagletsError
from paglets.core.refs import HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class JobAttempts:
    """Of one job: attempts, the newest last; its copies that are not finished; errors of hosts that did not answer."""

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
        """The attempt has ended, and nothing follows."""
        return self.ended and (not self.data or self.next >= self.size_bytes)


def ask_attempts(mesh: MeshClient, host: HostRef, job: str, timeout: float) -> tuple[HostRef, Attempts | PagletsError]:
    """What one host knows of a job, or why it does not say."""
    try:
        return host, mesh.ask("POST", "/v1/jobs/attempts", AskAttempts(job=job), Attempts, host=host, timeout=timeout)
    except PagletsError as error:
        return host, with_host_name(host, error)


def merged_attempts(answers: Sequence[tuple[HostRef, Attempts | PagletsError]]) -> JobAttempts:
    """What the hosts know, together. Raises the first error where none of them answered.

    Each attempt is given the address of its host by which that was asked, never one out of a message.
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
    """Sort the host where the attempt was at work last: where a hook of the job ran later there is only a log."""
    return view.generation, view.attempt, not view.ended, bool(view.status)


def read_log(mesh: MeshClient, attempt: AttemptView, stream: str, offset: int, limit: int, timeout: float) -> LogBytes:
    """A piece of a log. Raises BadRequest where its host does not keep to the rules, and Unreachable."""
    run = f"generation={attempt.generation}&attempt={attempt.attempt}"
    piece = mesh.ask(
        "GET",
        f"/v1/jobs/{quoted(attempt.agent_id)}/log?{run}&stream={quoted(stream)}&offset={offset}&limit={limit}",
        None,
        LogPiece,
        host=attempt.host,
        timeout=timeout,
    )
    try:
        data = base64.b64decode(piece.data, validate=True)
    except binascii.Error as error:
        raise BadRequest(f"the host sent a piece of a log that is not base64: {error}") from None
    _check_goes_on(piece, data, attempt.host, offset, limit)
    return LogBytes(offset=piece.offset, data=data, next=piece.next, size_bytes=piece.size_bytes, ended=piece.ended)


def _check_goes_on(piece: LogPiece, data: bytes, host: HostRef, offset: int, limit: int) -> None:
    """Else whoever follows the log would be shown the same bytes for ever. Raises BadRequest."""
    end = piece.offset + len(data)
    if data and not (len(data) <= limit and offset <= piece.offset and piece.next == end <= piece.size_bytes):
        raise BadRequest(
            f"{host.name} was asked for {limit:,} bytes of a log from byte {offset:,}, and sent {len(data):,} from "
            f"byte {piece.offset:,} of {piece.size_bytes:,}, to go on at byte {piece.next:,}: that host is at fault"
        )
