"""The receiver of status reports: it stores the reported copies of jobs in the rows of the collectors on this host."""

from __future__ import annotations

from paglets.api.groups import JobCopy, JobStatusReply, JobStatusReport, UnwantedCopy
from paglets.core.refs import HostRef
from paglets.groups import acceptance, copies
from paglets.groups.keys import collector_id
from paglets.groups.records import Sighting
from paglets.groups.rows import UNREADABLE, CollectorRows, job_row_key
from paglets.host.records.in_host_storage import InHostStorage
from paglets.store import paglets, residence
from paglets.store.db import Tx
from paglets.store.events import record_event_once

MAX_UNCHANGED = 200_000
"""The maximum number of remembered copies, about 25 MB. If there are more, all are dropped and processed again."""


class SightingRecorder:
    """The receiver of status reports for the collectors on this host.

    Most reported copies are the same as in the previous report. What happens to a copy depends only on the copy, its
    host, the row of its job key and the first generation of the group. For a wanted copy that changed nothing, the
    recorder remembers a hash of these values. While the hash stays the same, the row is not decoded. Call `receive` in
    a transaction of the store's writer.
    """

    def __init__(self) -> None:
        # By the hash of a collector, a host and a paglet id: the hash of the values that changed nothing.
        self._unchanged: dict[int, int] = {}

    def receive(self, tx: Tx, reported: JobStatusReport, now: float) -> JobStatusReply:
        """Store a status report in the rows of the collectors on this host.

        The reply names the copies that are no longer wanted, and the groups whose collectors are not on this host.
        """
        unwanted: list[UnwantedCopy] = []
        elsewhere: list[str] = []
        by_group: dict[str, list[JobCopy]] = {group: [] for group in reported.group_ids}
        for copy in reported.copies:
            by_group.setdefault(copy.group_id, []).append(copy)
        for group_id, reported_copies in by_group.items():
            agent_id = collector_id(group_id)
            row = residence.find(tx, agent_id)
            if row is None or row.status != "here":
                elsewhere.append(group_id)
            else:
                unwanted += self._record(tx, agent_id, reported.host, reported_copies, now)
        return JobStatusReply(unwanted=tuple(unwanted), elsewhere=tuple(elsewhere))

    def _record(self, tx: Tx, agent_id: str, host: HostRef, reported: list[JobCopy], now: float) -> list[UnwantedCopy]:
        """Store the copies in the rows of one collector. Return those that are no longer wanted."""
        unwanted: list[UnwantedCopy] = []
        storage = InHostStorage(tx, agent_id)
        storage.hold([job_row_key(copy.job_key) for copy in reported])
        rows, first = CollectorRows(storage), _first_generation(tx, agent_id)
        for copy in reported:
            text = storage.text(job_row_key(copy.job_key))
            known, values = hash((agent_id, host.store_id, copy.agent_id)), hash((host, copy, first, text))
            if self._unchanged.get(known) == values:
                continue
            try:
                cause = _record_copy(rows, host, copy, first, now)
            except UNREADABLE as error:
                record_event_once(tx, now, "unreadable", f"{copy.job_key} ({agent_id})", repr(error))
                continue
            if cause is not None:
                unwanted.append(UnwantedCopy(agent_id=copy.agent_id, cause=cause))
            elif text is not None and storage.text(job_row_key(copy.job_key)) == text:
                self._remember(known, values)
        storage.flush()
        return unwanted

    def _remember(self, known: int, values: int) -> None:
        if len(self._unchanged) >= MAX_UNCHANGED:
            self._unchanged.clear()
        self._unchanged[known] = values


def _record_copy(
    rows: CollectorRows, host: HostRef, copy: JobCopy, first: int, now: float
) -> acceptance.CancelCause | None:
    """Store the sighting of a copy. Return the cause for cancelling the copy, or None if it must continue."""
    cause = copies.record_sighting(rows, copy.job_key, _sighting(host, copy, now))
    return "cancelled" if cause is None and copy.generation < first else cause


def _first_generation(tx: Tx, agent_id: str) -> int:
    """Return the first generation that counts for the collector. Older copies belong to an earlier group of this id.

    It matters only for job keys that the collector does not know. For other keys, `record_sighting` uses their rows.
    """
    first = paglets.state_value(tx, agent_id, "first_generation")
    return first if isinstance(first, int) else 1


def _sighting(host: HostRef, copy: JobCopy, now: float) -> Sighting:
    return Sighting(
        agent_id=copy.agent_id,
        host=host,
        generation=copy.generation,
        attempt=copy.attempt,
        epoch=copy.epoch,
        residence=copy.residence,
        status=copy.status,
        reason=copy.reason,
        reason_text=copy.reason_text,
        never=copy.never,
        since=now,
        target=copy.target,
    )
