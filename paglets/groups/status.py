"""The status of a group: a table of its transitions, and a diagram that is generated from the table."""

from __future__ import annotations

from typing import Literal

from paglets.core.transitions import Transitions

GroupStatus = Literal["ACTIVE", "WAITING_FOR_HOME", "RETURNING_HOME", "COMPLETE"]

GROUP_TRANSITIONS: Transitions[GroupStatus] = Transitions(
    "group",
    "ACTIVE",
    {
        # The last job key has ended, and the collector need not return to its home.
        ("ACTIVE", "ended"): "COMPLETE",
        # The last job key has ended, and the collector must return to its home.
        ("ACTIVE", "ended_away"): "WAITING_FOR_HOME",
        ("WAITING_FOR_HOME", "departing"): "RETURNING_HOME",
        ("RETURNING_HOME", "arrived_home"): "COMPLETE",
        # A user moved the collector home, or its home fetched it while it was waiting.
        ("WAITING_FOR_HOME", "arrived_home"): "COMPLETE",
        # The collector arrived at another host than its home, or its move home was refused or rolled back.
        ("RETURNING_HOME", "turned_back"): "WAITING_FOR_HOME",
        ("WAITING_FOR_HOME", "turned_back"): "WAITING_FOR_HOME",
        # A user requested the move home.
        ("COMPLETE", "sent_home"): "WAITING_FOR_HOME",
        ("WAITING_FOR_HOME", "sent_home"): "WAITING_FOR_HOME",
        ("RETURNING_HOME", "sent_home"): "WAITING_FOR_HOME",
        # A new job key makes a group active again, even if all earlier keys have ended.
        ("ACTIVE", "registered"): "ACTIVE",
        ("WAITING_FOR_HOME", "registered"): "ACTIVE",
        ("RETURNING_HOME", "registered"): "ACTIVE",
        ("COMPLETE", "registered"): "ACTIVE",
    },
)


def move(old: str, event: str) -> GroupStatus:
    """Return the status after `event` in the status `old`. Raises IllegalTransition if there is none."""
    return GROUP_TRANSITIONS.move(old, event)


def diagram() -> str:
    """Return the transitions as a Mermaid state diagram, for the documentation."""
    return GROUP_TRANSITIONS.diagram()
