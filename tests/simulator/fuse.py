"""Crash points: the seams between a host and its environment."""

from __future__ import annotations

BEFORE_COMMIT = "before a commit"
AFTER_COMMIT = "after a commit"
BEFORE_SEND = "before a send"
AFTER_SEND = "after a send"
AT_LAUNCH = "at a launch"
AT_FRAME = "at a frame to a child"
AT_DISK = "at a step of the disk"

SEAMS = (BEFORE_COMMIT, AFTER_COMMIT, BEFORE_SEND, AFTER_SEND, AT_LAUNCH, AT_FRAME, AT_DISK)


class Crash(BaseException):
    """A loss of power. Only the machine may catch it."""


class Fuse:
    """A crash that happens the `count`-th time that a seam is passed."""

    def __init__(self) -> None:
        self._seam = ""
        self._left = 0

    def light(self, seam: str, count: int) -> None:
        self._seam, self._left = seam, count

    def put_out(self) -> None:
        self._seam = ""

    def reach(self, seam: str) -> None:
        """Pass a seam. Raises Crash if the fuse burns through."""
        if self._seam == seam:
            self._left -= 1
            if self._left <= 0:
                self._seam = ""
                raise Crash(seam)
