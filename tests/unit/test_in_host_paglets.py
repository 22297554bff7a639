"""The collector's handlers inside the store's transaction: batches of posts, parked calls, and their time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from host_rig import Rig, envelope, group, host_ref

from paglets.api.calls import CallReply
from paglets.api.paglets import PagletView
from paglets.codec.envelope import Post, WireMessage
from paglets.core.agent import Paglet, PagletState
from paglets.core.errors import Invalid, Moved, NotHandled, PagletsError, TimedOut, Unknown
from paglets.core.messages import Message
from paglets.core.record import to_json
from paglets.core.refs import ArtifactRef, BlobRef
from paglets.groups.keys import collector_id
from paglets.host.records import in_host
from paglets.host.records.in_host_storage import InHostStorage
from paglets.host.records.lifecycle import set_pending_action
from paglets.store import blobs, receiving, residence
from paglets.store.db import Tx, open_store

COLLECTOR = collector_id("g1")
W1 = host_ref("w1")


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.write(lambda tx: rig.host.submission.submit(tx, "ab" * 16, group("a", "b")))
    return rig


def send(rig: Rig, *messages: WireMessage) -> None:
    first = rig.value("SELECT coalesce(max(n), 0) FROM taken") + 1
    batch = tuple(
        Post(sender_store="s1", n=n, agent_id=COLLECTOR, message=message) for n, message in enumerate(messages, first)
    )
    answers = rig.write(lambda tx: receiving.receive(tx, batch, (), 0.0))
    assert {answer.verdict for answer in answers} == {"taken"}


def result(key: str, value: Any = None) -> WireMessage:
    return WireMessage(kind="job_result", args={"job_key": key, "result": value})


def summary(rig: Rig) -> Any:
    return rig.call(COLLECTOR, "summary").value


# Posts.


def test_reports_are_taken_in_one_batch(rig: Rig) -> None:
    send(rig, result("a", 1), result("b", {"$tuple": [2]}))
    rig.run()
    found = summary(rig)
    assert (found["completed_count"], found["status"]) == (2, "COMPLETE")
    assert found["results"]["b"]["result"] == {"$tuple": [2]}
    assert rig.value("SELECT count(*) FROM inbox") == 0


def test_a_post_that_raises_undoes_itself_and_no_other_of_its_batch(rig: Rig) -> None:
    bad = WireMessage(kind="job_result", args={"job_key": 5})
    send(rig, result("a", 1), bad, result("b", 2))
    rig.run()
    assert summary(rig)["completed_count"] == 2
    assert rig.all("SELECT n, status, tries FROM inbox") == [(2, "waiting", 1)]
    assert any("job_result" in line for line in rig.log)


def test_a_post_that_raises_is_tried_again_later_and_is_dead_after_five_tries(rig: Rig) -> None:
    send(rig, WireMessage(kind="nonsense", args={}))
    rig.run()
    assert rig.all("SELECT status, tries FROM inbox") == [("waiting", 1)]
    rig.run(80)
    assert rig.all("SELECT status, tries FROM inbox") == [("dead", 5)]
    assert "NotHandled" in rig.value("SELECT error FROM inbox")
    assert rig.get(PagletView, "GET", f"/v1/paglets/{COLLECTOR}").dead_posts == 1
    assert rig.faults() == []


class Odd(Paglet[PagletState]):
    """A paglet whose handlers fail in unexpected ways."""

    def handle_message(self, message: Message) -> Any:
        self.storage["seen/" + message.kind] = 1
        if message.kind == "too long":
            self.storage["k" * 600] = 1
        elif message.kind == "deep":
            return self.handle_message(message)
        elif message.kind == "index":
            return [][1]
        return None


def test_a_post_that_fails_in_any_way_is_noted_with_that_post_and_stops_no_other(rig: Rig) -> None:
    kinds = ("index", "fine", "too long", "deep", "also fine")
    odd = replace(envelope("odd"), class_name=f"{Odd.__module__}:Odd", state={})
    rig.write(lambda tx: residence.create(tx, odd, 1.0))
    batch = [
        Post(sender_store="s", n=n, agent_id="odd", message=WireMessage(kind=k, args={})) for n, k in enumerate(kinds)
    ]
    rig.write(lambda tx: receiving.receive(tx, tuple(batch), (), 0.0))
    count, raised = rig.write(lambda tx: in_host.take_posts(tx, rig.host.host_view, "odd", 10))
    assert count == 5
    assert [each.tries for each in raised] == [1, 1, 1]
    assert [key for (key,) in rig.all("SELECT key FROM storage WHERE agent_id = 'odd'")] == [
        "seen/also fine",
        "seen/fine",
    ]
    assert [row[0] for row in rig.all("SELECT n FROM inbox WHERE tries = 1 ORDER BY n")] == [0, 2, 3]


def test_held_changes_are_seen_by_each_read_and_stored_together(rig: Rig) -> None:
    def use(tx: Tx) -> list[Any]:
        storage = InHostStorage(tx, "odd")
        storage["a"], storage["b"], storage["c"] = 1, 2, 3
        storage.hold(("a", "missing"))
        storage["a"] = 10
        del storage["b"]
        storage.discard("missing")
        storage["d"] = 4
        seen = [storage["a"], storage.get("b"), storage.get("missing"), "b" in storage, storage["c"]]
        in_rows = [row[0] for row in tx.all("SELECT key FROM storage WHERE agent_id = 'odd' ORDER BY key")]
        return [*seen, in_rows, storage.scan(""), storage["a"], len(storage)]

    rig.write(lambda tx: residence.create(tx, envelope("odd"), 1.0))
    entries = [("a", 10), ("c", 3), ("d", 4)]
    assert rig.write(use) == [10, None, None, False, 3, ["a", "b", "c"], entries, 10, 3]


def test_100_reports_cost_few_statements(rig: Rig) -> None:
    keys = [f"k{n:03d}" for n in range(100)]
    rig.write(lambda tx: rig.host.submission.submit(tx, "ef" * 16, group(*keys, group_id="g3")))
    rig.run()
    collector = collector_id("g3")
    batch = [Post(sender_store="s", n=n, agent_id=collector, message=result(key)) for n, key in enumerate(keys)]
    counted = []
    rig.store._writer.set_trace_callback(counted.append)
    rig.write(lambda tx: receiving.receive(tx, tuple(batch), (), 0.0))
    rig.write(lambda tx: in_host.take_posts(tx, rig.host.host_view, collector, 100))
    rig.store._writer.set_trace_callback(None)
    reads = [sql for sql in counted if sql.startswith("SELECT")]
    assert len(reads) < 30
    assert len(counted) < 9.5 * len(keys)  # one row operation each: taken, inbox, three entries, and what they replace
    assert rig.value("SELECT count(*) FROM inbox") == 0


def test_a_post_with_artifacts_is_refused_and_not_sent_without_them(rig: Rig) -> None:
    ref = ArtifactRef(
        artifact_id="art-12345678", name="x", size_bytes=1, sha256="0" * 64, host_name="w1", owner="", created_at=1.0
    )

    def post(tx: Tx) -> None:
        context = in_host.InHostContext(tx, rig.host.host_view, COLLECTOR)
        context.post(context.ref, Message("go on", artifacts=(ref,)))

    with pytest.raises(Invalid, match="artifacts"):
        rig.write(post)
    assert rig.outbox() == []


def test_a_collector_whose_state_cannot_be_read_neither_spins_nor_stops_the_others(rig: Rig) -> None:
    rig.write(lambda tx: rig.host.submission.submit(tx, "cd" * 16, group("x", group_id="g2")))
    rig.write(
        lambda tx: tx.run("UPDATE paglet_states SET state = '{\"of_the_future\":1}' WHERE agent_id = ?", COLLECTOR)
    )
    send(rig, result("a"))
    steps = rig.steps
    rig.run(5)
    assert rig.steps - steps < 100
    other = collector_id("g2")
    rig.write(
        lambda tx: receiving.receive(tx, (Post(sender_store="s2", n=1, agent_id=other, message=result("x")),), (), 0.0)
    )
    rig.run(1)
    assert rig.call(other, "summary").value["completed_count"] == 1
    assert rig.value("SELECT count(*) FROM inbox WHERE agent_id = ?", COLLECTOR) == 1
    assert rig.faults() == []


# Calls.


def test_a_call_that_only_reads_writes_nothing_whatever_the_row_looks_like(tmp_path: Any) -> None:
    store = open_store(tmp_path / "paglets.db", lambda error: None)
    kind = in_host.IN_HOST_CLASSES[0]
    collector = replace(envelope("c1"), class_name=kind, kind="collector", state={"home_store_id": "store-home"})
    host = in_host.HostView(own=W1, wall=lambda: 5.0, resolve=lambda name: W1, hosts=lambda: ())
    store.write(lambda tx: residence.create(tx, collector, 1.0))
    message = WireMessage(kind="summary", args={})
    assert in_host.is_read_only(kind, message)
    assert store.read(lambda tx: in_host.call(tx, host, "c1", message)).value["expected_count"] == 0
    assert not in_host.is_read_only(kind, result("a"))
    store.close()


def test_a_call_is_answered_at_once_and_an_unknown_kind_says_so(rig: Rig) -> None:
    assert summary(rig)["expected_count"] == 2
    assert isinstance(rig.call(COLLECTOR, "nonsense").error, NotHandled)


def test_a_call_that_waits_is_answered_by_the_commit_that_ends_its_wait(rig: Rig) -> None:
    reply = rig.call(COLLECTOR, "drain")
    send(rig, result("a"))
    rig.run(1)
    assert reply.response is None
    send(rig, result("b"))
    rig.run()
    assert reply.value["completed_count"] == 2


def test_a_call_whose_own_time_is_over_is_told_so(rig: Rig) -> None:
    reply = rig.call(COLLECTOR, "drain", {"timeout_seconds": 10.0})
    rig.run(9.9)
    assert reply.response is None
    rig.run(0.2)
    assert isinstance(reply.error, TimedOut)


def test_a_caller_that_asks_again_waits_no_longer_than_it_said(rig: Rig) -> None:
    def ask(again: bool) -> Any:
        return rig.call(COLLECTOR, "drain", {"timeout_seconds": 10.0}, call_id="c", wait_seconds=4.0, again=again)

    for again in (False, True):
        reply = ask(again)
        rig.run(4.1)
        assert reply.record == CallReply(waiting=True)
    reply = ask(True)
    rig.run(1.7)
    assert reply.response is None
    rig.run(0.3)
    assert isinstance(reply.error, TimedOut)


def test_a_call_with_no_time_at_all_is_tested_once(rig: Rig) -> None:
    assert isinstance(rig.call(COLLECTOR, "drain", {"timeout_seconds": 0}).error, TimedOut)


@pytest.mark.parametrize("how", ["gone", "disposed"])
def test_a_call_that_waited_while_its_paglet_left_is_told_where_it_is(rig: Rig, how: str) -> None:
    reply = rig.call(COLLECTOR, "drain")
    rig.run()
    if how == "gone":
        rig.write(lambda tx: residence.leave(tx, COLLECTOR, W1, rig.now()))
        rig.write(lambda tx: residence.acknowledged(tx, COLLECTOR, 2, rig.now()))
    else:
        rig.write(lambda tx: residence.dispose(tx, COLLECTOR, rig.now()))
    rig.run()
    expected: type[PagletsError] = Moved if how == "gone" else Unknown
    assert isinstance(reply.error, expected)
    if how == "gone":
        assert reply.error.details == {"host": to_json(W1), "epoch": 2}


def test_an_intent_of_a_post_that_raised_is_forgotten(rig: Rig) -> None:
    """Keep the intent of the last handler that returned."""
    host = rig.host.host_view

    def change(tx: Any) -> tuple[Any, Any]:
        paglet = in_host.InHostPaglet(tx, host, COLLECTOR)
        paglet._context.intend_move(W1)
        paglet.keep()
        paglet._context.intend_dispose()
        paglet.restore()
        paglet.save()
        return tx.value("SELECT intent FROM paglets WHERE agent_id = ?", COLLECTOR), paglet._context.intent

    text, intent = rig.write(change)
    assert intent == {"move": to_json(W1)}
    assert "move" in text


REFUSED = {
    "create": 1,
    "proxy": 1,
    "call": 2,
    "submit_group": 1,
    "work_dir": 0,
    "report": 1,
    "publish_bytes": 1,
    "publish_file": 1,
    "register_file": 3,
    "file_path": 1,
    "upload_artifact": 4,
    "download_artifact": 4,
    "send_artifact": 5,
}
"""The methods of the context with their number of arguments."""


@pytest.mark.parametrize("op", REFUSED)
def test_what_needs_a_process_is_refused(rig: Rig, op: str) -> None:
    context = rig.store.read(lambda tx: in_host.InHostContext(tx, rig.host.host_view, COLLECTOR))
    with pytest.raises(PagletsError, match=op):
        getattr(context, op)(*[None] * REFUSED[op])


def with_artifact(key: str, artifact_id: str) -> WireMessage:
    ref = ArtifactRef(
        artifact_id=artifact_id,
        name="rows.db",
        size_bytes=4,
        sha256="ab" * 32,
        host_name="w1",
        owner=COLLECTOR,
        created_at=1.0,
    )
    args = {"job_key": key, "result": {"artifact": ref.to_wire()}}
    return WireMessage(kind="job_result", args=args, artifacts=(ref,))


def test_only_the_artifacts_of_reports_that_are_taken_stay(rig: Rig) -> None:
    rig.write(lambda tx: blobs.add(tx, BlobRef(sha256="ab" * 32, size_bytes=4), 0.0))
    bad = WireMessage(kind="job_result", args={"job_key": 5}, artifacts=with_artifact("a", "art-00000003").artifacts)
    send(rig, with_artifact("a", "art-00000001"), with_artifact("a", "art-00000002"), bad)
    rig.run()
    assert summary(rig)["results"]["a"]["result"]["artifact"]["artifact_id"] == "art-00000001"
    # The third may be handled yet.
    kept = rig.all("SELECT artifact_id, owner FROM artifacts ORDER BY artifact_id")
    assert kept == [("art-00000001", COLLECTOR), ("art-00000003", COLLECTOR)]


def test_a_paglet_inside_its_host_deletes_its_own_artifacts_only(rig: Rig) -> None:
    rig.write(lambda tx: blobs.add(tx, BlobRef(sha256="ab" * 32, size_bytes=4), 0.0))
    send(rig, with_artifact("a", "art-00000001"))
    rig.write(lambda tx: in_host.InHostContext(tx, rig.host.host_view, "p1").delete_artifact("art-00000001"))
    assert rig.value("SELECT count(*) FROM artifacts") == 1
    rig.write(lambda tx: in_host.InHostContext(tx, rig.host.host_view, COLLECTOR).delete_artifact("art-00000001"))
    assert rig.value("SELECT count(*) FROM artifacts") == 0


def test_storage_is_a_map_in_order_of_keys(rig: Rig) -> None:
    def change(tx: Any) -> None:
        storage = in_host.InHostStorage(tx, "p1")
        residence.create(tx, envelope("p1"), 1.0)
        for key in ("b/2", "a", "b/1", "c", "b/3"):
            storage[key] = {"v": key}
        assert storage.scan("b/") == [(key, {"v": key}) for key in ("b/1", "b/2", "b/3")]
        assert [key for key, _ in storage.scan("b/", after="b/1", limit=1)] == ["b/2"]
        assert list(storage) == ["a", "b/1", "b/2", "b/3", "c"]
        assert len(storage) == 5
        storage["a"] = None
        assert storage["a"] is None
        del storage["a"]
        assert "a" not in storage
        for missing in (lambda: storage["a"], lambda: storage.__delitem__("a")):
            with pytest.raises(KeyError):
                missing()

    rig.write(change)


def test_a_collector_that_is_to_end_does_not_stay_for_what_comes_meanwhile(rig: Rig) -> None:
    rig.write(lambda tx: set_pending_action(tx, COLLECTOR, {"dispose": True}))
    send(rig, result("a"), result("b"), WireMessage(kind="register_jobs", args={"jobs": [{"job_key": "c"}]}))
    rig.run()
    assert rig.value("SELECT status FROM residence WHERE agent_id = ?", COLLECTOR) == "disposed"
