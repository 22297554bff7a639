"""Clones, rest, notes and services in real processes, and the requests that their host gets."""

from __future__ import annotations

import os

import model_paglets as paglets
import pytest
from fake_host import HOST, FakeHost, Told

from paglets.core.messages import CLONE, DEACTIVATE
from paglets.core.record import from_json, to_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.worker.protocol import Deliver, Handled

W1 = HostRef(store_id="store-w1", name="w1", url="http://w1:8765")


def handled(host: FakeHost, kind: str, /, *, of: str = "paglet", **args: object) -> tuple[Told, Handled]:
    """Run a call and return the result of its handler."""
    host.answers["resolve_host"] = lambda asked: to_json(W1)
    told = host.start(paglets.Cloner, "message", kind=of)
    host.deliver(told, "m1", kind, **args)
    found = host.handled(told, "m1")
    host.finish(told)
    return told, found


def test_clones_are_asked_for_with_the_handlers_changes_and_known_at_once(host: FakeHost) -> None:
    told, found = handled(host, "twice")
    first, second = found.changes.clones
    assert found.value == [first.agent_id, second.agent_id]
    assert first.agent_id.startswith(told.spec.token[:24])
    assert (first.name, first.target, second.name, second.target) == ("one", None, None, W1)
    assert found.changes.state["words"] == ["cloning", "cloning"]
    assert [name for name, _ in told.asked] == ["resolve_host", "handled", "done"]


def test_a_handler_that_fails_asks_for_no_clone(host: FakeHost) -> None:
    _, found = handled(host, "clone and fail")
    assert found.fault is not None
    assert found.changes.clones == ()


def test_a_run_is_cloned_as_it_is_then_and_tells_at_once(host: FakeHost) -> None:
    told = host.start(paglets.Cloner, "run", kind="paglet")
    host.wait(told)
    tells, clones = (each.changes for each in told.all("commit"))
    assert [note.text for note in tells.notes] == ["running"]
    assert (len(clones.clones), clones.state["number"], clones.state["words"]) == (1, 4, ["cloning"])
    assert (told.done.changes.state["number"], told.done.changes.clones) == (5, ())


def test_anybody_may_ask_a_paglet_to_clone_itself_or_to_rest(host: FakeHost) -> None:
    _, cloned = handled(host, CLONE, name="two", host=None)
    (clone,) = cloned.changes.clones
    ref = ProxyRef(agent_id=clone.agent_id, host=HOST)
    assert (clone.name, cloned.value["$object"]["fields"]["agent_id"]) == ("two", ref.agent_id)
    _, resting = handled(host, DEACTIVATE, seconds=5)
    assert resting.intent.rest is not None
    assert resting.intent.rest.seconds == 5


@pytest.mark.parametrize("of", ["job", "collector"])
@pytest.mark.parametrize(("kind", "what"), [(CLONE, "cloned"), (DEACTIVATE, "deactivated")])
def test_jobs_and_collectors_are_neither_cloned_nor_at_rest(host: FakeHost, of: str, kind: str, what: str) -> None:
    _, found = handled(host, kind, of=of)
    assert found.fault is not None
    assert f"a {of} cannot be {what}" in found.fault.message
    assert (found.changes.clones, found.intent.rest) == ((), None)


def test_on_deactivating_is_the_last_thing_before_the_rest(host: FakeHost) -> None:
    _, found = handled(host, "rest")
    assert found.changes.state["words"] == ["asked to rest", "deactivating"]
    assert found.intent.rest is not None
    assert found.intent.rest.seconds is None


def test_a_handler_that_waits_after_it_asked_to_rest_is_not_at_rest_yet(host: FakeHost) -> None:
    _, found = handled(host, "rest when woken")
    assert (found.parked, found.intent.rest) == (True, None)


@pytest.mark.parametrize("seconds", [0, -1, 1e12])
def test_a_rest_of_no_sensible_time_is_refused(host: FakeHost, seconds: float) -> None:
    _, found = handled(host, "rest", seconds=seconds)
    assert found.fault is not None
    assert "seconds" in found.fault.message


@pytest.mark.parametrize(("entry", "word"), [("clone", "clone"), ("activation", "activation")])
def test_first_hooks_of_clones_and_of_those_who_wake(host: FakeHost, entry: str, word: str) -> None:
    told = host.start(paglets.Cloner, entry, kind="paglet")
    host.wait(told)
    assert told.done.changes.state["words"] == [word]
    assert told.done.then_run


def test_notes_are_cut_and_their_level_is_checked(host: FakeHost) -> None:
    _, found = handled(host, "tell", text="a\nb", level="info")
    long, short = found.changes.notes
    assert (len(long.text), long.text[-1], long.level) == (2000, "…", "error")
    assert (short.text, short.level) == ("a\nb", "info")
    _, wrong = handled(host, "tell", text="a", level="loud")
    assert wrong.fault is not None
    assert "level is 'loud'" in wrong.fault.message


def test_a_priority_comes_with_a_message_and_goes_with_a_post(host: FakeHost) -> None:
    told = host.start(paglets.Cloner, "message", kind="paglet")
    tree = {"message_id": "m1", "message": {"kind": "priority", "args": {}, "priority": -4}, "is_call": True}
    host.deliver(told, "m0", "priority")
    host.handled(told, "m0")
    host.launcher.send(told.spec.token, {"deliver": to_json(from_json(Deliver, tree))})
    found = host.handled(told, "m1")
    host.finish(told)
    assert found.value == -4
    assert [post.message.priority for post in found.changes.posts] == [7]


def test_others_are_found_by_name_and_service(host: FakeHost) -> None:
    def answer(wanted: object) -> object:
        ref = ProxyRef(agent_id="named" if getattr(wanted, "name", None) else "offering", host=W1)
        return {"paglets": [{"ref": to_json(ref), "name": None, "service": ""}]}

    host.answers["find"] = answer
    told = host.start(paglets.Asker, "creation", kind="paglet")
    host.wait(told)
    assert [(asked.name, asked.service) for asked in told.all("find")] == [("bob", None), (None, "adder")]
    assert told.done.changes.state["words"] == ["named at w1", "offering at w1"]


def test_what_a_class_offers_is_said_when_one_is_created(host: FakeHost) -> None:
    host.answers["create"] = lambda wanted: to_json(ProxyRef(agent_id="new", host=HOST))
    host.wait(told := host.start(paglets.Maker, "creation", kind="paglet"))
    assert [each.service for each in told.all("create")] == ["offer", ""]


def test_a_process_whose_class_was_changed_leaves_the_next_message_to_another_one(host: FakeHost) -> None:
    host.answers["resolve_host"] = lambda asked: to_json(W1)
    told = host.start(paglets.Cloner, "message", kind="paglet")
    host.deliver(told, "m1", "twice")
    host.handled(told, "m1")
    before = os.stat(paglets.__file__)
    try:
        os.utime(paglets.__file__, ns=(before.st_atime_ns, before.st_mtime_ns + 1_000_000))
        host.deliver(told, "m2", "twice")
        host.wait(told)
    finally:
        os.utime(paglets.__file__, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [each.message_id for each in told.all("handled")] == ["m1"]
    assert told.done.fault is None
