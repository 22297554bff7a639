"""The table of job statuses."""

from __future__ import annotations

import pytest

from paglets.core.errors import IllegalTransition
from paglets.core.transitions import Transitions
from paglets.slots.states import JOB_TRANSITIONS, diagram, move

LEGAL = [
    ("PLACING", "queued", "WAITING_FOR_SLOT"),
    ("WAITING_FOR_SLOT", "taken_back", "PLACING"),
    ("WAITING_FOR_SLOT", "granted", "RUNNING"),
    ("WAITING_FOR_SLOT", "assigned", "ASSIGNED"),
    ("ASSIGNED", "began", "RUNNING"),
    ("ASSIGNED", "lost", "WAITING_FOR_SLOT"),
    ("RUNNING", "lost", "WAITING_FOR_SLOT"),
    ("RUNNING", "retried", "WAITING_FOR_SLOT"),
    ("RUNNING", "displaced", "PLACING"),
    ("RUNNING", "completed", "COMPLETED"),
    *((old, "failed", "FAILED_FINAL") for old in ("PLACING", "WAITING_FOR_SLOT", "RUNNING")),
    *((old, "cancelled", "CANCELLED") for old in ("PLACING", "WAITING_FOR_SLOT", "ASSIGNED", "RUNNING")),
]


@pytest.mark.parametrize(("old", "event", "new"), LEGAL)
def test_a_legal_event_leads_to_its_status(old: str, event: str, new: str) -> None:
    assert move(old, event) == new


def test_every_other_pair_of_status_and_event_is_refused() -> None:
    legal = {(old, event) for old, event, _ in LEGAL}
    for status in JOB_TRANSITIONS.statuses():
        for event in (*JOB_TRANSITIONS.events(), "nonsense"):
            if (status, event) not in legal:
                with pytest.raises(IllegalTransition):
                    move(status, event)


def test_nothing_leaves_a_final_status() -> None:
    assert JOB_TRANSITIONS.final() == ("COMPLETED", "FAILED_FINAL", "CANCELLED")


def test_the_diagram_shows_every_arrow_once() -> None:
    lines = diagram().splitlines()
    assert lines[:2] == ["stateDiagram-v2", "    [*] --> PLACING"]
    assert "    RUNNING --> WAITING_FOR_SLOT: lost, retried" in lines
    assert "    WAITING_FOR_SLOT --> PLACING: taken back" in lines
    assert len(lines) == len(set(lines))
    assert sum("-->" in line for line in lines) == len({(old, new) for old, _, new in LEGAL}) + 1 + 3


def test_a_refusal_names_thing_status_and_event() -> None:
    table: Transitions[str] = Transitions("door", "open", {("open", "shut"): "closed"})
    with pytest.raises(IllegalTransition, match="a door that is closed cannot be shut"):
        table.move("closed", "shut")
