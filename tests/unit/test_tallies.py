"""The counts of a collector's rows: SQLite and Python count alike, and a host decodes no row."""

from __future__ import annotations

from typing import Any

import pytest
from call_counts import calls_of
from host_rig import Rig, envelope

from paglets.codec import strict_json
from paglets.groups.rows import CollectorRows
from paglets.groups.tallies import Tally, tally
from paglets.host.records.in_host_storage import InHostStorage
from paglets.store import paglets, residence


def waiting(status: str, host: str = "w1", **more: Any) -> dict[str, Any]:
    return {"ended": False, "sighting": {"status": status, "host": {"name": host}}} | more


ROWS: list[tuple[str, Any]] = [
    ("job/a", waiting("RUNNING")),
    ("job/b", waiting("PLACING", "w2")),
    ("job/c", waiting("RUNNING")),
    ("job/d", waiting("RUNNING", ended=True)),
    ("job/e", {"ended": False, "sighting": None}),
    ("job/f", {"ended": False}),
    ("job/ünïcode\U0001f600", waiting("PLACING", "w2")),
    ("joc/g", waiting("RUNNING")),
]
FIELDS = ("sighting.status", "sighting.host.name", "sighting.never")


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.write(lambda tx: residence.create(tx, envelope("p1"), rig.now()))
    rig.write(lambda tx: paglets.storage_add(tx, "p1", ROWS))
    return rig


def tallied(rig: Rig, most: int = -1) -> list[Tally]:
    return rig.store.read(lambda tx: InHostStorage(tx, "p1").tally("job/", FIELDS, "ended", most))


def test_sqlite_and_python_count_alike(rig: Rig) -> None:
    rows = [(key[4:], row) for key, row in ROWS if key.startswith("job/") and not row["ended"]]
    assert tallied(rig) == tally(rows, FIELDS)
    assert tallied(rig) == [
        Tally(values=("RUNNING", "w1", None), count=2, first="a"),
        Tally(values=("PLACING", "w2", None), count=2, first="b"),
        Tally(values=(None, None, None), count=2, first="e"),
    ]
    assert tallied(rig, most=1) == tallied(rig)[:1]


def decoded(rig: Rig) -> tuple[dict[str, int], int]:
    """Return the statuses of a collector's pending jobs, and how many JSON texts were decoded to count them."""
    return rig.store.read(
        lambda tx: calls_of([strict_json.loads], lambda: CollectorRows(InHostStorage(tx, "p1")).statuses())
    )


def test_a_host_decodes_a_row_for_each_status_and_not_for_each_job(rig: Rig) -> None:
    more = [(f"job/more-{number}", waiting("PLACING")) for number in range(500)]
    rig.write(lambda tx: paglets.storage_add(tx, "p1", more))
    assert decoded(rig) == ({"PLACING": 504, "RUNNING": 2}, 3)
