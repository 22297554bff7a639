"""Requests and replies of the routes for groups of jobs."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from paglets.core.refs import ArtifactRef, BlobRef, FileRef, HostRef, ProxyRef

DEFAULT_COLLECTOR = "paglets.system.compute_slots:ResultCollectorPaglet"
"""The default class of a group's collector."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One job of a group.

    `state`: the state as tagged JSON. `request`: a `slots.model.SlotRequest` as JSON. `error`: the reason why the slot
    request is invalid; the job is then recorded as a failure with the cause `invalid`.
    """

    job_key: str
    state: Any
    request: dict[str, Any] | None
    error: str = ""
    inputs: tuple[FileRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitGroup:
    """A request to store a group with all its jobs in one transaction: `POST /v1/groups`.

    `collector_host`: name or URL of the collector's host; null: another host if there is one.
    `return_home_when_complete`: move the collector to the home host when all jobs have ended. `bundle`: the code of
    the classes. `inputs`: files for every job, in addition to the job's own. The receiver must already have the blobs
    of the bundle and of all inputs. `submissions`: the number of earlier groups with this id that were cleared, as far
    as other hosts know (see `WaitingReports.submissions`).
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
    """A job of a group that could not be created, and the reason."""

    job_key: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Obstacle:
    """A reason why no host could take `count` jobs of a group when the group was submitted.

    `code`, `text`: the reason, as a code and in words. `never`: True if no host will be able to take them later either.
    """

    count: int
    code: str
    text: str
    never: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """A group, as its home host or the host of its collector shows it: `POST /v1/groups`, `GET /v1/groups/ID`.

    `class_name`: the class of the jobs. `collector`: its last known location. `summary`, `status` and the counts are
    null or "" unless the collector is on the answering host.

    `only_host`: the home host knows no other host, so all jobs run on it and the group cannot be detached from it.

    Only after a submission: `was_there`: the group existed, so nothing was stored. `differs`: "code", "inputs" or both
    if they differ from those of the stored group. `lost`: a text if the host of the collector was removed, else "".
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
    """A group in the list of `GET /v1/groups`.

    If the collector is on another host, the counts are the last ones that the home host received, at `counted_at`
    (epoch seconds by its clock), or null. `status` is the last one received if all jobs had ended. Otherwise it is
    `SUBMITTED` while the group needs its home host, and `DETACHED` afterwards. A host that has only reports of finished
    jobs of a group shows `UNKNOWN`. `here`: the collector is on the answering host. `waiting_reports`: the number of
    reports on the answering host, or in a merged list on all hosts, that wait for the collector.
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
    """The groups that the answering host knows, newest first: `GET /v1/groups`.

    It knows a group that was submitted there, whose collector is there, or whose reports wait there.
    """

    groups: tuple[GroupLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCopy:
    """An unfinished copy of a job, as its host reports it. `never`: True if waiting is useless."""

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
    """A report of unfinished copies on the sender whose collectors are on the receiver: `POST /v1/jobs/status`.

    `group_ids`: the groups of the copies.
    """

    host: HostRef
    copies: tuple[JobCopy, ...]
    group_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnwantedCopy:
    """A copy of a job that the receiver of the reply must cancel. `cause`: a `groups.acceptance.CancelCause`."""

    agent_id: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatusReply:
    """The reply to `JobStatusReport`: copies to cancel, and ids of groups whose collector is on another host."""

    unwanted: tuple[UnwantedCopy, ...] = ()
    elsewhere: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FlushJobStatus:
    """A request to report all unfinished jobs of a group to its collector now: `POST /v1/groups/ID/unfinished`.

    The reply is the number of unfinished copies of the jobs `job_keys` (null: all).
    """

    job_keys: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnfinishedCount:
    """The number of copies of jobs that wait or run on the host, or are leaving it.

    It is 0 only after the process trees of the copies have ended.
    """

    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportCounts:
    """The numbers of results and failures in a set of reports, and the number and total size of their files."""

    results: int = 0
    failures: int = 0
    files: int = 0
    file_bytes: int = 0

    def plus(self, other: ReportCounts) -> ReportCounts:
        """Return the sum of two counts."""
        pairs = {each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)}
        return ReportCounts(**pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndCopies:
    """A request to cancel the jobs `job_keys` (null: all) without their collector: `POST /v1/groups/ID/end`.

    `clear`: also remove the finished jobs whose reports wait for the collector, because the host of the collector was
    removed. Results are removed only with `drop_results`.
    """

    job_keys: tuple[str, ...] | None = None
    reason: str = ""
    clear: bool = False
    drop_results: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedCopies:
    """The reply to `EndCopies`.

    `job_keys`: keys of the jobs that the host is ending. `count`: the number of jobs that have not ended yet.
    `cleared`: the reports that this request removed. `reports_left`: the number of reports that another request must
    remove.
    """

    job_keys: tuple[str, ...]
    count: int
    cleared: ReportCounts = ReportCounts()
    reports_left: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearGroup:
    """A request to free the id of a group whose collector is lost: `POST /v1/groups/ID/clear`.

    `submissions`: the number of groups that had this id (see `WaitingReports.submissions`). `host`: the removed host
    of the collector.
    """

    submissions: int
    host: HostRef


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingReport:
    """A finished job's report, which the collector has not accepted yet.

    `n`: a number by which the host sorts its reports. `record`: the entry for `results` or `failures` of the collector.
    `artifacts`: the files of the job, which are on the same host.
    """

    n: int
    job_key: str
    agent_id: str
    kind: str
    record: dict[str, Any]
    artifacts: tuple[ArtifactRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingReports:
    """A page of the reports that wait on `host`: `GET /v1/groups/ID/waiting?after=N&limit=COUNT&job_key=KEY`.

    `counts`: counts of all reports of the group on `host`. `running`, `queued`: the numbers of its unfinished jobs on
    `host`. `next`: the `after` of the next page, or null. `submissions`: the number of groups that had this id, as far
    as the host knows. `collectors`: the last known hosts of the collector, to which these reports are sent.
    """

    host: HostRef
    collectors: tuple[HostRef, ...] = ()
    counts: ReportCounts
    running: int
    queued: int
    submissions: int
    reports: tuple[WaitingReport, ...] = ()
    next: int | None = None
