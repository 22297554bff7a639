"""Records of the routes about paglets: creation, views, location."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paglets.api.slots import JobView
from paglets.core.refs import BlobRef, FileRef, HostRef, Kind, ProxyRef


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPaglet:
    """The parameters of a new paglet, from a client or from a paglet."""

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
    """A request to create a paglet: `POST /v1/paglets`. The creator chooses the id, so a repeat creates nothing."""

    agent_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PagletView:
    """The location and activity of a paglet: `GET /v1/paglets/ID`.

    `state`: null if the paglet is on another host, and in a `brief` list. `created_at`: by the clock of the host that
    created it. `inactive`: it sleeps until a message or its wake-up time. `group_id`: of a job or a collector.
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
    """A page of paglets: `GET /v1/paglets?after=ID&limit=N&brief=1`. `next`: the `after` of the next page, or null."""

    paglets: tuple[PagletView, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FindPaglets:
    """A request for the paglets here by name or by service: `POST /v1/paglets/find`. Give one of both."""

    name: str | None = None
    service: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPaglet:
    """A paglet with the requested name or service."""

    ref: ProxyRef
    name: str | None = None
    service: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundPaglets:
    """The reply to `FindPaglets`: at most 1,000 paglets, by id."""

    paglets: tuple[FoundPaglet, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Locate:
    """A request for the residence rows of these paglets: `POST /v1/paglets/locate`."""

    agent_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidenceRow:
    """The residence row of a paglet that a host has or had. `status`, `peer`: as in `store/schema.sql`."""

    agent_id: str
    epoch: int
    status: str
    peer: HostRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """The residence rows of the requested paglets; ids without a row are left out.

    `answered`: in a merged answer, the stores of the hosts that answered.
    """

    rows: tuple[ResidenceRow, ...] = ()
    answered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePaglet:
    """A request of a user or another paglet to move a paglet: `POST /v1/paglets/ID/dispatch`."""

    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """An acknowledgement without a value."""

    done: bool = True
