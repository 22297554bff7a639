"""The idle processes of a host: residents, templates and warm workers. They end early if their memory is needed.

Their memory counts against no lease. The meter counts it as used, so jobs could wait for memory that only idle
processes hold. An idle process ends rather than free some memory, because a process rarely returns memory to the
system.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from paglets.host.jobs.residents import Residents
from paglets.host.jobs.templates import TemplateRecords
from paglets.host.runtime.services import HostServices
from paglets.slots.amounts import SHORT_REASONS
from paglets.slots.eligibility import Reason

MIN_FREE_BYTES = 256 << 20
"""Free memory of the machine below which all idle processes end. A few processes that import numpy use this much."""


def lack_unleased_memory(reasons: Iterable[Reason], free_bytes: int, unleased_bytes: int) -> bool:
    """Return True if jobs wait for memory that is not leased but that processes of this machine use.

    `reasons`: why jobs wait. `free_bytes`: the memory for further leases. `unleased_bytes`: the offered memory that is
    not leased.
    """
    short = SHORT_REASONS["memory_bytes"]
    return free_bytes < unleased_bytes and any(reason.code == short for reason in reasons)


class IdleProcesses:
    """The idle processes of a host. Its methods run on the runner's thread.

    `end_others` ends the templates and the warm workers that have no runs.
    """

    def __init__(
        self,
        services: HostServices,
        residents: Residents,
        templates: TemplateRecords,
        end_others: Callable[[], None],
    ) -> None:
        self._services = services
        self._residents = residents
        self._templates = templates
        self._end_others = end_others

    def exist(self) -> bool:
        """Return True if this host has a resident, a template or a warm worker.

        Templates and workers with runs count, too.
        """
        return self._residents.count() > 0 or self._templates.count > 0

    def end_surplus(self) -> None:
        """End the residents that were idle for too long or are too many.

        If the memory of the machine is short, end all idle processes.
        """
        if self._services.meter.available().memory_bytes < MIN_FREE_BYTES:
            self.end_all()
        else:
            self._residents.end_surplus()

    def end_all(self) -> None:
        self._residents.end_all()
        self._end_others()
