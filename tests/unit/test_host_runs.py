"""Processes of paglets: hooks, messages, calls and attempts, with children played by hand."""

from __future__ import annotations

import errno
import hashlib
import os
from dataclasses import replace
from typing import Any

import pytest
from host_rig import Rig, envelope, group, host_ref, job, job_part, slot_request, state_change

from paglets.api.calls import CallReply
from paglets.api.groups import GroupView
from paglets.api.paglets import Done, MovePaglet, PagletView
from paglets.codec.envelope import Post, WireMessage
from paglets.codec.strict_json import dumps, loads
from paglets.core.errors import CallOutcomeUnknown, HandlerFailed, Moved, NotHandled, PagletsError, Unknown
from paglets.core.record import to_json
from paglets.core.refs import BlobRef, ProxyRef
from paglets.host.messaging import mailbox
from paglets.mesh.table import check_host
from paglets.slots.eligibility import Reason
from paglets.store import receiving, residence
from paglets.system.jobs import ComputeJobState
from paglets.wire.request import PendingResponse
from paglets.worker.launch import HOST_FILES_MISSING, IDLE_SECONDS, ProcessExit
from paglets.worker.protocol import (
    CallOut,
    Changes,
    Commit,
    Create,
    EntryDone,
    Fault,
    Intent,
    NoArguments,
    OutgoingPost,
    Publish,
    Report,
    ReserveSpace,
    Resolve,
    StorageGet,
    StorageScan,
    Submit,
)
from paglets.worker.requests import HookLimit
from tests.fakes.processes import HandProcess
from tests.fakes.store import memory_database

W1 = host_ref("w1")
OOPS = Fault(cause="exception", message="ValueError: oops", traceback="tb")


@pytest.fixture
def rig() -> Rig:
    return Rig()


def add(rig: Rig, agent_id: str = "p1", **fields: Any) -> None:
    rig.write(lambda tx: residence.create(tx, envelope(agent_id, **fields), rig.now()))
    rig.run()


def add_job(rig: Rig, **request: Any) -> HandProcess:
    """A job of a group whose collector is on `w1`, and its first attempt."""
    each = job("j1", request=slot_request(**request))
    rig.write(lambda tx: residence.create(tx, each, rig.now()))
    rig.run()
    return rig.process("j1")


def give_posts(rig: Rig, *kinds: str) -> None:
    first = rig.value("SELECT coalesce(max(n), 0) + 1 FROM taken")
    batch = [
        Post(sender_store="s", n=n, agent_id="p1", message=WireMessage(kind=kind, args={}))
        for n, kind in enumerate(kinds, first)
    ]
    rig.write(lambda tx: receiving.receive(tx, tuple(batch), (), 0.0))
    rig.run()


def hook(rig: Rig) -> Any:
    return rig.value("SELECT hook FROM paglets WHERE agent_id = 'p1'")


# Hooks.


def test_a_new_paglet_is_created_then_run_each_in_a_process(rig: Rig) -> None:
    add(rig, hook="creation")
    first = rig.process("p1")
    assert (first.go.entry, first.go.state, first.go.class_name) == ("creation", {"n": 1}, "m:C")
    assert first.go.work_dir == first.spec.work_dir
    rig.finish(first, then_run=True, changes=state_change(n=2))
    second = rig.process("p1")
    assert (second.go.entry, second.go.state) == ("run", {"n": 2})
    rig.finish(second)
    assert hook(rig) is None
    assert rig.value("SELECT count(*) FROM runs") == 0


def test_no_user_code_runs_before_its_pid_is_committed(rig: Rig) -> None:
    add(rig, hook="creation")
    (process,) = rig.launcher.processes
    assert process.heard == []
    assert rig.all("SELECT pid FROM runs") == [(None,)]
    rig.process("p1")
    assert rig.all("SELECT pid, start_time FROM runs") == [(process.pid, float(process.pid))]


def test_a_hook_that_raised_is_not_run_again_and_its_error_is_kept(rig: Rig) -> None:
    add(rig, hook="creation")
    rig.finish(rig.process("p1"), fault=OOPS, changes=state_change(n=9), then_run=True)
    rig.run(10)
    assert hook(rig) is None
    assert "oops" in rig.value("SELECT hook_error FROM paglets")
    assert rig.state_of("p1") == {"n": 1}
    assert len(rig.launcher.processes) == 1


def test_a_hook_whose_process_died_is_noted_with_how(rig: Rig) -> None:
    add(rig, hook="creation")
    rig.process("p1").exit(signal=11)
    rig.run()
    assert hook(rig) is None
    assert "SIGSEGV" in rig.value("SELECT hook_error FROM paglets")


def test_a_hook_whose_zygote_was_lost_is_run_again(rig: Rig) -> None:
    add(rig, hook="creation")
    rig.process("p1").exit(None, launcher_lost=True)
    rig.run()
    assert rig.process("p1").go.entry == "creation"
    assert len(rig.launcher.processes) == 2


ZYGOTE_DIED: dict[str, Any] = {"signal": 9, "launcher_lost": True, "launcher_died": True}


def test_jobs_that_ran_when_a_zygote_died_run_alone_until_one_is_the_culprit(rig: Rig) -> None:
    for agent_id in ("j1", "j2"):
        wish = slot_request(max_losses=0)
        rig.write(lambda tx, each=agent_id, wish=wish: residence.create(tx, job(each, each, request=wish), rig.now()))
    rig.run()
    first = [rig.process(agent_id) for agent_id in ("j1", "j2")]
    assert [process.spec.alone for process in first] == [False, False]
    for process in first:
        process.exit(**ZYGOTE_DIED)
    rig.run()
    killer, neighbour = (rig.process(agent_id) for agent_id in ("j1", "j2"))
    assert (killer.spec.alone, neighbour.spec.alone) == (True, True)
    killer.exit(**ZYGOTE_DIED, is_culprit=True)
    rig.run()
    ((kind, cause),) = [(each["kind"], each["args"]["cause"]) for each in rig.outbox()]
    assert (kind, cause) == ("job_failure", "killed_launcher")
    assert not neighbour.ended
    rig.report(neighbour)
    rig.finish(neighbour)
    assert rig.value("SELECT launcher_deaths FROM paglets WHERE agent_id = 'j2'") == 0
    assert rig.value("SELECT status FROM requests WHERE agent_id = 'j2'") == "COMPLETED"


def test_a_hook_that_ends_its_zygote_when_it_is_alone_has_failed(rig: Rig) -> None:
    add(rig, hook="creation")
    rig.process("p1").exit(**ZYGOTE_DIED)
    rig.run()
    again = rig.process("p1")
    assert again.spec.alone
    again.exit(**ZYGOTE_DIED, is_culprit=True)
    rig.run()
    assert "killed or stopped the process that starts jobs" in rig.value("SELECT hook_error FROM paglets")


def test_while_the_launcher_does_not_answer_nothing_starts_and_that_is_said(rig: Rig) -> None:
    rig.host.runs.start_blocked("the process that starts jobs does not answer")
    rig.write(lambda tx: residence.create(tx, job("j1", request=slot_request()), rig.now()))
    rig.run()
    assert rig.launcher.processes == []
    assert rig.value("SELECT reason FROM requests") == "launcher_silent"
    assert "does not answer" in rig.host.identity().properties["blocked"]
    rig.host.runs.start_blocked("")
    rig.run()
    assert len(rig.launcher.processes) == 1
    assert "blocked" not in rig.host.identity().properties


def test_what_the_disk_has_no_place_for_fails_nobody_and_starts_when_there_is_one(rig: Rig) -> None:
    rig.disk.problem = OSError(28, "No space left on device")
    add(rig, hook="creation")
    rig.write(lambda tx: residence.create(tx, job("j1"), rig.now()))
    rig.run(60.0)
    assert rig.value("SELECT hook_error FROM paglets WHERE agent_id = 'p1'") is None
    assert rig.value("SELECT count(*) FROM runs") == 0
    assert rig.value("SELECT count(*) FROM leases") == 0
    assert rig.outbox() == []
    reason, text, losses = rig.all("SELECT reason, reason_text, losses FROM requests")[0]
    assert (reason, losses) == ("disk_full", 0)
    assert "No space left" in text
    assert rig.value("SELECT attempt FROM requests") < 10, "it was tried without a pause"
    rig.disk.problem = None
    rig.run(60.0)
    assert {rig.process(each).go.entry for each in ("p1", "j1")} == {"creation", "attempt"}
    assert rig.faults() == []


def test_what_only_one_job_has_in_its_way_fails_that_one_and_stops_nobody(rig: Rig) -> None:
    prepare, tried = rig.disk.prepare, []

    def prepared(agent_id: str, fresh: bool) -> str:
        tried.append(agent_id)
        if agent_id in ("j1", "p1"):
            raise FileExistsError(17, "File exists")
        return prepare(agent_id, fresh)

    rig.disk.prepare = prepared  # type: ignore[method-assign]
    for each in ("j1", "j2"):
        rig.write(lambda tx, each=each: residence.create(tx, job(each, each), rig.now()))
    add(rig)
    give_posts(rig, "a")
    rig.run(60.0)
    assert rig.process("j2").go.entry == "attempt"
    assert rig.value("SELECT status FROM requests WHERE agent_id = 'j1'") == "FAILED_FINAL"
    assert rig.value("SELECT outcome FROM job_states WHERE agent_id = 'j1'").count("spawn_failed") == 1
    assert rig.value("SELECT losses FROM requests WHERE agent_id = 'j1'") == 0
    assert 2 < tried.count("p1") < 10, "it was tried without a pause"
    assert rig.faults() == []


def test_while_the_disk_has_no_place_nothing_starts_and_nothing_more_comes_here(rig: Rig) -> None:
    rig.disk.held = Reason(code="disk_closed", text="read-only")
    add(rig, hook="creation")
    rig.write(lambda tx: residence.create(tx, job("j1"), rig.now()))
    rig.run(10.0)
    assert rig.launcher.processes == []
    assert rig.all("SELECT reason, reason_text, attempt FROM requests") == [("disk_closed", "read-only", 0)]
    assert rig.host.identity().free.cpu_cores == 0
    rig.disk.held = None
    rig.run(10.0)
    assert {rig.process(each).go.entry for each in ("p1", "j1")} == {"creation", "attempt"}


# Files of attempts.


def why_of(rig: Rig) -> str:
    (shown,) = rig.host.slots(10).jobs
    return f"{shown.status} {shown.reason}: {shown.reason_text}".removesuffix(" : ")


def is_answered(process: HandProcess, number: int) -> bool:
    return any(frame.get("reply") == number for frame in process.heard)


def test_an_attempt_whose_file_has_no_room_says_so_and_goes_on_when_there_is_some() -> None:
    rig = Rig(artifact_quota_bytes=100)
    process = add_job(rig)
    rig.host.blob_store.staging("another.1", 60, "another")
    number = process.ask("reserve_space", ReserveSpace(staged="run.1", size_bytes=50))
    rig.run(30.0)
    assert not is_answered(process, number)
    assert why_of(rig).startswith(
        "RUNNING no_room: the host cannot store a file of the job yet: 50 bytes do not fit on home: 60 bytes of 100"
    )
    rig.host.blob_store.run_ended("another")
    rig.run(5.0)
    assert process.reply(number)["ok"] == {"folder": "/blobs/staging"}
    assert why_of(rig) == "RUNNING"
    assert rig.value("SELECT failed_attempts FROM requests") == 0
    assert rig.faults() == []


def test_an_attempt_that_waits_for_room_ends_by_its_own_time_out() -> None:
    rig = Rig(artifact_quota_bytes=100)
    process = add_job(rig, timeout_seconds=20.0)
    rig.host.blob_store.staging("another.1", 60, "another")
    process.ask("reserve_space", ReserveSpace(staged="run.1", size_bytes=50))
    rig.run(30.0)
    assert process.ended
    assert '"cause":"timeout"' in rig.value("SELECT outcome FROM job_states")
    assert rig.faults() == []


def test_what_never_fits_and_what_asks_in_a_hook_is_answered_at_once() -> None:
    rig = Rig(artifact_quota_bytes=100)
    rig.host.blob_store.staging("another.1", 60, "another")
    answer = rig.answer(add_job(rig), "reserve_space", ReserveSpace(staged="run.1", size_bytes=101))
    assert answer["error"]["code"] == "no_room"
    add(rig, hook="creation")
    answer = rig.answer(rig.process("p1"), "reserve_space", ReserveSpace(staged="run.1", size_bytes=50))
    assert answer["error"]["code"] == "no_room"


@pytest.mark.parametrize("number", [errno.EACCES, errno.ENOTDIR, errno.EROFS, errno.ESTALE])
def test_whatever_the_disk_has_against_a_file_its_process_gets_an_answer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def shut(name: str) -> int:
        raise OSError(number, os.strerror(number), "/blobs/staging/run.1")

    process = add_job(rig)
    with monkeypatch.context() as patch:
        patch.setattr(rig.blobs, "staged", shut)
        asked = process.ask("reserve_space", ReserveSpace(staged="run.1", size_bytes=4))
        rig.run(20.0)
        assert "/blobs" in why_of(rig)
        assert not is_answered(process, asked)
    rig.run(5.0)
    assert "ok" in process.reply(asked)
    assert rig.faults() == []


def test_a_fault_of_the_host_itself_is_an_answer_too(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(name: str) -> int:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(rig.blobs, "staged", faulty)
    process = add_job(rig)
    assert (
        "oops" in rig.answer(process, "reserve_space", ReserveSpace(staged="run.1", size_bytes=4))["error"]["message"]
    )
    assert len(rig.faults()) == 1


def test_a_try_to_write_that_the_disk_refused_shows_until_the_file_is_published(rig: Rig) -> None:
    process = add_job(rig)
    rig.answer(
        process, "reserve_space", ReserveSpace(staged="run.1", size_bytes=4, problem="the disk quota is used up")
    )
    assert why_of(rig) == "RUNNING no_room: the host cannot store a file of the job yet: the disk quota is used up"
    rig.blobs.stage("run.1", b"data")
    blob = BlobRef(sha256=hashlib.sha256(b"data").hexdigest(), size_bytes=4)
    assert "ok" in rig.answer(process, "publish", Publish(staged="run.1", blob=blob))
    assert why_of(rig) == "RUNNING"


def test_an_attempt_that_lacked_files_of_its_host_is_none_and_begins_after_a_pause(rig: Rig) -> None:
    process = add_job(rig)
    gone = Fault(cause=HOST_FILES_MISSING, message="the program is gone")
    assert "ok" in rig.answer(process, "done", EntryDone(fault=gone))
    process.exit()
    rig.run(5.0)
    assert rig.all("SELECT status, failed_attempts, losses FROM requests") == [("WAITING_FOR_SLOT", 0, 0)]
    assert "the program is gone" in why_of(rig)
    assert rig.host.identity().properties["blocked"].endswith("the program is gone")
    assert len(rig.launcher.processes) == 1
    rig.run(20.0)
    assert len(rig.launcher.processes) == 2
    assert rig.outbox() == []


# Moves and ends.


def test_a_move_asked_for_by_on_creation_happens_before_run(rig: Rig) -> None:
    rig.peer("w1")
    add(rig, hook="creation")
    rig.finish(rig.process("p1"), then_run=True, intent=Intent(move=W1))
    leaving = rig.process("p1")
    assert leaving.go.entry == "dispatching"
    rig.finish(leaving)
    assert rig.value("SELECT status FROM residence WHERE agent_id = 'p1'") == "leaving"
    assert '"hook":"arrival"' in rig.value("SELECT envelope FROM handoff_envelopes")


def test_a_move_to_a_host_that_is_away_waits_and_the_paglet_goes_on(rig: Rig) -> None:
    add(rig)
    away = host_ref("away")
    rig.write(lambda tx: tx.run("UPDATE paglets SET intent = ?", f'{{"move":{dump(away)}}}'))
    rig.host.runner.wake("mailbox")
    rig.run(5)
    assert rig.launcher.processes == []
    give_posts(rig, "hi")
    assert rig.process("p1").deliveries[0].message.kind == "hi"


def dump(value: Any) -> str:
    return dumps(to_json(value))


def test_a_move_to_where_it_is_ends_at_once(rig: Rig) -> None:
    add(rig)
    rig.get(Done, "POST", "/v1/paglets/p1/dispatch", MovePaglet(target="home"))
    rig.run()
    assert rig.value("SELECT intent FROM paglets") is None
    assert rig.launcher.processes == []


def test_a_dispatching_hook_that_raises_drops_the_move(rig: Rig) -> None:
    rig.peer("w1")
    add(rig)
    rig.get(Done, "POST", "/v1/paglets/p1/dispatch", MovePaglet(target="w1"))
    rig.run()
    rig.finish(rig.process("p1"), fault=OOPS)
    rig.run(5)
    assert rig.value("SELECT status FROM residence WHERE agent_id = 'p1'") == "here"
    assert rig.value("SELECT intent FROM paglets") is None


def test_an_end_that_is_asked_for_runs_the_hook_and_is_told_when_it_is_there(rig: Rig) -> None:
    add(rig)
    pending = rig.ask("DELETE", "/v1/paglets/p1")
    rig.run()
    assert isinstance(pending, PendingResponse)
    assert pending.response is None
    process = rig.process("p1")
    assert process.go.entry == "disposing"
    rig.finish(process)
    assert pending.response is not None
    assert pending.response.parse(Done) == Done()
    assert rig.value("SELECT status FROM residence") == "disposed"


def test_a_disposing_hook_that_raises_does_not_keep_the_paglet(rig: Rig) -> None:
    add(rig)
    rig.ask("DELETE", "/v1/paglets/p1")
    rig.run()
    rig.finish(rig.process("p1"), fault=OOPS)
    assert rig.value("SELECT status FROM residence") == "disposed"


# Calls.


def test_a_call_is_handled_in_a_process_that_ends_when_it_was_idle_for_a_while(rig: Rig) -> None:
    add(rig)
    reply = rig.call("p1", "hi", {"x": 1})
    rig.run()
    process = rig.process("p1")
    (delivery,) = process.deliveries
    assert (process.go.entry, delivery.is_call, delivery.message.args) == ("message", True, {"x": 1})
    rig.handle(process, {"answer": 42}, changes=state_change(n=5))
    assert reply.value == {"answer": 42}
    assert rig.state_of("p1") == {"n": 5}
    assert not process.is_to_finish
    rig.run(IDLE_SECONDS + 1)
    assert process.is_to_finish
    rig.finish(process)
    assert rig.value("SELECT count(*) FROM runs") == 0


def test_a_handler_that_raised_is_told_to_its_caller_and_changes_nothing(rig: Rig) -> None:
    add(rig)
    raised, unknown = rig.call("p1", "a"), rig.call("p1", "b")
    rig.run()
    process = rig.process("p1")
    rig.handle(process, fault=OOPS, changes=state_change(n=5))
    rig.handle(process, fault=Fault(cause="exception", message="no handler", code="not_handled"))
    assert isinstance(raised.error, HandlerFailed)
    assert raised.error.details["traceback"] == "tb"
    assert isinstance(unknown.error, NotHandled)
    assert rig.state_of("p1") == {"n": 1}


def test_a_caller_is_not_told_of_success_where_nothing_was_committed(rig: Rig) -> None:
    add(rig)
    reply = rig.call("p1", "hi")
    rig.run()
    process = rig.process("p1")
    answer = rig.handle(process, "done", changes=Changes(has_state=True, state={"n": 5}, storage_set={"k" * 600: 1}))
    assert "error" in answer
    assert reply.response is None
    # The child then says the same once more, with the error as its fault.
    rig.handle(process, fault=OOPS)
    assert isinstance(reply.error, HandlerFailed)
    assert rig.state_of("p1") == {"n": 1}


def test_a_call_whose_handlers_process_dies_is_told_how(rig: Rig) -> None:
    add(rig)
    reply = rig.call("p1", "hi")
    rig.run()
    rig.process("p1").exit(3, stderr_tail="last words")
    rig.run()
    error = reply.error
    assert isinstance(error, HandlerFailed)
    assert (error.details["cause"], error.details["stderr_tail"]) == ("exit:3", "last words")


def test_a_call_fails_at_once_if_the_class_cannot_be_loaded(rig: Rig) -> None:
    add(rig)
    reply = rig.call("p1", "hi")
    rig.run()
    rig.finish(rig.process("p1"), fault=Fault(cause="import_failed", message="m:C cannot be imported"))
    error = reply.error
    assert isinstance(error, HandlerFailed)
    assert (error.details["cause"], error.message) == ("import_failed", "m:C cannot be imported")
    assert len(rig.launcher.processes) == 1


def test_a_message_that_a_process_did_not_begin_goes_to_the_next_one(rig: Rig) -> None:
    add(rig, hook="run")
    rig.run()
    first = rig.process("p1")
    reply = rig.call("p1", "hi")
    rig.run()
    assert first.deliveries
    rig.finish(first)
    second = rig.process("p1")
    assert second is not first
    rig.handle(second, "handled")
    assert reply.value == "handled"


def test_a_caller_that_was_told_to_wait_gets_the_reply_of_the_same_handler(rig: Rig) -> None:
    add(rig)
    first = rig.call("p1", "hi", call_id="c", wait_seconds=5.0)
    rig.run()
    process = rig.process("p1")
    rig.run(5.1)
    assert first.record == CallReply(waiting=True)
    rig.handle(process, "late")
    assert rig.call("p1", "hi", call_id="c", again=True).response is None
    again = rig.call("p1", "hi", call_id="c", again=True)
    rig.run()
    assert again.value == "late"
    assert len(process.deliveries) == 1


def test_a_repeated_call_unknown_to_the_host_has_an_unknown_outcome(rig: Rig) -> None:
    add(rig)
    reply = rig.call("p1", "hi", again=True)
    rig.run()
    assert isinstance(reply.error, CallOutcomeUnknown)
    assert rig.launcher.processes == []


def test_a_call_that_nobody_asks_for_again_is_forgotten_and_starts_no_process(rig: Rig) -> None:
    add(rig, "busy", hook="run")
    for number in range(mailbox.MAX_ACTIVATIONS - 1):
        add(rig, f"q{number:02}", hook="run")
    add(rig)
    rig.call("p1", "hi", wait_seconds=1.0)
    rig.run(1 + mailbox.KEEP_REPLY_SECONDS + 1)
    rig.process("busy").exit(signal=9)
    rig.run(5)
    assert rig.launcher.of("p1") == []


def test_a_parked_handler_begins_anew_when_the_state_changed_and_not_before(rig: Rig) -> None:
    add(rig)
    reply = rig.call("p1", "wait")
    rig.run()
    process = rig.process("p1")
    rig.handle(process, parked=True)
    rig.finish(process)
    rig.write(lambda tx: tx.touch("p1"))
    rig.run(5)
    assert len(rig.launcher.processes) == 1
    other = rig.call("p1", "set")
    rig.run()
    process = rig.process("p1")
    rig.handle(process, changes=state_change(n=2))
    assert other.record == CallReply()
    rig.finish(process)
    process = rig.process("p1")
    assert [d.message.kind for d in process.deliveries] == ["wait"]
    assert process.deliveries[0].waited_seconds == pytest.approx(5.0, abs=0.5)
    rig.handle(process, "now")
    assert reply.value == "now"


def test_a_parked_handler_begins_anew_when_its_time_is_over(rig: Rig) -> None:
    add(rig)
    rig.call("p1", "wait")
    rig.run()
    process = rig.process("p1")
    rig.handle(process, parked=True, wait_seconds=7.0)
    rig.finish(process)
    rig.run(6.9)
    assert len(rig.launcher.processes) == 1
    rig.run(0.2)
    assert rig.process("p1").deliveries[0].waited_seconds == pytest.approx(7.0, abs=0.2)


@pytest.mark.parametrize("how", ["moved", "ended"])
def test_a_parked_call_of_a_paglet_that_left_is_told_where_it_is(rig: Rig, how: str) -> None:
    add(rig)
    reply = rig.call("p1", "wait")
    rig.run()
    process = rig.process("p1")
    rig.handle(process, parked=True)
    rig.finish(process)
    if how == "moved":
        rig.write(lambda tx: (residence.leave(tx, "p1", W1, 1.0), residence.acknowledged(tx, "p1", 2, 1.0)))
    else:
        rig.write(lambda tx: residence.dispose(tx, "p1", 1.0))
    rig.run()
    expected: type[PagletsError] = Moved if how == "moved" else Unknown
    assert isinstance(reply.error, expected)


def test_a_call_to_nobody_is_unknown(rig: Rig) -> None:
    assert isinstance(rig.call("p1", "hi").error, Unknown)


# Posts.


def test_posts_are_handled_one_after_the_other_with_what_they_cause(rig: Rig) -> None:
    add(rig)
    give_posts(rig, "a", "b")
    process = rig.process("p1")
    out = OutgoingPost(target=ProxyRef(agent_id="q", host=W1), message=WireMessage(kind="then", args={}))
    rig.handle(process, changes=replace(state_change(n=2), posts=(out,), storage_set={"k": 1}))
    assert [d.message.kind for d in process.deliveries] == ["a", "b"]
    assert [each["kind"] for each in rig.outbox()] == ["then"]
    assert rig.value("SELECT value FROM storage") == "1"
    rig.handle(process, changes=Changes(storage_deleted=("k",)))
    assert rig.value("SELECT count(*) FROM storage") == 0
    assert rig.value("SELECT count(*) FROM inbox") == 0
    rig.run(IDLE_SECONDS + 1)
    assert process.is_to_finish


@pytest.mark.parametrize("way", ["raise", "die"])
def test_a_post_is_tried_five_times_with_pauses_and_is_dead_then(rig: Rig, way: str) -> None:
    add(rig)
    give_posts(rig, "bad")
    for tries in range(1, 6):
        rig.until(lambda: rig.value("SELECT count(*) FROM runs") == 1, 120)
        process = rig.process("p1")
        if way == "raise":
            rig.handle(process, fault=OOPS)
            rig.finish(process)
        else:
            process.exit(signal=11)
            rig.run()
        assert rig.all("SELECT tries FROM inbox") == [(tries,)]
    rig.run(120)
    assert rig.all("SELECT status FROM inbox") == [("dead",)]
    assert len(rig.launcher.processes) == 5


def test_many_paglets_that_cannot_go_on_do_not_keep_the_host_busy(rig: Rig) -> None:
    away = f'{{"move":{dump(host_ref("away"))}}}'

    def many(tx: Any) -> None:
        for number in range(mailbox.MAX_DUE + 50):
            residence.create(tx, envelope(f"q{number:04}"), 1.0)
        tx.run("UPDATE paglets SET intent = ?", away)

    rig.write(many)
    rig.run(1)
    steps = rig.steps
    rig.run(30)
    assert rig.steps - steps < 300
    # One beyond the first page is served nevertheless.
    add(rig, "zz", hook="creation")
    rig.run(2)
    assert rig.process("zz").go.entry == "creation"


# Attempts.


def test_an_attempt_reports_ends_and_is_gone_when_its_report_arrived(rig: Rig) -> None:
    process = add_job(rig)
    assert process.go.system["attempt"] == 1
    assert (process.go.entry, process.go.state) == ("attempt", {"n": 1})
    assert rig.report(process, {"x": 1})["ok"] == {"accepted": True}
    assert rig.report(process, {"x": 2})["ok"] == {"accepted": False}
    rig.finish(process)
    assert rig.value("SELECT status FROM requests") == "COMPLETED"
    assert [each["args"]["result"] for each in rig.outbox()] == [{"x": 1}]
    assert rig.value("SELECT count(*) FROM leases") == 0


def test_a_stale_stamp_is_fenced_and_its_process_is_ended(rig: Rig) -> None:
    rig.launcher.is_stubborn = True
    process = add_job(rig)
    for field, value in (("attempt", 2), ("epoch", 9), ("generation", 5), ("token", "other")):
        assert rig.answer(process, "report", Report(success=True), **{field: value})["error"]["code"] == "fenced"
    assert process.told_to_end
    assert rig.value("SELECT outcome FROM job_states WHERE outcome LIKE '%true%'") is None


def test_a_run_whose_row_is_gone_is_fenced(rig: Rig) -> None:
    rig.launcher.is_stubborn = True
    process = add_job(rig)
    rig.write(lambda tx: tx.run("DELETE FROM runs"))
    assert rig.report(process)["error"]["code"] == "fenced"
    assert process.told_to_end


@pytest.mark.parametrize(
    ("op", "args", "code"),
    [
        ("explode", NoArguments(), "bad_request"),
        ("report", NoArguments(), "invalid"),
        ("storage_get", Report(success=True), "invalid"),
    ],
)
def test_a_question_that_is_not_of_the_table_ends_the_process(rig: Rig, op: str, args: Any, code: str) -> None:
    process = add_job(rig)
    assert rig.answer(process, op, args)["error"]["code"] == code
    assert process.told_to_end


def test_an_attempt_that_runs_too_long_is_ended_and_says_so(rig: Rig) -> None:
    process = add_job(rig, timeout_seconds=10.0)
    rig.run(9)
    assert not process.told_to_end
    rig.run(3)
    assert process.told_to_end
    assert rig.outbox()[0]["args"]["cause"] == "timeout"
    assert rig.value("SELECT status FROM requests") == "FAILED_FINAL"


FULL_DISK = Fault(cause="disk_full", message="OSError: No space left on device")


def test_a_job_that_met_a_full_disk_goes_elsewhere_after_a_pause(rig: Rig) -> None:
    process = add_job(rig)
    rig.peer("w1")
    rig.finish(process, fault=FULL_DISK)
    assert rig.value("SELECT status FROM requests") == "PLACING"
    rig.run(4)
    assert rig.value("SELECT status FROM residence WHERE agent_id = 'j1'") == "here"
    rig.run(2)
    assert rig.value("SELECT status FROM residence WHERE agent_id = 'j1'") == "leaving"
    assert "store-w1" in rig.value("SELECT peer FROM residence WHERE agent_id = 'j1'")


def test_a_job_that_met_a_full_disk_is_retried_here_without_another_host(rig: Rig) -> None:
    process = add_job(rig)
    rig.finish(process, fault=FULL_DISK)
    rig.run(4)
    assert len(rig.launcher.processes) == 1
    rig.run(3)
    again = rig.process("j1")
    assert again.spec.attempt == 2
    rig.report(again)
    rig.finish(again)
    assert rig.value("SELECT status FROM requests") == "COMPLETED"


@pytest.mark.parametrize("says_done", [False, True])
def test_a_process_that_goes_on_after_its_report_is_ended(says_done: bool) -> None:
    rig = Rig(report_grace_seconds=60.0)
    process = add_job(rig)
    rig.report(process, 42)
    if says_done:
        rig.answer(process, "done", EntryDone())
    rig.run(59)
    assert not process.told_to_end
    rig.run(3)
    assert process.told_to_end
    assert rig.value("SELECT status FROM requests") == "COMPLETED"
    assert [each["args"]["result"] for each in rig.outbox()] == [42]
    ended = "the process did not end within 1 min of its report, and was stopped"
    assert loads(rig.value("SELECT record FROM history"))["remark"] == ended
    assert [line for line in rig.log if ended in line] == [f"attempt: {ended}"]
    assert rig.value("SELECT text FROM events WHERE kind = 'ended_late'") == f"attempt: {ended}"


def test_a_hook_is_ended_when_its_class_says_so_and_has_failed(rig: Rig) -> None:
    add(rig, hook="creation")
    process = rig.process("p1")
    rig.run(100)
    assert "ok" in rig.answer(process, "hook_limit", HookLimit(seconds=10.0))
    rig.run(9)
    assert not process.told_to_end
    rig.run(3)
    assert process.told_to_end
    assert (
        rig.value("SELECT hook_error FROM paglets")
        == "the process ran longer than hook_timeout_seconds = 10, and was stopped"
    )


def test_a_limit_that_is_none_is_refused(rig: Rig) -> None:
    add(rig, hook="creation")
    assert "error" in rig.answer(rig.process("p1"), "hook_limit", HookLimit(seconds=-1.0))


def test_a_hook_that_takes_long_is_shown_and_goes_on(rig: Rig) -> None:
    add(rig, hook="creation")
    process = rig.process("p1")
    rig.run(599)
    assert rig.host.identity().long_hooks == ()
    rig.run(121)
    text = "on_creation has been running for 12 min on home"
    assert rig.get(PagletView, "GET", "/v1/paglets/p1").reason == text
    assert rig.host.identity().long_hooks == (f"p1: {text}",)
    assert not process.told_to_end


def test_an_attempt_that_nobody_wants_is_ended(rig: Rig) -> None:
    process = add_job(rig)
    rig.write(lambda tx: tx.run("UPDATE requests SET unwanted = 'cancelled'"))
    rig.run(2)
    assert process.told_to_end
    assert rig.value("SELECT status FROM residence WHERE agent_id = 'j1'") == "disposed"
    assert rig.outbox() == []


def test_a_job_that_returns_without_a_word_owes_its_group_a_result(rig: Rig) -> None:
    process = add_job(rig)
    rig.finish(process)
    assert rig.outbox()[0]["args"]["cause"] == "no_result"


def test_a_job_of_no_group_succeeds_by_returning(rig: Rig) -> None:
    each = envelope("j1", job=job_part(group_id=None, collector=None))
    rig.write(lambda tx: residence.create(tx, each, rig.now()))
    rig.run()
    rig.finish(rig.process("j1"))
    assert rig.value("SELECT status FROM requests") == "COMPLETED"


def test_a_retry_begins_from_the_checkpoint_or_from_the_submitted_state(rig: Rig) -> None:
    process = add_job(rig, max_attempts=3)
    rig.answer(process, "commit", Commit(changes=state_change(n=5)))
    process.exit(1)
    rig.run()
    process = rig.process("j1")
    assert (process.go.state, process.go.system["attempt"], process.go.system["compute_fresh"]) == ({"n": 1}, 2, True)
    rig.answer(process, "checkpoint", Commit(changes=state_change(n=7)))
    rig.answer(process, "commit", Commit(changes=state_change(n=8)))
    process.exit(1)
    rig.run()
    process = rig.process("j1")
    assert (process.go.state, process.go.system["compute_fresh"]) == ({"n": 7}, False)


def test_the_first_report_takes_its_changes_along_and_a_second_does_not(rig: Rig) -> None:
    process = add_job(rig)
    rig.report(process, 1, changes=Changes(storage_set={"a": 1}))
    rig.report(process, 2, changes=Changes(storage_set={"b": 1}))
    assert rig.all("SELECT key FROM storage") == [("a",)]


def test_a_move_from_within_an_attempt_comes_after_outcome_report_and_lease(rig: Rig) -> None:
    rig.peer("w2")
    process = add_job(rig)
    rig.report(process, 1)
    rig.finish(process, intent=Intent(move=host_ref("w2")))
    leaving = rig.process("j1")
    assert leaving.go.entry == "dispatching"
    assert rig.value("SELECT count(*) FROM leases") == 0
    rig.finish(leaving)
    assert '"status":"COMPLETED"' in rig.value("SELECT envelope FROM handoff_envelopes")
    assert '"hook":"arrival"' in rig.value("SELECT envelope FROM handoff_envelopes")


# What else a process may ask.


def test_storage_is_read_and_scanned(rig: Rig) -> None:
    process = add_job(rig)
    rig.answer(process, "commit", Commit(changes=Changes(storage_set={"a/1": 1, "a/2": [2], "b": None})))
    assert rig.answer(process, "storage_get", StorageGet(key="a/2"))["ok"] == {"found": True, "value": [2]}
    assert rig.answer(process, "storage_get", StorageGet(key="x"))["ok"] == {"found": False, "value": None}
    scan = StorageScan(prefix="a/", after="a/1", limit=5)
    assert rig.answer(process, "storage_scan", scan)["ok"] == {"entries": [["a/2", [2]]]}
    assert rig.answer(process, "storage_keys", NoArguments())["ok"] == {"keys": ["a/1", "a/2", "b"]}


def test_a_creation_is_one_paglet_however_often_it_is_asked_for(rig: Rig) -> None:
    process = add_job(rig)
    new = Create(nth=1, class_name="m:D", kind="paglet", state={})
    first, second = rig.answer(process, "create", new)["ok"], rig.answer(process, "create", new)["ok"]
    other = rig.answer(process, "create", replace(new, nth=2))["ok"]
    assert first == second != other
    assert rig.value("SELECT count(*) FROM paglets WHERE class_name = 'm:D'") == 2


def test_each_group_that_a_paglet_submits_has_jobs_of_its_own(rig: Rig) -> None:
    process = add_job(rig)

    def submit(nth: int, **fields: Any) -> GroupView:
        tree = to_json(group("a", "b", **fields))
        answer = rig.answer(process, "submit", Submit(nth=nth, request=tree))
        assert "ok" in answer, answer
        return answer["ok"]["group_id"]  # type: ignore[no-any-return]

    named = [submit(1, group_id="g7"), submit(2, group_id="g8"), submit(2, group_id="g8")]
    given = [submit(3, group_id=None), submit(3, group_id=None), submit(4, group_id=None)]
    assert named == ["g7", "g8", "g8"]
    assert given[0] == given[1] != given[2]
    counts = rig.all("SELECT group_id, count(*) FROM requests WHERE group_id != 'g1' GROUP BY group_id")
    assert dict(counts) == dict.fromkeys({*named, *given}, 2)


def test_names_are_resolved(rig: Rig) -> None:
    rig.peer("w1")
    process = add_job(rig)
    assert rig.answer(process, "resolve_host", Resolve(target="w1"))["ok"] == to_json(W1)
    assert rig.answer(process, "resolve_host", Resolve(target="w9"))["error"]["code"] == "unknown"
    assert rig.answer(process, "resolve_paglet", Resolve(target="j1"))["ok"]["agent_id"] == "j1"
    assert [each["name"] for each in rig.answer(process, "hosts", NoArguments())["ok"]["hosts"]] == ["home", "w1"]


def test_a_paglet_calls_another_on_its_own_host(rig: Rig) -> None:
    add(rig)
    process = add_job(rig)
    number = process.ask(
        "call", CallOut(target=ProxyRef(agent_id="p1", host=rig.own), message=WireMessage(kind="hi", args={}))
    )
    rig.run()
    rig.handle(rig.process("p1"), "yes")
    rig.run()
    assert process.reply(number)["ok"] == "yes"


# A start after a crash.


def test_what_ran_when_the_host_died_is_closed_and_begins_again() -> None:
    database = memory_database()
    first = Rig(database=database)
    add(first, hook="run")
    add_job(first)
    second = Rig(database=database)
    assert second.closed == 2
    second.run(10.0)  # the collector's host, which might not want the job any more, is away
    assert {process.spec.agent_id for process in second.launcher.processes} == {"p1", "j1"}
    assert second.process("j1").go.system["attempt"] == 2
    assert second.all("SELECT losses, failed_attempts FROM requests") == [(1, 0)]


def test_the_fields_that_the_host_writes_exist_in_every_job(rig: Rig) -> None:
    assert set(add_job(rig).go.system) <= set(ComputeJobState.__dataclass_fields__)


def test_a_late_word_of_a_process_that_nobody_knows_is_dropped(rig: Rig) -> None:
    runs = rig.host.runs
    runs.started("nobody", 5, 1.0)
    runs.frame("nobody", {})
    runs.ended("nobody", ProcessExit(exit_code=0))
    rig.run()
    assert rig.faults() == []


def test_what_holds_up_an_attempt_is_stored_when_there_is_room_for_it(rig: Rig) -> None:
    process = add_job(rig)
    (pages,) = rig.all("PRAGMA page_count")[0]
    rig.store._writer.execute(f"PRAGMA max_page_count={pages}")
    rig.answer(process, "reserve_space", ReserveSpace(staged="run.1", size_bytes=4, problem="the disk is full" * 1_000))
    assert why_of(rig) == "RUNNING"
    rig.store._writer.execute("PRAGMA max_page_count=1000000")
    rig.run(3.0)
    assert why_of(rig).startswith("RUNNING no_room: the host cannot store a file of the job yet: the disk is full")


def test_however_long_what_is_in_the_way_others_take_the_row_that_says_so(rig: Rig) -> None:
    # They refuse a row with a longer property, and took the host for offline, and its jobs for lost.
    rig.disk.held = Reason(code="disk_closed", text="/a/long/path" * 100 + " is not there")
    rig.run(5.0)
    row = rig.host.gossip.hosts()[0].host
    assert check_host(row).properties["blocked"].startswith("/a/long/path")
