"""The delivery of waiting items: one request in flight for each host, pages within a budget, nothing lost for good."""

from __future__ import annotations

from typing import Any

import pytest
from host_rig import Rig, host_ref
from test_host_outbox import POSTS, Inbox, left, send

from paglets.codec.envelope import WireMessage
from paglets.codec.strict_json import loads
from paglets.core.errors import InternalError
from paglets.core.refs import ProxyRef
from paglets.host.messaging.outbox import BUDGET
from paglets.host.runtime.delivery import RECONCILE_SECONDS
from paglets.store import posts
from paglets.store.pages import Budget, page_of
from paglets.wire.request import Completion, Request, reply


@pytest.fixture
def rig() -> Rig:
    return Rig()


class Slow:
    """A host whose answers to posts wait for `answer`."""

    def __init__(self, rig: Rig) -> None:
        self.inbox = Inbox()
        self.waiting: list[tuple[Request, Completion]] = []
        rig.peer("w1", {POSTS: self.inbox})
        transport = rig.host.services.transport
        send = transport.send

        def slowly(host: Any, request: Request, done: Completion, *, timeout_seconds: float) -> None:
            if request.target == "/v1/posts":
                self.waiting.append((request, done))
            else:
                send(host, request, done, timeout_seconds=timeout_seconds)

        transport.send = slowly  # type: ignore[method-assign]

    def answer(self, rig: Rig) -> None:
        request, done = self.waiting.pop()
        rig.host.runner.call_soon(lambda: done(reply(self.inbox(loads(request.body)))))
        rig.run()


def test_an_item_leaves_at_once_and_those_that_come_meanwhile_share_the_next_request(rig: Rig) -> None:
    slow = Slow(rig)
    for _ in range(4):
        send(rig)
    assert len(slow.waiting) == 1
    slow.answer(rig)
    slow.answer(rig)
    assert [[post.n for post in batch.posts] for batch in slow.inbox.batches] == [[1], [2, 3, 4]]
    assert (slow.waiting, left(rig)) == ([], 0)


def test_a_host_whose_request_is_in_flight_holds_up_no_other(rig: Rig) -> None:
    slow = Slow(rig)
    send(rig)
    send(rig, host="home", agent_id="user-notes")
    assert (len(slow.waiting), left(rig)) == (1, 1)


def test_a_request_keeps_to_the_budget_in_bytes(rig: Rig) -> None:
    inbox = Inbox()
    rig.peer("w1", {POSTS: inbox})
    target = ProxyRef(agent_id="q1", host=host_ref("w1"))
    message = WireMessage(kind="x", args={"text": "x" * (BUDGET.size_bytes // 2)})
    rig.write(lambda tx: [posts.send(tx, target, message, rig.now()) for _ in range(3)])
    rig.run(1)
    assert [[post.n for post in batch.posts] for batch in inbox.batches] == [[1], [2], [3]]


def test_after_a_failed_request_the_same_items_are_sent_first(rig: Rig) -> None:
    inbox, errors = Inbox(), [InternalError("disk")]

    def troubled(body: Any) -> Any:
        if errors:
            raise errors.pop()
        return inbox(body)

    rig.peer("w1", {POSTS: troubled})
    send(rig, BUDGET.items + 1)
    rig.run(2)
    assert inbox.got == list(range(1, BUDGET.items + 2))


def test_an_item_whose_wake_up_was_lost_leaves_with_the_next_reconciliation(rig: Rig) -> None:
    inbox = Inbox()
    rig.peer("w1", {POSTS: inbox})
    committed, rig.store.on_commit = rig.store.on_commit, lambda wakes, touched: None
    send(rig)
    rig.store.on_commit = committed
    assert inbox.got == []
    rig.run(RECONCILE_SECONDS + 1)
    assert inbox.got == [1]


def test_a_page_ends_before_the_first_item_beyond_its_budget() -> None:
    read = []

    def items() -> Any:
        for number in (1, 2, 3, 4):
            read.append(number)
            yield number

    for budget, expected in (
        (Budget(items=2, size_bytes=100), [1, 2]),
        (Budget(items=9, size_bytes=5), [1, 2]),
        (Budget(items=9, size_bytes=0), [1]),
    ):
        read.clear()
        page = page_of(items(), budget, lambda number: number, lambda number: (number, ""))
        assert (page.items, page.after, read) == (expected, (expected[-1], ""), [*expected, expected[-1] + 1])
    page = page_of(items(), Budget(items=4, size_bytes=10), lambda number: number, lambda number: (number, ""))
    assert (page.items, page.after) == ([1, 2, 3, 4], None)
