"""A TCP proxy that injects faults. Hosts of tests stand behind it by `--public-url`.

Each proxy is a thread with an event loop. Its faults are a value (`Harm`) that can be replaced at any time. It applies
to open connections, too, from their next piece on.
"""

from __future__ import annotations

import asyncio
import math
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from tests.acceptance.rig import free_port

PIECE_BYTES = 1 << 16
CLOSE_SECONDS = 30.0
PUT_BLOB = re.compile(rb"PUT /v1/blobs/.*?\r\ncontent-length: *([0-9]+)\r\n(?:.*?\r\n)?\r\n", re.DOTALL | re.IGNORECASE)
OF_NO_HOST = re.compile(rb"\r\nx-paglets-sender: *\r\n", re.IGNORECASE)
"""A text in the head of requests of commands and scripts."""

RESET = struct.pack("ii", 1, 0)
"""A value of SO_LINGER that ends a connection with a reset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """The faults of a proxy.

    `refuses`: nobody listens, as if the host had died. `swallows`: all bytes are dropped in both directions.
    `drops_replies`: only bytes from the host are dropped.

    `delay_seconds` delays each piece in one direction, and `bytes_a_second` limits each direction of a connection. With
    probability `resets` a piece is dropped and its connection reset. `cut_after` resets a connection once, when this
    many bytes of blobs have been sent to the host under this fault.
    """

    refuses: bool = False
    swallows: bool = False
    drops_replies: bool = False
    delay_seconds: float = 0.0
    bytes_a_second: float = 0.0
    resets: float = 0.0
    cut_after: int | None = None


NONE = Harm()


class _Blobs:
    """A parser that finds blob bytes in the requests of a connection. A head comes in one piece, alone or with its
    body."""

    def __init__(self) -> None:
        self._left = 0
        self.within = False
        """True if the last piece belongs to the request of a blob."""

    def begins(self, piece: bytes) -> int:
        """Return the offset of blob bytes in the piece, or its length if it has none."""
        head = 0
        if not self._left and (found := PUT_BLOB.match(piece)):
            head = found.end()
            self._left = int(found[1])
        elif not self._left:
            self.within = False
            return len(piece)
        self.within = True
        self._left -= len(piece) - head
        return head


@dataclass(eq=False)
class _Pair:
    """A client's connection and the proxy's connection to the host."""

    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def reset(self) -> None:
        for writer in self.writers:
            sock = writer.get_extra_info("socket")
            if sock is not None:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            writer.transport.abort()


@dataclass(eq=False)
class Visit:
    """A connection of a command, with its start and end in monotonic seconds."""

    since: float
    until: float = math.inf


class FaultProxy:
    """A proxy that listens at `url` on loopback and forwards to `port`, which may be set later.

    `cuts` counts reset connections. Since the last change of faults, `passed` counts bytes of blobs sent to the host,
    and `visits` lists the connections of commands in order.
    """

    def __init__(self, *, port: int = 0, seed: int = 0) -> None:
        self.port = port
        self.harm = NONE
        self.cuts = 0
        self.passed = 0
        self.visits: list[Visit] = []
        self._chance = random.Random(seed)
        self._pairs: set[_Pair] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._own_port = free_port()
        self._listening: socket.socket | None = None
        self._is_up = True
        self.url = f"http://127.0.0.1:{self._own_port}"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)
        self._thread.start()
        self._do(self._listen)

    # Called by any thread.

    def set(self, **harm: Any) -> None:
        """Replace all faults by this value."""
        self._do(lambda: self._set(replace(NONE, **harm)))

    def heal(self) -> None:
        """End all faults. Cut connections that lost bytes, or have slow ones under way."""
        self.set()

    def follow(self, is_up: bool) -> None:
        """Set whether the host behind the proxy runs. If it does not, nobody listens, whatever the faults."""

        def do() -> None:
            self._is_up = is_up
            self._listen()

        self._do(do)

    def cut(self) -> int:
        """Reset all connections and return their number."""
        count = len(self._pairs)
        self._do(self._cut)
        return count

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(CLOSE_SECONDS)
        self._soon(self._loop.stop)
        self._thread.join(CLOSE_SECONDS)
        self._loop.close()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _soon(self, act: Callable[[], object]) -> None:
        self._loop.call_soon_threadsafe(act)

    def _do(self, act: Callable[[], None]) -> None:
        """Run this on the event loop and wait for it."""
        done = threading.Event()

        def do() -> None:
            act()
            done.set()

        self._soon(do)
        assert done.wait(CLOSE_SECONDS), "the proxy hangs"

    # Called on the event loop.

    def _set(self, harm: Harm) -> None:
        old, self.harm, self.passed, self.visits = self.harm, harm, 0, []
        self._listen()
        if harm.refuses or old.swallows or old.drops_replies or old.bytes_a_second:
            self._cut()

    def _listen(self) -> None:
        """Open or close the listening socket, as the faults and the host require."""
        wanted = self._is_up and not self.harm.refuses
        if wanted and self._listening is None:
            self._listening = socket.create_server(("127.0.0.1", self._own_port), backlog=128)
            self._listening.setblocking(False)
            self._loop.add_reader(self._listening, self._accept, self._listening)
        elif not wanted and self._listening is not None:
            self._loop.remove_reader(self._listening)
            self._listening.close()
            self._listening = None

    def _accept(self, listening: socket.socket) -> None:
        with suppress(BlockingIOError, ConnectionError):
            sock, _ = listening.accept()
            sock.setblocking(False)
            self._start(self._serve(sock))

    def _cut(self) -> None:
        for pair in list(self._pairs):
            self._reset(pair)

    async def _end(self) -> None:
        self._is_up = False
        self._listen()
        self._cut()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _reset(self, pair: _Pair) -> None:
        if pair in self._pairs:
            self._pairs.discard(pair)
            self.cuts += 1
            pair.reset()

    async def _serve(self, sock: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=sock)
        pair = _Pair([writer])
        self._pairs.add(pair)
        try:
            theirs, ours = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            self._pairs.discard(pair)
            pair.reset()
            return
        pair.writers.append(ours)
        try:
            await asyncio.gather(self._pump(pair, reader, ours, True), self._pump(pair, theirs, writer, False))
        except OSError:
            pair.reset()
        finally:
            self._pairs.discard(pair)
            for each in pair.writers:
                each.close()

    async def _pump(self, pair: _Pair, source: asyncio.StreamReader, target: asyncio.StreamWriter, asks: bool) -> None:
        blobs, visit = _Blobs(), Visit(since=time.monotonic())
        while piece := await source.read(PIECE_BYTES):
            if asks and visit not in self.visits and OF_NO_HOST.search(piece):
                self.visits.append(visit)
            await asyncio.sleep(self._seconds(piece))
            harm = self.harm
            if harm.swallows or (harm.drops_replies and not asks):
                continue
            if harm.resets and self._chance.random() < harm.resets:
                self._reset(pair)
                return
            left = self._left_of(piece, blobs) if asks else len(piece)
            target.write(piece[:left])
            await target.drain()
            if blobs.within and self.passed == harm.cut_after:
                self._cut_here(pair, target)
                return
        visit.until = time.monotonic()
        if target.can_write_eof():
            target.write_eof()

    def _left_of(self, piece: bytes, blobs: _Blobs) -> int:
        """Return how much of a piece of requests is passed on."""
        begins = blobs.begins(piece)
        most, after = len(piece) - begins, self.harm.cut_after
        passes = most if after is None else min(most, after - self.passed)
        self.passed += passes
        return begins + passes

    def _cut_here(self, pair: _Pair, target: asyncio.StreamWriter) -> None:
        """Cut the connection once.

        The host still receives the last piece, because the connection to it is closed and not reset.
        """
        self.harm = replace(self.harm, cut_after=None)
        pair.writers = [writer for writer in pair.writers if writer is not target]
        self._reset(pair)
        target.close()

    def _seconds(self, piece: bytes) -> float:
        harm = self.harm
        return harm.delay_seconds + (len(piece) / harm.bytes_a_second if harm.bytes_a_second else 0.0)
