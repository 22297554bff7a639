"""A fork bomb with a limit, so that a failing test does no harm."""

from __future__ import annotations

import os
import time

from paglets.core.agent import Paglet

DOUBLINGS = 4
MOST_SECONDS = 60.0


class Bomb(Paglet):  # type: ignore[type-arg]
    """A job with sixteen processes. Each one forks its successor and ends, so that any list of them is outdated."""

    def compute_attempt(self) -> None:
        until = time.monotonic() + MOST_SECONDS
        if os.fork() == 0:
            os.setsid()
            for _ in range(DOUBLINGS):
                os.fork()
            while time.monotonic() < until:
                if os.fork() != 0:
                    os._exit(0)
                os.setpgid(0, 0)
            os._exit(0)
        time.sleep(0.2)
