"""The child's side of the socket to its host: it sends requests, and receives replies and messages."""

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
from paglets.worker.launch import EXIT_HOST_GONE
from paglets.worker.protocol import Deliver, Go

EXIT_FENCED = 122
"""Exit code of a child whose run the host no longer accepts."""

READ_BYTES = 1 << 18


class Channel:
    """The connection of a run to its host. Call `receive_go` or `begin` first; then any thread may send requests.

    `inbox`: the messages to handle, and None after `finish` or `close`. `on_message`: called after each addition to
    `inbox`. `sending`: the lock for writes to the socket. `start_listener`: runs a function on a thread.
    `is_of_worker`: True if the run is a job of a warm worker.
    """

    def __init__(
        self,
        connection: socket.socket,
        sending: AbstractContextManager[Any],
        start_listener: Callable[[Callable[[], None]], None],
        *,
        is_of_worker: bool = False,
    ) -> None:
        self.is_of_worker = is_of_worker
        self.inbox: SimpleQueue[Deliver | None] = SimpleQueue()
        self.on_message: Callable[[], None] = lambda: None
        self._connection = connection
        self._unpacker = Unpacker()
        self._numbers = itertools.count(1)
        self._sending = sending
        self._start_listener = start_listener
        self._replies: dict[int, SimpleQueue[dict[str, Any]]] = {}
        self._stamp: Any = None
        self._forked = False
        self._closed = False
        self._held = b""
        self._handlers: dict[str, Callable[[dict[str, Any]], None]] = {
            "reply": self._on_reply,
            "deliver": lambda frame: self._add_message(from_json(Deliver, frame["deliver"])),
            "finish": lambda frame: self._add_message(None),
        }

    def receive_go(self) -> Go:
        """Wait for the first frame, `go`, and return it. Frames that arrive later are read on another thread."""
        frames: list[dict[str, Any]] = []
        while not frames:
            frames = self._unpacker.feed(self._receive())
        os.register_at_fork(after_in_child=self.after_fork)
        go = self.begin(frames[0])
        for frame in frames[1:]:
            self.handle(frame)
        self._start_listener(self._listen)
        return go

    def begin(self, frame: dict[str, Any]) -> Go:
        """Return the content of the frame `go`. All requests are sent with the stamp of its run from now on."""
        go = from_json(Go, frame.get("go"), "go")
        self._stamp = to_json(go.stamp)
        if go.deliver is not None:
            self._add_message(go.deliver)
        return go

    def close(self) -> None:
        """End the connection of a job in a warm worker. Objects that outlive the job cannot send requests."""
        self._closed = True
        # Do not call `on_message`: it would start a thread in each job. It also keeps the paglet in memory.
        self.on_message = lambda: None
        self.inbox.put(None)

    def request(self, operation: str, args: Any) -> Any:
        """Send a request and return the reply. Raises the error in the reply, except Fenced, which ends this process.

        Raises Fenced in a fork of this process and after `close`, and the errors of `frames.pack`.
        """
        self._check_open()
        number = next(self._numbers)
        frame = pack({"op": operation, "id": number, "stamp": self._stamp, "args": to_json(args)})
        box = self._replies[number] = SimpleQueue()
        self.send(frame)
        reply = box.get()
        if "error" not in reply:
            return reply.get("ok")
        error = error_from_wire(reply["error"])
        if isinstance(error, Fenced):
            self._leave(f"the host no longer accepts this run: {error.message}", EXIT_FENCED)
        raise error

    def hold(self, operation: str, args: Any) -> None:
        """Keep the last request of this run, which needs no reply. Raises Fenced."""
        self._check_open()
        self._held = pack({"op": operation, "stamp": self._stamp, "args": to_json(args)})

    def take_held(self) -> bytes:
        """Return the frame of `hold`, to be sent now, or b""."""
        held, self._held = self._held, b""
        return held

    def _check_open(self) -> None:
        if self._forked:
            raise Fenced("a fork of a paglet's process cannot send requests to its host; only the first process can")
        if self._closed:
            raise Fenced("the job of this object has ended; only a job that runs can send requests to its host")

    def send(self, frame: bytes) -> None:
        """Send a packed frame. End this process if the host has ended."""
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
                    self.handle(frame)
        except PagletsError as error:
            self._leave(f"the host sent a bad frame: {error.message}", EXIT_HOST_GONE)

    def handle(self, frame: dict[str, Any]) -> None:
        """Handle a frame that the host has sent after `go`."""
        for name, handler in self._handlers.items():
            if name in frame:
                handler(frame)
                return

    def _add_message(self, deliver: Deliver | None) -> None:
        self.inbox.put(deliver)
        self.on_message()

    def _on_reply(self, frame: dict[str, Any]) -> None:
        box = self._replies.pop(frame["reply"], None)
        if box is not None:
            box.put(frame)

    def _leave(self, why: str, code: int) -> NoReturn:
        sys.stderr.write(f"paglets: {why}\n")
        sys.stderr.flush()
        os._exit(code)

    def after_fork(self) -> None:
        """Close the socket in a fork of this process, which must not send requests or keep the connection open."""
        self._forked = True
        self._connection.close()
