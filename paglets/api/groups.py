"""Records of the routes about groups of jobs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from paglets.core.refs import ArtifactRef, BlobRef, FileRef, HostRef, ProxyRef

DEFAULT_COLLECTOR = "paglets.system.compute_slots:ResultCollectorPaglet"
"""The class of a group's collector where the submitter names none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One job of a group: its key, tagged state and `slots.model.SlotRequest` as JSON.

    `error` holds what was wrong with the request where it could not be made; the job is then recorded
    as a failure with cause `invalid`.
    """

    job_key: str
    state: Any
    request: dict[str, Any] | None
    error: str = ""
    inputs: tuple[FileRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitGroup:
    """`POST /v1/groups`: the whole group in one request, stored in one transaction.

    `bundle`: the code of its classes; `inputs`: files for each job, beside those of its own. Their bytes must be here.
    `submissions`: how many groups had this id and were cleared, as other hosts say (see `WaitingReports.submissions`).
    """

    group_id: str | None
    class_name: str
    jobs: tuple[JobSpec, ...]
    collector_host: str | None = None
    collector_class: str = DEFAULT_COLLECTOR
    return_home_when_complete: bool = False
    bundle: BlobRef | None = None
    inputs: tuple[FileRef, ...] = ()
    submissions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CreationError:
    """A job of a group that could not be made, and why."""

    job_key: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """A reason that kept `count` jobs of a group from every host when the group was submitted.

    `code` and `text` are those of the reason; `never`: waiting alone does not help.
    """

    count: int
    code: str
    text: str
    never: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """What home says of a group it submitted (`POST /v1/groups`, `GET /v1/groups/ID`).

    `class_name` is that of the jobs. `collector` is where the collector lives as far as the answering host knows.
    `summary`, `status` and the counts are there when the collector is on the answering host, else null or "".

    `only_host`: home knows no other host now, so the jobs run there, and nothing can be detached.

    Of a submission: `was_there`, the group was stored before, so nothing was now; `differs`, what of its "code" and
    "inputs" was other than what was stored then; `lost`, in words, that the collector's host was forgotten, or "".
    """

    group_id: str
    class_name: str
    created_at: float
    home: HostRef
    collector: ProxyRef
    job_keys: tuple[str, ...] = ()
    creation_errors: tuple[CreationError, ...] = ()
    obstacles: tuple[Obstacle, ...] = ()
    detached: bool
    detached_reason: str
    only_host: bool = False
    summary: Any = None
    status: str = ""
    expected_count: int | None = None
    completed_count: int | None = None
    failed_count: int | None = None
    was_there: bool = False
    differs: tuple[str, ...] = ()
    lost: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLine:
    """One line of `GET /v1/groups`; counts are null where the collector is elsewhere and unheard of.

    Of a collector elsewhere they are the last that home heard; `counted_at` is when, by home's clock, epoch seconds.
    `status` is that of the collector, or what home knows of a group whose collector is elsewhere: the last that it
    heard where all jobs had ended by then, else `SUBMITTED` while something of it still needs home, then `DETACHED`.
    A host that has only finished reports of a group says `UNKNOWN`. `waiting_reports`: how many wait for the collector;
    in what a client has of several hosts, on all of them.
    """

    group_id: str
    status: str
    created_at: float
    home: HostRef
    collector: ProxyRef
    expected_count: int | None = None
    completed_count: int | None = None
    failed_count: int | None = None
    counted_at: float | None = None
    here: bool = False
    waiting_reports: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """`GET /v1/groups`: newest first."""

    groups: tuple[GroupLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCopy:
    """A copy of a job as its host sees it (census)."""

    agent_id: str
    group_id: str
    job_key: str
    generation: int
    attempt: int
    epoch: int
    status: str
    residence: str
    reason: str
    reason_text: str
    never: bool
    target: HostRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatusReport:
    """`POST /v1/jobs/status`: all unfinished copies that the sender has, for collectors on the receiver."""

    host: HostRef
    copies: tuple[JobCopy, ...]
    group_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnwantedCopy:
    """A copy to be ended; `cause` is `groups.acceptance.CancelCause`."""

    agent_id: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatusReply:
    """Copies that the collectors no longer want, and groups whose collector is not on the receiver."""

    unwanted: tuple[UnwantedCopy, ...] = ()
    elsewhere: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushJobStatus:
    """`POST /v1/groups/ID/unfinished`: report all copies here at once, and count those of these keys (null: all)."""

    job_keys: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedCount:
    """How many copies wait, run or leave there: none once their process trees have ended."""

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportCounts:
    """Reports of finished jobs: how many results and failures, and how many files the results carry."""

    results: int = 0
    failures: int = 0
    files: int = 0
    file_bytes: int = 0

    def plus(self, other: ReportCounts) -> ReportCounts:
        """Add two counts."""
        pairs = {each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)}
        return ReportCounts(**pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndCopies:
    """`POST /v1/groups/ID/end`: a person cancels these keys (null: all) where their collector cannot be asked.

    `clear`: the collector's host was forgotten, so remove the reports that wait for the collector, and the finished
    copies with them. Results are removed only with `drop_results`.
    """

    job_keys: tuple[str, ...] | None = None
    reason: str = ""
    clear: bool = False
    drop_results: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedCopies:
    """`job_keys`: of the copies that the host has begun to end. `count`: how many have not ended yet.

    `cleared`: the reports that this request removed; `reports_left`: how many are to be removed by the next one.
    """

    job_keys: tuple[str, ...]
    count: int
    cleared: ReportCounts = ReportCounts()
    reports_left: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearGroup:
    """`POST /v1/groups/ID/clear`: the id of a group whose collector is lost may be used again.

    `submissions`: how many groups had the id (see `WaitingReports.submissions`).
    `host`: the forgotten host of the collector.
    """

    submissions: int
    host: HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingReport:
    """The report of a finished job that its collector has not taken. `n` orders the reports of a host.

    `record`: the entry that the collector would keep in `results` or `failures`. `artifacts`: the files, on this host.
    """

    n: int
    job_key: str
    agent_id: str
    kind: str
    record: dict[str, Any]
    artifacts: tuple[ArtifactRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingReports:
    """`GET /v1/groups/ID/waiting?after=N&limit=COUNT&job_key=KEY`: a page of the reports that wait on `host`.

    `counts` are of all reports of the group there. `running`, `queued`: copies there that have not ended.
    `next`: the `after` of the next page, or null. `submissions`: how many groups had this id, as far as the host knows.
    `collectors`: the hosts to which these reports go: where the collector was last known to live.
    """

    host: HostRef
    collectors: tuple[HostRef, ...] = ()
    counts: ReportCounts
    running: int
    queued: int
    submissions: int
    reports: tuple[WaitingReport, ...] = ()
    next: int | None = None
