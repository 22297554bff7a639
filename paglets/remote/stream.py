"""A connected socket with a buffer, where every wait has a deadline.

A time-out of the socket alone is of no use: whoever sends a byte a second is never silent.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable

from paglets.core.clock import Clock

CHUNK_BYTES = 64 << 10
_LINGER_BYTES = 1 << 20

Deadline = Callable[[int], float]
"""Gives, for so many bytes received until now, the monotonic second at which the next must be here."""


class StreamEnded(ConnectionError):
    """The other side closed in order, between two bytes."""


class SendBroke(ConnectionError):
    """Sending failed after `sent` bytes had been taken by this machine's network."""

    def __init__(self, sent: int, cause: OSError) -> None:
        super().__init__(str(cause))
        self.sent = sent


class SocketStream:
    """Reads and writes raise OSError: TimeoutError at the deadline, StreamEnded, SendBroke, or the system's own."""

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        self.buffer = bytearray()
        self._sock = sock
        self._clock = clock
        with contextlib.suppress(OSError):  # some socket families have no Nagle to switch off
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def fill(self, deadline: float) -> None:
        """Add what arrives next, at least one byte, to the buffer."""
        self.buffer += self._receive(CHUNK_BYTES, deadline)

    def take(self, size: int) -> bytes:
        """Remove the first `size` bytes from the buffer."""
        taken = bytes(memoryview(self.buffer)[:size])
        del self.buffer[:size]
        return taken

    def read(self, size: int, deadline: Deadline) -> bytes:
        """Exactly `size` bytes. Memory grows with what arrives, not with what was announced."""
        body = bytearray(self.take(min(size, len(self.buffer))))
        while len(body) < size:
            body += self._receive(min(CHUNK_BYTES, size - len(body)), deadline(len(body)))
        return bytes(body)

    def send(self, data: bytes, deadline: float) -> None:
        """All of `data`."""
        view = memoryview(data)
        sent = 0
        try:
            while sent < len(view):
                self._sock.settimeout(self._left(deadline))
                sent += self._sock.send(view[sent:])
        except OSError as error:
            raise SendBroke(sent, error) from error

    def is_quiet(self) -> bool:
        """Whether the connection stands and nothing unread has arrived on it."""
        if self.buffer:
            return False
        try:
            self._sock.settimeout(0)
            self._sock.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        return False

    def close(self) -> None:
        self._sock.close()

    def end_reading(self) -> None:
        """Wake whoever waits for bytes on this stream; it gets StreamEnded."""
        with contextlib.suppress(OSError):  # the other side may be gone already
            self._sock.shutdown(socket.SHUT_RD)

    def break_off(self) -> None:
        """Wake whoever reads or writes on this stream, from another thread."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def close_gently(self, deadline: float) -> None:
        """Close after the other side had a chance to read our last words.

        Closing with unread bytes makes the system reset the connection, which wipes a reply under way.
        """
        try:
            self._sock.shutdown(socket.SHUT_WR)
            for _ in range(_LINGER_BYTES // CHUNK_BYTES):
                self._receive(CHUNK_BYTES, deadline)
        except OSError:
            pass  # it ended, or will not end: both are the time to close
        finally:
            self._sock.close()

    def _receive(self, size: int, deadline: float) -> bytes:
        self._sock.settimeout(self._left(deadline))
        data = self._sock.recv(size)
        if not data:
            raise StreamEnded("the other side closed the connection")
        return data

    def _left(self, deadline: float) -> float:
        left = deadline - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError("the time is over")
        return left
