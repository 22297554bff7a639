"""The status of a group: its table of transitions, and the diagram made from the table."""

from __future__ import annotations

from typing import Literal

from paglets.core.transitions import Transitions

GroupStatus = Literal["ACTIVE", "WAITING_FOR_HOME", "RETURNING_HOME", "COMPLETE"]

GROUP_TRANSITIONS: Transitions[GroupStatus] = Transitions(
    "group",
    "ACTIVE",
    {
        # The last key ended, and the collector stays on its host.
        ("ACTIVE", "ended"): "COMPLETE",
        # The last key ended, and the collector must go home.
        ("ACTIVE", "ended_away"): "WAITING_FOR_HOME",
        ("WAITING_FOR_HOME", "departing"): "RETURNING_HOME",
        ("RETURNING_HOME", "arrived_home"): "COMPLETE",
        # A user moved the collector home, or home took it while it still waited.
        ("WAITING_FOR_HOME", "arrived_home"): "COMPLETE",
        # The collector arrived at a third host, or has to retry the move home.
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
    """Return the status that follows `old` on `event`. Raises IllegalTransition."""
    return GROUP_TRANSITIONS.move(old, event)


def diagram() -> str:
    """Return the table as a Mermaid state diagram for the documentation."""
    return GROUP_TRANSITIONS.diagram()
