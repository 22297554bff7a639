"""Records of the routes about what finished jobs left: hooks that failed, and files that no hook took."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.core.refs import ArtifactRef, HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedHook:
    """A hook of a finished job of a group that failed on `host`, where the job and its files stay until `kept_until`.

    `entry`: as in `worker.protocol`, such as `arrival`. `error`: one line or more. `target`: the name of the host to
    which the job was about to move, or "". Times are seconds since the epoch by the clock of `host`.
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
        """The name of the method, such as `on_arrival`."""
        return self.entry if self.entry == "run" else f"on_{self.entry}"

    @property
    def text(self) -> str:
        """The failure as one line: `on_arrival failed on laptop: ValueError: no column x`."""
        lines = self.error.strip().splitlines() or ["it did not say why"]
        return f"{self.hook} failed on {self.host.name}: {lines[0]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Undelivered:
    """A finished job of a group with a hook or a move before it, on `host`. `text`: which, such as `on_arrival runs on
    laptop`. `file_count`: its files, which no hook has taken yet."""

    agent_id: str
    group_id: str
    job_key: str
    host: HostRef
    text: str
    file_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AskUndelivered:
    """`POST /v1/jobs/kept`: what did this group's jobs leave here? `job_key`: this job only; "": all jobs."""

    group_id: str
    job_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class UndeliveredOutputs:
    """The reply: hooks that failed and jobs that are not over, by job key, and files that no hook took, by artifact id;
    at most 1,000 of each."""

    hooks: tuple[FailedHook, ...] = ()
    files: tuple[ArtifactRef, ...] = ()
    undelivered: tuple[Undelivered, ...] = ()
