"""Jobs that are sent ahead: short jobs wait in a warm worker behind another one, so that it need not wait for them.

A line is what one worker runs, one job after the other. Only the first job has a lease; it passes the lease on when it
ends. A waiting job of another kind thus waits for about AHEAD_SECONDS of work. If a job takes longer than expected, the
jobs behind it are taken back.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from paglets.core.clock import Clock
from paglets.host.records.run_repository import ClosedRun, Run
from paglets.worker.launch import Launcher, ProcessExit, WorkerKey

AHEAD_SECONDS = 0.05
"""The work that is sent ahead. It covers the way of a job to its worker many times."""

PATIENCE_SECONDS = 0.2
"""The run time of a job after which those behind it are taken back: four times the expected time of all of them."""

MOST_AHEAD = 16
"""The number of jobs that wait behind one. More do not make the worker busier, but come back if it ends."""

MOST_ON_HOST = 128
"""The number of jobs that wait in all workers of a host. Each has two open pipes in the zygote and in its worker."""

MOST_KEYS = 64
"""The number of worker keys whose run times are remembered."""

OLD_WEIGHT = 0.7
"""The weight of the earlier run times. A longer one counts at once, because jobs must not wait behind long jobs."""


def most_ahead(seconds: float | None) -> int:
    """Return how many jobs may wait behind a job. `seconds`: the recent run time of such jobs; None: unknown."""
    if seconds is None or seconds >= AHEAD_SECONDS:
        return 0
    return min(MOST_AHEAD, int(AHEAD_SECONDS / max(seconds, AHEAD_SECONDS / MOST_AHEAD)))


@dataclass(slots=True, kw_only=True)
class Line:
    """A line with room for `room` more jobs. `first`: any run in it. `waiting`: the number of jobs ahead."""

    first: Run
    waiting: int
    room: int


def shortest(lines: Iterable[Line], key: WorkerKey | None) -> Line | None:
    """Return the line with room for a job with this key in which the fewest jobs wait; None if there is none."""
    fitting = [line for line in lines if line.room > 0 and key is not None and shared(line.first.worker) == key]
    return min(fitting, key=lambda line: line.waiting, default=None)


def shared(key: WorkerKey | None) -> WorkerKey | None:
    """Return the part of a key that does not depend on the slot: without the cores."""
    return None if key is None else replace(key, cores=())


class Lines:
    """The lines of this host, and the recent run times of their jobs. Used only on the runner."""

    def __init__(self, clock: Clock, runs: dict[str, Run], launcher: Launcher) -> None:
        self._clock = clock
        self._runs = runs
        self._launcher = launcher
        self._seconds: dict[WorkerKey, float] = {}
        self._closed: set[str] = set()

    def most_ahead(self, key: WorkerKey | None) -> int:
        """Return how many jobs with this key may wait in one line."""
        known = shared(key)
        return 0 if known is None else most_ahead(self._seconds.get(known))

    def with_room(self, lengths: dict[str, int], granted: Iterable[Run]) -> list[Line]:
        """Return the lines to which jobs are sent now. `lengths`: the number of runs in each. `granted`: new runs.

        A line is filled up when half of it has run, so that a pass over the queue serves several jobs. A line whose
        worker did not take a job gets no further ones, because the worker may be about to end.
        """
        self._closed &= lengths.keys()
        firsts = {run.line: run for run in (*self._runs.values(), *granted) if run.line}
        left = MOST_ON_HOST - sum(length - 1 for length in lengths.values())
        found = []
        for line, length in lengths.items():
            most = 0 if line not in firsts or line in self._closed else min(left, self.most_ahead(firsts[line].worker))
            if length - 1 <= most // 2 and most > 0:
                found.append(Line(first=firsts[line], waiting=length - 1, room=most - (length - 1)))
                left -= found[-1].room
        return found

    def ended(self, run: Run, how: ProcessExit) -> float:
        """Note the end of a run, and the beginning of the next run in its worker. Return its run time in seconds."""
        now = self._clock.monotonic()
        seconds = now - run.started_at
        if run.is_ahead and how.error:
            self._closed.add(run.line)
            seconds = 0.0
        if how.job_seconds is not None:
            self._note(run.worker, how.job_seconds)
        if (after := self._runs.get(how.next_token)) is not None:
            after.started_at = now
        return seconds

    def _note(self, key: WorkerKey | None, seconds: float) -> None:
        known = shared(key)
        if known is None:
            return
        before = self._seconds.pop(known, seconds)
        self._seconds[known] = max(seconds, OLD_WEIGHT * before + (1 - OLD_WEIGHT) * seconds)
        if len(self._seconds) > MOST_KEYS:
            del self._seconds[next(iter(self._seconds))]

    def passed_on(self, how: ProcessExit, closed: ClosedRun) -> None:
        """Begin the next run in the worker of a closed run. End it if it has got no lease, because its row is gone."""
        after = self._runs.get(how.next_token)
        if closed.has_passed_on and after is not None:
            after.is_ahead = False
        elif how.next_token:
            self._launcher.end(how.next_token)

    def take_back(self, now: float) -> float:
        """Take back the jobs behind long ones. Return the monotonic time of the next look, or inf."""
        due = {
            run.line: run.started_at + PATIENCE_SECONDS for run in self._runs.values() if run.line and not run.is_ahead
        }
        for run in list(self._runs.values()):
            if run.is_ahead and due.get(run.line, now + 1) <= now:
                self._note(run.worker, PATIENCE_SECONDS)
                self._launcher.withdraw(run.stamp.token)
        return min((at for at in due.values() if at > now), default=float("inf"))
