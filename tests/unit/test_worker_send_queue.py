"""The queue of bytes and descriptors for a socket, and the reactor that empties it."""

from __future__ import annotations

import errno
import os
import socket
import time
from typing import Any

import pytest

from paglets.worker.host.reactor import RETRY_SECONDS, WRITE, Reactor
from paglets.worker.host.send_queue import SendQueue


class RefusingSocket(socket.socket):
    """A socket on which the kernel accepts no descriptors while `is_refusing`. `refused`: the number of refusals."""

    is_refusing = True
    refused = 0

    def sendmsg(self, *args: Any) -> int:
        if self.is_refusing:
            self.refused += 1
            raise OSError(errno.ETOOMANYREFS, "Too many references: cannot splice")
        return super().sendmsg(*args)


class Link:
    """A queue for a refusing socket, which a reactor empties."""

    def __init__(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.ours = RefusingSocket(fileno=ours.detach())
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.queue, self.reactor = SendQueue(), Reactor()

    def add(self, data: bytes, with_pipe: bool) -> None:
        self.queue.add(data, os.pipe() if with_pipe else ())
        self.on_ready(WRITE)

    def on_ready(self, mask: int) -> None:
        if mask & WRITE:
            self.queue.flush(self.ours)
        self.reactor.watch(self.ours, self.on_ready, writing=self.queue.writing)

    def receive(self) -> tuple[bytes, int]:
        """Return the next bytes, and the number of their descriptors."""
        data, descriptors, _, _ = socket.recv_fds(self.theirs, 100, 10)
        for descriptor in descriptors:
            os.close(descriptor)
        return data, len(descriptors)

    def close(self) -> None:
        self.queue.drop()
        self.reactor.close()
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def link() -> Any:
    link = Link()
    yield link
    link.close()


def test_refused_descriptors_are_sent_later_in_order_and_without_a_busy_loop(link: Link) -> None:
    for data, with_pipe in ((b"a", False), (b"b", True), (b"c", False), (b"d", True)):
        link.add(data, with_pipe)
    assert link.receive() == (b"a", 0)
    with pytest.raises(BlockingIOError):
        link.receive()
    refused, began = link.ours.refused, time.monotonic()
    link.reactor.poll(None)
    assert (link.ours.refused, link.queue.writing) == (refused + 1, "later")
    assert time.monotonic() - began >= RETRY_SECONDS / 2
    link.ours.is_refusing = False
    link.reactor.poll(None)
    assert [link.receive(), link.receive()] == [(b"b", 2), (b"cd", 2)]
    assert link.queue.writing == ""


def test_a_source_that_is_no_longer_watched_is_not_written(link: Link) -> None:
    link.add(b"a", True)
    link.reactor.unwatch(link.ours)
    refused = link.ours.refused
    link.reactor.poll(0.0)
    assert link.ours.refused == refused
