from __future__ import annotations

import threading

import pytest

from paglets.core.errors import Conflict
from paglets.wire.fair_queue import LIMITS, MOST_WAITING, FairQueue
from paglets.wire.request import PendingResponse, Request, Response, queue_of, reply, reply_error


def test_a_pending_tells_its_first_answer_to_all_who_asked_before_and_after() -> None:
    pending, heard = PendingResponse(), list[Response]()
    pending.on_complete(heard.append)
    assert pending.response is None
    pending.complete(reply(1))
    pending.complete(reply(2))
    pending.on_complete(heard.append)
    assert [response.body for response in heard] == [b"1", b"1"]
    assert pending.response == reply(1)


def test_a_pending_calls_each_callback_once_whichever_thread_comes_first() -> None:
    for _ in range(200):
        pending, heard = PendingResponse(), list[bytes]()
        start = threading.Barrier(4)

        def ask(
            pending: PendingResponse = pending, heard: list[bytes] = heard, start: threading.Barrier = start
        ) -> None:
            start.wait()
            pending.on_complete(lambda response: heard.append(response.body))

        def answer(number: int, pending: PendingResponse = pending, start: threading.Barrier = start) -> None:
            start.wait()
            pending.complete(reply(number))

        threads = [threading.Thread(target=ask) for _ in range(2)]
        threads += [threading.Thread(target=answer, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert pending.response is not None
        assert heard == [pending.response.body] * 2


def test_an_error_reply_raises_its_error_where_it_is_read() -> None:
    with pytest.raises(Conflict, match="taken"):
        reply_error(Conflict("taken")).json()


def request(target: str) -> Request:
    return Request(method="POST", target=target)


def test_calls_and_bytes_do_not_stand_in_the_way_of_gossip() -> None:
    targets = ["/v1/paglets/p1/call", "/v1/blobs/ab?offset=1", "/v1/artifacts", "/v1/mesh/gossip", "/v1/posts?x=/call"]
    assert [queue_of("u", request(target))[1] for target in targets] == [
        "calls",
        "bytes",
        "bytes",
        "control",
        "control",
    ]


def test_requests_to_one_host_are_bounded_and_hosts_take_turns() -> None:
    lanes: FairQueue[str] = FairQueue()
    most = LIMITS["control"]
    may_start = [lanes.put(("a", "control"), f"a{index}") for index in range(most + 2)]
    lanes.put(("b", "control"), "b0")

    started = []
    while (taken := lanes.next()) is not None:
        started.append(taken[1])

    assert may_start == [True] * most + [False] * 2
    assert started == ["a0", "b0", *(f"a{index}" for index in range(1, most))]
    lanes.end(("a", "control"))
    assert lanes.next() == (("a", "control"), f"a{most}")
    assert lanes.take_waiting() == [f"a{most + 1}"]
    assert lanes.next() is None


def test_a_lane_is_full_at_its_bound() -> None:
    lanes: FairQueue[int] = FairQueue()
    key = ("a", "calls")
    for index in range(MOST_WAITING):
        assert not lanes.is_full(key)
        lanes.put(key, index)
    assert lanes.is_full(key)
    assert not lanes.is_full(("b", "calls"))
