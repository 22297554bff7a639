"""Hand-offs: each case of accepting, refusing, repeating and rollback, and the content of an envelope."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any

import pytest
from host_rig import envelope, host_ref, job, job_part
from hypothesis import given, settings
from hypothesis import strategies as st

from paglets.codec.envelope import Envelope, InboxPost, JobPart, Post, TakenPosts, WireMessage
from paglets.codec.strict_json import loads
from paglets.core.errors import Conflict, Unknown
from paglets.core.record import from_json
from paglets.core.refs import BlobRef, FileRef, ProxyRef
from paglets.slots import states
from paglets.store import blobs, copies, files, handoffs, paglets, queue, residence
from paglets.store.db import Store, Tx
from paglets.store.files import RegisteredSource
from paglets.store.pages import FIRST_PLACE, Budget
from tests.fakes.store import memory_store
from tests.invariants import sanity_check

A, B = host_ref("a"), host_ref("b")
NOW = 1_000.0
TEN = Budget(items=10, size_bytes=1 << 20)


@pytest.fixture
def store() -> Store:
    return memory_store()


def willing(tx: Tx, envelope: Envelope) -> str | None:
    return None


def unwilling(tx: Tx, envelope: Envelope) -> str | None:
    return "no room"


def take(store: Store, each: Envelope, refuse: residence.Refuse = willing) -> tuple[str, str]:
    answer = store.write(lambda tx: residence.take(tx, each, A, NOW, refuse))
    assert (answer.agent_id, answer.epoch) == (each.agent_id, each.epoch)
    return answer.verdict, answer.reason


def under_way(store: Store) -> list[handoffs.Handoff]:
    """All envelopes on their way to B."""

    def look(tx: Tx) -> list[handoffs.Handoff]:
        leaving = handoffs.next_leaving(tx, B.store_id, TEN).items
        return [found for each in leaving if (found := handoffs.find(tx, each.agent_id, each.epoch)) is not None]

    return store.read(look)


def row(store: Store, agent_id: str = "p1") -> tuple[int, str, str | None]:
    found = store.read(lambda tx: residence.find(tx, agent_id))
    assert found is not None
    return found.epoch, found.status, found.peer.name if found.peer else None


def count(store: Store, table: str) -> int:
    return int(store.read(lambda tx: tx.value(f"SELECT count(*) FROM {table}")))


def whole(agent_id: str = "p1") -> Envelope:
    """A paglet with something in each of its tables."""
    return replace(
        envelope(agent_id, job=job_part()),
        storage={"k": {"$bytes": "YQ=="}, "l": [1, 2.5, None]},
        inbox=(
            InboxPost(
                post=Post(sender_store="s9", n=7, agent_id=agent_id, message=WireMessage(kind="hi", args={"x": 1}))
            ),
        ),
        taken=(TakenPosts(sender_store="s9", settled_below=5, ids=(7, 9)),),
    )


def put_here(store: Store, each: Envelope) -> None:
    store.write(lambda tx: residence.create(tx, each, NOW))


def leave(store: Store, agent_id: str = "p1") -> None:
    store.write(lambda tx: residence.leave(tx, agent_id, B, NOW))


# Creation.


def test_a_new_paglet_is_here_and_the_same_creation_once_more_changes_nothing(store: Store) -> None:
    assert store.write(lambda tx: residence.create(tx, envelope(), NOW)) is True
    assert store.write(lambda tx: residence.create(tx, envelope(state={"n": 2}), NOW)) is False
    assert row(store) == (1, "here", None)
    assert store.read(lambda tx: tx.value("SELECT state FROM paglet_states")) == '{"n":1}'


@pytest.mark.parametrize("ended", ["disposed", "gone", "leaving", "refused"])
def test_the_id_of_a_paglet_that_was_known_creates_nothing(store: Store, ended: str) -> None:
    put_here(store, envelope())
    if ended == "disposed":
        store.write(lambda tx: residence.dispose(tx, "p1", NOW))
    elif ended == "refused":
        take(store, envelope(epoch=2), unwilling)
    else:
        leave(store)
        if ended == "gone":
            store.write(lambda tx: residence.acknowledged(tx, "p1", 2, NOW))
    assert store.write(lambda tx: residence.create(tx, envelope(), NOW)) is False
    assert row(store)[1] == ended
    assert count(store, "paglets") == 0


# The table of cases of a target: what it knows, and what comes.


def known(store: Store, status: str) -> None:
    """The target knows the paglet under epoch 3, with that status."""
    if status == "refused":
        take(store, envelope(epoch=3), unwilling)
        return
    take(store, envelope(epoch=2 if status == "gone" else 3))
    if status == "disposed":
        store.write(lambda tx: residence.dispose(tx, "p1", NOW))
    elif status in ("leaving", "gone"):
        leave(store)
        if status == "gone":
            store.write(lambda tx: residence.acknowledged(tx, "p1", 3, NOW))
    assert row(store)[:2] == (3, status)


STATUSES = ("here", "leaving", "gone", "refused", "disposed")


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(("refuse", "epoch"), [(willing, 2), (unwilling, 2), (willing, 3), (unwilling, 3)])
def test_a_known_or_lower_epoch_is_answered_from_the_row_and_changes_nothing(
    store: Store, status: str, refuse: residence.Refuse, epoch: int
) -> None:
    known(store, status)
    before = [tuple(each) for each in store.read(lambda tx: tx.all("SELECT * FROM residence"))], count(store, "paglets")
    expected = "settled" if epoch == 2 else "refused" if status == "refused" else "taken"
    assert take(store, envelope(epoch=epoch, state={"n": 9}), refuse)[0] == expected
    after = [tuple(each) for each in store.read(lambda tx: tx.all("SELECT * FROM residence"))], count(store, "paglets")
    assert after == before


@pytest.mark.parametrize("status", STATUSES)
def test_a_higher_epoch_is_taken_and_ends_what_was_there(store: Store, status: str) -> None:
    known(store, status)
    assert take(store, envelope(epoch=4, state={"n": 4})) == ("taken", "")
    assert row(store) == (4, "here", "a")
    assert count(store, "handoffs") == 0
    assert store.read(lambda tx: tx.value("SELECT state FROM paglet_states")) == '{"n":4}'
    assert store.read(lambda tx: sanity_check({"x": tx})) == []


@pytest.mark.parametrize("status", STATUSES)
def test_a_higher_epoch_may_be_refused_and_still_ends_what_was_there(store: Store, status: str) -> None:
    known(store, status)
    assert take(store, envelope(epoch=4), unwilling) == ("refused", "no room")
    assert row(store) == (4, "refused", "a")
    assert count(store, "paglets") == count(store, "handoffs") == 0


def test_a_refusal_stands_for_its_epoch_and_not_for_the_next(store: Store) -> None:
    take(store, envelope(epoch=2), unwilling)
    assert take(store, envelope(epoch=2), willing) == ("refused", "no room")
    assert take(store, envelope(epoch=3), willing)[0] == "taken"


def test_a_higher_epoch_ends_an_older_copy_that_runs(store: Store) -> None:
    put_here(store, job("p1"))

    def grant(tx: Tx) -> None:
        (waiting,) = queue.waiting_for_slot(tx, 10)
        assert queue.grant(tx, waiting, (0,), (), "token", 1, NOW)

    store.write(grant)
    assert take(store, replace(job("p1"), epoch=5))[0] == "taken"
    assert count(store, "leases") == count(store, "lease_units") == count(store, "runs") == 0
    assert store.read(lambda tx: tx.value("SELECT status FROM requests")) == "WAITING_FOR_SLOT"


# The source.


def test_a_paglet_that_leaves_is_its_envelope_and_nothing_else(store: Store) -> None:
    put_here(store, whole())
    leave(store)
    assert row(store) == (1, "leaving", "b")
    for table in ("paglets", "storage", "inbox", "taken", "taken_marks", "requests"):
        assert count(store, table) == 0, table
    (handoff,) = under_way(store)
    assert (handoff.epoch, handoff.envelope.epoch, handoff.target) == (1, 2, B)
    assert store.read(lambda tx: sanity_check({"x": tx})) == []


def test_nothing_leaves_while_its_code_runs_or_it_holds_a_slot(store: Store) -> None:
    put_here(store, envelope())
    store.write(lambda tx: queue.start_run(tx, "p1", "t", "run", 1, 1, 0, NOW))
    with pytest.raises(Conflict, match="is running"):
        leave(store)
    put_here(store, job("p2", "b"))
    store.write(lambda tx: tx.run("INSERT INTO leases VALUES ('p2', 1, 1, 0, 0, 1.0)"))
    with pytest.raises(Conflict, match="slot"):
        leave(store, "p2")
    assert row(store)[1] == row(store, "p2")[1] == "here"


@pytest.mark.parametrize("act", [residence.leave, residence.dispose])
def test_what_is_not_here_neither_leaves_nor_ends(store: Store, act: Any) -> None:
    args = (B, NOW) if act is residence.leave else (NOW,)
    with pytest.raises(Unknown):
        store.write(lambda tx: act(tx, "p1", *args))


def test_an_acknowledged_paglet_is_gone_and_points_to_where_it_went(store: Store) -> None:
    put_here(store, envelope())
    leave(store)
    assert store.write(lambda tx: residence.acknowledged(tx, "p1", 2, NOW))
    assert row(store) == (2, "gone", "b")
    assert count(store, "handoffs") == 0


@pytest.mark.parametrize("act", [residence.acknowledged, residence.put_back])
@pytest.mark.parametrize("epoch", [1, 3, 99])
def test_an_answer_for_another_epoch_settles_nothing(store: Store, act: Any, epoch: int) -> None:
    put_here(store, envelope())
    leave(store)
    assert not store.write(lambda tx: act(tx, "p1", epoch, NOW))
    assert row(store) == (1, "leaving", "b")


@pytest.mark.parametrize("first", [residence.acknowledged, residence.put_back])
@pytest.mark.parametrize("second", [residence.acknowledged, residence.put_back])
def test_of_two_answers_the_first_counts(store: Store, first: Any, second: Any) -> None:
    put_here(store, envelope())
    leave(store)
    assert store.write(lambda tx: first(tx, "p1", 2, NOW))
    before = row(store)
    assert not store.write(lambda tx: second(tx, "p1", 2, NOW))
    assert row(store) == before


def test_a_paglet_that_was_refused_is_here_again_and_goes_next_under_a_higher_epoch(store: Store) -> None:
    put_here(store, whole())
    leave(store)
    store.write(lambda tx: residence.put_back(tx, "p1", 2, NOW))
    assert row(store) == (2, "here", None)
    leave(store)
    (handoff,) = under_way(store)
    assert handoff.envelope.epoch == 3
    assert replace(handoff.envelope, epoch=1) == whole()


# Rollback of a move.


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("epoch", [2, 3])
def test_settling_what_is_known_says_what_became_of_it(store: Store, status: str, epoch: int) -> None:
    known(store, status)
    answer = store.write(lambda tx: residence.settle(tx, "p1", epoch, A, NOW))
    assert answer.verdict == ("refused" if status == "refused" and epoch == 3 else "taken")
    assert row(store)[:2] == (3, status)


@pytest.mark.parametrize("status", [None, *STATUSES])
def test_settling_what_never_came_stores_a_refusal_first(store: Store, status: str | None) -> None:
    if status is not None:
        known(store, status)
    answer = store.write(lambda tx: residence.settle(tx, "p1", 4, A, NOW))
    assert answer.verdict == "refused"
    assert row(store) == (4, "refused", "a")
    assert take(store, envelope(epoch=4))[0] == "refused"
    assert count(store, "paglets") == 0


def test_a_disposed_paglet_leaves_its_epoch_behind(store: Store) -> None:
    put_here(store, whole())
    store.write(lambda tx: residence.dispose(tx, "p1", NOW))
    assert row(store) == (1, "disposed", None)
    assert count(store, "paglets") == count(store, "taken") == 0


# What travels.


def test_freezing_and_inserting_is_the_identity(store: Store) -> None:
    put_here(store, whole())
    assert store.read(lambda tx: paglets.freeze(tx, "p1", 1, NOW)) == whole()


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
keys = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
posts = st.dictionaries(st.integers(1, 9), values, max_size=3).map(
    lambda found: tuple(
        InboxPost(
            post=Post(sender_store="s", n=n, agent_id="p1", message=WireMessage(kind="k", args={"v": value})),
            dead=n % 2 == 0,
            tries=n,
            error="it broke",
        )
        for n, value in found.items()
    )
)
taken = st.lists(st.integers(1, 50), unique=True, max_size=4).map(
    lambda ids: (TakenPosts(sender_store="s", settled_below=3, ids=tuple(sorted(ids))),)
)
parts = st.builds(
    JobPart,
    group_id=st.none() | st.just("g"),
    job_key=keys,
    collector=st.none() | st.just(ProxyRef(agent_id="c", host=A)),
    generation=st.integers(1, 9),
    attempt=st.integers(0, 9),
    status=st.sampled_from(states.JOB_TRANSITIONS.statuses()),
    request=st.just(job_part().request),
    submitted_state=values,
    checkpoint=values,
    failed_attempts=st.integers(0, 9),
    losses=st.integers(0, 9),
    waited_seconds=st.integers(0, 900).map(float),
    stolen=st.booleans(),
    outcome=st.none() | st.dictionaries(keys, values, max_size=2),
)


@settings(max_examples=60)
@given(
    state=values,
    storage=st.dictionaries(keys, values, max_size=4),
    inbox=posts,
    taken=taken,
    part=st.none() | parts,
    hook=st.sampled_from((None, "creation", "arrival", "run")),
    name=st.none() | keys,
)
def test_whatever_a_paglet_holds_comes_out_as_it_went_in(
    state: Any, storage: Any, inbox: Any, taken: Any, part: JobPart | None, hook: str | None, name: str | None
) -> None:
    store = memory_store()
    sent = envelope(state=state, job=part, storage=storage, inbox=inbox, taken=taken, hook=hook, name=name)
    put_here(store, sent)
    leave(store)
    (handoff,) = under_way(store)
    assert replace(handoff.envelope, epoch=1) == sent


def test_a_job_keeps_its_age_over_hosts(store: Store) -> None:
    put_here(store, replace(job("j1"), job=job_part(waited_seconds=100.0)))
    store.write(lambda tx: residence.leave(tx, "j1", B, NOW + 50))
    (handoff,) = under_way(store)
    assert handoff.envelope.job is not None
    assert handoff.envelope.job.waited_seconds == 150.0


def test_a_job_that_comes_back_has_waited_on_the_way_too(store: Store) -> None:
    put_here(store, job("j1", waited_seconds=100.0))
    store.write(lambda tx: residence.leave(tx, "j1", B, NOW + 50))
    store.write(lambda tx: residence.put_back(tx, "j1", 2, NOW + 80))
    assert store.read(lambda tx: tx.value("SELECT queued_at FROM requests")) == NOW - 100


def test_the_oldest_envelopes_come_first_each_with_its_size_and_its_needs(store: Store) -> None:
    bundle = BlobRef(sha256="ab" * 32, size_bytes=7)
    store.write(lambda tx: blobs.add(tx, bundle, NOW))
    for number in range(5):
        put_here(store, replace(envelope(f"p{number}", state="x" * 1000), bundle=bundle if number == 4 else None))
        store.write(lambda tx, number=number: residence.leave(tx, f"p{number}", B, NOW - number))
    found = store.read(lambda tx: handoffs.next_leaving(tx, B.store_id, TEN)).items
    assert [each.agent_id for each in found] == ["p4", "p3", "p2", "p1", "p0"]
    assert [each.needs for each in found] == [(bundle,), (), (), (), ()]
    assert all(1000 < each.size_bytes < 3000 and not each.asked_for for each in found)
    first = store.read(lambda tx: handoffs.next_leaving(tx, B.store_id, Budget(items=2, size_bytes=1 << 20)))
    assert [each.agent_id for each in first.items] == ["p4", "p3"]
    assert store.read(lambda tx: handoffs.next_leaving(tx, A.store_id, TEN)).items == []
    assert store.read(handoffs.targets) == [B]


def test_an_envelope_is_sent_with_the_newest_reference_to_its_collector(store: Store) -> None:
    old, new = (ProxyRef(agent_id="collector-x", host=host) for host in (A, B))
    put_here(store, envelope("j1", job=job_part(group_id="g1", collector=old), storage={"k": "ä"}))
    store.write(lambda tx: residence.leave(tx, "j1", B, NOW))

    def sent() -> Envelope:
        (text,) = store.read(lambda tx: handoffs.envelope_texts(tx, ["j1", "of another hand-off"]))
        return from_json(Envelope, loads(text))

    first = sent()
    assert (first.storage, first.epoch, first.job and first.job.collector) == ({"k": "ä"}, 2, old)
    store.write(lambda tx: copies.set_collector(tx, "g1", new))
    assert first.job is not None
    assert sent() == replace(first, job=replace(first.job, collector=new))


def test_the_size_of_an_envelope_is_that_of_its_bytes(store: Store) -> None:
    put_here(store, envelope("p1", state="\u00e4\u6f22" * 1000))
    store.write(lambda tx: residence.leave(tx, "p1", B, NOW))
    (found,) = store.read(lambda tx: handoffs.next_leaving(tx, B.store_id, TEN)).items
    text = store.read(lambda tx: handoffs.envelope_text(tx, "p1", found.epoch))
    assert found.size_bytes == len(text.encode()) > len(text)


def test_what_is_in_the_way_is_written_where_it_is_news(store: Store) -> None:
    """The texts of large rows are not rewritten, because an offline host is retried for weeks."""
    for agent_id, part in (("j1", job_part()), ("j2", job_part("b")), ("p1", None)):
        put_here(store, envelope(agent_id, job=part))
        store.write(lambda tx, agent_id=agent_id: residence.leave(tx, agent_id, B, NOW))

    def say(text: str, jobs: bool) -> int:
        return store.write(lambda tx: handoffs.set_target_problem(tx, B.store_id, text, jobs=jobs))

    assert [say("b is away", True), say("b is away", True), say("b is away", False), say("cut", True)] == [2, 0, 1, 2]
    store.write(lambda tx: handoffs.set_problem(tx, ("j1", 1), "full"))
    store.write(lambda tx: handoffs.set_problem(tx, ("j2", 2), "of another hand-off"))
    found = store.read(handoffs.jobs)
    assert [each.copy.reason_text for each in found] == ["on its way to b: full", "on its way to b: cut"]


def test_of_a_job_under_way_no_more_is_read_than_is_told(store: Store) -> None:
    ended = job_part("b", status="COMPLETED", outcome={"success": True})
    put_here(store, envelope("j1", job=job_part(group_id="g1", waited_seconds=5.0)))
    put_here(store, envelope("j2", job=ended))
    for agent_id in ("j1", "j2"):
        store.write(lambda tx, agent_id=agent_id: residence.leave(tx, agent_id, B, NOW + 2))
    one, two = store.read(handoffs.jobs)
    handoff = store.read(lambda tx: handoffs.find(tx, "j1", 1))
    assert handoff is not None
    assert handoff.envelope.job is not None
    assert (one.copy.agent_id, one.copy.epoch, one.collector, one.request) == (
        "j1",
        1,
        handoff.envelope.job.collector,
        handoff.envelope.job.request,
    )
    assert (one.copy.target, one.copy.reason_text) == (B, "on its way to b")
    assert (one.waited_seconds, one.began_at) == (7.0, NOW + 2)
    assert (one.ended, two.ended) == (False, True)
    assert store.read(lambda tx: handoffs.jobs(tx, "agent_id = ?", "j2")) == [two]
    assert store.read(lambda tx: handoffs.jobs(tx, most=1)) == [one]


def test_envelopes_are_looked_at_in_pages(store: Store) -> None:
    for number in range(5):
        put_here(store, envelope(f"p{number}"))
        store.write(lambda tx, number=number: residence.leave(tx, f"p{number}", B, NOW + number // 2))
    place, pages = FIRST_PLACE, []
    budget = Budget(items=2, size_bytes=1 << 20)
    for more in (True, True, False):
        page = store.read(lambda tx, place=place: handoffs.next_leaving(tx, B.store_id, budget, place))
        pages.append([each.agent_id for each in page.items])
        assert (page.after is not None) is more
        place = page.after or place
    assert pages == [["p0", "p1"], ["p2", "p3"], ["p4"]]


# What the schema makes impossible.


ILLEGAL = (
    "INSERT INTO residence (agent_id, epoch, status, since_at) VALUES ('x', 0, 'here', 1.0)",
    "INSERT INTO residence (agent_id, epoch, status, since_at) VALUES ('x', 1, 'lost', 1.0)",
    "INSERT INTO residence (agent_id, epoch, status, since_at) VALUES ('x', 1, 'leaving', 1.0)",
    "INSERT INTO residence (agent_id, epoch, status, since_at) VALUES ('x', 1, 'gone', 1.0)",
    "UPDATE residence SET settled = 2",
    "UPDATE paglets SET kind = 'ghost'",
    "UPDATE paglets SET hook = 'anything'",
    "UPDATE paglets SET created_at = 'yesterday'",
    "INSERT INTO paglets (agent_id, class_name, kind, home, created_at) VALUES ('x', 'm:C', 'paglet', '', 1.0)",
    "INSERT INTO storage VALUES ('nobody', 'k', '1')",
    "INSERT INTO storage VALUES ('j1', '', '1')",
    "INSERT INTO storage VALUES ('j1', hex(zeroblob(300)), '1')",
    "INSERT INTO inbox (agent_id, sender_store, n, message) VALUES ('nobody', 's', 1, '')",
    "UPDATE requests SET status = 'SLEEPING'",
    "UPDATE requests SET generation = 0",
    "UPDATE requests SET attempt = -1",
    "UPDATE requests SET stolen = 2",
    "INSERT INTO leases VALUES ('nobody', 1, 1, 0, 0, 1.0)",
    "INSERT INTO lease_units VALUES ('core', 0, 'j1')",
    "DELETE FROM residence",
)


@pytest.mark.parametrize("sql", ILLEGAL)
def test_an_illegal_state_is_refused_by_the_schema(store: Store, sql: str) -> None:
    put_here(store, job("j1"))
    with pytest.raises(sqlite3.IntegrityError):
        store.write(lambda tx: tx.run(sql))


def test_two_copies_of_one_generation_of_a_job_cannot_be_on_one_host(store: Store) -> None:
    put_here(store, job("j1", "a"))
    with pytest.raises(sqlite3.IntegrityError):
        put_here(store, job("j2", "a"))
    put_here(store, job("j3", "a", generation=2))


def test_two_paglets_of_one_name_cannot_be_on_one_host(store: Store) -> None:
    put_here(store, envelope("p1", name="bob"))
    with pytest.raises(sqlite3.IntegrityError):
        put_here(store, envelope("p2", name="bob"))


def test_what_was_taken_back_from_here_leaves_the_sources_of_its_files(store: Store) -> None:
    moves = FileRef(name="f", sha256="ab" * 32, size_bytes=3, mode="move")

    def given(tx: Tx) -> None:
        tx.run("INSERT INTO blobs VALUES (?, 3, 1.0)", moves.sha256)
        residence.create(tx, envelope("p1"), NOW)
        files.register(tx, "p1", moves, RegisteredSource(path="/data/f", mtime_ns=1, inode=1))
        residence.settle(tx, "p1", 3, A, NOW)

    store.write(given)
    assert store.read(lambda tx: (files.removals(tx, 9), files.of(tx, "p1"))) == ([], ())
