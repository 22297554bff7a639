"""Files of finished jobs and hooks that fail: nothing that waits to be delivered goes silently."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import pytest
from host_rig import Reply, Rig, envelope, host_ref, job
from recall_rig import W1, Target, checked, is_silent

from paglets.api.hosts import ForgetHost, Forgotten
from paglets.api.paglets import Done, MovePaglet, PagletView
from paglets.api.undelivered import AskUndelivered, FailedHook, UndeliveredOutputs
from paglets.codec.strict_json import dumps
from paglets.core.errors import Conflict, InternalError
from paglets.core.record import to_json
from paglets.core.refs import FileRef, HostRef
from paglets.host.records.lifecycle import set_pending_action
from paglets.store import files, residence
from paglets.store.jobfiles import KEEP_SECONDS
from paglets.worker.protocol import Fault, Intent
from tests.fakes.mesh import member

DATA = b"the rows of a result"
SHA256 = hashlib.sha256(DATA).hexdigest()
RESULT = FileRef(name="result.db", sha256=SHA256, size_bytes=len(DATA), mode="move", registered=True)
INPUT = FileRef(name="input.csv", sha256=SHA256, size_bytes=len(DATA))
FAULT = Fault(cause="exception", message="ValueError: no column x", traceback="Traceback: line 7")


@pytest.fixture
def rig() -> Rig:
    made = Rig()
    made.host.blob_store.put(DATA)
    return made


def finished(rig: Rig, hook: str | None = "arrival", **part: Any) -> None:
    """A finished job with a registered file and an input, whose `hook` is due here; its report is acknowledged."""
    values = {"status": "COMPLETED", "attempt": 1, "outcome": {"success": True, "final": True}} | part
    made = job("j1", **values)
    files = (RESULT, INPUT)
    changed = {name: getattr(made, name) for name in made.__dataclass_fields__} | {"hook": hook, "files": files}
    rig.write(lambda tx: residence.create(tx, type(made)(**changed), rig.now()))


def kept(rig: Rig) -> UndeliveredOutputs:
    found: UndeliveredOutputs = rig.get(
        UndeliveredOutputs, "POST", "/v1/jobs/kept", AskUndelivered(group_id="g1", job_key="a")
    )
    return found


def names(rig: Rig) -> list[tuple[str, str, bool]]:
    """Name, owner and whether it has an end, of the files that are kept."""
    return [(each.name, each.owner, each.expires_at is not None) for each in kept(rig).files]


def status(rig: Rig) -> str:
    return str(rig.value("SELECT status FROM residence WHERE agent_id = 'j1'"))


def end(rig: Rig, **done: Any) -> None:
    """The hook that runs ends."""
    rig.until(lambda: any(not process.ended for process in rig.launcher.of("j1")))
    rig.finish(rig.process("j1"), **done)
    rig.run(1)


def failed(rig: Rig) -> FailedHook:
    (hook,) = kept(rig).hooks
    return hook


def notes(rig: Rig) -> list[str]:
    return [note[0] for note in rig.all("SELECT note FROM notes")]


# Jobs that are not over.


def test_a_finished_job_with_a_hook_or_a_move_before_it_is_told_of_with_its_files(rig: Rig) -> None:
    finished(rig)
    (job,) = kept(rig).undelivered
    assert (job.job_key, job.text, job.file_count) == ("a", f"on_arrival is to run on {rig.own.name}", 1)
    rig.until(lambda: any(not process.ended for process in rig.launcher.of("j1")))
    assert kept(rig).undelivered[0].text == f"on_arrival runs on {rig.own.name}"
    end(rig, intent=Intent(move=host_ref("elsewhere")))
    (job,) = kept(rig).undelivered
    assert (job.text, job.file_count) == ("it moves to elsewhere once that host is online", 1)


# Files that arrived.


def test_files_of_a_job_without_on_arrival_become_artifacts_of_its_group(rig: Rig) -> None:
    finished(rig)
    end(rig, is_default=True)
    assert status(rig) == "disposed"
    assert names(rig) == [("result.db", "", False)]
    (file,) = kept(rig).files
    assert (file.group_id, file.job_key, file.sha256) == ("g1", "a", SHA256)
    assert not checked(rig)


def test_a_hook_that_returned_has_taken_the_files(rig: Rig) -> None:
    finished(rig)
    end(rig)
    assert (status(rig), kept(rig)) == ("disposed", UndeliveredOutputs())


def test_a_job_that_goes_on_at_once_takes_its_files_along(rig: Rig) -> None:
    finished(rig)
    end(rig, is_default=True, intent=Intent(move=host_ref("elsewhere")))
    assert names(rig) == []
    assert rig.all("SELECT name FROM files ORDER BY name") == [("input.csv",), ("result.db",)]


def test_the_files_of_a_job_that_is_where_it_wants_to_go_become_artifacts(rig: Rig) -> None:
    finished(rig, hook=None)
    rig.write(lambda tx: set_pending_action(tx, "j1", {"move": to_json(rig.own)}))
    rig.run(1)
    assert (status(rig), names(rig)) == ("disposed", [("result.db", "", False)])


def test_a_job_that_asked_for_no_move_leaves_no_files(rig: Rig) -> None:
    finished(rig, hook=None)
    rig.write(lambda tx: set_pending_action(tx, "j1", None))
    rig.ask("DELETE", "/v1/paglets/j1")
    end(rig)
    assert (status(rig), names(rig)) == ("disposed", [])


def test_a_job_that_is_ended_by_hand_while_it_waits_for_home_leaves_its_files(rig: Rig) -> None:
    finished(rig, hook=None)
    rig.write(lambda tx: set_pending_action(tx, "j1", {"move": to_json(host_ref("elsewhere"))}))
    rig.run(1)
    rig.ask("DELETE", "/v1/paglets/j1")
    end(rig)
    assert (status(rig), names(rig)) == ("disposed", [("result.db", "", False)])


def test_a_job_that_is_ended_by_hand_on_its_way_home_leaves_its_files(rig: Rig) -> None:
    Target(rig, takes=InternalError("disk"))
    finished(rig)
    rig.write(lambda tx: residence.leave(tx, "j1", W1, rig.now()))
    rig.run(0.5)
    rig.ask("DELETE", "/v1/paglets/j1")
    rig.until(lambda: rig.launcher.of("j1"))
    rig.run()
    assert rig.process("j1").go.entry == "disposing"
    end(rig)
    assert (status(rig), names(rig)) == ("disposed", [("result.db", "", False)])
    assert not checked(rig)


def test_an_inactive_job_with_files_survives_the_loss_of_its_waking_process(rig: Rig) -> None:
    finished(rig, hook=None)
    rig.write(lambda tx: tx.run("UPDATE paglets SET inactive = 1, wakes_at = 0"))
    rig.until(lambda: rig.launcher.of("j1"))
    rig.process("j1").exit(launcher_lost=True)
    rig.run(1)
    assert (status(rig), len(rig.launcher.of("j1"))) == ("here", 2)
    end(rig)
    assert status(rig) == "disposed"


@pytest.mark.parametrize("says_done", [True, False])
def test_files_of_a_job_that_ends_before_it_requests_a_move_are_kept(rig: Rig, says_done: bool) -> None:
    rig.write(lambda tx: residence.create(tx, job("j1"), rig.now()))
    rig.run()
    process = rig.process("j1")
    rig.write(lambda tx: files.add(tx, "j1", (replace(RESULT, attempt=1), INPUT)))
    assert "ok" in rig.report(process)
    if says_done:
        rig.finish(process)
    else:
        process.exit(137)
    rig.run(1)
    assert names(rig) == ([] if says_done else [("result.db", "", False)])


# Hooks that fail.


@pytest.mark.parametrize(("hook", "name"), [("arrival", "on_arrival"), ("run", "run")])
def test_a_job_whose_hook_fails_stays_with_its_files(rig: Rig, hook: str, name: str) -> None:
    finished(rig, hook=hook)
    end(rig, fault=FAULT)
    assert status(rig) == "here"
    assert failed(rig).text == f"{name} failed on home: ValueError: no column x"
    assert failed(rig).traceback == "Traceback: line 7"
    assert names(rig) == [("result.db", "j1", True)]
    view: PagletView = rig.get(PagletView, "GET", "/v1/paglets/j1")
    assert view.reason == failed(rig).text
    assert view.job is not None
    assert (view.job.reason, view.job.reason_text) == ("hook_failed", failed(rig).text)
    (note,) = notes(rig)
    assert failed(rig).text in note
    assert "jobs rerun-hook g1/a" in note
    assert rig.disk.scratch_ids() == ()
    assert not checked(rig)


def test_a_long_error_leaves_room_for_the_command_in_its_note(rig: Rig) -> None:
    finished(rig)
    end(rig, fault=replace(FAULT, message="x" * 5000))
    (note,) = notes(rig)
    assert "`paglets jobs rerun-hook g1/a` runs the hook again" in note


def test_a_process_that_ends_before_its_hook_returns_is_a_hook_that_failed(rig: Rig) -> None:
    finished(rig)
    rig.until(lambda: rig.launcher.of("j1"))
    rig.process("j1").exit(3, stderr_tail="last words")
    rig.run(1)
    assert failed(rig).error == "the process ended with exit code 3 before the hook returned"
    assert failed(rig).traceback == "last words"


def test_a_process_that_is_lost_with_its_host_runs_its_hook_again(rig: Rig) -> None:
    finished(rig)
    rig.until(lambda: rig.launcher.of("j1"))
    rig.process("j1").exit(launcher_lost=True)
    rig.run(1)
    assert (kept(rig).hooks, kept(rig).files) == ((), ())
    assert len(rig.launcher.of("j1")) == 2


def test_a_rerun_that_returns_takes_the_files_and_ends_the_job(rig: Rig) -> None:
    finished(rig)
    end(rig, fault=FAULT)
    rig.get(Done, "POST", "/v1/paglets/j1/rerun")
    assert kept(rig).hooks == ()
    with pytest.raises(Conflict):
        rig.get(Done, "POST", "/v1/paglets/j1/rerun")
    rig.run()
    assert [file.file.name for file in rig.process("j1").go.files] == ["input.csv", "result.db"]
    assert names(rig) == [("result.db", "j1", True)], "until the hook returns"
    end(rig)
    assert (status(rig), kept(rig)) == ("disposed", UndeliveredOutputs())


def test_a_rerun_that_fails_keeps_the_job_for_another_thirty_days(rig: Rig) -> None:
    finished(rig)
    end(rig, fault=FAULT)
    first = failed(rig)
    rig.run(100)
    rig.get(Done, "POST", "/v1/paglets/j1/rerun")
    end(rig, fault=Fault(cause="exception", message="KeyError: 'y'"))
    assert failed(rig).error == "KeyError: 'y'"
    assert failed(rig).kept_until >= first.kept_until + 100
    assert [file.expires_at for file in kept(rig).files] == [failed(rig).kept_until]


def test_a_move_whose_on_dispatching_failed_goes_on_with_the_rerun(rig: Rig) -> None:
    away = Rig(name="away", beside=rig)
    finished(rig, hook=None)
    rig.write(lambda tx: set_pending_action(tx, "j1", {"move": to_json(away.own)}))
    end(rig, fault=FAULT)
    rig.run(10)
    assert (failed(rig).text, failed(rig).target) == ("on_dispatching failed on home: ValueError: no column x", "away")
    assert names(rig) == [("result.db", "j1", True)]
    rig.get(Done, "POST", "/v1/paglets/j1/rerun")
    end(rig)
    away.until(lambda: away.launcher.of("j1"))
    end(away, is_default=True)
    assert (status(rig), kept(rig)) == ("gone", UndeliveredOutputs())
    assert names(away) == [("result.db", "", False)]
    assert not checked(rig, away)


def test_a_job_whose_on_disposing_failed_ends_when_asked_again(rig: Rig) -> None:
    finished(rig, hook=None)
    rig.write(lambda tx: set_pending_action(tx, "j1", {"dispose": True}))
    end(rig, fault=FAULT)
    assert failed(rig).hook == "on_disposing"
    rig.get(Done, "POST", "/v1/paglets/j1/rerun")
    end(rig)
    assert (status(rig), names(rig)) == ("disposed", [])


def test_who_ends_a_job_whose_hook_failed_leaves_its_files_until_their_time_is_over(rig: Rig) -> None:
    finished(rig)
    end(rig, fault=FAULT)
    processes = len(rig.launcher.of("j1"))
    rig.ask("DELETE", "/v1/paglets/j1")
    rig.run(1)
    assert status(rig) == "disposed"
    assert len(rig.launcher.of("j1")) == processes, "no hook runs for it"
    assert names(rig) == [("result.db", "", True)]
    assert not checked(rig)


def test_a_job_whose_hook_failed_may_be_moved_elsewhere_by_hand(rig: Rig) -> None:
    away = Rig(name="away", beside=rig)
    finished(rig)
    end(rig, fault=FAULT)
    rig.get(Done, "POST", "/v1/paglets/j1/dispatch", MovePaglet(target="away"))
    end(rig)
    away.until(lambda: away.launcher.of("j1"))
    end(away)
    assert (kept(rig), kept(away)) == (UndeliveredOutputs(), UndeliveredOutputs())
    assert not checked(rig, away)


def test_a_job_whose_hook_nobody_runs_again_goes_after_thirty_days_and_says_so(rig: Rig) -> None:
    finished(rig)
    end(rig, fault=FAULT)
    rig.clock.advance(KEEP_SECONDS - 400)
    rig.run(1)
    assert status(rig) == "here"
    rig.clock.advance(1000)
    rig.run(1)
    assert (status(rig), kept(rig)) == ("disposed", UndeliveredOutputs())
    assert "so the job and its files are removed" in notes(rig)[-1]
    assert rig.value("SELECT count(*) FROM events WHERE kind = 'hook_failed' AND text LIKE '%are removed'") == 1


def test_other_paglets_go_on_after_a_hook_that_failed(rig: Rig) -> None:
    rig.write(lambda tx: residence.create(tx, envelope("j1", hook="arrival", files=(RESULT,)), rig.now()))
    end(rig, fault=FAULT)
    assert (status(rig), kept(rig)) == ("here", UndeliveredOutputs())
    view: PagletView = rig.get(PagletView, "GET", "/v1/paglets/j1")
    assert view.reason.startswith("its last hook failed: ValueError: no column x")


# Hosts that are gone for good.


def forget(rig: Rig) -> Forgotten:
    reply = Reply(rig.ask("POST", "/v1/mesh/forget", ForgetHost(store_id="store-w1")))
    rig.run(1)
    assert reply.response is not None
    answer: Forgotten = reply.response.parse(Forgotten)
    return answer


def test_files_that_wait_for_a_removed_home_become_artifacts_where_they_are(rig: Rig) -> None:
    Target(rig).goes_away()
    rig.until(lambda: is_silent(rig), 30)
    finished(rig, hook=None)
    rig.write(lambda tx: set_pending_action(tx, "j1", {"move": to_json(W1)}))
    rig.run(1)
    answer = forget(rig)
    assert (answer.moves_dropped, answer.files_kept) == (1, {"g1": 1})
    assert (status(rig), names(rig)) == ("disposed", [("result.db", "", False)])


def test_files_on_their_way_to_a_removed_home_become_artifacts_at_the_source(rig: Rig) -> None:
    target = Target(rig, takes=InternalError("disk"))
    finished(rig, hook="arrival")
    rig.write(lambda tx: residence.leave(tx, "j1", W1, rig.now()))
    rig.run(0.5)
    target.goes_away()
    rig.until(lambda: is_silent(rig), 30)
    answer = forget(rig)
    assert (answer.taken_back, answer.files_kept) == (0, {"g1": 1})
    assert (status(rig), names(rig)) == ("disposed", [("result.db", "", False)])
    assert not checked(rig)


def test_a_move_to_a_store_whose_name_another_one_has_now_says_so(rig: Rig) -> None:
    rig.peer("w2")
    finished(rig, hook=None)
    old = HostRef(store_id="ab" * 16, name="w2", url="http://old:1")
    rig.write(lambda tx: set_pending_action(tx, "j1", {"move": to_json(old)}))
    rig.run(1)
    view: PagletView = rig.get(PagletView, "GET", "/v1/paglets/j1")
    assert "the w2 that is online has another store" in view.reason
    assert f"paglets mesh forget {old.store_id}" in view.reason
    assert member("w2").store_id not in view.reason
    assert dumps(to_json(old)) in rig.value("SELECT intent FROM paglets WHERE agent_id = 'j1'")
