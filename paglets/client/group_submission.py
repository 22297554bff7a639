"""Submit a group of jobs: choose the host that stores the group, and make sure that the group id is free."""

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
"""Timeout seconds added per job: ten times what an idle host needs, because client and host may share a core."""

HOME_SECONDS = 5.0
"""Seconds for the home host to answer a small request before a large submission is sent to it."""

ORPHAN_SECONDS = 2.0
"""Seconds for each host to report its jobs of an earlier group. An unresponsive host must not delay a submission."""


def submit(mesh: MeshClient, group: SubmitGroup, timeout: float) -> GroupView:
    """Submit a group, and return the stored group as its home host shows it. A group without an id gets a new one.

    If a group with this id exists, its home host compares both groups; if they are equal, return the existing one.
    Raises GroupExists if the groups differ or the home host does not answer, and GroupLost if hosts still have jobs of
    an earlier group with this id.
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
    except (Unreachable, PeerReplaced) as error:  # these errors mean that the group was not stored
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
    """Return the number of cleared groups that had this id. Raises GroupLost if a host still has jobs of one."""
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
    """Return the error for a group id in use, if the home host cannot compare the new group with the existing one."""
    return GroupExists(
        f"nothing was submitted: group {group_id} exists, and its home host {home.name} {reason}",
        next=[
            f"submit it again when {home.name} is back: only that host can compare it with the existing group",
            "or choose another group_id",
        ],
    )
