"""Group ids that a submission asks for: whether one is free, and who can tell."""

from __future__ import annotations

from paglets.client.mesh_client import MeshClient
from paglets.client.orphaned_groups import orphaned_group
from paglets.core.errors import GroupExists, GroupLost
from paglets.core.refs import HostRef

SUBMIT_SECONDS = 2.0
"""For each host to say whether it knows a group id: one that hangs must not hold up a submission."""


def submissions_of(mesh: MeshClient, group_id: str) -> int:
    """Return how many groups had this id and were cleared. Raises GroupLost where hosts still have jobs of one.

    To be asked where no host that is online has the group or its collector.
    """
    left = orphaned_group(mesh, group_id, SUBMIT_SECONDS)
    if left.hosts:
        names = ", ".join(each.host.name for each in left.hosts)
        raise GroupLost(
            f"nothing was submitted: jobs of an earlier group {group_id} are on {names}, and no host that is online "
            "has its collector",
            next=[
                f"if that is gone for good, `paglets jobs cancel --force {group_id}` clears the group",
                "then submit again, or choose another group_id",
            ],
        )
    return left.submissions


def only_home_tells(group_id: str, home: HostRef, why: str) -> GroupExists:
    """Of an id that is taken: whether these are the same jobs, its home knows, and nobody else."""
    return GroupExists(
        f"group {group_id} is there already, and nothing was submitted: it was submitted on {home.name}, which {why}, "
        "so that nobody can tell whether it is the same",
        next=[
            f"submit it again when {home.name} is back; start that host if it has ended",
            "or choose another group_id",
        ],
    )
