"""Posts: in order out of the outbox, once into an inbox, dead after five tries."""

from __future__ import annotations

import pytest
from host_rig import envelope, host_ref
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.api.posts import PostAnswer, SettledBelow
from paglets.codec.envelope import Post, WireMessage
from paglets.core.refs import ProxyRef
from paglets.store import handoffs, notes, posts, receiving, residence
from paglets.store.db import Store
from paglets.store.pages import Budget
from tests.fakes.store import memory_store

W1, W2 = host_ref("w1"), host_ref("w2")
NOW = 1_000.0


@pytest.fixture
def store() -> Store:
    store = memory_store()
    store.write(lambda tx: residence.create(tx, envelope("p1"), NOW))
    return store


def post(n: int, agent_id: str = "p1", sender: str = "s1") -> Post:
    return Post(sender_store=sender, n=n, agent_id=agent_id, message=WireMessage(kind=f"k{n}", args={}))


def receive(store: Store, *numbers: int, below: int | None = None, sender: str = "s1") -> list[str]:
    settled = () if below is None else (SettledBelow(agent_id="p1", settled_below=below),)
    batch = tuple(post(n, sender=sender) for n in numbers)
    return [answer.verdict for answer in store.write(lambda tx: receiving.receive(tx, batch, settled, 0.0))]


def one(store: Store) -> PostAnswer:
    return store.write(lambda tx: receiving.receive(tx, (post(1),), (), 0.0))[0]


def inbox(store: Store) -> list[str]:
    return [each.message.kind for each in store.read(lambda tx: posts.unhandled(tx, "p1", 100))]


def marks(store: Store) -> tuple[int, list[int]]:
    below = store.read(lambda tx: tx.value("SELECT settled_below FROM taken_marks"))
    return below, [row[0] for row in store.read(lambda tx: tx.all("SELECT n FROM taken ORDER BY n"))]


# Into the inbox.


def test_a_post_is_taken_once_however_often_it_comes(store: Store) -> None:
    assert receive(store, 1, 2, 1) == ["taken", "taken", "duplicate"]
    assert receive(store, 2, 3) == ["duplicate", "taken"]
    assert inbox(store) == ["k1", "k2", "k3"]


def test_the_same_number_of_another_sender_is_another_post(store: Store) -> None:
    assert receive(store, 1) + receive(store, 1, sender="s2") == ["taken", "taken"]


def test_a_handled_post_is_not_taken_again(store: Store) -> None:
    receive(store, 1)
    (waiting,) = store.read(lambda tx: posts.unhandled(tx, "p1", 10))
    assert store.write(lambda tx: posts.remove_handled(tx, waiting.seq)) is True
    assert store.write(lambda tx: posts.remove_handled(tx, waiting.seq)) is False
    assert receive(store, 1) == ["duplicate"]
    assert inbox(store) == []


def test_what_the_sender_has_settled_is_remembered_by_one_number(store: Store) -> None:
    receive(store, 3, 4, 6)
    assert receive(store, 7, below=6) == ["taken"]
    assert marks(store) == (6, [6, 7])
    assert receive(store, 3, 5, 6) == ["duplicate", "duplicate", "duplicate"]


def test_a_mark_never_goes_back(store: Store) -> None:
    receive(store, 5, below=5)
    receive(store, 6, below=2)
    assert marks(store) == (5, [5, 6])


def test_a_mark_counts_for_its_paglet_and_sender_only(store: Store) -> None:
    store.write(lambda tx: residence.create(tx, envelope("p2"), NOW))
    batch = (post(9), post(9, "p2"), post(9, sender="s2"))
    settled = (SettledBelow(agent_id="p1", settled_below=9), SettledBelow(agent_id="p3", settled_below=99))
    store.write(lambda tx: receiving.receive(tx, batch[:2], settled, 0.0))
    assert receive(store, 1) == ["duplicate"]
    assert [a.verdict for a in store.write(lambda tx: receiving.receive(tx, (post(1, "p2"),), (), 0.0))] == ["taken"]
    assert receive(store, 1, sender="s2") == ["taken"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 12), st.booleans()), max_size=40))
def test_each_post_is_taken_once_in_whatever_order_batches_and_marks_come(sends: list[tuple[int, bool]]) -> None:
    store = memory_store()
    store.write(lambda tx: residence.create(tx, envelope("p1"), NOW))
    acknowledged: set[int] = set()
    taken: list[int] = []
    for n, with_mark in sends:
        open_ones = [each for each in range(1, 14) if each not in acknowledged]
        verdicts = receive(store, n, below=min(open_ones) if with_mark and n not in acknowledged else None)
        taken += [n] if verdicts == ["taken"] else []
        acknowledged.add(n)
    assert sorted(taken) == sorted({n for n, _ in sends})


def test_a_paglet_that_nobody_knows_or_that_ended_is_unknown(store: Store) -> None:
    (answer,) = store.write(lambda tx: receiving.receive(tx, (post(1, "p9"),), (), 0.0))
    assert answer.verdict == "unknown"
    store.write(lambda tx: residence.dispose(tx, "p1", NOW))
    assert one(store).verdict == "unknown"


def test_a_paglet_on_its_way_takes_no_posts_and_one_that_went_says_where(store: Store) -> None:
    store.write(lambda tx: residence.leave(tx, "p1", W1, NOW))
    assert one(store).verdict == "moving"
    store.write(lambda tx: residence.acknowledged(tx, "p1", 2, NOW))
    assert one(store) == PostAnswer(n=1, verdict="moved", host=W1, epoch=2)


def test_a_refused_paglet_is_where_it_came_from(store: Store) -> None:
    store.write(lambda tx: residence.take(tx, envelope("p1", epoch=2), W2, NOW, lambda tx, each: "no"))
    assert one(store) == PostAnswer(n=1, verdict="moved", host=W2, epoch=2)


def test_what_was_taken_is_known_where_the_paglet_goes(store: Store) -> None:
    receive(store, 1, 2, 5, below=1)
    receive(store, 6, below=3)
    store.write(lambda tx: residence.leave(tx, "p1", W1, NOW))
    handoff = store.read(lambda tx: handoffs.find(tx, "p1", 1))
    assert handoff is not None
    there = memory_store()
    there.write(lambda tx: residence.take(tx, handoff.envelope, W2, NOW, lambda tx, each: None))
    assert receive(there, 1, 2, 5, 6, 3) == ["duplicate"] * 4 + ["taken"]
    assert inbox(there) == ["k1", "k2", "k5", "k6", "k3"]


# Handlers that raise.


def test_a_post_whose_handler_raised_five_times_is_dead_and_kept(store: Store) -> None:
    receive(store, 1, 2)
    (first, _) = store.read(lambda tx: posts.unhandled(tx, "p1", 10))
    said = [store.write(lambda tx: posts.record_error(tx, first.seq, "it broke")) for _ in range(5)]
    assert said == [1, 2, 3, 4, 5]
    assert inbox(store) == ["k2"]
    row = store.read(lambda tx: tx.one("SELECT status, tries, error FROM inbox WHERE seq = ?", first.seq))
    assert row is not None
    assert tuple(row) == ("dead", 5, "it broke")
    assert receive(store, 1) == ["duplicate"]


def test_a_post_that_is_gone_raised_never(store: Store) -> None:
    assert store.write(lambda tx: posts.record_error(tx, 99, "late")) == 0


def test_posts_that_are_to_be_skipped_hold_up_no_others(store: Store) -> None:
    receive(store, 1, 2)
    (first, second) = store.read(lambda tx: posts.unhandled(tx, "p1", 10))
    assert store.read(lambda tx: posts.unhandled(tx, "p1", 1, [first.seq])) == [second]


def test_a_long_error_is_cut(store: Store) -> None:
    receive(store, 1)
    store.write(lambda tx: posts.record_error(tx, 1, "x" * 10_000))
    assert len(store.read(lambda tx: tx.value("SELECT error FROM inbox"))) == 2_000


# Out of the outbox.


def send(store: Store, agent_id: str = "q1", text: str = "", **more: str) -> int:
    target = ProxyRef(agent_id=agent_id, host=W1)
    message = WireMessage(kind="hi", args={"text": text})
    return store.write(lambda tx: posts.send(tx, target, message, NOW, **more))  # type: ignore[arg-type]


def outgoing(store: Store, host: str = W1.store_id, most: int = 100, most_bytes: int = 1 << 20) -> list[int]:
    budget = Budget(items=most, size_bytes=most_bytes)
    return [each.n for each in store.read(lambda tx: posts.next_outgoing(tx, host, budget)).items]


def test_posts_go_out_in_the_order_in_which_they_were_written(store: Store) -> None:
    assert [send(store), send(store), send(store)] == [1, 2, 3]
    assert outgoing(store) == [1, 2, 3]
    assert store.read(posts.destinations) == [W1]


def test_a_batch_is_bounded_by_bytes_not_by_characters(store: Store) -> None:
    target = ProxyRef(agent_id="p1", host=W1)
    for _ in range(3):
        message = WireMessage(kind="x", args={"text": "\U0001f600" * 1000})
        store.write(lambda tx, message=message: posts.send(tx, target, message, NOW))
    assert outgoing(store, most_bytes=10_000) == [1, 2]


def test_a_number_is_never_used_again(store: Store) -> None:
    send(store)
    store.write(lambda tx: posts.remove_delivered(tx, 1))
    assert send(store) == 2


def test_a_batch_has_at_least_one_post_and_keeps_to_its_bounds(store: Store) -> None:
    for _ in range(4):
        send(store, text="x" * 1_000)
    assert outgoing(store, most=3) == [1, 2, 3]
    assert outgoing(store, most_bytes=10) == [1]
    assert outgoing(store, most_bytes=2_500) == [1, 2]


def test_the_mark_of_a_paglet_is_its_oldest_post_that_is_not_acknowledged(store: Store) -> None:
    for agent_id in ("q1", "q2", "q1"):
        send(store, agent_id)
    ids = ("q1", "q2", "q3")
    assert [m.settled_below for m in store.read(lambda tx: posts.settled_below(tx, ids, W1.store_id))] == [1, 2]
    store.write(lambda tx: posts.remove_delivered(tx, 1))
    assert store.read(lambda tx: posts.settled_below(tx, ids, W1.store_id)) == (
        SettledBelow(agent_id="q1", settled_below=3),
        SettledBelow(agent_id="q2", settled_below=2),
    )


def test_notes_to_a_home_that_is_away_do_not_hold_up_the_mark_of_another(store: Store) -> None:
    message = WireMessage(kind="note", args={})
    for home in (W1, W2, W2):
        store.write(lambda tx, home=home: posts.send(tx, ProxyRef(agent_id=notes.READER, host=home), message, NOW))
    store.write(lambda tx: posts.remove_delivered(tx, 2))
    (mark,) = store.read(lambda tx: posts.settled_below(tx, (notes.READER,), W2.store_id))
    assert mark.settled_below == 3


def test_a_delivered_report_tells_whose_it_was_once(store: Store) -> None:
    n = send(store, report_of="j1")
    assert store.write(lambda tx: posts.remove_delivered(tx, n)) == "j1"
    assert store.write(lambda tx: posts.remove_delivered(tx, n)) is None
    plain = send(store)
    assert store.write(lambda tx: posts.remove_delivered(tx, plain)) is None


def test_posts_follow_a_paglet_that_moved(store: Store) -> None:
    for agent_id in ("q1", "q2", "q1"):
        send(store, agent_id)
    store.write(lambda tx: posts.redirect(tx, "q1", W2))
    assert outgoing(store) == [2]
    assert outgoing(store, W2.store_id) == [1, 3]
    assert store.read(posts.destinations) == [W1, W2]
