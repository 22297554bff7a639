"""Finding the collector of a group: where it is now, or why it cannot be asked and whether waiting for it helps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol, runtime_checkable

from paglets.api.groups import GroupView
from paglets.api.hosts import NO_ROUTE, MeshHostView
from paglets.api.paglets import PagletView
from paglets.client.cancellation import AWAY
from paglets.client.hosts import last_contact_text, removed_text, view_of
from paglets.core.clock import QUIET_SECONDS, told_if_slow
from paglets.core.errors import Moving, PagletsError, Unreachable
from paglets.core.refs import ProxyRef

FIRST_SECONDS = 5.0
SILENT_SECONDS = 3.0
"""A collector that does not answer for so long, on a host not heard of for so long, is not waited for."""

LOOKS = 2
"""One is too few: what others heard of a host that has just died may reach us late, as the first look ends."""

REPLACED, FORGOTTEN = "replaced", "forgotten"
"""`collector` in the details of an Unreachable: what is known of the host where the collector is."""

LOST = (REPLACED, FORGOTTEN)
"""Waiting for the collector is of no use: nobody expects that host back."""


@runtime_checkable
class CollectorFinder(Protocol):
    """A HostClient, as far as it is needed to find a collector."""

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
    """Return where the collector is, which was last known as `collector`.

    Raises Unreachable where its host is away or gone, or does not answer. Waits no longer than the client's timeout,
    and calls `tell` with what is waited for where that takes long.
    """
    collector = online_collector(client, collector, group_id)
    end = now() + client.timeout
    text = f"waiting for {collector.host.name}, which has the collector of {group_id}"
    with told_if_slow(tell, text, QUIET_SECONDS):
        for _ in range(LOOKS):
            left = end - now()
            if left <= 0:
                break
            try:
                client.paglet(collector, timeout=min(FIRST_SECONDS, left))
            except PagletsError as error:
                if not error.no_reply:
                    break  # who asks it something is told the same
                if isinstance(error.__cause__, Moving):
                    raise Unreachable(
                        f"the collector of {group_id} is on its way from {collector.host.name}: "
                        f"{error.__cause__.message}",
                        collector=AWAY,
                    ) from None
                # A host that has just died is not worth the whole wait.
                collector = online_collector(client, collector, group_id, SILENT_SECONDS)
            else:
                break
    return collector


def online_collector(
    client: CollectorFinder, collector: ProxyRef, group_id: str, most_seconds: float = math.inf
) -> ProxyRef:
    """Return where the collector is, on a host that is online and was heard of in the last `most_seconds`.

    Raises Unreachable at once where its host is away or silent.
    """
    found = moved_group(client, collector, group_id, most_seconds)
    return collector if found is None else found.collector


def moved_group(
    client: CollectorFinder, collector: ProxyRef, group_id: str, most_seconds: float = math.inf
) -> GroupView | None:
    """Return the group as the host tells it to which its collector moved; None: the collector is where it was.

    Raises as `heard`.
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
    """Return what to do about a group whose collector cannot be asked. `host`: its name, or its store's id."""
    shown = f"`paglets jobs groups {group_id}` shows what other hosts have of {group_id}"
    if state == FORGOTTEN:
        return [shown, f"`paglets jobs cancel {group_id}` clears it; then submit it again"]
    if state == REPLACED:
        return [shown, f"`paglets mesh forget {host}`, then `paglets jobs cancel {group_id}` clears it"]
    return [f"start that host again; if it is gone for good: `paglets mesh forget {host}`", shown]
