"""Routes about groups of jobs."""

from __future__ import annotations

from typing import Any

from paglets.api import Census, CensusReply, Groups, GroupView, Located, SubmitGroup
from paglets.core.errors import PagletsError, Unknown
from paglets.core.refs import check_group_id
from paglets.host import census, groupviews
from paglets.host.creation import collector_id
from paglets.host.host import Host
from paglets.host.http.router import Asked, Route
from paglets.remote.exchange import Pending, Request, Response, reply_error

FORWARD_SECONDS = 10.0


def submit(host: Host, asked: Asked) -> GroupView:
    body: SubmitGroup = asked.body
    token = host.shell.entropy.token()
    return host.shell.store.write(lambda tx: host.creation.submit(tx, token, body))


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
    """Ask the online hosts who has the collector, then that host."""
    pending = Pending()

    def answered(result: Response | PagletsError) -> None:
        pending.complete(reply_error(result) if isinstance(result, PagletsError) else result)

    def found(located: Located) -> None:
        for row in located.rows:
            if (
                row.agent_id == collector_id(group_id)
                and row.peer is not None
                and row.status in ("here", "gone", "leaving")
            ):
                request = Request(method="GET", target=f"/v1/groups/{group_id}?here=1")
                host.shell.transport.send(row.peer, request, answered, timeout_seconds=FORWARD_SECONDS)
                return
        pending.complete(reply_error(error))

    host.locator.locate((collector_id(group_id),), (), found)
    return pending


def take_census(host: Host, asked: Asked) -> CensusReply:
    body: Census = asked.body
    return host.shell.store.write(lambda tx: census.receive(tx, body, host.inline_host))


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
        path="/v1/census",
        takes=Census,
        gives=CensusReply,
        about="unfinished copies of jobs that a host has",
        answer=take_census,
    ),
)
