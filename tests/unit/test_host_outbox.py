"""Posts on their way: batches, back-off, redirection, search, and the end of what they reported."""

from __future__ import annotations

from typing import Any

import pytest
from host_rig import Rig, envelope, host_ref, job

from paglets.api.calls import PostMessage
from paglets.api.paglets import Located, ResidenceRow
from paglets.api.posts import PostAnswer, PostAnswers
from paglets.api.posts import Posts as Batch
from paglets.codec.envelope import WireMessage
from paglets.core.errors import InternalError
from paglets.core.record import from_json
from paglets.core.refs import ProxyRef
from paglets.host.runtime.delivery import LOCATE_AFTER_SECONDS
from paglets.store import posts, residence

POSTS = "POST /v1/posts"
LOCATE = "POST /v1/paglets/locate"


@pytest.fixture
def rig() -> Rig:
    return Rig()


class Inbox:
    """What a peer answers to posts: `verdict` for each, and what it got."""

    def __init__(self, verdict: str = "taken", **more: Any) -> None:
        self.verdict = verdict
        self.more = more
        self.got: list[int] = []
        self.batches: list[Batch] = []

    def __call__(self, body: Any) -> PostAnswers:
        batch = from_json(Batch, body)
        self.batches.append(batch)
        self.got += [post.n for post in batch.posts]
        answers = [PostAnswer(n=post.n, verdict=self.verdict, **self.more) for post in batch.posts]  # type: ignore[arg-type]
        return PostAnswers(answers=tuple(answers))


def send(rig: Rig, count: int = 1, host: str = "w1", agent_id: str = "q1", **more: Any) -> None:
    target = ProxyRef(agent_id=agent_id, host=host_ref(host))

    def change(tx: Any) -> None:
        for number in range(count):
            posts.send(tx, target, WireMessage(kind="hi", args={"number": number}), rig.now(), **more)

    rig.write(change)
    rig.run()


def left(rig: Rig) -> int:
    return int(rig.value("SELECT count(*) FROM outbox"))


def test_posts_are_delivered_in_batches_and_gone_when_they_are_acknowledged(rig: Rig) -> None:
    inbox = Inbox()
    rig.peer("w1", {POSTS: inbox})
    send(rig, 1200)
    rig.run(2)
    assert inbox.got == list(range(1, 1201))
    assert len(inbox.batches) == 3
    assert [batch.settled[0].settled_below for batch in inbox.batches] == [1, 501, 1001]
    assert left(rig) == 0


def test_posts_to_a_paglet_on_this_host_need_no_network(rig: Rig) -> None:
    rig.write(lambda tx: residence.create(tx, envelope("p1"), 1.0))
    send(rig, 3, host="home", agent_id="p1")
    assert left(rig) == 0
    assert rig.value("SELECT count(*) FROM inbox") == 3


def test_posts_to_an_offline_host_are_tried_less_often_and_arrive_later(rig: Rig) -> None:
    send(rig)
    rig.run(60)
    tries = rig.network.sent[("store-home", POSTS)]
    assert 8 < tries < 40
    assert left(rig) == 1
    assert "refused" in rig.value("SELECT problem FROM outbox")
    inbox = Inbox()
    rig.peer("w1", {POSTS: inbox})
    rig.run(0.2)
    assert inbox.got == [1]
    assert left(rig) == 0


def test_a_host_in_trouble_is_sent_the_same_posts_again(rig: Rig) -> None:
    inbox = Inbox()
    answers: list[Any] = [InternalError("disk"), InternalError("disk")]

    def troubled(body: Any) -> Any:
        if answers:
            raise answers.pop()
        return inbox(body)

    rig.peer("w1", {POSTS: troubled})
    send(rig, 2)
    rig.run(5)
    assert inbox.got == [1, 2]
    assert left(rig) == 0


def test_a_duplicate_is_as_good_as_taken(rig: Rig) -> None:
    rig.peer("w1", {POSTS: Inbox("duplicate")})
    send(rig)
    rig.run(1)
    assert left(rig) == 0


def test_posts_follow_a_paglet_that_moved(rig: Rig) -> None:
    there = Inbox()
    rig.peer("w1", {POSTS: Inbox("moved", host=host_ref("w2"), epoch=2)})
    rig.peer("w2", {POSTS: there})
    send(rig, 3)
    rig.run(1)
    assert there.got == [1, 2, 3]


def test_posts_to_one_host_do_not_wait_for_another(rig: Rig) -> None:
    send(rig, host="w9", agent_id="q9")
    inbox = Inbox()
    rig.peer("w1", {POSTS: inbox})
    send(rig)
    rig.run(0.5)
    assert inbox.got == [2]


def test_a_paglet_that_its_host_does_not_know_is_searched_after_a_while(rig: Rig) -> None:
    there = Inbox()
    row = ResidenceRow(agent_id="q1", epoch=4, status="here")
    rig.peer("w1", {POSTS: Inbox("unknown"), LOCATE: lambda body: Located()})
    found = rig.peer("w2", {POSTS: there, LOCATE: lambda body: Located(rows=(row,))})
    send(rig)
    rig.run(LOCATE_AFTER_SECONDS - 1)
    assert found.bodies(LOCATE) == []
    rig.run(8)
    assert there.got == [1]
    assert left(rig) == 0


def test_posts_to_a_paglet_that_has_ended_are_dropped_and_that_is_noted(rig: Rig) -> None:
    row = ResidenceRow(agent_id="q1", epoch=4, status="disposed")
    rig.peer("w1", {POSTS: Inbox("unknown"), LOCATE: lambda body: Located(rows=(row,))})
    send(rig, 2)
    rig.run(20)
    assert left(rig) == 0
    assert rig.all("SELECT kind, subject, text FROM events") == [
        ("posts_dropped", "q1", "2 posts to a paglet that has ended")
    ]


def test_where_no_post_is_left_when_the_end_of_its_paglet_is_told_none_is_noted(rig: Rig) -> None:
    inbox, told = Inbox(), []

    def troubled(body: Any) -> Any:
        if not told:
            raise InternalError("disk")
        return inbox(body)

    def locate(body: Any) -> Located:
        told.append(body)
        return Located(rows=(ResidenceRow(agent_id="q1", epoch=4, status="disposed"),))

    rig.peer("w1", {POSTS: troubled, LOCATE: locate})
    rig.peer("w2")
    send(rig)
    rig.network.part(("store-home", "store-w1"), ("store-w2",))  # its answer is waited for
    rig.until(lambda: told)
    send(rig)
    rig.run(20)
    assert inbox.got == [1, 2]
    assert rig.all("SELECT kind, subject, text FROM events") == []


def test_the_finished_copy_whose_report_arrived_is_gone(rig: Rig) -> None:
    rig.write(lambda tx: residence.create(tx, job("j1", status="COMPLETED"), 1.0))
    send(rig, report_of="j1")
    rig.run(1)
    assert rig.value("SELECT status FROM residence") == "here"
    rig.peer("w1", {POSTS: Inbox()})
    rig.run(1)
    assert rig.value("SELECT status FROM residence") == "disposed"


def test_an_answer_about_a_post_that_was_not_sent_changes_nothing(rig: Rig) -> None:
    strange = PostAnswers(answers=(PostAnswer(n=2, verdict="taken"), PostAnswer(n=1, verdict="taken")))
    send(rig, 2, host="w9", agent_id="q9")

    def answer(body: Any) -> PostAnswers:
        return strange

    rig.peer("w1", {POSTS: answer})
    send(rig)
    rig.run(1)
    assert rig.all("SELECT n FROM outbox WHERE agent_id = 'q9'") == [(1,), (2,)]


def test_a_clients_post_is_stored_once_for_its_token(rig: Rig) -> None:
    target = ProxyRef(agent_id="q1", host=host_ref("w9"))
    message = PostMessage(target=target, message=WireMessage(kind="hi", args={}), token="t1")
    for _ in range(2):
        rig.ask("POST", "/v1/outbox", message)
    assert left(rig) == 1
