"""Requests from commands to a group's collector, and the errors that commands show if it cannot be reached."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from paglets.api.groups import GroupLine, GroupView
from paglets.cli.output import ago, notice_if_slow, say, waiting_for_all
from paglets.cli.views.offline_hosts import missing_hosts
from paglets.client.cancellation import AWAY
from paglets.client.collectors import FIRST_SECONDS, find_collector
from paglets.client.group_records import LISTS, whole_summary
from paglets.client.host_client import HostClient
from paglets.core.errors import Invalid, PagletsError, Unknown, Unreachable
from paglets.core.messages import Message
from paglets.core.refs import ProxyRef
from paglets.core.text import did_you_mean


def group_of(client: HostClient, group_id: str) -> GroupView:
    """Return the view that an online host has of a group.

    Raises Unknown. The error suggests the most similar group, and names the offline hosts.
    """
    try:
        return client.group(group_id)
    except Unknown as error:
        near = did_you_mean(group_id, (line.group_id for line in _lines(client)))
        asked = missing_hosts(client.hosts()).note()
        raise _unknown(f"{error.message}{asked}", near, "paglets jobs groups lists the groups") from None


def unknown_job(client: HostClient, group_id: str, job_key: str) -> Unknown:
    """Return the error for a job key that the group does not have. The error suggests the most similar key."""
    keys: tuple[str, ...] = ()
    with suppress(PagletsError):
        keys = client.group(group_id).job_keys
    message = f"group {group_id} has no job {job_key!r}"
    return _unknown(message, did_you_mean(job_key, keys), f"paglets jobs list {group_id} lists its jobs")


def _unknown(message: str, near: str, hint: str) -> Unknown:
    """Return the error for an unknown name. `near` is the question `did you mean X?`, or ""."""
    return Unknown(f"{message}: {near}" if near else message, hint=[hint])


def collector_of(client: HostClient, group_id: str, now: Callable[[], float] = time.monotonic) -> ProxyRef:
    """Return a reference to the collector of a group on its current host.

    Waits until the collector answers, at most for the client's timeout. Raises Unknown like `group_of`, and Unreachable
    if the collector is moving, or if its host is offline, was removed or has just stopped answering.
    """
    return find_collector(client, group_of(client, group_id).collector, group_id, tell=say, now=now)


def summary_of(client: HostClient, group_id: str, lists: Collection[str] = LISTS) -> dict[str, Any]:
    """Return the summary of a group as tagged JSON. The lists that `lists` names are complete.

    Raises like `collector_caller`, and TooLarge if the summary exceeds 1 GiB.
    """
    ask = collector_caller(client, group_id)
    return whole_summary(ask, ask(Message("summary")), lists)


def summary_of_job(client: HostClient, group_id: str, job_key: str) -> dict[str, Any]:
    """Return the summary of a group as tagged JSON. Its lists contain only this job."""
    found: dict[str, Any] = collector_caller(client, group_id)(Message("summary", {"job_key": job_key}))
    return found


def collector_caller(client: HostClient, group_id: str) -> Callable[[Message], Any]:
    """Return a function that sends a message to the collector and returns the reply as tagged JSON.

    Raises like `collector_of`. The function raises Unreachable, with the last known counts, if there is no answer.
    """
    collector = collector_of(client, group_id)

    def ask(message: Message) -> Any:
        with notice_if_slow(f"waiting for the collector of {group_id} on {collector.host.name}"):
            try:
                return client.call_tree(collector, message)
            except Unreachable as error:
                known = _last_known(client, group_id, collector.host.name)
                raise Unreachable(f"{error.message}; {known}", collector=AWAY) from error

    return ask


def _lines(client: HostClient) -> tuple[GroupLine, ...]:
    """Return the groups known to the hosts that answer within FIRST_SECONDS."""
    seconds = min(FIRST_SECONDS, client.timeout)
    with notice_if_slow(waiting_for_all(seconds)):
        return client.mesh_groups(seconds)[0]


def _last_known(client: HostClient, group_id: str, host_name: str) -> str:
    """Return a text with the last known counts of a group and their age."""
    for line in _lines(client):
        if line.group_id == group_id and line.counted_at is not None:
            return (
                f"last counts, {ago(line.counted_at, time.time())}: "
                f"{line.completed_count} done, {line.failed_count} failed of {line.expected_count}"
            )
    return f"no counts are known; the collector is on {host_name}"


def ask_for_job(client: HostClient, text: str, error: PagletsError, also: str = "") -> PagletsError:
    """Return an error that asks for a job if `text` names a group, else `error`. `also` is appended to the hint."""
    try:
        client.group(text)
    except PagletsError:
        return error
    hint = [f"name one of its jobs, as {text}/JOBKEY{also}", f"paglets jobs list {text} lists them"]
    return Invalid(f"{text} is a group, not a job", hint=hint)
