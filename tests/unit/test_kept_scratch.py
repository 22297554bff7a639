"""The files of an attempt whose result could not be sent: kept for a limited time and then removed."""

from __future__ import annotations

from pathlib import Path

import pytest
from host_rig import Rig, job

from paglets.api.logs import AskAttempts, Attempts, AttemptView
from paglets.host.datadir.disk import HostDisk
from paglets.host.jobs.cleanup import KEEP_SCRATCH_SECONDS, LOOK_SECONDS
from paglets.host.runtime.wakes import PAUSE_SECONDS
from paglets.store import kept_scratch, residence
from paglets.store.db import Tx
from paglets.worker.protocol import Fault, Report
from tests.fakes.logs import logger_to

BAD = Fault(cause="bad_result", message="result: an object cannot be sent")


@pytest.fixture
def rig() -> Rig:
    """The job j1 has ended with a result that cannot be sent."""
    rig = Rig()
    ended_with(rig, "j1", BAD)
    return rig


def ended_with(rig: Rig, agent_id: str, fault: Fault) -> None:
    rig.write(lambda tx: residence.create(tx, job(agent_id, agent_id), rig.now()))
    rig.run()
    process = rig.process(agent_id)
    assert rig.answer(process, "report", Report(success=False, fault=fault))["ok"] == {"accepted": True}
    rig.finish(process)


def scratch(rig: Rig) -> tuple[str, ...]:
    return rig.disk.scratch_ids()


def attempt(rig: Rig) -> AttemptView:
    return rig.get(Attempts, "POST", "/v1/jobs/attempts", AskAttempts(job="j1")).attempts[-1]


def test_only_the_files_of_a_result_that_cannot_travel_are_kept(rig: Rig) -> None:
    ended_with(rig, "j2", Fault(cause="exception", message="no"))
    rig.run(LOOK_SECONDS + 1)

    assert scratch(rig) == ("j1",)
    view = attempt(rig)
    assert (view.scratch, view.scratch_removed_at) == ("/scratch/j1", None)


def test_directories_of_jobs_that_end_at_short_intervals_are_removed_in_one_pass(rig: Rig) -> None:
    ended_with(rig, "j2", Fault(cause="exception", message="no"))
    ended_with(rig, "j3", Fault(cause="exception", message="no"))
    assert scratch(rig) == ("j1", "j2", "j3")
    rig.run(PAUSE_SECONDS["cleanup"])
    assert scratch(rig) == ("j1",)


@pytest.mark.parametrize("fault", [None, Fault(cause="exception", message="no")])
def test_a_file_that_was_not_sent_is_kept(rig: Rig, fault: Fault | None) -> None:
    rig.write(lambda tx: residence.create(tx, job("j3", "j3"), rig.now()))
    rig.run()
    process = rig.process("j3")
    rig.report(process, {"n": 1})
    rig.finish(process, keep_scratch=True, fault=fault)
    rig.run(LOOK_SECONDS + 1)

    assert scratch(rig) == ("j1", "j3")
    (view,) = rig.get(Attempts, "POST", "/v1/jobs/attempts", AskAttempts(job="j3")).attempts
    assert (view.scratch, view.status) == ("/scratch/j3", "COMPLETED")


def test_kept_files_outlast_their_job_and_go_after_a_week(rig: Rig) -> None:
    rig.write(lambda tx: residence.dispose(tx, "j1", rig.now()))
    rig.clock.advance(KEEP_SCRATCH_SECONDS - 2 * LOOK_SECONDS)
    rig.run(1)
    assert scratch(rig) == ("j1",)

    rig.clock.advance(2 * LOOK_SECONDS)
    rig.run(LOOK_SECONDS)

    assert scratch(rig) == ()
    view = attempt(rig)
    assert view.scratch == "/scratch/j1"
    assert view.scratch_removed_at == pytest.approx(rig.clock.wall(), abs=4 * LOOK_SECONDS)


def test_kept_files_for_which_there_is_no_room_go_at_once(rig: Rig) -> None:
    ended_with(rig, "j2", BAD)
    rig.disk.too_large = ("j1",)

    rig.run(2 * LOOK_SECONDS)

    assert scratch(rig) == ("j2",)
    assert attempt(rig).scratch_removed_at is not None


def test_the_oldest_kept_files_beyond_the_share_of_the_disk_are_given_up(tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    said: list[str] = []
    disk = HostDisk(tmp_path / "host", lambda act: act(), logger_to(said.append))
    for name in ("new", "old", "older"):
        (Path(disk.prepare(name, fresh=True)) / "data").write_bytes(b"x" * 100_000)
    given_up: list[str] = []

    disk.bound_scratch(("new", "old", "older"), 1.0, given_up.extend)
    assert (given_up, said) == ([], [])
    disk.bound_scratch(("new", "old", "older"), 0.0, given_up.extend)

    assert given_up == ["new", "old", "older"]
    assert said == ["removing 3 kept scratch directories: kept ones exceed 0% of the disk"]


def test_of_many_that_are_gone_only_the_newest_rows_stay(rig: Rig) -> None:
    def keep_many(tx: Tx) -> None:
        for number in range(kept_scratch.MOST_ROWS + 5):
            row = "INSERT INTO kept_scratch (agent_id, generation, attempt, path, kept_at) VALUES (?, 1, 1, '/x', ?)"
            tx.run(row, f"x{number}", float(number))

    rig.store.write(keep_many)
    rig.store.write(lambda tx: kept_scratch.expire(tx, float("inf"), 5.0))

    assert rig.value("SELECT count(*) FROM kept_scratch") == kept_scratch.MOST_ROWS
