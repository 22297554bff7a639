"""The delivery of reports about job copies to the hosts of their collectors. Reports wait in memory only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import ceil

from paglets.api.groups import JobCopy, JobStatusReply, JobStatusReport
from paglets.core.errors import PagletsError
from paglets.core.refs import HostRef
from paglets.host.runtime.delivery import Settled, Traffic
from paglets.host.runtime.services import HostServices
from paglets.store.db import Tx
from paglets.store.pages import Page, Place
from paglets.wire.request import Request, dump_json

CHANGES_SECONDS = 1.0
ALL_SECONDS = 10.0

COPIES_A_TURN = 1_000
"""The maximum number of copies that a complete report adds in one turn. Up to 10,000 copies are reported within
ALL_SECONDS. With more copies, a complete report takes longer at the same cost per second."""

MAX_COPIES = 500
"""The maximum number of copies in one request. The host of the collector stores them in one transaction."""


def full_report_seconds(copies: int) -> float:
    """Return the seconds from one complete report of this many copies to the next."""
    return max(ALL_SECONDS, ceil(copies / COPIES_A_TURN) * CHANGES_SECONDS)


@dataclass(slots=True, kw_only=True)
class _Waiting:
    """The copies that wait to be reported to a host, by paglet id. A newer state of a copy replaces an older one."""

    host: HostRef
    copies: dict[str, JobCopy] = field(default_factory=dict)


class StatusReports(Traffic[JobCopy, JobStatusReply]):
    """The traffic of the runner part `status_reports`: the newest state of each copy that is to be reported.

    `receive` stores a report for a collector on this host. `answered` gets each answer in the transaction
    that stores it. `unreported` gets the paglet ids of the copies in a failed report.
    """

    name = "status_reports"
    answers = JobStatusReply
    answer_seconds = 10.0

    def __init__(
        self,
        services: HostServices,
        receive: Callable[[Tx, JobStatusReport], JobStatusReply],
        answered: Callable[[Tx, JobStatusReply], None],
        unreported: Callable[[Iterable[str]], None],
    ) -> None:
        self._services = services
        self._receive = receive
        self._answered = answered
        self._unreported = unreported
        self._waiting: dict[str, _Waiting] = {}
        # By store id of a host: the copies read after a suspension that the host has not answered for.
        self._unanswered: dict[str, dict[str, JobCopy]] = {}

    @property
    def awaits_answers(self) -> bool:
        """True if some host has not answered for all copies that waited at the last `await_answers`."""
        return bool(self._unanswered)

    def clear(self) -> None:
        """Drop all waiting copies, and await no answers."""
        self._waiting.clear()
        self._unanswered.clear()

    def await_answers(self) -> None:
        """Await answers for all copies that wait now."""
        self._unanswered = {store_id: dict(waiting.copies) for store_id, waiting in self._waiting.items()}

    def put(self, host: HostRef, copy: JobCopy) -> None:
        """Queue the state of a copy for the host of its collector."""
        waiting = self._waiting.setdefault(host.store_id, _Waiting(host=host))
        waiting.host = host
        waiting.copies[copy.agent_id] = copy
        unanswered = self._unanswered.get(host.store_id, {})
        if copy.agent_id in unanswered:
            unanswered[copy.agent_id] = copy
        self._services.runner.wake(self.name)

    def hosts(self, tx: Tx) -> list[HostRef]:
        self._waiting = {store_id: waiting for store_id, waiting in self._waiting.items() if waiting.copies}
        return [waiting.host for waiting in self._waiting.values()]

    def select(self, tx: Tx, host: HostRef, after: Place, skip: Sequence[str]) -> Page[JobCopy]:
        return Page(items=list(islice(self._waiting[host.store_id].copies.values(), MAX_COPIES)))

    def encode(self, tx: Tx, host: HostRef, items: Sequence[JobCopy]) -> Request:
        body = dump_json(self._report(items))
        return Request(method="POST", target="/v1/jobs/status", body=body, repeatable=True)

    def _report(self, items: Sequence[JobCopy]) -> JobStatusReport:
        group_ids = tuple(dict.fromkeys(copy.group_id for copy in items))
        return JobStatusReport(host=self._services.own, copies=tuple(items), group_ids=group_ids)

    def deliver_here(self, tx: Tx, items: Sequence[JobCopy]) -> JobStatusReply:
        return self._receive(tx, self._report(items))

    def settle(self, tx: Tx, host: HostRef, items: Sequence[JobCopy], answer: JobStatusReply) -> Settled[JobCopy]:
        self._take_off(host, items)
        unanswered = self._unanswered.get(host.store_id, {})
        for copy in items:
            if (
                unanswered.get(copy.agent_id) is copy
            ):  # An answer to a report from before the suspension does not count.
                del unanswered[copy.agent_id]
        if not unanswered and self._unanswered.pop(host.store_id, None) is not None:
            self._services.runner.wake("scheduler")
        self._answered(tx, answer)
        return Settled()

    def failed(self, host: HostRef, items: Sequence[JobCopy], error: PagletsError, *, sent: bool) -> None:
        """Let the copies be read again before the next try, because they may have changed."""
        self._take_off(host, items)
        self._unreported([copy.agent_id for copy in items])

    def _take_off(self, host: HostRef, items: Sequence[JobCopy]) -> None:
        """Remove copies from those that wait, unless a newer state has replaced them."""
        waiting = self._waiting.get(host.store_id)
        for copy in items:
            if waiting is not None and waiting.copies.get(copy.agent_id) is copy:
                del waiting.copies[copy.agent_id]
