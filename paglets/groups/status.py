"""The status of a group, as its collector holds it: the one table, and the diagram drawn from it."""

from __future__ import annotations

from typing import Literal

from paglets.core.transitions import Transitions

GroupStatus = Literal["ACTIVE", "WAITING_FOR_HOME", "RETURNING_HOME", "COMPLETE"]

GROUP_TRANSITIONS: Transitions[GroupStatus] = Transitions(
    "group",
    "ACTIVE",
    {
        # The last key ended, and the collector is where it is to stay.
        ("ACTIVE", "ended"): "COMPLETE",
        # The last key ended, and the collector is to go home.
        ("ACTIVE", "ended_away"): "WAITING_FOR_HOME",
        ("WAITING_FOR_HOME", "departing"): "RETURNING_HOME",
        ("RETURNING_HOME", "arrived_home"): "COMPLETE",
        # A user moved it home, or home took it in while it still waited.
        ("WAITING_FOR_HOME", "arrived_home"): "COMPLETE",
        # It came to a third host, or is asked to try the way home again.
        ("RETURNING_HOME", "turned_back"): "WAITING_FOR_HOME",
        ("WAITING_FOR_HOME", "turned_back"): "WAITING_FOR_HOME",
        ("COMPLETE", "sent_home"): "WAITING_FOR_HOME",
        ("WAITING_FOR_HOME", "sent_home"): "WAITING_FOR_HOME",
        ("RETURNING_HOME", "sent_home"): "WAITING_FOR_HOME",
        # A new key makes an ended group active again.
        ("ACTIVE", "registered"): "ACTIVE",
        ("WAITING_FOR_HOME", "registered"): "ACTIVE",
        ("RETURNING_HOME", "registered"): "ACTIVE",
        ("COMPLETE", "registered"): "ACTIVE",
    },
)


def move(old: str, event: str) -> GroupStatus:
    """The status of a group that is `old` after `event`. Raises IllegalTransition."""
    return GROUP_TRANSITIONS.move(old, event)


def diagram() -> str:
    """The table as a Mermaid state diagram, for the docs."""
    return GROUP_TRANSITIONS.diagram()
