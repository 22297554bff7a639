"""A group's collector, as commands reach it: found, waited for not too long, and told of where it cannot be asked."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from paglets.api.groups import GroupLine, GroupView
from paglets.cli.away import heard_text, offline_names
from paglets.cli.output import ago, said_if_slow, waiting_for_all
from paglets.core.errors import NO_ANSWER, PagletsError, Unknown, Unreachable
from paglets.core.messages import Message
from paglets.core.refs import ProxyRef
from paglets.core.text import meant
from paglets.mesh.view import NO_WAY
from paglets.remote.cancelling import AWAY
from paglets.remote.client import HostClient
from paglets.remote.losthosts import lost_text, view_of

FIRST_SECONDS = 5.0
SILENT_SECONDS = 3.0
"""A collector that does not answer for so long, on a host not heard of for so long, is not waited for."""

LOOKS = 2
"""One is too few: what others heard of a host that has just died may reach us late, as the first look ends."""

REPLACED, FORGOTTEN = "replaced", "forgotten"
"""`collector` in the details of an Unreachable: what is known of the host where the collector is."""


def group_of(client: HostClient, group_id: str) -> GroupView:
    """A group, as a host that is online knows it. Raises Unknown with the nearest name, and who was not asked."""
    try:
        return client.group(group_id)
    except Unknown as error:
        hint = meant(group_id, (line.group_id for line in _lines(client)))
        away = offline_names(client.hosts())
        asked = f" (not asked, as they are offline: {', '.join(away)})" if away else ""
        raise Unknown(f"{error.message}{asked}: {hint}`paglets jobs groups` lists the groups") from None


def no_such_job(client: HostClient, group_id: str, job_key: str, cut: str = "") -> Unknown:
    """The error that the group has no job of that key, with the nearest one. `cut`: in which part of it."""
    keys: tuple[str, ...] = ()
    with suppress(PagletsError):
        keys = client.group(group_id).job_keys
    return Unknown(
        f"group {group_id} has no job {job_key!r}{cut}: {meant(job_key, keys)}"
        f"`paglets jobs groups {group_id}` lists its jobs"
    )


def collector_of(client: HostClient, group_id: str, now: Callable[[], float] = time.monotonic) -> ProxyRef:
    """The collector of a group. Raises Unreachable where its host is known to be away or gone, or does not answer.

    It is waited for no longer than the client's timeout.
    """
    collector = _heard(client, group_of(client, group_id).collector, group_id)
    end = now() + client.timeout
    with said_if_slow(f"waiting for {collector.host.name}, which has the collector of {group_id}"):
        for _ in range(LOOKS):
            left = end - now()
            if left <= 0:
                break
            try:
                client.paglet(collector, timeout=min(FIRST_SECONDS, left))
            except NO_ANSWER:
                # A host that has just died is not worth the whole wait.
                collector = _heard(client, collector, group_id, SILENT_SECONDS)
            except PagletsError:
                break  # who asks it something is told the same
            else:
                break
    return collector


def summary_of(client: HostClient, group_id: str) -> dict[str, Any]:
    """The summary as tagged JSON. Raises Unreachable with the last known counts where its host is away."""
    collector = collector_of(client, group_id)
    with said_if_slow(f"waiting for the summary of {group_id} from {collector.host.name}"):
        try:
            found: dict[str, Any] = client.call_tree(collector, Message("summary"))
        except Unreachable as error:
            known = _last_known(client, group_id, collector.host.name)
            raise Unreachable(f"{error.message}; {known}", collector=AWAY) from error
    return found


def _heard(client: HostClient, collector: ProxyRef, group_id: str, most_seconds: float = math.inf) -> ProxyRef:
    """The collector where it is, on a host that is online and was heard of in the last `most_seconds`.

    Says at once that its host is away or silent, instead of waiting for it. Raises Unreachable.
    """
    host, views = collector.host, client.hosts()
    view = view_of(host, views)
    if view is not None and view.online and view.silent_seconds <= most_seconds:
        return collector
    lost = lost_text(host, views)
    if view is None or lost:
        found = client.collected(group_id, timeout=min(FIRST_SECONDS, client.timeout))
        if found is not None:
            return found.collector
        state = FORGOTTEN if view is None else REPLACED
        raise Unreachable(f"the collector of {group_id} was on {lost}", collector=state)
    if view.problem.startswith(NO_WAY):
        raise Unreachable(f"the collector of {group_id} is on {host.name}: {view.problem}", collector=AWAY)
    raise Unreachable(
        f"the collector of {group_id} is on {host.name}, {heard_text(view)}: nothing is lost; start that host again to "
        f"see the group. If it is gone for good: `paglets mesh forget {host.name}`",
        collector=AWAY,
    )


def _lines(client: HostClient) -> tuple[GroupLine, ...]:
    """The groups that the hosts know which answer soon."""
    seconds = min(FIRST_SECONDS, client.timeout)
    with said_if_slow(waiting_for_all(seconds)):
        return client.mesh_groups(seconds)[0]


def _last_known(client: HostClient, group_id: str, host_name: str) -> str:
    for line in _lines(client):
        if line.group_id == group_id and line.counted_at is not None:
            return (
                f"the collector on {host_name} was last heard {ago(line.counted_at, time.time())}: "
                f"{line.completed_count} done, {line.failed_count} failed of {line.expected_count}"
            )
    return f"the collector is on {host_name}, which was not heard of here"
