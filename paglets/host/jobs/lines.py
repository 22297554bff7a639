"""Jobs that are sent ahead: short jobs that wait in a warm worker behind its current job.

Then the worker need not wait for its next job. A line is the current job of a worker and the jobs behind it. Only the
current job has a lease, which it passes on to the next one when it ends. So a job outside the line may wait about
AHEAD_SECONDS longer for a slot. If a job takes longer than expected, the jobs behind it are taken back.

A job that reports its result is about to end, so one job may wait behind it, whatever its run time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from paglets.core.clock import Clock
from paglets.host.records.run_repository import ClosedRun, Run
from paglets.worker.launch import Launcher, ProcessExit, WorkerKey

AHEAD_SECONDS = 0.05
"""The maximum expected run time of all jobs that wait in a line. A job reaches its worker in much less time."""

PATIENCE_SECONDS = 0.2
"""Seconds after the start of a job, or after its report, at which the jobs behind it are taken back."""

MOST_AHEAD = 16
"""The maximum number of jobs that wait in a line.

More jobs would not keep the worker busier, but would have to be queued again if the worker ended.
"""

MOST_ON_HOST = 128
"""The maximum number of jobs that wait in all lines of a host.

Each has two open pipes in the zygote and in its worker.
"""

MOST_KEYS = 64
"""The maximum number of worker keys for which the expected run time is remembered."""

OLD_WEIGHT = 0.7
"""The weight of the earlier run times in the expected run time of a job.

A run time longer than expected replaces the expected one at once, because jobs must not wait behind long jobs.
"""


def most_ahead(seconds: float | None) -> int:
    """Return how many jobs may wait in a line. `seconds`: the expected run time of each job; None: unknown."""
    if seconds is None or seconds >= AHEAD_SECONDS:
        return 0
    return min(MOST_AHEAD, int(AHEAD_SECONDS / max(seconds, AHEAD_SECONDS / MOST_AHEAD)))


@dataclass(slots=True, kw_only=True)
class Line:
    """A line that has room for `room` more jobs. `waiting`: the number of jobs that wait in it.

    `first`: one of the runs in the line, not always the first one.
    """

    first: Run
    waiting: int
    room: int


def shortest(lines: Iterable[Line], key: WorkerKey | None) -> Line | None:
    """Return the line with room and this worker key in which the fewest jobs wait, or None."""
    fitting = [line for line in lines if line.room > 0 and key is not None and line.first.worker == key]
    return min(fitting, key=lambda line: line.waiting, default=None)


class Lines:
    """The lines of this host, and the expected run times of their jobs. All methods run on the runner's thread."""

    def __init__(self, clock: Clock, runs: dict[str, Run], launcher: Launcher) -> None:
        self._clock = clock
        self._runs = runs
        self._launcher = launcher
        self._seconds: dict[WorkerKey, float] = {}
        self._closed: set[str] = set()

    def most_ahead(self, key: WorkerKey | None) -> int:
        """Return how many jobs with this worker key may wait in one line."""
        return 0 if key is None else most_ahead(self._seconds.get(key))

    def with_room(self, lengths: dict[str, int], granted: Iterable[Run]) -> list[Line]:
        """Return the lines to which jobs may be sent now.

        `lengths`: the number of runs in each line. `granted`: runs that have a slot but are not launched yet. A line
        gets further jobs only while at most half as many wait in it as may wait, so that one pass over the queue sends
        several. A line whose worker did not take a job gets no further ones, because the worker may be about to end.
        """
        self._closed &= lengths.keys()
        firsts = {run.line: run for run in (*self._runs.values(), *granted) if run.line}
        ending = {run.line for run in self._runs.values() if run.is_reporting and not run.is_ahead}
        left = MOST_ON_HOST - sum(length - 1 for length in lengths.values())
        found = []
        for line, length in lengths.items():
            most = 0
            if line in firsts and line not in self._closed:
                most = min(left, max(self.most_ahead(firsts[line].worker), int(line in ending)))
            if length - 1 <= most // 2 and most > 0:
                found.append(Line(first=firsts[line], waiting=length - 1, room=most - (length - 1)))
                left -= found[-1].room
        return found

    def ended(self, run: Run, how: ProcessExit) -> float:
        """Record the end of a run, and the start of the next run in its worker.

        Return the run time of the ended run in seconds, or 0 if it did not begin.
        """
        now = self._clock.monotonic()
        seconds = now - run.started_at
        run.is_reporting = False
        if run.is_ahead and how.error:
            self._closed.add(run.line)
            run.is_unstored, seconds = False, 0.0  # Its report will not be stored, because it gets no lease.
        if how.job_seconds is not None:
            self._note(run.worker, how.job_seconds)
        if (after := self._runs.get(how.next_token)) is not None:
            after.started_at = now
        return seconds

    def _note(self, key: WorkerKey | None, seconds: float) -> None:
        if key is None:
            return
        before = self._seconds.pop(key, seconds)
        self._seconds[key] = max(seconds, OLD_WEIGHT * before + (1 - OLD_WEIGHT) * seconds)
        if len(self._seconds) > MOST_KEYS:
            del self._seconds[next(iter(self._seconds))]

    def passed_on(self, how: ProcessExit, closed: ClosedRun) -> None:
        """Mark the next run in the worker of a closed run as begun. End it if it did not get the lease."""
        after = self._runs.get(how.next_token)
        if after is not None:
            after.is_ahead = False
        if how.next_token and not (closed.has_passed_on and after is not None):
            self._launcher.end(how.next_token)

    def take_back(self, now: float) -> float:
        """Take back the jobs behind a job that runs too long.

        Return the monotonic time of the next check, or infinity.
        """
        due = {
            run.line: (run.finished_at or run.started_at) + PATIENCE_SECONDS
            for run in self._runs.values()
            if run.line and not run.is_ahead
        }
        for run in list(self._runs.values()):
            if run.is_ahead and due.get(run.line, now + 1) <= now:
                self._note(run.worker, PATIENCE_SECONDS)
                self._launcher.withdraw(run.stamp.token)
        return min((at for at in due.values() if at > now), default=float("inf"))
