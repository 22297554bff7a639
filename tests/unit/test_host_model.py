"""Clones, rest, priorities, paglets found by name or service, and notes: with processes played by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from host_rig import Rig, envelope, group, host_ref, job, state_change

from paglets.api.calls import Call
from paglets.api.limits import MAX_NOTE_CHARACTERS
from paglets.api.notes import Notes
from paglets.api.paglets import CreatePaglet, FindPaglets, FoundPaglets, Paglets, PagletView
from paglets.codec.envelope import Envelope, InboxPost, Post, WireMessage
from paglets.codec.strict_json import loads
from paglets.core.errors import Invalid
from paglets.core.record import from_json, to_json
from paglets.core.refs import FileRef, HostRef
from paglets.groups.keys import collector_id
from paglets.store import notes, paglets, receiving, residence
from paglets.store.db import Tx
from paglets.worker.protocol import Changes, Commit, Fault, Intent
from paglets.worker.requests import Find, NewClone, NewNote, Rest
from tests.fakes.processes import HandProcess
from tests.fakes.store import memory_database

OOPS = Fault(cause="exception", message="ValueError: oops", traceback="tb")


@pytest.fixture
def rig() -> Rig:
    return Rig()


def add(rig: Rig, agent_id: str = "p1", **fields: Any) -> None:
    rig.write(lambda tx: residence.create(tx, envelope(agent_id, **fields), rig.now()))
    rig.run()


def give_posts(rig: Rig, *messages: WireMessage) -> None:
    first = rig.value("SELECT coalesce(max(n), 0) + 1 FROM taken")
    batch = [Post(sender_store="s", n=n, agent_id="p1", message=each) for n, each in enumerate(messages, first)]
    rig.write(lambda tx: receiving.receive(tx, tuple(batch), (), 0.0))
    rig.run()


def message(kind: str = "hello", **fields: Any) -> WireMessage:
    return WireMessage(kind=kind, args={}, **fields)


def row(rig: Rig, agent_id: str = "p1") -> tuple[Any, ...]:
    ((*values,),) = rig.all("SELECT hook, inactive, wakes_at FROM paglets WHERE agent_id = ?", agent_id)
    return tuple(values)


def handle_one(rig: Rig, **handled: Any) -> HandProcess:
    """A message for p1 in a process of its own, which handles it so and ends."""
    give_posts(rig, message())
    process = rig.process("p1")
    assert "ok" in rig.handle(process, **handled)
    rig.finish(process)
    return process


def rest(rig: Rig, seconds: float | None = None) -> None:
    handle_one(rig, intent=Intent(rest=Rest(seconds=seconds)))


# Clones.


def test_a_clone_has_the_committed_state_of_its_paglet_and_starts_with_on_clone(rig: Rig) -> None:
    blob = rig.host.blob_store.put(b"data")
    file = FileRef(name="f", sha256=blob.sha256, size_bytes=4, mode="move")
    home = host_ref("w9")
    add(rig, name="one", files=(file,), storage={"k": 1, "old": 2}, service="adder", home=home)
    give_posts(rig, message(), message("left alone"))
    process = rig.process("p1")
    changes = replace(
        state_change(n=2), storage_set={"k": 3}, storage_deleted=("old",), clones=(NewClone(agent_id="p2", name="two"),)
    )
    rig.handle(process, changes=changes)
    clone = rig.store.read(lambda tx: paglets.freeze(tx, "p2", 1, rig.now()))
    assert (clone.state, clone.storage, clone.name) == ({"n": 2}, {"k": 3}, "two")
    assert (clone.service, clone.home) == ("adder", home)
    assert clone.files == (replace(file, mode="copy"),)
    assert (clone.inbox, clone.taken, clone.artifacts) == ((), (), ())
    first = rig.process("p2")
    assert (first.go.entry, first.go.state, [each.file.name for each in first.go.files]) == ("clone", {"n": 2}, ["f"])
    rig.finish(first, then_run=True)
    assert rig.process("p2").go.entry == "run"


def test_a_handler_that_fails_makes_no_clone_and_a_name_that_is_taken_makes_it_fail(rig: Rig) -> None:
    add(rig, name="one")
    give_posts(rig, message())
    process = rig.process("p1")
    changes = replace(state_change(n=9), clones=(NewClone(agent_id="p2", name="one"),))
    assert rig.handle(process, changes=changes)["error"]["code"] == "name_taken"
    rig.handle(process, fault=OOPS)
    assert rig.state_of("p1") == {"n": 1}
    assert rig.value("SELECT count(*) FROM paglets") == 1


def test_a_run_clones_at_once(rig: Rig) -> None:
    add(rig, hook="run")
    process = rig.process("p1")
    changes = replace(state_change(n=5), clones=(NewClone(agent_id="p2"),))
    assert "ok" in rig.answer(process, "commit", Commit(changes=changes))
    assert rig.process("p2").go.state == {"n": 5}


def test_a_clone_that_is_to_go_elsewhere_moves_after_its_first_hook(rig: Rig) -> None:
    rig.peer("w1")
    add(rig)
    handle_one(rig, changes=Changes(clones=(NewClone(agent_id="p2", target=host_ref("w1")),)))
    clone = rig.process("p2")
    assert clone.go.entry == "clone"
    rig.finish(clone, then_run=True)
    dispatching = rig.process("p2")
    assert dispatching.go.entry == "dispatching"
    rig.finish(dispatching)
    assert rig.value("SELECT status FROM residence WHERE agent_id = 'p2'") == "leaving"
    assert rig.value("SELECT json_extract(envelope, '$.hook') FROM handoff_envelopes") == "arrival"


def test_a_run_waits_until_the_bytes_of_a_move_are_there_and_messages_do_not(rig: Rig) -> None:
    rig.peer("w1")
    blob = rig.host.blob_store.put(b"data")
    add(rig, hook="creation", files=(FileRef(name="f", sha256=blob.sha256, size_bytes=4),))
    rig.finish(rig.process("p1"), then_run=True, intent=Intent(move=host_ref("w1")))
    rig.run(1)
    assert len(rig.launcher.processes) == 1
    assert row(rig)[0] == "run"
    handle_one(rig)
    rig.network.leave(host_ref("w1").url)
    rig.until(lambda: len(rig.launcher.processes) > 2)
    assert rig.process("p1").go.entry == "run", "the host is away: nobody knows for how long"


def test_collectors_say_clearly_what_they_cannot_do(rig: Rig) -> None:
    rig.write(lambda tx: rig.host.submission.submit(tx, "ab" * 16, group("a")))
    for kind, what in (("paglets.clone", "clone"), ("paglets.deactivate", "deactivate")):
        error = rig.call(collector_id("g1"), kind).error
        assert f"{what} is not available to a paglet whose handlers run inside its host" in error.message


def test_a_job_cannot_be_cloned(rig: Rig) -> None:
    rig.write(lambda tx: residence.create(tx, job("j1"), rig.now()))
    rig.run()
    process = rig.process("j1")
    refused = rig.answer(process, "commit", Commit(changes=Changes(clones=(NewClone(agent_id="j2"),))))
    assert refused["error"]["code"] == "invalid"
    assert "a job cannot be cloned" in refused["error"]["message"]


# Rest.


def test_one_that_rests_is_a_row_until_a_message_wakes_it_and_its_run_follows(rig: Rig) -> None:
    add(rig)
    rest(rig)
    before = len(rig.launcher.processes)
    rig.run(3600)
    assert len(rig.launcher.processes) == before
    assert row(rig) == (None, 1, None)
    give_posts(rig, message("wake up"))
    waking = rig.process("p1")
    assert (waking.go.entry, waking.deliveries) == ("activation", [])
    assert row(rig)[1] == 1, "it is active from the end of its hook on"
    rig.finish(waking, then_run=True)
    run = rig.process("p1")
    assert (run.go.entry, [each.message.kind for each in run.deliveries]) == ("run", ["wake up"])
    assert row(rig) == ("run", 0, None)


def test_a_call_wakes_it_and_is_answered(rig: Rig) -> None:
    add(rig)
    rest(rig)
    reply = rig.call("p1", "paglets.activate")
    rig.run()
    waking = rig.process("p1")
    assert waking.go.entry == "activation"
    rig.finish(waking)
    handler = rig.process("p1")
    assert handler.go.entry == "message"
    rig.handle(handler, value=5)
    assert reply.value == 5
    assert row(rig) == (None, 0, None)


def test_one_whose_time_comes_while_others_are_started_is_woken(rig: Rig) -> None:
    prepare = rig.disk.prepare

    def slow(agent_id: str, fresh: bool) -> str:
        rig.clock.advance(1.0)
        return prepare(agent_id, fresh)

    rig.disk.prepare = slow  # type: ignore[method-assign]

    def both(tx: Tx) -> None:
        residence.create(tx, envelope("p1", inactive=True, wakes_in_seconds=0.2), rig.now())
        residence.create(tx, envelope("p2", hook="creation"), rig.now())

    rig.write(both)
    rig.run(3)
    assert rig.process("p1").go.entry == "activation"


def test_it_wakes_when_its_time_is_over_and_not_before(rig: Rig) -> None:
    add(rig)
    rest(rig, seconds=600)
    before = len(rig.launcher.processes)
    rig.run(595)
    assert len(rig.launcher.processes) == before
    rig.run(10)
    waking = rig.process("p1")
    assert waking.go.entry == "activation"
    rig.finish(waking)
    rig.run(3600)
    assert row(rig) == (None, 0, None)
    assert len(rig.launcher.processes) == before + 1


def test_rest_survives_a_restart_of_the_host_and_an_interrupted_waking() -> None:
    database = memory_database()
    first = Rig(database=database)
    add(first)
    rest(first, seconds=86400)
    again = Rig(database=database)
    again.run(60)
    assert again.launcher.processes == []
    give_posts(again, message())
    again.process("p1")
    third = Rig(database=database)
    third.run()
    assert third.process("p1").go.entry == "activation"


def test_one_whose_activation_raises_is_awake_and_gets_its_message(rig: Rig) -> None:
    add(rig)
    rest(rig)
    give_posts(rig, message())
    rig.finish(rig.process("p1"), fault=OOPS)
    assert "oops" in rig.value("SELECT hook_error FROM paglets")
    assert rig.process("p1").go.entry == "message"
    assert row(rig) == (None, 0, None)


def test_a_run_that_was_due_is_not_begun_by_one_that_rests(rig: Rig) -> None:
    add(rig, hook="creation")
    rig.finish(rig.process("p1"), then_run=True, intent=Intent(rest=Rest()))
    rig.run(60)
    assert row(rig) == (None, 1, None)
    assert len(rig.launcher.processes) == 1


def test_one_that_rests_stays_so_where_it_moves(rig: Rig) -> None:
    add(rig)
    rest(rig, seconds=1000)
    rig.run(400)
    frozen = rig.store.read(lambda tx: paglets.freeze(tx, "p1", 2, rig.now()))
    assert frozen.inactive
    assert frozen.wakes_in_seconds == pytest.approx(600, abs=1)
    other = Rig(name="other")
    other.write(lambda tx: residence.take(tx, replace(frozen, hook="arrival"), host_ref("home"), 50.0, lambda *_: None))
    other.run()
    arrival = other.process("p1")
    assert arrival.go.entry == "arrival"
    other.finish(arrival, then_run=True)
    assert row(other)[:2] == (None, 1)
    other.until(lambda: other.launcher.of("p1")[-1].spec != arrival.spec, within_seconds=700)
    assert other.process("p1").go.entry == "activation"


def test_what_asks_to_rest_is_shown_and_so_is_what_rests(rig: Rig) -> None:
    add(rig, hook="run")
    give_posts(rig, message())
    process = rig.process("p1")
    rig.handle(process, intent=Intent(rest=Rest()))
    view = rig.get(PagletView, "GET", "/v1/paglets/p1")
    assert (view.inactive, view.reason) == (False, "it becomes inactive when its code has ended")
    rig.finish(process)
    assert rig.get(PagletView, "GET", "/v1/paglets/p1").inactive


# Priorities.


def test_posts_are_handled_by_priority_and_then_by_age(rig: Rig) -> None:
    add(rig, hook="creation")
    wanted = {"a": 0, "b": -10, "c": 10, "d": 0, "e": 10}
    give_posts(rig, *(message(kind, priority=priority) for kind, priority in wanted.items()))
    rig.finish(rig.process("p1"))
    process = rig.process("p1")
    for _ in wanted:
        rig.handle(process)
    assert [each.message.kind for each in process.deliveries] == ["c", "e", "a", "d", "b"]


def test_calls_that_queue_are_handled_by_priority_and_then_by_age(rig: Rig) -> None:
    add(rig)
    ask = [("first", 0), ("low", -1), ("high", 5), ("also high", 5), ("normal", 0)]
    for kind, priority in ask:
        body = {"message": to_json(message(kind, priority=priority)), "call_id": kind}
        rig.ask("POST", "/v1/paglets/p1/call", rig_call(body))
    rig.run()
    process = rig.process("p1")
    for _ in ask:
        rig.handle(process)
    order = [each.message.kind for each in process.deliveries]
    assert order == ["high", "also high", "first", "normal", "low"]


def rig_call(body: dict[str, Any]) -> Any:
    return from_json(Call, body)


def test_a_priority_stays_with_a_post_that_moves() -> None:
    rig = Rig()
    lying = [
        InboxPost(post=Post(sender_store="s", n=n, agent_id="p1", message=message(kind, priority=priority)))
        for n, (kind, priority) in enumerate([("low", -3), ("high", 3)])
    ]
    add(rig, inbox=tuple(lying))
    assert rig.process("p1").deliveries[0].message.kind == "high"


@pytest.mark.parametrize("priority", [11, -11])
def test_a_priority_out_of_bounds_is_refused(rig: Rig, priority: int) -> None:
    add(rig)
    body = {"message": to_json(message(priority=priority)), "call_id": "c"}
    with pytest.raises(Invalid, match="priority"):
        rig.get(Notes, "POST", "/v1/paglets/p1/call", rig_call(body))


# Names and services.


def test_paglets_are_found_by_name_and_by_service_until_they_end(rig: Rig) -> None:
    create = CreatePaglet(agent_id="a1", class_name="m:C", kind="paglet", state={}, name="bob", service="adder")
    rig.get(PagletView, "POST", "/v1/paglets", create)
    rig.get(PagletView, "POST", "/v1/paglets", replace(create, agent_id="a2", name="eve"))

    def found(**wanted: str) -> list[str]:
        reply = rig.get(FoundPaglets, "POST", "/v1/paglets/find", FindPaglets(**wanted))
        assert all(each.ref.host == rig.own for each in reply.paglets)
        return [each.ref.agent_id for each in reply.paglets]

    assert (found(name="bob"), found(service="adder"), found(service="")) == (["a1"], ["a1", "a2"], [])
    assert found(service="compute-slots") == ["compute-slots"]
    rig.write(lambda tx: residence.dispose(tx, "a1", rig.now()))
    assert (found(name="bob"), found(service="adder")) == ([], ["a2"])


def test_a_paglet_finds_those_of_all_online_hosts_its_own_hosts_first() -> None:
    rig = Rig()
    others = {name: Rig(name=name, beside=rig) for name in ("alpha", "zeta")}
    for number, each in enumerate((others["zeta"], others["alpha"], rig)):
        each.write(lambda tx, n=number: residence.create(tx, envelope(f"s{n}", service="adder"), 0.0))
    rig.peer("mute", {"POST /v1/paglets/find": lambda body: Invalid("no")})
    add(rig, "p1", hook="run")
    process = rig.process("p1")
    number = process.ask("find", Find(service="adder"))
    rig.run(3)
    reply = process.reply(number)["ok"]["paglets"]
    assert [(each["ref"]["agent_id"], each["ref"]["host"]["name"]) for each in reply] == [
        ("s2", "home"),
        ("s1", "alpha"),
        ("s0", "zeta"),
    ]


def test_a_list_of_paglets_may_come_without_their_states(rig: Rig) -> None:
    add(rig, name="bob", service="adder")
    brief, whole = (rig.get(Paglets, "GET", f"/v1/paglets?brief={n}").paglets[0] for n in (1, 0))
    assert (brief.state, whole.state) == (None, {"n": 1})
    assert (brief.created_at, brief.service, brief.name) == (5.0, "adder", "bob")


# Notes.


def note_of(text: str, level: Any = "info") -> NewNote:
    return NewNote(at=7.5, level=level, text=text)


def tell(rig: Rig, *texts: str, **fields: Any) -> None:
    add(rig, **fields)
    handle_one(rig, changes=Changes(notes=tuple(note_of(text) for text in texts)))


def told(rig: Rig, query: str = "") -> list[str]:
    return [note.text for note in rig.get(Notes, "GET", f"/v1/notes{query}").notes]


def test_a_note_is_kept_at_home_and_says_who_told_it(rig: Rig) -> None:
    away = Rig(name="away", beside=rig)
    add(away, "p1", name="bob", home=rig.own)
    handle_one(away, changes=Changes(notes=(note_of("hello", "warning"),)))
    rig.until(lambda: told(rig))
    (note,) = rig.get(Notes, "GET", "/v1/notes").notes
    assert (note.text, note.level, note.at, note.host_name) == ("hello", "warning", 7.5, "away")
    assert (note.agent_id, note.name, note.class_name, note.group_id) == ("p1", "bob", "m:C", None)
    assert away.all("SELECT * FROM outbox") == []
    assert told(away) == []


def test_a_job_tells_at_once_and_its_notes_are_found_by_group(rig: Rig) -> None:
    rig.write(lambda tx: residence.create(tx, replace(job("j1"), home=rig.own), rig.now()))
    rig.run()
    rig.answer(rig.process("j1"), "commit", Commit(changes=Changes(notes=(note_of("halfway"),))))
    rig.run()
    (note,) = rig.get(Notes, "GET", "/v1/notes?group=g1").notes
    assert (note.group_id, note.job_key) == ("g1", "a")
    assert told(rig, "?group=g2") == []


def test_the_same_note_twice_is_one_and_what_is_no_note_is_dropped(rig: Rig) -> None:
    tell(rig, "x", home=host_ref("w1"))
    ((text,),) = rig.all("SELECT message FROM outbox_messages")
    good = [Post(sender_store="s", n=1, agent_id=notes.READER, message=from_text(text))]
    bad = [Post(sender_store="s", n=2, agent_id=notes.READER, message=message())]
    for batch in (good, good, bad):
        rig.write(lambda tx, batch=batch: receiving.receive(tx, tuple(batch), (), 0.0))
    assert told(rig) == ["x"]


def test_a_note_of_a_careless_host_can_be_shown(rig: Rig) -> None:
    args = {"level": "info", "host_name": "h", "agent_id": "p", "class_name": "m:C"}
    rig.write(lambda tx: [notes.keep(tx, {**args, "at": at, "text": "x" * 10_000}) for at in (-1e18, 5.5, 1e18)])
    found = rig.get(Notes, "GET", "/v1/notes").notes
    assert [note.at for note in found] == [0.0, 5.5, notes.LATEST_AT]
    assert [len(note.text) for note in found] == [MAX_NOTE_CHARACTERS] * 3
    assert datetime.fromtimestamp(found[2].at).year == 9999


def from_text(text: str) -> WireMessage:
    return from_json(WireMessage, loads(text))


def test_notes_are_read_on_from_the_last_one(rig: Rig) -> None:
    tell(rig, "a", "b", "c", home=rig.own)
    newest = rig.get(Notes, "GET", "/v1/notes?limit=2")
    assert [note.text for note in newest.notes] == ["b", "c"]
    assert told(rig, f"?after={newest.next}") == []
    first = rig.get(Notes, "GET", "/v1/notes?after=0&limit=2")
    assert [note.text for note in first.notes] == ["a", "b"]
    assert told(rig, f"?after={first.next}") == ["c"]


def test_a_home_keeps_the_newest_notes_by_number_and_by_bytes(rig: Rig) -> None:
    def keep(count: int, text: str) -> None:
        args = {"at": 1.0, "level": "info", "host_name": "h", "agent_id": "p", "class_name": "m:C"}
        rig.write(lambda tx: [notes.keep(tx, {**args, "text": f"{text}{n}"}) for n in range(count)])

    keep(notes.MAX_NOTES + 3, "")
    assert told(rig, "?after=0")[0] == "3"
    assert rig.value("SELECT count(*) FROM notes") == notes.MAX_NOTES
    keep(2000, "é" * 1900)
    assert rig.value("SELECT sum(size_bytes) FROM notes") <= notes.MAX_NOTE_BYTES
    assert told(rig, "?limit=1")[0].endswith("1999")


def test_notes_for_a_home_that_is_away_do_not_pile_up(rig: Rig) -> None:
    many = [f"{number}" for number in range(notes.MAX_NOTES + 5)]
    tell(rig, *many, home=HostRef(store_id="store-gone", name="gone", url="http://gone:1"))
    lying = [each["args"]["text"] for each in rig.outbox()]
    assert lying == many[5:]


# Schema.


def test_an_envelope_of_a_program_without_these_is_read(rig: Rig) -> None:
    tree = to_json(envelope())
    for field in ("service", "inactive", "wakes_in_seconds"):
        del tree[field]
    assert from_json(Envelope, tree) == envelope()
