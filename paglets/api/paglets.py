"""Records of the routes about paglets: creation, views, where they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paglets.api.slots import JobView
from paglets.core.refs import BlobRef, FileRef, HostRef, Kind, ProxyRef


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPaglet:
    """What a creation says, from a client or from a paglet."""

    class_name: str
    kind: Kind
    state: Any
    name: str | None = None
    request: dict[str, Any] | None = None
    job_key: str = ""
    bundle: BlobRef | None = None
    files: tuple[FileRef, ...] = ()
    service: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePaglet(NewPaglet):
    """`POST /v1/paglets`. The id is made by the creator, so that a repeat makes nothing new."""

    agent_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PagletView:
    """`GET /v1/paglets/ID`: where a paglet is and what it does; `state` only where it is here, and not in a `brief`.

    `created_at` by the clock of the host where it was made. `inactive`: until a message or its time comes.
    `group_id`: the group of a job or a collector.
    """

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
    bundle: BlobRef | None = None
    files: tuple[FileRef, ...] = ()
    artifacts: int = 0
    service: str = ""
    inactive: bool = False
    created_at: float = 0.0
    group_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Paglets:
    """`GET /v1/paglets?after=ID&limit=N&brief=1`: a page; `next` is the `after` of the next one, or null."""

    paglets: tuple[PagletView, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FindPaglets:
    """`POST /v1/paglets/find`: which paglets here have that name, or offer that service? One of the two is given."""

    name: str | None = None
    service: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPaglet:
    """A paglet that was looked for."""

    ref: ProxyRef
    name: str | None = None
    service: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPaglets:
    """The reply to `FindPaglets`: at most 1,000, by id."""

    paglets: tuple[FoundPaglet, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Locate:
    """`POST /v1/paglets/locate`: which residence rows has this host of these ids?"""

    agent_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidenceRow:
    """What a host says of a paglet it holds or held; `status` and `peer` as in `store/schema.sql`."""

    agent_id: str
    epoch: int
    status: str
    peer: HostRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """The rows that this host has of the ids asked for; ids without one are left out.

    `answered`: where the answers of several hosts were put together, the stores of those that gave one.
    """

    rows: tuple[ResidenceRow, ...] = ()
    answered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePaglet:
    """`POST /v1/paglets/ID/dispatch`: a move that a user or another paglet asks for."""

    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """An acknowledgement without a value."""

    done: bool = True
