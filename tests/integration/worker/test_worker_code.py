"""The code of paglets in real processes, and the requests that their host gets."""

from __future__ import annotations

import os
from typing import Any

import pytest
import worker_paglets as paglets
from fake_host import FakeHost, Told

from paglets.core.errors import Conflict, Fenced, Invalid
from paglets.core.record import to_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.worker.child.channel import EXIT_FENCED
from paglets.worker.child.main import EXIT_DONE_REFUSED
from tests.fakes.waiting import wait_until


def raising(error: Exception) -> Any:
    def answer(args: Any) -> Any:
        raise error

    return answer


# Entries.


def test_a_hook_commits_state_storage_and_posts_together_when_it_returns(host: FakeHost) -> None:
    told = host.start(paglets.Counts, "creation", number=1)
    assert host.wait(told).exit_code == 0
    assert [name for name, _ in told.asked] == ["done"]
    changes = told.done.changes
    assert changes.state["number"] == 2
    assert changes.state["home_host_name"] == "laptop"
    assert changes.storage_set == {"seen": {"$tuple": ["a", 1]}}
    (post,) = changes.posts
    assert (post.message.kind, post.message.args, post.target.agent_id) == (
        "later",
        {"data": {"$bytes": "AP8="}},
        told.go.stamp.agent_id,
    )
    assert told.done.then_run


def test_an_entry_that_changes_nothing_commits_no_state(host: FakeHost) -> None:
    told = host.start(paglets.Plain, "arrival")
    host.wait(told)
    assert not told.done.changes.has_state
    assert not told.done.then_run


def test_the_first_report_of_an_attempt_stands_and_later_ones_are_not_sent(host: FakeHost) -> None:
    told = host.start(paglets.Reports)
    assert host.wait(told).exit_code == 0
    assert [name for name, _ in told.asked] == ["checkpoint", "report", "done"]
    assert told.all("checkpoint")[0].changes.state["number"] == 7
    assert told.all("report")[0].result == {"raw": {"$bytes": "YWI="}}
    assert told.done.changes.state["words"] == ["True", "False"]


def test_a_result_that_cannot_travel_is_not_reported_and_named(host: FakeHost) -> None:
    told = host.start(paglets.CannotTravel)
    host.wait(told)
    assert told.all("report") == []
    assert "result" in told.done.fault.message
    assert told.done.fault.code == "invalid"


def test_an_exception_is_a_fault_with_the_users_traceback_and_drops_the_changes(host: FakeHost) -> None:
    told = host.start(paglets.Raises)
    how = host.wait(told)
    fault = told.done.fault
    assert how.exit_code == 0
    assert (fault.cause, fault.message, fault.code) == ("exception", "ValueError: no \\udcff such thing", "")
    assert "worker_paglets.py" in fault.traceback
    assert "paglets/worker/" not in fault.traceback
    assert not told.done.changes.has_state
    assert how.stderr_tail.startswith("before it broke\nTraceback")


def test_an_error_of_ours_keeps_its_code(host: FakeHost) -> None:
    told = host.start(paglets.RaisesOurs)
    host.wait(told)
    assert (told.done.fault.message, told.done.fault.code) == ("Conflict: two of them", "conflict")


def test_a_hook_gets_its_event_and_one_that_cannot_be_called_is_a_fault(host: FakeHost) -> None:
    told = host.start(paglets.TakesEvents, "arrival", kind="paglet")
    host.wait(told)
    assert told.done.changes.state["words"] == ["arrival", "None"]
    assert [(note.level, note.text) for note in told.done.changes.notes] == [("warning", "arrived: arrival")]
    told = host.start(paglets.TakesEvents, "disposing", kind="paglet")
    host.wait(told)
    assert "TakesEvents.on_disposing has the parameters (event, more)" in told.done.fault.message


def test_a_body_that_never_ran_is_a_fault_and_not_a_result(host: FakeHost) -> None:
    told = host.start(paglets.NeverRuns)
    host.wait(told)
    assert (told.done.fault.cause, told.all("report")) == ("exception", [])
    assert "NeverRuns.run_compute_job returned a coroutine" in told.done.fault.message


def test_a_warning_of_a_job_goes_to_its_collector_after_the_report(host: FakeHost) -> None:
    target = ProxyRef(agent_id="collector-1", host=host_ref("w1"))
    told = host.start(paglets.Warned, collector=target, job_key="a")
    host.wait(told)
    (post,) = told.all("commit")[0].changes.posts
    assert [name for name, _ in told.asked] == ["report", "commit", "done"]
    assert (post.target, post.message.kind) == (target, "job_warning")
    assert post.message.args["job_key"] == "a"
    assert "type int that is not used: the result is that of the report" in post.message.args["text"]


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("no_such_module:Thing", "import_failed"),
        ("worker_paglets:NoSuchClass", "import_failed"),
        ("worker_paglets:PlainState", "import_failed"),
        ("not a name", "exception"),
    ],
)
def test_a_class_that_is_not_there_is_a_fault_of_that_cause(host: FakeHost, name: str, cause: str) -> None:
    told = host.start(name)
    assert host.wait(told).exit_code == 0
    assert told.done.fault.cause == cause


def test_a_state_that_does_not_fit_is_a_fault(host: FakeHost) -> None:
    told = host.start(paglets.Plain, numbers=1)
    host.wait(told)
    assert "numbers" in told.done.fault.message
    assert told.done.fault.code == "invalid"


def test_a_state_that_cannot_travel_is_a_fault_that_names_the_field(host: FakeHost) -> None:
    told = host.start(paglets.KeepsWhatCannotTravel, "creation")
    host.wait(told)
    assert "secret" in told.done.fault.message


def test_a_done_that_the_host_cannot_store_comes_again_as_a_fault(host: FakeHost) -> None:
    host.answers["done"] = raising(Conflict("the disk is full"))
    told = host.start(paglets.Counts, "creation")
    assert host.wait(told).exit_code == EXIT_DONE_REFUSED
    first, second = told.all("done")
    assert first.fault is None
    assert "the disk is full" in second.fault.message
    assert not second.changes.has_state


def test_a_fenced_child_exits_at_once(host: FakeHost) -> None:
    host.answers["checkpoint"] = raising(Fenced("a newer run"))
    told = host.start(paglets.Reports)
    assert host.wait(told).exit_code == EXIT_FENCED
    assert told.all("done") == []


def test_a_fork_of_the_process_cannot_speak_for_the_paglet(host: FakeHost) -> None:
    told = host.start(paglets.ForksAndReturns)
    assert host.wait(told).exit_code == 0
    assert [name for name, _ in told.asked] == ["report", "done"]


def test_a_child_is_a_process_of_its_own(host: FakeHost) -> None:
    told = host.start(paglets.Looks)
    host.wait(told)
    seen = told.all("report")[0].result
    assert seen == {
        "descriptors": [0, 1, 2, 3],
        "environment": {"PAGLETS_JOB_ID": told.spec.agent_id, "PAGLETS_ATTEMPT": "2", "X": "set"},
        "marker": told.spec.token,
        "cwd": told.spec.work_dir,
        "stdin": "",
        "leads": True,
        "cores": sorted(os.sched_getaffinity(0)),
        "terminates": True,
    }


def test_paglets_speak_create_and_look_round_through_their_context(host: FakeHost) -> None:
    friend = ProxyRef(agent_id="friend-1", host=host_ref("there"))
    made = ProxyRef(agent_id="made-1", host=host_ref("here"))

    def call(args: Any) -> Any:
        if args.message.kind == "fail":
            raise Conflict("it would not")
        return {"$set": [args.message.args["left"], *args.message.args["right"]["$tuple"]]}

    here = {"store_id": "s", "name": "here", "url": "u", "online": True, "properties": {}, "mesh_version": "1"}
    host.answers |= {
        "resolve_paglet": lambda args: to_json(friend),
        "call": call,
        "create": lambda args: to_json(made),
        "hosts": lambda args: {"hosts": [here]},
    }
    told = host.start(paglets.Calls, "creation")
    host.wait(told)
    assert told.done.fault is None
    assert told.all("resolve_paglet")[0].target == "friend"
    create = told.all("create")[0]
    assert (create.nth, create.class_name, create.kind, create.name) == (1, "worker_paglets:Plain", "paglet", "made")
    assert create.state["number"] == 2
    state = told.done.changes.state
    assert state["secret"] == {"$set": [1, 2, 3]}
    assert state["words"] == ["made-1", "here", told.go.host.url, told.go.stamp.agent_id, "here", "it would not"]


def host_ref(name: str) -> HostRef:
    return HostRef(store_id=f"store-{name}", name=name)


# Messages.


def test_messages_are_handled_one_after_the_other_and_each_is_committed(host: FakeHost) -> None:
    told = host.start(paglets.Adds, "message")
    for number in (1, 2, 3):
        host.deliver(told, f"m{number}", "add", by=number)
    assert host.finish(told).exit_code == 0
    assert [handled.value for handled in told.all("handled")] == [1, 3, 6]
    assert [handled.changes.state["number"] for handled in told.all("handled")] == [1, 3, 6]
    assert told.all("handled")[2].changes.storage_set == {"last": 3}
    assert not told.done.changes.has_state


def test_the_value_of_a_posts_handler_is_dropped(host: FakeHost) -> None:
    told = host.start(paglets.Adds, "message")
    host.deliver(told, "m", "add", is_call=False, by=1)
    assert host.handled(told, "m").value is None
    host.finish(told)


def test_a_handler_that_raises_changes_nothing_for_those_after_it(host: FakeHost) -> None:
    told = host.start(paglets.Adds, "message", number=10)
    host.deliver(told, "bad", "add", by=1, fail=True)
    host.deliver(told, "good", "add", by=2)
    host.finish(told)
    bad, good = told.all("handled")
    assert bad.fault.message == "ValueError: told to fail"
    assert not bad.changes.has_state
    assert good.value == 12
    assert good.changes.storage_set == {"last": 2}


def test_an_unknown_kind_is_not_handled(host: FakeHost) -> None:
    told = host.start(paglets.Adds, "message")
    host.deliver(told, "m", "dance")
    assert host.handled(told, "m").fault.code == "not_handled"
    host.finish(told)


def test_a_handled_that_the_host_cannot_store_is_undone_and_told_as_a_fault(host: FakeHost) -> None:
    def refuse_first(args: Any) -> None:
        if args.message_id == "m1" and args.fault is None:
            raise Invalid("too many words")

    host.answers["handled"] = refuse_first
    told = host.start(paglets.Adds, "message")
    host.deliver(told, "m1", "add", by=1)
    host.deliver(told, "m2", "add", by=1)
    host.finish(told)
    first, again, second = told.all("handled")
    assert (first.value, second.value) == (1, 1)
    assert "too many words" in again.fault.message


def test_sys_exit_in_a_handler_ends_the_process_with_that_code(host: FakeHost) -> None:
    told = host.start(paglets.Adds, "message")
    host.deliver(told, "m", "exit")
    assert host.wait(told).exit_code == 4
    assert told.asked == []


def test_a_call_that_waits_is_parked_with_what_it_changed(host: FakeHost) -> None:
    told = host.start(paglets.Adds, "message")
    host.deliver(told, "m1", "wait", least=3, timeout=30)
    parked = host.handled(told, "m1")
    assert parked.parked
    assert parked.wait_seconds == 30
    assert parked.changes.state["words"] == ["waiting"]
    host.deliver(told, "m2", "add", by=3)
    host.deliver(told, "m3", "wait", least=3, waited=2.5, timeout=30)
    assert host.handled(told, "m3").value == {"$tuple": ["reached", True]}
    host.finish(told)


def test_a_call_whose_time_is_over_is_not_parked_again(host: FakeHost) -> None:
    told = host.start(paglets.Adds, "message")
    host.deliver(told, "m1", "wait", least=3, waited=1.0, timeout=3)
    assert host.handled(told, "m1").wait_seconds == 2
    host.deliver(told, "m2", "wait", least=3, waited=3.5, timeout=3)
    assert host.handled(told, "m2").value == {"$tuple": ["reached", False]}
    host.finish(told)


def test_a_post_cannot_wait(host: FakeHost) -> None:
    told = host.start(paglets.Adds, "message")
    host.deliver(told, "m", "wait", is_call=False, least=3)
    assert host.handled(told, "m").fault.code == "invalid"
    host.finish(told)


def test_an_intent_comes_with_the_handler_that_had_it(host: FakeHost) -> None:
    host.answers["resolve_host"] = lambda args: to_json(host_ref(args.target))
    told = host.start(paglets.Adds, "message")
    host.deliver(told, "m1", "move")
    host.deliver(told, "m2", "add", by=1)
    host.finish(told)
    moved, added = told.all("handled")
    assert moved.fault is not None
    assert moved.intent.move is None
    assert added.intent.move is None


def test_storage_is_seen_with_the_changes_that_are_not_committed_yet(host: FakeHost) -> None:
    stored = {"a": 1, "k1": 1, "k2": 2, "k3": 3, "k4": 4, "k5": 5, "last": 0}

    def scan(args: Any) -> Any:
        keys = sorted(key for key in stored if key.startswith(args.prefix) and key > args.after)
        return {"entries": [[key, stored[key]] for key in keys[: args.limit]]}

    host.answers |= {
        "storage_get": lambda args: {"found": args.key in stored, "value": stored.get(args.key)},
        "storage_keys": lambda args: {"keys": sorted(stored)},
        "storage_scan": scan,
    }
    told = host.start(paglets.Adds, "message")
    host.deliver(told, "m", "storage")
    handled = host.handled(told, "m")
    assert handled.fault is None
    keys, entries, has_last = handled.value["$tuple"]
    assert keys == ["a", "k1", "k2", "k35", "k4", "k5", "last"]
    assert [entry["$tuple"][0] for entry in entries] == ["k2", "k35", "k4"]
    assert has_last
    assert handled.changes.storage_deleted == ("k3",)
    assert handled.changes.storage_set == {"k2": "new", "k35": {"x": {"$tuple": [1, 2]}}}
    host.finish(told)


# Handlers during a long entry.


def started(host: FakeHost, **state: Any) -> Told:
    told = host.start(paglets.Waits, "run", **state)
    wait_until(lambda: len(told.all("commit")) >= 2, what="the first commits of run")
    return told


def test_run_commits_at_once_what_it_locks_and_stores(host: FakeHost) -> None:
    told = started(host)
    locked, stored = told.all("commit")[:2]
    assert locked.changes.state["words"] == ["locked"]
    assert stored.changes.storage_set == {"at once": True}
    host.launcher.end(told.spec.token)
    host.wait(told)


def test_handlers_run_beside_run_and_wake_it_when_its_state_is_as_it_waits_for(host: FakeHost) -> None:
    told = started(host)
    host.deliver(told, "m1", "add", by=2)
    assert host.handled(told, "m1").value == 2
    assert told.ended is None
    host.deliver(told, "m2", "add", by=3)
    assert host.wait(told).exit_code == 0
    assert host.handled(told, "m2").changes.state["words"] == ["locked"]
    assert told.done.changes.state["words"] == ["locked", "reached"]
    assert told.done.changes.state["number"] == 5


def test_a_call_is_parked_beside_run_too(host: FakeHost) -> None:
    told = started(host)
    host.deliver(told, "m1", "wait", least=5)
    assert host.handled(told, "m1").parked
    host.deliver(told, "m2", "add", by=5)
    host.wait(told)
    assert told.done.changes.state["words"] == ["locked", "waiting", "reached"]


def test_a_handler_that_fails_beside_run_undoes_only_its_own(host: FakeHost) -> None:
    told = started(host)
    host.deliver(told, "m1", "add", by=4, fail=True)
    host.deliver(told, "m2", "add", by=5)
    host.wait(told)
    assert host.handled(told, "m1").fault is not None
    assert told.done.changes.state["number"] == 5
    assert told.done.changes.state["words"] == ["locked", "reached"]


def test_sys_exit_in_a_handler_beside_run_ends_the_process(host: FakeHost) -> None:
    told = started(host)
    host.deliver(told, "m", "exit")
    assert host.wait(told).exit_code == 4
