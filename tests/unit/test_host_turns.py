"""What waits for bytes that cannot go, or for a paglet that is not found, holds up nothing else for the same host."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from host_rig import Rig, envelope, host_ref, job
from test_host_bytes_travel import DATA, file, make, put, ref, status

from paglets.api.blobs import AskBlobs, BlobState, BlobStates
from paglets.api.limits import LARGE_ENVELOPE_BYTES, MAX_BATCH_ENVELOPES, MAX_BATCH_POSTS
from paglets.api.paglets import Done
from paglets.api.transfers import LargeEnvelope, TransferAnswer, TransferAnswers, Transfers
from paglets.codec.envelope import Envelope, WireMessage
from paglets.codec.strict_json import dump_bytes
from paglets.core.record import from_json, to_json
from paglets.core.refs import ArtifactRef, HostRef, ProxyRef
from paglets.host.handoff.sender import BUDGET, HandoffTraffic
from paglets.host.runtime.delivery import RECONCILE_SECONDS, DeliveryLanes
from paglets.store import posts, residence

SMALL = b"small"
TRANSFERS = "POST /v1/transfers"


@pytest.fixture
def home() -> Rig:
    home = Rig()
    put(home, DATA, SMALL)
    return home


def leave(rig: Rig, target: HostRef, *envelopes: Envelope) -> None:
    def store(tx: Any) -> None:
        for each in envelopes:
            residence.create(tx, each, rig.now())
            residence.leave(tx, each.agent_id, target, rig.now())

    rig.write(store)


def post(tx: Any, rig: Rig, target: Rig, agent_id: str, data: bytes, number: int) -> None:
    carried = ArtifactRef(
        artifact_id=f"art-{number:08d}",
        name="x",
        size_bytes=len(data),
        sha256=ref(data).sha256,
        host_name=target.settings.name,
        owner=agent_id,
        created_at=1.0,
    )
    message = WireMessage(kind="x", args={}, artifacts=(carried,))
    posts.send(tx, ProxyRef(agent_id=agent_id, host=target.own), message, rig.now())


def post_all(rig: Rig, target: Rig, agent_id: str, data: bytes) -> None:
    """A page of them to `agent_id` with `data`, and behind these a small one to b."""

    def store(tx: Any) -> None:
        for number in range(MAX_BATCH_POSTS):
            post(tx, rig, target, agent_id, data, number)
        post(tx, rig, target, "b", SMALL, 99_999_999)

    rig.write(store)


def artifacts_of(rig: Rig, agent_id: str) -> int:
    return int(rig.value("SELECT count(*) FROM artifacts WHERE owner = ?", agent_id))


# Posts.


def test_posts_with_artifacts_pass_those_for_a_paglet_that_is_not_found(home: Rig) -> None:
    away = Rig(name="away", beside=home)
    make(away, envelope("b"))
    post_all(home, away, "nobody", DATA)
    home.run(10)
    assert artifacts_of(away, "b") == 1
    assert home.value("SELECT count(*) FROM outbox") == MAX_BATCH_POSTS


def test_posts_with_artifacts_pass_those_whose_bytes_the_host_does_not_take(home: Rig) -> None:
    away = Rig(name="away", beside=home, artifact_max_bytes=20)
    make(away, envelope("b"))
    post_all(home, away, "b", DATA)
    home.run(30)
    assert artifacts_of(away, "b") == 1
    assert home.value("SELECT count(*) FROM outbox") == MAX_BATCH_POSTS


# Envelopes.


def test_envelopes_pass_those_whose_bytes_the_host_does_not_take(home: Rig) -> None:
    away = Rig(name="away", beside=home, artifact_max_bytes=20)
    stuck = (envelope(f"big{n:04d}", files=(file("in.txt", DATA),)) for n in range(MAX_BATCH_ENVELOPES))
    leave(home, away.own, *stuck)
    home.run(5)
    leave(home, away.own, envelope("small"), envelope("with-bytes", files=(file("in.txt", SMALL),)))
    home.run(30)
    assert (status(away, "small"), status(away, "with-bytes")) == ("here", "here")
    assert status(home, "big0000") == "leaving"


def test_an_envelope_that_waits_for_bytes_comes_back_from_an_unreachable_host(home: Rig) -> None:
    leave(home, host_ref("nobody"), job("j1"))
    waiting = replace(job("j2", "b"), files=(file("in.txt", DATA),))
    leave(home, host_ref("nobody"), waiting)
    home.run(10)
    assert (status(home, "j1"), status(home, "j2")) == ("here", "here")


def test_an_envelope_that_waits_for_bytes_waits_where_its_target_answers(home: Rig) -> None:
    away = Rig(name="away", beside=home, artifact_max_bytes=20)
    leave(home, away.own, replace(job("j1"), files=(file("in.txt", DATA),)))
    home.run(60)
    assert status(home, "j1") == "leaving"
    assert home.network.sent[("store-home", "GET /v1/host")] == 0


def large(agent_id: str = "p1") -> Envelope:
    return envelope(agent_id, state={"text": "x" * (LARGE_ENVELOPE_BYTES + 1)})


def test_large_envelopes_count_in_a_batch(home: Rig) -> None:
    batches: list[int] = []

    def have_all(body: Any) -> BlobStates:
        asked = from_json(AskBlobs, body).sha256s
        return BlobStates(blobs=tuple(BlobState(sha256=sha256, offset=0, complete=True) for sha256 in asked))

    def take_all(body: Any) -> TransferAnswers:
        sent = from_json(Transfers, body).large
        batches.append(len(sent))
        answers = (TransferAnswer(agent_id=each.agent_id, epoch=each.epoch, verdict="taken") for each in sent)
        return TransferAnswers(answers=tuple(answers))

    home.peer("w1", {TRANSFERS: take_all, "POST /v1/blobs/state": have_all, "GET /v1/host": lambda body: Done()})
    leave(home, host_ref("w1"), *(large(f"p{number}") for number in range(8)))
    home.until(lambda: sum(batches) == 8)
    assert max(batches) == BUDGET.size_bytes // LARGE_ENVELOPE_BYTES - 1


def test_a_large_envelope_becomes_a_blob_elsewhere_than_on_the_runner(home: Rig) -> None:
    away = Rig(name="away", beside=home)
    acts: list[Callable[[], None]] = []
    home.blobs.run_in_background = acts.append  # type: ignore[method-assign,assignment]
    leave(home, away.own, large(), envelope("small"))
    home.run(20)
    assert (len(acts), status(away, "p1"), status(away, "small")) == (1, None, "here")
    assert "being written" in home.value("SELECT problem FROM handoffs")
    acts.pop()()
    home.run(20)
    assert status(away, "p1") == "here"


def test_a_large_envelope_that_could_not_be_written_is_written_when_there_is_room(home: Rig) -> None:
    away = Rig(name="away", beside=home)
    home.blobs._full = lambda: True
    leave(home, away.own, large(), envelope("small"))
    home.run(20)
    assert (status(away, "p1"), status(away, "small")) == (None, "here")
    assert "cannot be written to the disk" in home.value("SELECT problem FROM handoffs")
    assert home.faults() == []
    home.blobs._full = lambda: False
    home.run(20)
    assert status(away, "p1") == "here"


def test_nothing_of_a_settled_large_envelope_is_kept_in_memory(home: Rig) -> None:
    away = Rig(name="away", beside=home)
    lanes = home.host.runner._parts["handoff"]
    assert isinstance(lanes, DeliveryLanes)
    handoffs = lanes._traffic
    assert isinstance(handoffs, HandoffTraffic)
    leave(home, away.own, large())
    home.until(lambda: status(away, "p1") == "here")
    home.write(lambda tx: residence.create(tx, large("p2"), home.now()))
    home.write(lambda tx: residence.leave(tx, "p2", host_ref("nobody"), home.now()))
    home.run(1)
    home.write(lambda tx: residence.put_back(tx, "p2", 2, home.now()))
    assert handoffs._large.keys() == {("p1", 1), ("p2", 1)}
    home.run(RECONCILE_SECONDS + 1)
    assert handoffs._large == {}


# What the target makes of a batch.


def sent_as_blob(rig: Rig, data: bytes, agent_id: str) -> LargeEnvelope:
    put(rig, data)
    return LargeEnvelope(agent_id=agent_id, epoch=2, blob=ref(data))


def sent_large(rig: Rig, agent_id: str) -> LargeEnvelope:
    return sent_as_blob(rig, dump_bytes(to_json(replace(large(agent_id), epoch=2))), agent_id)


def transfer(rig: Rig, *envelopes: Envelope, large: tuple[LargeEnvelope, ...]) -> dict[str, str]:
    body = Transfers(source=host_ref("w1"), envelopes=envelopes, large=large)
    answers = rig.get(TransferAnswers, "POST", "/v1/transfers", body).answers
    return {answer.agent_id: answer.verdict for answer in answers}


def test_a_large_envelope_that_cannot_be_read_holds_up_no_other(home: Rig) -> None:
    bad = (
        sent_as_blob(home, b"not json", "bad"),
        sent_as_blob(home, b'{"agent_id": "half"}', "half"),
        sent_as_blob(home, dump_bytes(to_json(large("other"))), "liar"),
        LargeEnvelope(agent_id="huge", epoch=2, blob=replace(ref(DATA), size_bytes=1 << 40)),
    )
    absent = LargeEnvelope(agent_id="absent", epoch=2, blob=ref(b"not here"))
    good = replace(envelope("good"), epoch=2)
    answers = transfer(home, good, large=(*bad, absent, sent_large(home, "great")))
    assert answers == {"good": "taken", "absent": "missing", "great": "taken"}
    said = [line for line in home.log if "was not accepted" in line]
    assert [name for name in ("bad", "half", "liar", "huge") if any(f"'{name}'" in line for line in said)] == [
        "bad",
        "half",
        "liar",
        "huge",
    ]


def test_large_envelopes_are_read_one_at_a_time(home: Rig) -> None:
    batch = tuple(sent_large(home, f"p{number}") for number in range(3))
    taken: list[int] = []
    read = home.blobs.read

    def reading(sha256: str, offset: int, length: int) -> bytes:
        taken.append(home.value("SELECT count(*) FROM residence"))
        return read(sha256, offset, length)

    home.blobs.read = reading  # type: ignore[method-assign]
    transfer(home, large=batch)
    assert taken == [0, 1, 2]
