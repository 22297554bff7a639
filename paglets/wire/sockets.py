"""A socket whose reads and writes end at a deadline.

`http.server` and `http.client` use it like any socket. The timeout of a plain socket restarts with each byte that
arrives, so it does not limit a whole request.
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
    """A socket with a deadline and a limit of received bytes.

    `deadline` (monotonic seconds): holds for all reads and writes until it is set again. `allowance`: the number of
    bytes that may still arrive. `received`: the number of bytes that have arrived.
    """

    def __init__(self, sock: socket.socket, clock: Clock) -> None:
        """Take over the file descriptor of `sock`, which cannot be used afterwards."""
        super().__init__(fileno=sock.detach())
        self._clock = clock
        self.deadline = math.inf
        self.allowance = sys.maxsize
        self.received = 0

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """Receive bytes into `buffer`, and return their number. Raises TimeoutError at the deadline, and OSError."""
        if not self.allowance:
            raise ConnectionError("more bytes arrived than allowed")
        self._wait_until_deadline()
        got = super().recv_into(buffer, min(nbytes or len(buffer), self.allowance), flags)
        self.allowance -= got
        self.received += got
        return got

    def send(self, data: Any, flags: int = 0) -> int:
        """Send `data` or its beginning, and return the number of bytes sent. Raises TimeoutError, OSError."""
        self._wait_until_deadline()
        return super().send(data, flags)

    def is_idle(self) -> bool:
        """Return True if the connection is open and no unread bytes have arrived."""
        self.settimeout(0)
        try:
            self.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        except OSError:
            return False
        return False

    def break_off(self, how: int = socket.SHUT_RDWR) -> None:
        """End the reads and writes of another thread on this socket."""
        with contextlib.suppress(OSError):  # the peer may have closed the connection already
            self.shutdown(how)

    def drain(self) -> None:
        """Close the socket for writing, then read and discard bytes until the peer closes or the deadline passes.

        If a socket is closed while bytes are unread, the system resets the connection, and the peer loses the reply.
        """
        with contextlib.suppress(OSError):  # an error or the deadline also ends the wait; the caller closes the socket
            self.shutdown(socket.SHUT_WR)
            self.allowance, waste = _LINGER_BYTES, bytearray(CHUNK_BYTES)
            while self.recv_into(waste):
                pass

    def _wait_until_deadline(self) -> None:
        left = self.deadline - self._clock.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        self.settimeout(left)
