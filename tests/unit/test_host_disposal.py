"""Artifacts at their end and sources of files that have moved: gone in time, and nobody waits for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from host_rig import Rig, envelope, host_ref
from test_host_bytes_travel import DATA, artifact, make, put

from paglets.host.blobs.garbage import REMOVALS_A_TURN, RETRY_SECONDS
from paglets.store import artifacts, residence
from paglets.store.files import Removal

NOBODY = host_ref("nobody")


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    put(rig, DATA)
    return rig


def owner_that_leaves(rig: Rig, lasts_seconds: float = 5.0) -> None:
    make(rig, envelope("p1", artifacts=(replace(artifact("art-12345678", DATA), expires_in_seconds=lasts_seconds),)))
    rig.write(lambda tx: residence.leave(tx, "p1", NOBODY, rig.now()))


def to_remove(rig: Rig, *paths: str) -> None:
    rows = ((path, 1, 2, 3) for path in paths)
    rig.write(
        lambda tx: tx.run_many("INSERT INTO removals (path, size_bytes, mtime_ns, inode) VALUES (?, ?, ?, ?)", rows)
    )
    rig.host.runner.wake("garbage")
    rig.run()


def left(rig: Rig) -> list[str]:
    return [path for (path,) in rig.all("SELECT path FROM removals ORDER BY id")]


def failing(rig: Rig, *paths: str) -> None:
    """The disk raises for these."""
    remove: Callable[[Removal], str] = rig.disk.remove_source

    def remove_source(removal: Removal) -> str:
        told = remove(removal)
        if removal.path in paths:
            raise PermissionError(13, "Permission denied")
        return told

    rig.disk.remove_source = remove_source  # type: ignore[method-assign]


def run_long(rig: Rig, seconds: float) -> None:
    rig.run(1)
    for _ in range(int(seconds // 600) + 1):
        rig.run(min(600.0, seconds))


# Artifacts.


def test_the_end_of_an_artifact_whose_owner_is_leaving_is_not_due(rig: Rig) -> None:
    owner_that_leaves(rig)
    assert rig.store.read(artifacts.next_expiry) is None
    make(rig, envelope("p2", artifacts=(replace(artifact("art-22222222", DATA), expires_in_seconds=50.0),)))
    assert rig.store.read(artifacts.next_expiry) == pytest.approx(rig.now() + 50)
    assert rig.store.read(lambda tx: artifacts.is_leaving(tx, "art-12345678"))
    assert not rig.store.read(lambda tx: artifacts.is_leaving(tx, "art-22222222"))


def test_an_artifact_that_expired_while_its_owner_was_leaving_ends_later(rig: Rig) -> None:
    owner_that_leaves(rig, lasts_seconds=1e-6)
    rig.run(0.01)
    assert rig.value("SELECT count(*) FROM artifacts") == 1
    rig.write(lambda tx: residence.put_back(tx, "p1", 2, rig.now()))
    rig.run()
    assert rig.value("SELECT count(*) FROM artifacts") == 0


# Sources.


def test_a_source_is_removed_elsewhere_than_on_the_runner(rig: Rig) -> None:
    acts: list[Callable[[], None]] = []
    rig.disk.run_later = acts.append  # type: ignore[method-assign,assignment]
    to_remove(rig, "/mount/that/hangs")
    rig.run(30)
    assert (len(acts), rig.disk.removed, left(rig)) == (1, [], ["/mount/that/hangs"])
    acts.pop()()
    rig.run()
    assert [each.path for each in rig.disk.removed] == ["/mount/that/hangs"]
    assert left(rig) == []


def test_a_source_that_cannot_be_removed_just_now_is_tried_again_some_times(rig: Rig) -> None:
    failing(rig, "/data/a")
    to_remove(rig, "/data/a", "/data/b")
    assert left(rig) == ["/data/a"]
    for pause in RETRY_SECONDS[:-1]:
        run_long(rig, pause)
    assert left(rig) == ["/data/a"]
    run_long(rig, RETRY_SECONDS[-1])
    assert left(rig) == []
    assert [each.path for each in rig.disk.removed].count("/data/a") == 1 + len(RETRY_SECONDS)
    assert "/data/a has moved with its paglet; the source was not removed" in rig.log[-1]
    assert rig.faults() == []


def test_sources_that_cannot_be_removed_hold_up_no_others(rig: Rig) -> None:
    stuck = [f"/stuck/{number}" for number in range(REMOVALS_A_TURN)]
    failing(rig, *stuck)
    to_remove(rig, *stuck, "/data/b")
    assert left(rig) == stuck
