"""Routes about groups of jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from paglets.api.groups import (
    Census,
    CensusReply,
    EndCopies,
    EndedCopies,
    Groups,
    GroupView,
    HurryCensus,
    SubmitGroup,
    Unfinished,
)
from paglets.core.errors import PagletsError, Unknown
from paglets.core.failpoints import reach
from paglets.core.refs import check_group_id
from paglets.host import census, groupviews
from paglets.host.ending import end_copies
from paglets.host.host import Host
from paglets.host.http.router import Asked, Route
from paglets.remote.exchange import Pending, Request, Response, reply_error
from paglets.store.db import Tx

ELSEWHERE_SECONDS = 2.0
"""For a host that knows the group, to say so; one that sleeps must not hold up the others."""


def submit(host: Host, asked: Asked) -> GroupView:
    body: SubmitGroup = asked.body
    token = host.shell.entropy.token()

    def store(tx: Tx) -> GroupView:
        view = host.creation.submit(tx, token, body)
        reach("after-accept-before-commit")
        return view

    view = host.shell.store.write(store)
    reach("after-commit-before-reply")
    return view


def lines(host: Host, asked: Asked) -> Groups:
    return Groups(groups=host.shell.store.read(lambda tx: groupviews.lines(tx, host.shell.own)))


def one(host: Host, asked: Asked) -> Any:
    group_id = check_group_id(asked.path["ID"])
    view = host.shell.store.read(lambda tx: groupviews.view(tx, group_id, host.inline_host))
    if view is not None:
        return view
    error = Unknown(f"no host of the mesh that is online knows a group {group_id!r}")
    if asked.query.get("here"):
        raise error
    return _from_elsewhere(host, group_id, error)


def _from_elsewhere(host: Host, group_id: str, error: PagletsError) -> Pending:
    """Ask the online hosts. Home knows all of a group; where it is away, the collector's host tells what it has."""
    hosts = host.gossip.online()
    asking = _Asking(left=len(hosts), error=error)
    request = Request(method="GET", target=f"/v1/groups/{group_id}?here=1")
    for member in hosts:
        host.shell.transport.send(member.ref, request, asking.answered, timeout_seconds=ELSEWHERE_SECONDS)
    if not hosts:
        asking.pending.complete(reply_error(error))
    return asking.pending


@dataclass(kw_only=True)
class _Asking:
    """A question to several hosts; it is told the answers on the runner."""

    left: int
    error: PagletsError
    pending: Pending = field(default_factory=Pending)
    best: Response | None = None

    def answered(self, result: Response | PagletsError) -> None:
        self.left -= 1
        if isinstance(result, Response) and result.status == 200:
            self.best = result
            if result.parse(GroupView).job_keys:
                self.pending.complete(result)
        if not self.left:
            self.pending.complete(self.best or reply_error(self.error))


def take_census(host: Host, asked: Asked) -> CensusReply:
    body: Census = asked.body
    asked.must_come_from([body.host.store_id])
    return host.census.take(body)


def hurry_census(host: Host, asked: Asked) -> Unfinished:
    group_id = check_group_id(asked.path["ID"])
    body: HurryCensus = asked.body
    keys = None if body.job_keys is None else frozenset(body.job_keys)
    count = host.shell.store.read(lambda tx: census.unfinished(tx, group_id, keys))
    if count:
        host.census.hurry()
    return Unfinished(count=count)


def end(host: Host, asked: Asked) -> EndedCopies:
    group_id = check_group_id(asked.path["ID"])
    online = frozenset(member.store_id for member in host.gossip.online())
    own, now = host.shell.own, host.shell.clock.wall()
    return host.shell.store.write(lambda tx: end_copies(tx, group_id, asked.body, online, own, now))


ROUTES = (
    Route(
        method="POST",
        path="/v1/groups",
        takes=SubmitGroup,
        gives=GroupView,
        about="submit a group of jobs in one request",
        answer=submit,
    ),
    Route(
        method="GET",
        path="/v1/groups",
        takes=None,
        gives=Groups,
        about="groups submitted here or collected here",
        answer=lines,
    ),
    Route(
        method="GET",
        path="/v1/groups/ID",
        takes=None,
        gives=GroupView,
        about="one group, whichever host knows it",
        answer=one,
    ),
    Route(
        method="POST",
        path="/v1/groups/ID/census",
        takes=HurryCensus,
        gives=Unfinished,
        about="tell the collector of the copies here at once; how many there are",
        answer=hurry_census,
    ),
    Route(
        method="POST",
        path="/v1/groups/ID/end",
        takes=EndCopies,
        gives=EndedCopies,
        about="end the copies here of a group whose collector cannot be asked",
        answer=end,
    ),
    Route(
        method="POST",
        path="/v1/census",
        takes=Census,
        gives=CensusReply,
        about="unfinished copies of jobs that a host has",
        answer=take_census,
    ),
)
