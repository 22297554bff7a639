"""The queue of bytes and descriptors for a non-blocking socket."""

from __future__ import annotations

import errno
import os
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from paglets.worker.host.reactor import Writing


@dataclass(slots=True)
class _Piece:
    """The unsent part of some bytes, and the descriptors to send with its first byte."""

    data: memoryview
    descriptors: Sequence[int]


class SendQueue:
    """A queue of bytes for a socket. It owns the descriptors in it, and closes each after it was sent or dropped."""

    def __init__(self) -> None:
        self._pieces: deque[_Piece] = deque()
        self._is_refused = False

    @property
    def writing(self) -> Writing:
        """Return when to call `flush` again."""
        if not self._pieces:
            return ""
        return "later" if self._is_refused else "ready"

    def add(self, data: bytes, descriptors: Sequence[int] = ()) -> None:
        self._pieces.append(_Piece(memoryview(data), descriptors))

    def flush(self, channel: socket.socket) -> None:
        """Send as much as the socket accepts. If the other side has ended, drop the rest.

        If too many descriptors of this user are in flight, keep the rest: the kernel accepts it when some have arrived.
        """
        self._is_refused = False
        try:
            while self._pieces:
                first = self._pieces[0]
                sent = _send(channel, first)
                _close(first)
                first.data = first.data[sent:]
                if not first.data:
                    self._pieces.popleft()
        except BlockingIOError:
            return
        except OSError as error:
            self._is_refused = error.errno == errno.ETOOMANYREFS
            if not self._is_refused:
                self.drop()

    def drop(self) -> None:
        """Empty the queue, and close its descriptors."""
        for piece in self._pieces:
            _close(piece)
        self._pieces.clear()


def _send(channel: socket.socket, piece: _Piece) -> int:
    if piece.descriptors:
        return socket.send_fds(channel, [piece.data], list(piece.descriptors))
    return channel.send(piece.data)


def _close(piece: _Piece) -> None:
    for descriptor in piece.descriptors:
        os.close(descriptor)
    piece.descriptors = ()
