"""Requests and replies of the routes for paglets: creation, views, location."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paglets.api.slots import JobView
from paglets.core.refs import BlobRef, FileRef, HostRef, Kind, ProxyRef


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPaglet:
    """The parameters of a new paglet, which a client or another paglet creates."""

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
    """A request to create a paglet: `POST /v1/paglets`.

    The creator chooses `agent_id`, so a repeated request does not create a second paglet.
    """

    agent_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PagletView:
    """The location and activity of a paglet: `GET /v1/paglets/ID`.

    `state`: null if the paglet is on another host, and in a `brief` list. `inbox`: the number of waiting posts.
    `dead_posts`: the number of posts that were given up because handling them failed too often. `created_at`: epoch
    seconds by the clock of the host that created it. `inactive`: the paglet sleeps until a message arrives or its
    wake-up time comes. `group_id`: the group of a job or a collector.
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
    """A request for the paglets on the receiver with a name or with a service: `POST /v1/paglets/find`.

    Exactly one of both fields is set.
    """

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
    """A request for the residence rows of the paglets with the ids `agent_ids`: `POST /v1/paglets/locate`."""

    agent_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResidenceRow:
    """A row of the residence table, about a paglet that a host has or had. `status`, `peer`: see `store/schema.sql`."""

    agent_id: str
    epoch: int
    status: str
    peer: HostRef | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """The residence rows of the requested paglets; ids without a row are left out.

    `answered`: if answers of several hosts were merged, the store ids of the hosts that answered.
    """

    rows: tuple[ResidenceRow, ...] = ()
    answered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MovePaglet:
    """A request to move a paglet to the host with the name or URL `target`: `POST /v1/paglets/ID/dispatch`."""

    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The reply to requests that return nothing: the receiver has accepted the request."""

    done: bool = True
