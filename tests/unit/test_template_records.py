"""The rows of templates and warm workers."""

from __future__ import annotations

import pytest
from host_rig import Rig

TOKEN = "worker-" + "x" * 100_000
"""A token whose row needs further pages of the database."""


@pytest.mark.parametrize("ended_at_once", [True, False])
def test_a_process_that_ended_before_it_could_be_stored_is_forgotten(ended_at_once: bool) -> None:
    rig = Rig()
    rig.store._writer.execute(f"PRAGMA max_page_count={rig.value('PRAGMA page_count')}")
    records = rig.host.runs.templates
    records.started(TOKEN, 7, 1.0)
    if not ended_at_once:
        rig.run()
    records.ended(TOKEN)
    rig.run()
    rig.store._writer.execute("PRAGMA max_page_count=1000000")
    records.started("worker-2", 8, 2.0)
    rig.run(3.0)
    assert rig.all("SELECT token FROM templates") == [("worker-2",)]
    assert records.count == 1
    assert rig.faults() == []
