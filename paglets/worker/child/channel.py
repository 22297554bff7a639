"""A child's end of its socket: requests and their replies, and what the host sends by itself."""

from __future__ import annotations

import itertools
import os
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from queue import SimpleQueue
from typing import Any, NoReturn

from paglets.core.errors import Fenced, PagletsError, error_from_wire
from paglets.core.record import from_json, to_json
from paglets.worker.frames import Unpacker, pack
from paglets.worker.protocol import Deliver, Go

EXIT_HOST_GONE = 121
EXIT_FENCED = 122
"""Exit codes of a child that nobody waits for any more."""

READ_BYTES = 1 << 18


class Channel:
    """`receive_go` first, on the main thread; then a thread of its own reads, and any thread may ask.

    `inbox` gives the messages to handle, and None when the host wants the child to finish; `heard` is called
    after each that was put there. `sending` is a lock; `in_background` runs a function on a thread that does
    not keep the process alive.
    """

    def __init__(
        self,
        connection: socket.socket,
        sending: AbstractContextManager[Any],
        in_background: Callable[[Callable[[], None]], None],
    ) -> None:
        self.inbox: SimpleQueue[Deliver | None] = SimpleQueue()
        self.heard: Callable[[], None] = lambda: None
        self._connection = connection
        self._unpacker = Unpacker()
        self._numbers = itertools.count(1)
        self._sending = sending
        self._in_background = in_background
        self._boxes: dict[int, SimpleQueue[dict[str, Any]]] = {}
        self._stamp: Any = None
        self._forked = False
        self._takers: dict[str, Callable[[dict[str, Any]], None]] = {
            "reply": self._take_reply,
            "deliver": lambda frame: self._hear(from_json(Deliver, frame["deliver"])),
            "finish": lambda frame: self._hear(None),
        }
        os.register_at_fork(after_in_child=self._abandon)

    def receive_go(self) -> Go:
        """Wait for the host's word, then begin to listen beside the caller."""
        frames: list[dict[str, Any]] = []
        while not frames:
            frames = self._unpacker.feed(self._receive())
        go = from_json(Go, frames[0].get("go"), "go")
        self._stamp = to_json(go.stamp)
        if go.deliver is not None:
            self._hear(go.deliver)
        for frame in frames[1:]:
            self._take(frame)
        self._in_background(self._listen)
        return go

    def request(self, operation: str, args: Any) -> Any:
        """Ask the host and wait for its answer. Raises the error it answers; a fenced child ends here."""
        if self._forked:
            raise Fenced("a fork of a paglet's process cannot speak to its host; only the first process can")
        number = next(self._numbers)
        frame = pack({"op": operation, "id": number, "stamp": self._stamp, "args": to_json(args)})
        box = self._boxes[number] = SimpleQueue()
        self._send(frame)
        reply = box.get()
        if "error" not in reply:
            return reply.get("ok")
        error = error_from_wire(reply["error"])
        if isinstance(error, Fenced):
            self._leave(f"this run is over: {error.message}", EXIT_FENCED)
        raise error

    def _send(self, frame: bytes) -> None:
        try:
            with self._sending:
                self._connection.sendall(frame)
        except OSError:
            os._exit(EXIT_HOST_GONE)

    def _receive(self) -> bytes:
        try:
            data = self._connection.recv(READ_BYTES)
        except ConnectionError:
            data = b""
        if not data:
            os._exit(EXIT_HOST_GONE)
        return data

    def _listen(self) -> None:
        try:
            while True:
                for frame in self._unpacker.feed(self._receive()):
                    self._take(frame)
        except PagletsError as error:
            self._leave(f"the host sent nonsense: {error.message}", EXIT_HOST_GONE)

    def _take(self, frame: dict[str, Any]) -> None:
        for name, taker in self._takers.items():
            if name in frame:
                taker(frame)
                return

    def _hear(self, deliver: Deliver | None) -> None:
        self.inbox.put(deliver)
        self.heard()

    def _take_reply(self, frame: dict[str, Any]) -> None:
        box = self._boxes.pop(frame["reply"], None)
        if box is not None:
            box.put(frame)

    def _leave(self, why: str, code: int) -> NoReturn:
        sys.stderr.write(f"paglets: {why}\n")
        sys.stderr.flush()
        os._exit(code)

    def _abandon(self) -> None:
        # What the user's code forks shares the socket: it must neither speak nor keep the host waiting.
        self._forked = True
        self._connection.close()
