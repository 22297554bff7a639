"""Log lines about runs. Each names the job, or another paglet by its id, and the attempt."""

from __future__ import annotations

import logging

from paglets.host.datadir.host_log import about
from paglets.host.records import run_repository
from paglets.host.records.run_repository import Run
from paglets.host.runtime.services import HostServices


class RunLog:
    """A wrapper of the logger `paglets.runs` that adds the paglet or job and the attempt to each line."""

    def __init__(self, services: HostServices) -> None:
        self._services = services
        self._logger = services.logger("runs")

    def write(self, level: int, run: Run, text: str) -> None:
        """Log a line about a run. The name of its job is read from the store only if this log level is enabled."""
        if self._logger.isEnabledFor(level):
            job = self._services.store.read(lambda tx: run_repository.display_name(tx, run.agent_id))
            self._logger.log(level, f"{run.entry}: {text}", extra=about(job, run.stamp.attempt))

    def debug(self, run: Run, text: str) -> None:
        self.write(logging.DEBUG, run, text)

    def warning(self, run: Run, text: str) -> None:
        self.write(logging.WARNING, run, text)
