"""What the documents draw or list is what the code has."""

from __future__ import annotations

from pathlib import Path

from paglets.slots.states import diagram

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_diagram_of_job_statuses_is_drawn_from_the_table() -> None:
    assert diagram().strip() in (DOCS / "architecture.md").read_text()
