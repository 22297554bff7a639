"""Residents: processes that have handled all messages of their paglet and wait a few seconds for the next one.

The next message needs no fork and no imports, because the resident handles it. A resident is a run like any other: its
row in `runs` stays, and its operations are refused if it is stale. The paglet's state is committed after each handler,
so a resident can end at any time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from paglets.host.messaging.mailbox import MAX_ACTIVATIONS, Mailbox
from paglets.host.records.run_repository import Run
from paglets.host.runtime.services import HostServices
from paglets.worker.launch import IDLE_SECONDS
from paglets.worker.protocol import Go

MAX_AGE_SECONDS = 60.0
"""The age in seconds from which a process no longer becomes a resident.

This limits the memory that the code of a paglet leaks, and the time until a changed module is noticed. With one call
after the other, one fork per minute costs about 0.1 % of the time.
"""

LEAVE_SECONDS = 1.0
"""Seconds for which a process gets further messages while a hook, a move or another action of its paglet is due.

Callers who never pause would otherwise delay the action without limit. Messages that are left wait for the next
process, which costs a fork, so a process handles a short queue first.
"""

RESIDENTS_PER_CORE = 2
LEAST_RESIDENTS = 4
"""The maximum number of residents of a host is LEAST_RESIDENTS, plus RESIDENTS_PER_CORE for each offered core.

An idle resident uses memory, but no core. The limit grows with the cores, because machines with more cores usually have
more memory.
"""


def can_become_resident(entry: str, go: Go) -> bool:
    """Return True if the process may wait for further messages.

    The process of a job ends at once, because the job cannot be granted a slot or move while it has a process.
    """
    return entry == "message" and "compute_status" not in go.system


def most_residents(cpu_cores: int, activations: int) -> int:
    """Return the maximum number of residents. `activations`: the number of other processes for hooks and messages."""
    return max(0, min(LEAST_RESIDENTS + RESIDENTS_PER_CORE * cpu_cores, MAX_ACTIVATIONS - activations))


def may_wait(run: Run, now: float) -> bool:
    """Return True if a process that has no message to handle may wait for the next one. `now` is monotonic seconds."""
    return run.may_stay and now - run.started_at < MAX_AGE_SECONDS


def takes_more(run: Run, now: float) -> bool:
    """Return True if a process may get another message.

    This stays True for LEAVE_SECONDS after an action of its paglet has become due.
    """
    return run.leaves_at is None or now < run.leaves_at


def surplus(runs: Iterable[Run], now: float, most: int) -> list[Run]:
    """Return the residents to end: those idle for IDLE_SECONDS. If more than `most` are left, also the longest idle."""
    idle = sorted((since, run.agent_id, run) for run in runs if (since := run.idle_since) is not None)
    beyond = max(0, len(idle) - most)
    return [run for place, (since, _, run) in enumerate(idle) if place < beyond or now - since >= IDLE_SECONDS]


class Residents:
    """The residents among the runs of a host.

    `finish` asks a process to end. All methods run on the runner's thread.
    """

    def __init__(
        self, services: HostServices, mailbox: Mailbox, runs: Mapping[str, Run], finish: Callable[[Run], None]
    ) -> None:
        self._services = services
        self._mailbox = mailbox
        self._runs = runs
        self._finish = finish

    def activations(self) -> int:
        """Return the number of processes for hooks and messages.

        Residents do not count, because they end if another process needs their place.
        """
        return sum(run.entry != "attempt" and run.idle_since is None for run in self._runs.values())

    def let_leave(self, run: Run) -> None:
        """Let a process end soon, because a hook or an action of its paglet is due."""
        run.may_stay = False
        if run.leaves_at is None and run.entry == "message":
            run.leaves_at = self._services.clock.monotonic() + LEAVE_SECONDS

    def takes_more(self, run: Run) -> bool:
        """Return True if a process may get another message now."""
        return takes_more(run, self._services.clock.monotonic())

    def rest(self, run: Run) -> None:
        """Let a process that has no message wait for the next one. End it if it may not wait."""
        now = self._services.clock.monotonic()
        if not may_wait(run, now):
            self._finish(run)
        elif run.idle_since is None:
            run.idle_since = now
            self.end_surplus()
            self._mailbox.place_freed()

    def end_surplus(self) -> None:
        most = most_residents(self._services.settings.offered.cpu_cores, self.activations())
        for run in surplus(self._runs.values(), self._services.clock.monotonic(), most):
            self._finish(run)

    def end_all(self) -> None:
        """End all residents, because their memory is needed."""
        for run in surplus(self._runs.values(), self._services.clock.monotonic(), 0):
            self._finish(run)

    def count(self) -> int:
        return sum(run.idle_since is not None for run in self._runs.values())
