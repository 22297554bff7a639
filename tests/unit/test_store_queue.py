"""The queue: a change does nothing if the job has another status or attempt than expected."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any

import pytest
from host_rig import envelope, host_ref, job, slot_request

from paglets.codec.envelope import Envelope
from paglets.core.refs import HostRef
from paglets.slots.model import Resources
from paglets.store import handoffs, history, queue, residence, views
from paglets.store.db import Store
from paglets.store.queue import QueuedJob
from tests.fakes.store import memory_store

NOW = 1_000.0
OWN = host_ref("home")
W1 = host_ref("w1")


@pytest.fixture
def store() -> Store:
    store = memory_store()
    add(store, job("j1"))
    return store


def add(store: Store, each: Envelope, now: float = NOW) -> None:
    store.write(lambda tx: residence.create(tx, each, now))


def waiting(store: Store) -> list[QueuedJob]:
    return store.read(lambda tx: list(queue.waiting_for_slot(tx, 100)))


def grant(store: Store, queued: QueuedJob, cores: tuple[int, ...] = (0,), gpus: tuple[int, ...] = ()) -> bool:
    token = f"token-{queued.agent_id}"
    return store.write(lambda tx: queue.grant(tx, queued, cores, gpus, token, 1, NOW))


def granted(store: Store) -> QueuedJob:
    (queued,) = waiting(store)
    assert grant(store, queued)
    return queued


def status(store: Store, agent_id: str = "j1") -> tuple[str, int]:
    row = store.read(lambda tx: tx.one("SELECT status, attempt FROM requests WHERE agent_id = ?", agent_id))
    assert row is not None
    return row["status"], row["attempt"]


def change(store: Store, sql: str) -> None:
    assert store.write(lambda tx: tx.run(sql)) == 1


# Grants.


def test_a_grant_gives_the_job_a_lease_a_run_and_a_new_attempt(store: Store) -> None:
    request = slot_request(cpu_cores=2, memory_bytes=5, temp_storage_bytes=7, gpus=1)
    add(store, job("j2", "b", request=request, attempt=3))
    queued = next(each for each in waiting(store) if each.agent_id == "j2")
    assert grant(store, queued, (1, 3), (0,))
    assert status(store, "j2") == ("RUNNING", 4)
    view = store.read(lambda tx: views.job_view(tx, "j2", OWN, NOW + 5))
    assert view is not None
    assert view.lease is not None
    assert (view.lease.cpu_cores, view.lease.gpu_ids, view.lease.attempt) == ((1, 3), (0,), 4)
    assert (view.lease.memory_bytes, view.lease.temp_storage_bytes) == (5, 7)
    assert view.running_seconds == 5.0
    run = store.read(lambda tx: tx.one("SELECT token, entry, epoch, attempt, pid FROM runs"))
    assert run is not None
    assert tuple(run) == ("token-j2", "attempt", 1, 4, None)


@pytest.mark.parametrize(
    "meanwhile",
    [
        "UPDATE requests SET status = 'CANCELLED'",
        "UPDATE requests SET status = 'PLACING'",
        "UPDATE requests SET attempt = attempt + 1",
        "UPDATE requests SET unwanted = 'cancelled'",
    ],
)
def test_a_grant_finds_nothing_where_the_job_changed_since_it_was_read(store: Store, meanwhile: str) -> None:
    (queued,) = waiting(store)
    change(store, meanwhile)
    before = status(store)
    assert grant(store, queued) is False
    assert status(store) == before
    assert store.read(queue.total_leased) == Resources()
    assert store.read(lambda tx: tx.value("SELECT count(*) FROM runs")) == 0


def test_a_grant_of_a_job_that_left_finds_nothing(store: Store) -> None:
    (queued,) = waiting(store)
    store.write(lambda tx: residence.leave(tx, "j1", W1, NOW))
    assert grant(store, queued) is False


def test_a_second_grant_of_the_same_job_finds_nothing(store: Store) -> None:
    queued = granted(store)
    assert grant(store, queued, (1,)) is False


def test_no_core_and_no_gpu_is_leased_twice(store: Store) -> None:
    add(store, job("j2", "b"))
    first, second = waiting(store)
    assert grant(store, first, (0,), (0,))
    for cores, gpus in (((0,), ()), ((1,), (0,))):
        with pytest.raises(sqlite3.IntegrityError):
            grant(store, second, cores, gpus)
    assert status(store, "j2") == ("WAITING_FOR_SLOT", 0)
    assert store.read(lambda tx: queue.leased_units(tx, "core")) == {0}
    assert grant(store, second, (1,))


def test_there_is_one_process_for_a_paglet(store: Store) -> None:
    store.write(lambda tx: queue.start_run(tx, "j1", "t", "message", 1, 1, 0, NOW))
    assert waiting(store) == []
    with pytest.raises(sqlite3.IntegrityError):
        store.write(lambda tx: queue.start_run(tx, "j1", "t2", "message", 1, 1, 0, NOW))


def test_leases_add_up_and_end_with_the_release(store: Store) -> None:
    add(store, job("j2", "b", request=slot_request(cpu_cores=2, memory_bytes=5, temp_storage_bytes=6, gpus=1)))
    for number, queued in enumerate(waiting(store)):
        grant(store, queued, tuple(range(number * 2, number * 2 + queued.request.resources.cpu_cores)), (0,) * number)
    assert store.read(queue.total_leased) == Resources(cpu_cores=3, memory_bytes=5, temp_storage_bytes=6, gpus=1)
    store.write(lambda tx: queue.release(tx, "j2"))
    assert store.read(queue.total_leased) == Resources(cpu_cores=1)
    store.write(lambda tx: queue.release(tx, "nobody"))


# What waits.


def test_the_oldest_job_waits_first_and_equals_by_id(store: Store) -> None:
    add(store, job("j3", "c", waited_seconds=50.0))
    add(store, job("j0", "d"))
    assert [each.agent_id for each in waiting(store)] == ["j3", "j0", "j1"]
    assert store.read(lambda tx: [each.agent_id for each in queue.waiting_for_slot(tx, 1)]) == ["j3"]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE requests SET status = 'PLACING'",
        "UPDATE requests SET unwanted = 'cancelled'",
        "UPDATE paglets SET hook = 'arrival'",
        "UPDATE paglets SET intent = '{}'",
    ],
)
def test_a_job_that_has_something_else_before_it_does_not_wait_for_a_slot(store: Store, sql: str) -> None:
    change(store, sql)
    assert waiting(store) == []


def test_a_job_is_not_placed_before_its_large_collector_left(store: Store) -> None:
    add(store, envelope("collector-x", kind="collector"))
    change(store, "UPDATE requests SET status = 'PLACING'")
    store.write(
        lambda tx: tx.run(
            "INSERT INTO groups (group_id, digest, class_name, collector_id, collector, return_home,"
            " created_at) VALUES ('g1', '', 'm:C', 'collector-x', '', 0, 1.0)"
        )
    )

    def to_place() -> list[str]:
        return [each.agent_id for each in store.read(lambda tx: queue.unplaced(tx, 10))[0]]

    assert to_place() == ["j1"]
    store.write(lambda tx: residence.leave(tx, "collector-x", W1, NOW))
    assert to_place() == ["j1"]
    assert store.read(handoffs.small_collectors) == {"g1": W1.store_id}
    change(store, f"UPDATE handoffs SET size_bytes = {handoffs.SMALL_COLLECTOR_BYTES + 1}")
    assert to_place() == []
    assert store.read(handoffs.small_collectors) == {}
    store.write(lambda tx: residence.acknowledged(tx, "collector-x", 2, NOW))
    assert to_place() == ["j1"]


# Moves.


def test_a_move_names_the_status_that_it_starts_from(store: Store) -> None:
    move = lambda old, new, attempt=None: store.write(lambda tx: queue.move(tx, "j1", old, new, attempt))  # noqa: E731
    assert move("PLACING", "CANCELLED") is False
    assert move("WAITING_FOR_SLOT", "FAILED_FINAL", 1) is False
    assert status(store) == ("WAITING_FOR_SLOT", 0)
    assert move("WAITING_FOR_SLOT", "FAILED_FINAL", 0) is True
    assert move("WAITING_FOR_SLOT", "CANCELLED") is False
    assert status(store) == ("FAILED_FINAL", 0)


def test_a_move_forgets_why_the_job_waited(store: Store) -> None:
    store.write(lambda tx: queue.set_reason(tx, "j1", "slots_busy", "all busy", True, NOW))
    store.write(lambda tx: queue.move(tx, "j1", "WAITING_FOR_SLOT", "PLACING"))
    row = store.read(lambda tx: tx.one("SELECT reason, reason_text, never FROM requests"))
    assert row is not None
    assert tuple(row) == ("", "", 0)


# Outcomes.


def test_the_first_outcome_of_an_attempt_stands(store: Store) -> None:
    granted(store)
    first = store.write(lambda tx: queue.set_outcome(tx, "j1", 1, {"success": True}))
    second = store.write(lambda tx: queue.set_outcome(tx, "j1", 1, {"success": False}))
    assert (first, second) == (True, False)
    row = store.read(lambda tx: queue.job(tx, "j1"))
    assert row is not None
    assert row.outcome == {"success": True}


def test_there_is_no_outcome_of_another_attempt_or_of_a_job_that_does_not_run(store: Store) -> None:
    assert store.write(lambda tx: queue.set_outcome(tx, "j1", 0, {})) is False
    granted(store)
    assert store.write(lambda tx: queue.set_outcome(tx, "j1", 2, {})) is False
    assert store.write(lambda tx: queue.set_outcome(tx, "j1", 0, {})) is False


def test_a_new_attempt_begins_without_an_outcome(store: Store) -> None:
    granted(store)
    store.write(lambda tx: queue.set_outcome(tx, "j1", 1, {"success": False}))
    store.write(lambda tx: tx.run("DELETE FROM runs"))
    store.write(lambda tx: queue.release(tx, "j1"))
    store.write(lambda tx: queue.move(tx, "j1", "RUNNING", "WAITING_FOR_SLOT", 1))
    (again,) = waiting(store)
    grant(store, again)
    assert store.write(lambda tx: queue.set_outcome(tx, "j1", 2, {"success": True})) is True


# Why.


def test_the_time_of_a_reason_stays_while_the_reason_stays(store: Store) -> None:
    def why(reason: str, text: str, at: float) -> tuple[Any, ...]:
        store.write(lambda tx: queue.set_reason(tx, "j1", reason, text, False, at))
        row = store.read(lambda tx: tx.one("SELECT reason, reason_text, reason_at FROM requests"))
        assert row is not None
        return tuple(row)

    assert why("slots_busy", "4 of 4 busy", 2_000.0) == ("slots_busy", "4 of 4 busy", 2_000.0)
    assert why("slots_busy", "3 of 4 busy", 3_000.0) == ("slots_busy", "3 of 4 busy", 2_000.0)
    assert why("memory_short", "1 GiB", 4_000.0) == ("memory_short", "1 GiB", 4_000.0)


def test_a_reason_that_stays_the_same_is_no_news(store: Store) -> None:
    told: list[tuple[tuple[str, ...], tuple[str, ...]]] = []
    store.on_commit = lambda wakes, touched: told.append((wakes, touched))
    for _ in range(2):
        store.write(lambda tx: queue.set_reason(tx, "j1", "slots_busy", "all busy", False, NOW))
    assert told == [(("reconciliation",), ("j1",)), ((), ())]


# Views and history.


def test_a_job_on_its_way_is_shown_with_where_it_goes(store: Store) -> None:
    store.write(lambda tx: residence.leave(tx, "j1", W1, NOW + 10))
    store.write(lambda tx: tx.run("UPDATE handoffs SET problem = 'no answer'"))
    (view,) = store.read(lambda tx: views.leaving_views(tx, NOW + 15, 10))
    assert (view.residence, view.reason, view.target) == ("leaving", "moving", W1)
    assert view.reason_text == "on its way to w1: no answer"
    assert view.waited_seconds == 15.0
    assert store.read(lambda tx: views.job_views(tx, OWN, NOW, 10)) == ()
    assert store.read(views.shown_count) == 1


def test_running_jobs_are_shown_first_then_the_oldest_and_no_ended_ones(store: Store) -> None:
    for number, (agent_id, state) in enumerate(
        [("a", "PLACING"), ("b", "WAITING_FOR_SLOT"), ("c", "COMPLETED"), ("d", "CANCELLED"), ("e", "RUNNING")]
    ):
        add(store, job(agent_id, f"key-{agent_id}", status=state), NOW - number)
    assert [view.agent_id for view in store.read(lambda tx: views.job_views(tx, OWN, NOW, 10))] == ["e", "b", "j1", "a"]
    assert store.read(views.shown_count) == 4


def test_the_history_keeps_the_newest(store: Store) -> None:
    row = store.read(lambda tx: queue.job(tx, "j1"))
    assert row is not None
    for number in range(5):
        store.write(lambda tx, number=number: history.record(tx, row, {"n": number}, NOW, keep=2))
    records = store.read(lambda tx: [each["record"] for each in tx.all("SELECT record FROM history ORDER BY id")])
    assert records == ['{"n":3}', '{"n":4}']


def test_requests_of_jobs_are_read_once_for_equal_ones(store: Store) -> None:
    add(store, job("j2", "b", request=slot_request()))
    first, second = waiting(store)
    assert first.request is second.request


def test_a_paglet_that_is_no_job_has_no_row_in_the_queue(store: Store) -> None:
    add(store, envelope("p1"))
    assert store.read(lambda tx: queue.job(tx, "p1")) is None


def test_a_home_is_known_by_its_store(store: Store) -> None:
    add(store, replace(job("j2", "b", waited_seconds=1.0), home=HostRef(store_id="store-x", name="x")))
    assert waiting(store)[0].home_store == "store-x"
