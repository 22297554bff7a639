"""Where a machine may lose its power: the seams between a host and its world."""

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
    """The machine loses its power here; nothing may catch it but the machine."""


class Fuse:
    """Burns through at the `count`-th time that its seam is passed."""

    def __init__(self) -> None:
        self._seam = ""
        self._left = 0

    def light(self, seam: str, count: int) -> None:
        self._seam, self._left = seam, count

    def put_out(self) -> None:
        self._seam = ""

    def reach(self, seam: str) -> None:
        """The host passes a seam. Raises Crash."""
        if self._seam == seam:
            self._left -= 1
            if self._left <= 0:
                self._seam = ""
                raise Crash(seam)
