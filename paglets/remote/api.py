"""Requests and replies of every route, as records (`paglets.core.record`).

The one place where the shapes of the wire are written down: the host's routes parse with these, the
client and the other hosts write with these. `ROUTES` in `paglets.host.http.routes` lists which route
takes which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from paglets.codec.envelope import Envelope, Kind, Post, WireMessage
from paglets.core.refs import HostRef, ProxyRef
from paglets.slots.model import Resources

PROTOCOL = 1
MAX_BODY_BYTES = 64 << 20
MAX_CALL_SECONDS = 60.0
MAX_GROUP_JOBS = 100_000
MAX_BATCH_POSTS = 500
MAX_BATCH_ENVELOPES = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class HostIdentity:
    """`GET /v1/host`: who this host is and what it offers."""

    store_id: str
    boot_id: str
    name: str
    url: str
    mesh_version: str
    protocol: int
    program: str
    python: str
    pid: int
    started_at: float
    tags: tuple[str, ...]
    properties: dict[str, str]
    reachable: bool
    capacity: Resources
    free: Resources
    queued_jobs: int
    running_jobs: int
    build: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One row of the membership table, as gossip carries it and `GET /v1/mesh/hosts` shows it.

    (`boot_count`, `heartbeat`) orders two rows of the same store: the higher is the newer. `addresses`
    are further URLs under which the host is known. `joined` says as the how-manyeth host this one came
    to its mesh (0: not yet): of two hosts with one name the earlier keeps it.
    """

    store_id: str
    name: str
    url: str
    addresses: tuple[str, ...]
    mesh_version: str
    protocol: int
    boot_id: str
    boot_count: int
    heartbeat: int
    tags: tuple[str, ...]
    properties: dict[str, str]
    reachable: bool
    capacity: Resources
    free: Resources
    queued_jobs: int
    running_jobs: int
    started_at: float
    joined: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberView:
    """A member as this host sees it: `silent_seconds` since it was last heard of, by this host's clock."""

    member: Member
    online: bool
    silent_seconds: float
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """`GET /v1/mesh/hosts`: this host first, the others by name."""

    hosts: tuple[MemberView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gossip:
    """`POST /v1/mesh/gossip`, both ways: the sender's own row first, then what else it knows.

    `offline` are the store ids of those among `members` that the sender holds for offline. A `push`
    carries only what just changed and is answered with the receiver's own row; else both sides tell
    all they know. `leaving`: the sender is about to end.
    """

    mesh_version: str
    protocol: int
    members: tuple[Member, ...]
    offline: tuple[str, ...] = ()
    push: bool = False
    leaving: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePaglet:
    """`POST /v1/paglets`. The id is made by the creator, so that a repeat makes nothing new."""

    agent_id: str
    class_name: str
    kind: Kind
    state: Any
    name: str | None = None
    request: dict[str, Any] | None = None
    job_key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PagletView:
    """`GET /v1/paglets/ID`: where a paglet is and what it does; `state` only where it is here."""

    agent_id: str
    class_name: str
    kind: Kind
    residence: str
    epoch: int
    host: HostRef
    name: str | None = None
    hook: str | None = None
    reason: str = ""
    inbox: int = 0
    dead_posts: int = 0
    state: Any = None
    job: JobView | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Paglets:
    """`GET /v1/paglets?after=ID&limit=N`: a page; `next` is the `after` of the next one, or null."""

    paglets: tuple[PagletView, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Locate:
    """`POST /v1/paglets/locate`: which residence rows has this host of these ids?"""

    agent_ids: tuple[str, ...] = ()
    group_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidenceRow:
    agent_id: str
    epoch: int
    status: str
    peer: HostRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorRow:
    """A collector that lives on the answering host."""

    group_id: str
    agent_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    rows: tuple[ResidenceRow, ...] = ()
    collectors: tuple[CollectorRow, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """`POST /v1/paglets/ID/call`. ID may also be the name of a paglet or service of that host.

    A caller that was answered `waiting` asks again with the same `call_id` and `again`: it gets the
    reply of the handler that is at work, not a second run of it.
    """

    message: WireMessage
    call_id: str
    again: bool = False
    wait_seconds: float = MAX_CALL_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class CallReply:
    """`waiting`: the handler is still at work or waits (`wait_state`); ask again."""

    value: Any = None
    waiting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledBelow:
    agent_id: str
    settled_below: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Posts:
    """`POST /v1/posts`: posts of one sender; `settled` says for each paglet what it has acknowledged."""

    posts: tuple[Post, ...]
    settled: tuple[SettledBelow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PostMessage:
    """`POST /v1/outbox`: a client's post. The host stores it in its own outbox and delivers it from there.

    `token` is made by the client: the same token again stores nothing new. Replies `Done`.
    """

    target: ProxyRef
    message: WireMessage
    token: str


PostVerdict = Literal["taken", "duplicate", "moved", "moving", "unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PostAnswer:
    """One for each post, in order. `host` and `epoch` come with `moved`."""

    n: int
    verdict: PostVerdict
    host: HostRef | None = None
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PostAnswers:
    answers: tuple[PostAnswer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfers:
    """`POST /v1/transfers`: envelopes of one source."""

    source: HostRef
    envelopes: tuple[Envelope, ...]


TransferVerdict = Literal["taken", "refused", "settled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferAnswer:
    agent_id: str
    epoch: int
    verdict: TransferVerdict
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferAnswers:
    answers: tuple[TransferAnswer, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """`POST /v1/transfers/settle`: was this epoch taken? If not, never take it."""

    source: HostRef
    agent_id: str
    epoch: int


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SubmitGroup:
    """`POST /v1/groups`: the whole group in one request, stored in one transaction."""

    group_id: str | None
    class_name: str
    jobs: tuple[JobSpec, ...]
    collector_host: str | None = None
    collector_class: str = "paglets.system.compute_slots:ResultCollectorPaglet"
    return_home_when_complete: bool = False
    code_paths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CreationError:
    job_key: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupView:
    """What home says of a group it submitted (`POST /v1/groups`, `GET /v1/groups/ID`).

    `collector` is where the collector lives as far as the answering host knows. `summary` is there
    when the collector is on the answering host.
    """

    group_id: str
    class_name: str
    created_at: float
    home: HostRef
    collector: ProxyRef
    job_keys: tuple[str, ...] = ()
    creation_errors: tuple[CreationError, ...] = ()
    warnings: tuple[str, ...] = ()
    detached: bool
    detached_reason: str
    summary: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLine:
    """One line of `GET /v1/groups`; counts are null where the collector is elsewhere and unheard of."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
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
    waited_seconds: float
    target: HostRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Census:
    """`POST /v1/census`: all unfinished copies that the sender has, for collectors on the receiver."""

    host: HostRef
    copies: tuple[JobCopy, ...]
    group_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnwantedCopy:
    agent_id: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CensusReply:
    """Copies that the collectors no longer want, and groups whose collector is not on the receiver."""

    unwanted: tuple[UnwantedCopy, ...] = ()
    elsewhere: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    agent_id: str
    attempt: int
    generation: int
    cpu_cores: tuple[int, ...]
    gpu_ids: tuple[int, ...]
    memory_bytes: int
    temp_storage_bytes: int
    granted_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Maxima over the life of an attempt; CPU seconds are a total."""

    cpu_seconds: float = 0.0
    rss_bytes: int = 0
    scratch_bytes: int = 0
    processes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job on one host: for `jobs queue`, `jobs ps` and `jobs why`. Durations by that host's clock."""

    agent_id: str
    group_id: str | None
    job_key: str
    generation: int
    attempt: int
    status: str
    residence: str
    reason: str
    reason_text: str
    never: bool
    waited_seconds: float
    running_seconds: float
    request: dict[str, Any]
    lease: Lease | None = None
    pid: int | None = None
    usage: Usage | None = None
    target: HostRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """`GET /v1/slots`: the scheduler of one host. `jobs` is bounded by `?limit=`, oldest first."""

    host: HostRef
    capacity: Resources
    free: Resources
    tags: tuple[str, ...]
    queued_jobs: int
    running_jobs: int
    jobs: tuple[JobView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """`POST /v1/slots/candidates`: which hosts could run this request, submitted from the receiver?"""

    request: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Of one host: `eligible` (now or later), and why not; `never` when waiting cannot help; `rank` from 1."""

    host: HostRef
    eligible: bool
    never: bool
    reason: str
    reason_text: str
    rank: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdicts:
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Steal:
    """`POST /v1/slots/steal`: `thief` has this much free and promised to nobody for 10 s."""

    thief: HostRef
    free: Resources
    most_jobs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stolen:
    """The copies that will come by the ordinary hand-off."""

    agent_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePaglet:
    """`POST /v1/paglets/ID/dispatch`: a move that a user or another paglet asks for."""

    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """An acknowledgement without a value."""

    done: bool = True
