"""The runs that the host kills itself, because their zygote has ended or does not answer."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import dataclass, replace

from paglets.worker.host.child_link import ChildLink
from paglets.worker.launch import ProcessExit
from paglets.worker.processes import ProcessTable, kill_runs

CLEAN_SCANS = 2
"""Number of consecutive scans that must find no process of a run before the run counts as ended. A single scan is not
atomic and can miss a process that forks."""


@dataclass(slots=True, kw_only=True)
class _AbandonedRun:
    """A run that the host kills. `how`: the exit to report. `clean_scans`: how many scans in a row found no process."""

    child: ChildLink
    how: ProcessExit
    clean_scans: int = 0


class AbandonedRuns:
    """The abandoned runs of a launcher, by token. `ended`: called with each run that has no process left."""

    def __init__(self, table: ProcessTable, ended: Callable[[ChildLink, ProcessExit], None]) -> None:
        self._table = table
        self._ended = ended
        self._runs: dict[str, _AbandonedRun] = {}

    def __bool__(self) -> bool:
        return bool(self._runs)

    def __contains__(self, token: str) -> bool:
        return token in self._runs

    def add(self, child: ChildLink, how: ProcessExit) -> None:
        self._runs[child.token] = _AbandonedRun(child=child, how=how)

    def kill(self) -> None:
        """Kill the processes of all runs, and report the end of each run that has no process left."""
        alive = kill_runs(self._table, [run.child.run_tree() for run in self._runs.values()])
        for token, run in list(self._runs.items()):
            run.clean_scans = 0 if token in alive else run.clean_scans + 1
            if run.clean_scans >= CLEAN_SCANS:
                del self._runs[token]
                tail, usage = run.child.stderr_tail(), run.child.usage
                self._ended(run.child, replace(run.how, signal=signal.SIGKILL, stderr_tail=tail, usage=usage))
