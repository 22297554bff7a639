"""The attempts of a job and their logs, as the routes of a host return them."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from host_rig import Rig, envelope, host_ref, job, slot_request

from paglets.api.logs import AskAttempts, Attempts, LogPiece
from paglets.core.errors import BadRequest, Invalid
from paglets.host.datadir.disk import HostDisk
from paglets.host.jobs.cleanup import KEEP_LOG_ATTEMPTS, KEEP_LOG_BYTES, TRIM_SECONDS
from paglets.host.records import attempts
from paglets.store import history, queue, residence
from paglets.worker.logs import LogWriter
from tests.fakes.logs import logger_to
from tests.fakes.processes import HandProcess


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.fixture
def disk(tmp_path: Path) -> HostDisk:
    return HostDisk(tmp_path, lambda act: act(), logger_to(lambda text: None))


def add_job(rig: Rig, **request: Any) -> HandProcess:
    """The first attempt of job g1/a."""
    wish = slot_request(**request)
    rig.write(lambda tx: residence.create(tx, job("j1", request=wish), rig.now()))
    rig.run()
    return rig.process("j1")


def known(rig: Rig, name: str = "g1/a") -> Attempts:
    found: Attempts = rig.get(Attempts, "POST", "/v1/jobs/attempts", AskAttempts(job=name))
    return found


def piece(rig: Rig, query: str) -> LogPiece:
    found: LogPiece = rig.get(LogPiece, "GET", f"/v1/jobs/j1/log?{query}")
    return found


def brief(found: Attempts) -> list[tuple[int, int, str, bool]]:
    return [(view.generation, view.attempt, view.status, view.ended) for view in found.attempts]


def test_an_attempt_is_told_while_it_runs_and_after_its_copy_is_gone(rig: Rig) -> None:
    process = add_job(rig)
    found = known(rig)
    assert brief(found) == brief(known(rig, "j1")) == [(1, 1, "RUNNING", False)]
    (view,) = found.attempts
    assert (view.agent_id, view.group_id, view.job_key, view.host) == ("j1", "g1", "a", rig.own)
    assert piece(rig, "attempt=1").ended is False

    rig.report(process)
    rig.finish(process)

    assert brief(known(rig)) == [(1, 1, "COMPLETED", True)]
    assert known(rig).unfinished == ()
    assert piece(rig, "attempt=1").ended is True


def test_of_a_job_that_is_tried_again_both_attempts_are_told(rig: Rig) -> None:
    process = add_job(rig, max_attempts=2)
    process.exit(3)
    rig.run()
    assert brief(known(rig)) == [(1, 1, "WAITING_FOR_SLOT", True), (1, 2, "RUNNING", False)]
    assert [view.cause for view in known(rig).attempts] == ["exit:3", ""]


def test_a_job_that_waits_has_no_attempt_but_a_reason(rig: Rig) -> None:
    wish = slot_request(cpu_cores=4)
    for key in ("j1", "j2"):
        rig.write(lambda tx, key=key: residence.create(tx, job(key, key, request=wish), rig.now()))
    rig.run()
    found = known(rig, "g1/j2")
    assert found.attempts == ()
    (waiting,) = found.unfinished
    assert (waiting.status, waiting.residence, waiting.reason) == ("WAITING_FOR_SLOT", "here", "slots_busy")
    assert waiting.reason_text


def test_a_job_on_its_way_is_told_with_its_target(rig: Rig) -> None:
    rig.write(lambda tx: residence.create(tx, job("j1", request=slot_request(cpu_cores=64)), rig.now()))
    rig.write(lambda tx: residence.leave(tx, "j1", host_ref("w1"), rig.now()))
    found = known(rig)
    assert found.attempts == ()
    assert [(each.residence, each.reason, each.host.name) for each in found.unfinished] == [("leaving", "moving", "w1")]


def test_what_is_unknown_is_empty_and_what_can_name_nothing_is_refused(rig: Rig) -> None:
    assert known(rig, "g1/none") == known(rig, "nobody") == Attempts(attempts=(), unfinished=())
    for name in ("../../etc", "UPPER", "g 1/a", "g1/", ""):
        with pytest.raises(Invalid):
            known(rig, name)


@pytest.mark.parametrize(
    "target",
    [
        "/v1/jobs/j1/log?stream=in",
        "/v1/jobs/j1/log?offset=-1",
        f"/v1/jobs/j1/log?offset={1 << 63}",
        "/v1/jobs/j1/log?attempt=x",
        "/v1/jobs/..%2Fj1/log",
        "/v1/jobs/../log",
        "/v1/jobs/UPPER/log",
    ],
)
def test_a_wrong_question_for_a_log_is_refused(rig: Rig, target: str) -> None:
    with pytest.raises((BadRequest, Invalid)):
        rig.get(LogPiece, "GET", target)


def test_a_piece_is_bounded_whatever_is_asked(rig: Rig, disk: HostDisk) -> None:
    log = LogWriter(disk.log_path("j1", 1, 1, "err"))
    log.write(memoryview(bytes(3 << 20)))
    log.close()
    rig.disk.read_log = disk.read_log  # type: ignore[method-assign]
    found = piece(rig, "attempt=1&stream=err&offset=5&limit=99999999")
    assert (found.offset, found.next, found.size_bytes) == (5, (1 << 20) + 5, 3 << 20)
    assert base64.b64decode(found.data) == bytes(1 << 20)


def test_logs_tell_attempts_that_no_row_tells_any_more(rig: Rig, disk: HostDisk) -> None:
    add_job(rig)
    rig.write(lambda tx: residence.create(tx, envelope("p1"), rig.now()))
    for agent_id, attempt in (("j1", 0), ("j1", 1), ("p1", 0), ("old", 4)):
        log = LogWriter(disk.log_path(agent_id, 1, attempt, "out"))
        log.write(memoryview(b"text"))
        log.close()

    def told(name: str) -> list[tuple[int, str, bool]]:
        found = attempts.attempts(rig.store, disk, name, rig.own)
        return [(view.attempt, view.status, view.kept) for view in found.attempts]

    assert told("g1/a") == told("j1") == [(1, "RUNNING", True)]
    assert told("old") == [(4, "", True)]
    assert told("p1")[-1][0] == 0


def test_logs_are_trimmed_at_some_ends_of_attempts_and_running_ones_stay(rig: Rig) -> None:
    add_job(rig)
    rig.run(TRIM_SECONDS)
    before = len(rig.disk.trims)
    for key in ("j2", "j3"):
        wish = slot_request()
        rig.write(lambda tx, key=key, wish=wish: residence.create(tx, job(key, key, request=wish), rig.now()))
        rig.run()
        process = rig.process(key)
        rig.report(process)
        rig.finish(process)
    assert rig.disk.trims[before:] == [(KEEP_LOG_BYTES, KEEP_LOG_ATTEMPTS, frozenset([("j1", 1, 1)]))]


def test_history_is_bounded(rig: Rig) -> None:
    """`history.record` deletes old rows itself, so that no other code must."""
    rig.write(lambda tx: residence.create(tx, job("j1", request=slot_request(cpu_cores=64)), rig.now()))
    for nth in range(20):
        record = {"status": "COMPLETED", "generation": 1, "attempt": nth, "runtime_seconds": 0.5, "cause": ""}
        rig.write(
            lambda tx, record=record: history.record(tx, queue.job(tx, "j1"), record, rig.now(), keep=7)  # type: ignore[arg-type]
        )
    assert [view.attempt for view in known(rig).attempts] == list(range(13, 20))
