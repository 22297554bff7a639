"""A socket where every wait ends at a deadline.

`http.server` and `http.client` read and write through it as through any other. The time-out of a plain socket is of
no use: whoever sends a byte a second is never silent.
"""

from __future__ import annotations

import contextlib
import math
import socket
import sys
from typing import Any

from paglets.core.clock import Clock
from paglets.wire.http1 import CHUNK_BYTES

_LINGER_BYTES = 1 << 20


class DeadlineSocket(socket.socket):
    """`deadline` (monotonic seconds) holds for all that is received and sent until it is set anew.

    `allowance`: how many more bytes may come in. `received`: how many came.
    """

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        """Takes `sock` over."""
        super().__init__(fileno=sock.detach())
        self._clock = clock
        self.deadline = math.inf
        self.allowance = sys.maxsize
        self.received = 0

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Raises OSError: TimeoutError at the deadline, or the system's own."""
        if not self.allowance:
            raise ConnectionError("more came than is allowed")
        self._wait_until_deadline()
        got = super().recv_into(buffer, min(nbytes or len(buffer), self.allowance), flags)
        self.allowance -= got
        self.received += got
        return got

    def send(self, data: Any, flags: int = 0) -> int:
        """Raises OSError as `recv_into`."""
        self._wait_until_deadline()
        return super().send(data, flags)

    def is_quiet(self) -> bool:
        """Whether the connection stands and nothing unread has arrived on it."""
        self.settimeout(0)
        try:
            self.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def break_off(self, how: int = socket.SHUT_RDWR) -> None:
        """Wake whoever reads or writes here, from another thread."""
        with contextlib.suppress(OSError):  # the other side may be gone already
            self.shutdown(how)

    def drain(self) -> None:
        """Say that nothing more comes, and let the other side read our last words, until the deadline.

        Closing with unread bytes makes the system reset the connection, which wipes a reply under way.
        """
        with contextlib.suppress(OSError):  # it ended, or will not end: both are the time to close
            self.shutdown(socket.SHUT_WR)
            self.allowance, waste = _LINGER_BYTES, bytearray(CHUNK_BYTES)
            while self.recv_into(waste):
                pass

    def _wait_until_deadline(self) -> None:
        left = self.deadline - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError("the time is over")
        self.settimeout(left)
