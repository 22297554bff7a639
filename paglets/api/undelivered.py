"""Requests and replies of the routes for undelivered outputs of finished jobs: failed hooks and uncollected files."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.core.refs import ArtifactRef, HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedHook:
    """A failed hook of a finished job. The job and its files stay on `host` until `kept_until`.

    `entry`: the hook, such as `arrival` (see `worker.protocol`). `error`: the error text, one line or more. `target`:
    the name of the host to which the job was about to move, or "". Times are epoch seconds by the clock of `host`.
    """

    agent_id: str
    group_id: str
    job_key: str
    entry: str
    host: HostRef
    error: str
    traceback: str
    failed_at: float
    kept_until: float
    target: str = ""

    @property
    def hook(self) -> str:
        """Return the name of the method, such as `on_arrival`."""
        return self.entry if self.entry == "run" else f"on_{self.entry}"

    @property
    def text(self) -> str:
        """Return the failure as one line: `on_arrival failed on laptop: ValueError: no column x`."""
        lines = self.error.strip().splitlines() or ["no error text"]
        return f"{self.hook} failed on {self.host.name}: {lines[0]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Undelivered:
    """A finished job on `host` that still has to run a hook or move.

    `text`: the next step, such as `on_arrival runs on laptop`. `file_count`: the number of its files that no hook has
    collected yet.
    """

    agent_id: str
    group_id: str
    job_key: str
    host: HostRef
    text: str
    file_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AskUndelivered:
    """A request for the undelivered outputs of a group: `POST /v1/jobs/kept`. `job_key`: one job, or "" for all."""

    group_id: str
    job_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UndeliveredOutputs:
    """The reply to `AskUndelivered`. Each list has at most 1,000 entries.

    `hooks` and `undelivered` are sorted by job key, `files` by artifact id.
    """

    hooks: tuple[FailedHook, ...] = ()
    files: tuple[ArtifactRef, ...] = ()
    undelivered: tuple[Undelivered, ...] = ()
