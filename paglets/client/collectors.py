"""Find the current host of a group's collector, or raise an error that says why the collector does not answer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from paglets.api.groups import GroupView
from paglets.api.hosts import NO_ROUTE, MeshHostView
from paglets.api.paglets import PagletView
from paglets.client.cancellation import AWAY
from paglets.client.hosts import last_contact_text, removed_text, view_of
from paglets.core.clock import QUIET_SECONDS, call_if_slow
from paglets.core.errors import Moving, PagletsError, Unreachable
from paglets.core.refs import ProxyRef

FIRST_SECONDS = 5.0
"""Timeout of a request to the collector, or to the hosts about the collector."""

UNSEEN_SECONDS = 3.0
"""Give up on a collector that does not answer if its host has not been seen for this many seconds."""

ATTEMPTS = 2
"""The number of requests to the collector. After the first request, a dead host may still count as recently seen,
because other hosts report their last contact with it some seconds late."""

REPLACED, FORGOTTEN = "replaced", "forgotten"
"""Values of the detail `collector` of Unreachable: the host of the collector was replaced by another, or removed."""

LOST = (REPLACED, FORGOTTEN)
"""Values of the detail `collector` for a host that is not expected to return. Waiting for the collector is useless."""


@runtime_checkable
class CollectorFinder(Protocol):
    """The methods of `HostClient` that `find_collector` needs."""

    timeout: float

    def collected(self, group_id: str, *, timeout: float | None = None) -> GroupView | None: ...

    def hosts(self) -> tuple[MeshHostView, ...]: ...

    def paglet(self, target: ProxyRef, *, timeout: float | None = None) -> PagletView: ...


def find_collector(
    client: CollectorFinder,
    collector: ProxyRef,
    group_id: str,
    *,
    tell: Callable[[str], None],
    now: Callable[[], float],
) -> ProxyRef:
    """Return a reference to the collector of a group on its current host. `collector`: the last known reference.

    Waits for the timeout of the client at most, and calls `tell` with a text if that takes long. Raises Unreachable if
    the collector is moving, or if its host is offline, was removed or has just stopped answering.
    """
    collector = online_collector(client, collector, group_id)
    end = now() + client.timeout
    text = f"waiting for {collector.host.name}, which has the collector of {group_id}"
    with call_if_slow(tell, text, QUIET_SECONDS):
        for _ in range(ATTEMPTS):
            left = end - now()
            if left <= 0:
                break
            try:
                client.paglet(collector, timeout=min(FIRST_SECONDS, left))
            except PagletsError as error:
                if not error.no_reply:
                    break  # the caller's next request to the collector raises the same error
                if isinstance(error.__cause__, Moving):
                    raise Unreachable(
                        f"the collector of {group_id} is moving from {collector.host.name}: {error.__cause__.message}",
                        collector=AWAY,
                    ) from None
                # Do not wait for the whole timeout if the host has just died.
                collector = online_collector(client, collector, group_id, UNSEEN_SECONDS)
            else:
                break
    return collector


def online_collector(
    client: CollectorFinder, collector: ProxyRef, group_id: str, most_seconds: float = math.inf
) -> ProxyRef:
    """Return a reference to the collector on its current host, without a request to the collector.

    Raises Unreachable if that host is offline or has not been seen for `most_seconds`.
    """
    found = moved_group(client, collector, group_id, most_seconds)
    return collector if found is None else found.collector


def moved_group(
    client: CollectorFinder, collector: ProxyRef, group_id: str, most_seconds: float = math.inf
) -> GroupView | None:
    """Return the group as the new host of its collector reports it. Return None if the collector has not moved.

    Raises Unreachable like `online_collector`.
    """
    host, views = collector.host, client.hosts()
    view = view_of(host, views)
    if view is not None and view.online and view.seconds_since_seen <= most_seconds:
        return None
    lost = removed_text(host, views)
    if view is None or lost:
        found = client.collected(group_id, timeout=min(FIRST_SECONDS, client.timeout))
        if found is not None:
            return found
        state = FORGOTTEN if view is None else REPLACED
        steps = next_steps(group_id, state, host.store_id)
        raise Unreachable(f"the collector of {group_id} was on {lost}", collector=state, next=steps)
    if view.problem.startswith(NO_ROUTE):
        raise Unreachable(f"the collector of {group_id} is on {host.name}: {view.problem}", collector=AWAY)
    raise Unreachable(
        f"the collector of {group_id} is on {host.name}, {last_contact_text(view)}; only that host has all results",
        collector=AWAY,
        next=next_steps(group_id, AWAY, host.name),
    )


def next_steps(group_id: str, state: str, host: str) -> list[str]:
    """Return the next steps for the user if a collector does not answer.

    `state`: AWAY, REPLACED or FORGOTTEN. `host`: name or store id of the collector's host.
    """
    shown = f"`paglets jobs groups {group_id}` shows the jobs and reports that other hosts have of {group_id}"
    if state == FORGOTTEN:
        return [shown, f"`paglets jobs cancel {group_id}` clears the group; then submit it again"]
    if state == REPLACED:
        return [shown, f"`paglets mesh forget {host}`, then `paglets jobs cancel {group_id}` clears the group"]
    return [f"start host {host} again; if it is gone for good: `paglets mesh forget {host}`", shown]
