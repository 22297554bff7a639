"""Submission of a group of jobs: choose the host that stores it, and make sure that its id is free."""

from __future__ import annotations

from dataclasses import replace

from paglets.api.groups import GroupView, SubmitGroup
from paglets.api.hosts import HostIdentity
from paglets.client.fan_out import online_hosts
from paglets.client.mesh_client import MeshClient, quoted
from paglets.client.orphaned_groups import orphaned_group
from paglets.core.errors import GroupExists, GroupLost, PagletsError, PeerReplaced, Unknown, Unreachable
from paglets.core.refs import HostRef, check_group_id
from paglets.groups.keys import new_group_id

SECONDS_PER_JOB = 0.005
"""Added to the timeout for each job: ten times what an idle host needs, because both sides may share one core."""

HOME_SECONDS = 5.0
"""Time for the home host to answer a small request before a large submission is sent to it."""

ORPHAN_SECONDS = 2.0
"""Time for each host to say what it has of a group, so that one unresponsive host does not delay a submission."""


def submit(mesh: MeshClient, group: SubmitGroup, timeout: float) -> GroupView:
    """Store a group, and return the host's view of it. A group without an id gets a new one.

    If a group with this id exists, its home host decides whether both are the same. Raises GroupExists if the groups
    differ or the home host does not answer, GroupLost if hosts still have jobs of an earlier group with this id.
    """
    home = None
    if group.group_id is None:
        group = replace(group, group_id=new_group_id(mesh.entropy.token()))
    else:
        try:
            home = _other_home(mesh, group.group_id, timeout)
        except Unknown:
            group = replace(group, submissions=_cleared_submissions(mesh, group.group_id))
    seconds = timeout + len(group.jobs) * SECONDS_PER_JOB
    try:
        return mesh.ask("POST", "/v1/groups", group, GroupView, host=home, timeout=seconds)
    except (Unreachable, PeerReplaced) as error:  # after any other error the group may have been stored
        if home is None:
            raise
        raise _home_needed(str(group.group_id), home, f"does not answer ({error.message})") from error


def _other_home(mesh: MeshClient, group_id: str, timeout: float) -> HostRef | None:
    """Return the home host of an existing group; None if it is the host of this client.

    Raises GroupExists if the home host is offline or does not answer, Unknown if no online host knows the group.
    """
    route = f"/v1/groups/{quoted(check_group_id(group_id))}"
    home = mesh.ask("GET", route, None, GroupView, timeout=timeout).home
    if home.store_id == mesh.host().store_id:
        return None
    if all(host.store_id != home.store_id for host in online_hosts(mesh)):
        raise _home_needed(group_id, home, "is offline")
    try:
        mesh.ask("GET", "/v1/host", None, HostIdentity, host=home, timeout=min(HOME_SECONDS, timeout))
    except PagletsError as error:
        if not error.no_reply:
            raise
        raise _home_needed(group_id, home, f"does not answer ({error.message})") from error
    return home


def _cleared_submissions(mesh: MeshClient, group_id: str) -> int:
    """Return how many groups had this id and were cleared. Raises GroupLost if hosts still have jobs of one."""
    left = orphaned_group(mesh, group_id, ORPHAN_SECONDS)
    if not left.hosts:
        return left.submissions
    names = ", ".join(each.host.name for each in left.hosts)
    raise GroupLost(
        f"nothing was submitted: jobs of an earlier group {group_id} are on {names}, and no online host has its "
        "collector",
        next=[
            f"if the host of the collector is gone for good, `paglets jobs cancel --force {group_id}` clears the group",
            "then submit again, or choose another group_id",
        ],
    )


def _home_needed(group_id: str, home: HostRef, reason: str) -> GroupExists:
    """Return the error for an existing group whose home host cannot compare both groups."""
    return GroupExists(
        f"nothing was submitted: group {group_id} exists, and its home host {home.name} {reason}",
        next=[
            f"submit it again when {home.name} is back: only that host can tell whether it is the same group",
            "or choose another group_id",
        ],
    )
