"""The collector of a group, which stores the expected jobs, results and failures.

Its handlers use only the state, the storage and a few methods of the context, so that a host can run them inside a
transaction of the store. There, arguments, stored values and replies are tagged JSON. A collector of a user's subclass
runs in a process of its own, where these values are decoded. The handlers never inspect the values of users, so they
work in both forms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar

from paglets.core.agent import Paglet, PagletState
from paglets.core.errors import Invalid, TimedOut, Unknown
from paglets.core.messages import Message
from paglets.core.record import to_json
from paglets.core.refs import HostRef
from paglets.groups.records import ExpectedJob, Report, failure_report, job_warning, result_report
from paglets.groups.rows import CollectorRows, ReceivedReport, keys_of_report
from paglets.groups.status import GROUP_TRANSITIONS
from paglets.groups.summary import Location, json_bytes, page
from paglets.system.collector_ledger import Ledger, ResultCollectorState
from paglets.system.collector_messages import (
    LISTS,
    Begin,
    Cancel,
    CopiesGone,
    Drain,
    Ended,
    Listed,
    NewKey,
    Nothing,
    Register,
    Results,
    Summary,
    new_keys,
    parse,
)
from paglets.system.collector_views import View

__all__ = ["KINDS", "ResultCollectorPaglet", "ResultCollectorState"]

KINDS = (
    "begin",
    "summary",
    "drain",
    "results",
    "listed",
    "counts",
    "reasons",
    "ended",
    "register_jobs",
    "job_result",
    "job_failure",
    "job_warning",
    "return_home",
    "cancel",
    "copies_gone",
)
"""The kinds of messages of a collector. The method of the same name handles each."""

SMALL_GROUP_JOBS, SMALL_SUMMARY_BYTES = 16, 64 << 10
"""The maximum size of a group, and of its summary, for a reply to `ended` that includes the summary.

The limits are low, because this reply has a short time-out.
"""


HANDLED_BEFORE_BEGIN = frozenset({"begin", "register_jobs", "job_result", "job_failure", "job_warning", "copies_gone"})
"""The kinds that a collector handles before it knows its group. All others wait for `begin`."""


class ResultCollectorPaglet(Paglet[ResultCollectorState]):
    """A paglet that collects the outcomes of a group, and may move home when all jobs have ended.

    A subclass that overrides `handle_message` or a hook must call the method of this class.
    """

    State: ClassVar[type[PagletState]] = ResultCollectorState

    READ_ONLY_KINDS: ClassVar[frozenset[str]] = frozenset(
        {"summary", "drain", "results", "listed", "counts", "reasons", "ended"}
    )
    """The kinds whose handlers only read. A host runs them on a read-only connection to its database."""

    @staticmethod
    def keys_read(kind: str, args: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the storage keys that the handler of this message reads. A host reads those of many posts together."""
        return keys_of_report(args.get("job_key")) if kind in ("job_result", "job_failure") else ()

    def handle_message(self, message: Message) -> Any:
        if message.kind not in KINDS:
            return self.not_handled(message)
        if message.kind not in HANDLED_BEFORE_BEGIN:
            # A collector in a process of its own receives `begin` as a post, so calls may arrive earlier.
            self.wait_state(_has_begun)
        handler: Callable[[Message], Any] = getattr(self, message.kind)
        return handler(message)

    # Hooks, which the host calls.

    def on_creation(self) -> None:
        """Set this host as the home if the collector was created without `begin`."""
        if not self.state.home_store_id:
            self._adopt_home(self.context.ref.host)
            self.state.group_id = self.state.group_id or self.agent_id
            self.state.created_at = self.context.wall_time()

    def on_dispatching(self) -> None:
        if GROUP_TRANSITIONS.allows(self.state.status, "departing"):
            self._move("departing")

    def on_arrival(self) -> None:
        if self._is_home():
            if GROUP_TRANSITIONS.allows(self.state.status, "arrived_home"):
                self._move("arrived_home")
        elif GROUP_TRANSITIONS.allows(self.state.status, "turned_back"):
            self._move("turned_back")
            self._go_home()

    # Handlers of messages about jobs and reports.

    def begin(self, message: Message) -> dict[str, Any]:
        """Store the keys, creation failures and home of the group. Process the reports that arrived earlier.

        A repeated call changes nothing.
        """
        begin = parse(Begin, message.kind, message.args)
        if self.state.home_store_id:
            if self.state.group_id != begin.group_id:
                raise Invalid(f"this is the collector of group {self.state.group_id}, not of {begin.group_id}")
            return self._counts()
        self._adopt_home(begin.home)
        self.state.group_id = begin.group_id
        self.state.created_at = begin.created_at
        self.state.return_home_when_complete = begin.return_home_when_complete
        self.state.submitter_id = begin.submitter_id
        self.state.job_class = begin.job_class
        self.state.first_generation = begin.first_generation
        ledger = self._ledger()
        new = ledger.register(new_keys(begin.jobs, message.kind))
        self._delete(ledger.take_unexpected(new))
        for failure in begin.failures:
            ledger.register([NewKey(job_key=failure.job_key, generation=1, metadata={})])
            failure = replace(failure, host_name=failure.host_name or begin.home.name)
            ledger.take(ReceivedReport(report=failure, reported_at=begin.created_at))
        self._settle()
        return self._counts()

    def register_jobs(self, message: Message) -> dict[str, Any]:
        """Add or update keys (`Ledger.register`). Process the reports that arrived before their keys."""
        keys = new_keys(parse(Register, message.kind, message.args).jobs, message.kind)
        ledger = self._ledger()
        new = ledger.register(keys)
        if new:
            self._wake_up()
            self._delete(ledger.take_unexpected(new))
            self._settle()
        return self._counts() | {"registered": len(new), "known": len(keys) - len(new)}

    def job_result(self, message: Message) -> dict[str, Any]:
        return self._report(message, result_report(message.args))

    def job_failure(self, message: Message) -> dict[str, Any]:
        return self._report(message, failure_report(message.args))

    def job_warning(self, message: Message) -> dict[str, Any]:
        """Add a warning to the record of an attempt. If there is no record yet, store the warning until it exists."""
        self._ledger().warn(job_warning(message.args))
        return self._counts()

    def cancel(self, message: Message) -> dict[str, Any]:
        """End keys as `cancelled`, in one transaction. A key that has a record keeps it.

        The reply has the state of each key: `cancelled`, `already_completed`, `already_failed`, `already_cancelled` or
        `unknown`. It also has the copies of cancelled jobs, each with its last known host, so that they can be killed.
        Copies that count as `lost` are among them.
        """
        cancel = parse(Cancel, message.kind, message.args)
        ledger = self._ledger()
        keys: dict[str, str] = {}
        copies: list[dict[str, Any]] = []
        for key, job in self._asked(cancel.job_keys):
            keys[key] = ledger.cancel(key, job, cancel.reason)
            if keys[key] in ("cancelled", "already_cancelled") and job is not None:
                copies += _whereabouts(key, job)
        self._settle()
        return self._counts() | {"keys": keys, "copies": copies}

    def copies_gone(self, message: Message) -> dict[str, Any]:
        """Forget the copies of cancelled keys. Sent after each host that may have one has replied that it has none."""
        ledger = self._ledger()
        for key, job in self._asked(parse(CopiesGone, message.kind, message.args).job_keys):
            ledger.gone(key, job)
        return self._counts()

    def return_home(self, message: Message) -> dict[str, Any]:
        """Move the collector home as soon as all keys have ended. This overrides the setting of the submission."""
        parse(Nothing, message.kind, message.args)
        self.state.return_home_when_complete = True
        if not self._is_home() and GROUP_TRANSITIONS.allows(self.state.status, "sent_home"):
            self._move("sent_home")
            self._go_home()
        return self._counts()

    # Handlers that only read.

    def summary(self, message: Message) -> dict[str, Any]:
        """Return the summary with bounded lists and exact counts (see `groups.summary`)."""
        asked = parse(Summary, message.kind, message.args)
        if asked.limit is not None:
            _positive(asked.limit, "summary.limit")
        return self._view().summary(asked.job_key, asked.limit)

    def drain(self, message: Message) -> dict[str, Any]:
        """Return the summary once no key is pending, without waiting for the move home. Raises TimedOut."""
        drain = parse(Drain, message.kind, message.args)
        if not self.wait_state(_none_pending, drain.timeout_seconds):
            raise TimedOut(
                f"{self.state.pending_count} of {self.state.expected_count} jobs of {self.state.group_id} "
                f"have not ended after {drain.timeout_seconds} s; they continue"
            )
        return self._view().summary()

    def results(self, message: Message) -> dict[str, Any]:
        """Return a page of `results` and `failures` by key. `next`: the value of `after` for the next page, or null."""
        asked = parse(Results, message.kind, message.args)
        entries, more = page(self._rows.all_records(asked.after, asked.kind), _positive(asked.limit, "results.limit"))
        return {
            "results": {key: row for key, kind, row in entries if kind == "result"},
            "failures": {key: row for key, kind, row in entries if kind == "failure"},
            "next": entries[-1][0] if more else None,
            "size_bytes": json_bytes(entries),
            "pending_count": self.state.pending_count,
        }

    def listed(self, message: Message) -> dict[str, Any]:
        """Return a page of one of LISTS of the summary. `next`: the value of `after` for the next page, or null."""
        asked = parse(Listed, message.kind, message.args)
        if asked.name not in LISTS:
            raise Invalid(f"listed.name is {asked.name!r}: it must be one of {', '.join(LISTS)}")
        entries, more = page(self._view().listed(asked.name, asked.after), _positive(asked.limit, "listed.limit"))
        return {"entries": [entry for _, entry in entries], "next": entries[-1][0] if more else None}

    def counts(self, message: Message) -> dict[str, Any]:
        """Return the counts of the summary, the number of `pending` jobs by status, and of `failed` jobs by cause."""
        parse(Nothing, message.kind, message.args)
        counted = {"pending": self._rows.statuses(), "failed": self._rows.causes()}
        return {**self._counts(), "last_report_at": self.state.last_report_at, **counted}

    def reasons(self, message: Message) -> dict[str, Any]:
        """Return why jobs are pending or failed, with the number of jobs and one job key for each reason."""
        parse(Nothing, message.kind, message.args)
        return self._view().reasons()

    def ended(self, message: Message) -> dict[str, Any]:
        """Return a page of records in the order in which keys ended. `next`: the value of `after` for the next page."""
        asked = parse(Ended, message.kind, message.args)
        if asked.wait_seconds > 0:
            self.wait_state(lambda state: state.ended_count > asked.after or _none_pending(state), asked.wait_seconds)
        entries, _ = page(self._view().ended(asked.after, asked.brief), _positive(asked.limit, "ended.limit"))
        state = self.state
        found = {
            "ended": entries,
            "next": entries[-1]["number"] if entries else asked.after,
            "pending_count": state.pending_count,
            "expected_count": state.expected_count,
            "status": state.status,
            "created_at": state.created_at,
            "completed_at": state.completed_at,
        }
        return {**found, "summary": self._small_summary()} if asked.with_summary else found

    # Helpers of the handlers.

    def _small_summary(self) -> dict[str, Any] | None:
        """Return the summary, or None if a key is pending or the group or its summary is not small."""
        if self.state.pending_count or self.state.expected_count > SMALL_GROUP_JOBS:
            return None
        summary = self._view().summary()
        return summary if json_bytes(summary) <= SMALL_SUMMARY_BYTES else None

    @property
    def _rows(self) -> CollectorRows:
        return CollectorRows(self.storage)

    def _view(self) -> View:
        here = Location(host_name=self.context.name, host_url=self.context.address, agent_id=self.agent_id)
        return View(self.state, self._rows, here)

    def _ledger(self) -> Ledger:
        return Ledger(self.state, self._rows, self.context.wall_time())

    def _move(self, event: str) -> None:
        self.state.status = GROUP_TRANSITIONS.move(self.state.status, event)

    def _adopt_home(self, home: HostRef) -> None:
        self.state.home_store_id = home.store_id
        self.state.home_host_name = home.name
        self.state.home_host_url = home.url

    def _is_home(self) -> bool:
        return self.state.home_store_id in ("", self.context.ref.host.store_id)

    def _go_home(self) -> None:
        state = self.state
        home = HostRef(store_id=state.home_store_id, name=state.home_host_name, url=state.home_host_url)
        self.context.intend_move(home)

    def _settle(self) -> None:
        """Complete the group if no key is pending. A collector that is to return home moves there first."""
        if self.state.pending_count or self.state.status != "ACTIVE" or not _has_begun(self.state):
            return
        self.state.completed_at = self.context.wall_time()
        if self.state.return_home_when_complete and not self._is_home():
            self._move("ended_away")
            self._go_home()
        else:
            self._move("ended")

    def _wake_up(self) -> None:
        """Make the group active again after a new key, and cancel a move home."""
        if self.state.status != "ACTIVE":
            self.context.intend_stay()
        self._move("registered")
        self.state.completed_at = None

    def _report(self, message: Message, report: Report) -> dict[str, Any]:
        if not report.host_name and message.sender is not None:
            report = replace(report, host_name=message.sender.host.name)
        now = self.context.wall_time()
        self.state.last_report_at = now
        artifact_ids = tuple(artifact.artifact_id for artifact in message.artifacts)
        verdict = self._ledger().take(ReceivedReport(report=report, reported_at=now, artifact_ids=artifact_ids))
        if verdict not in ("accepted", "unexpected"):
            self._delete(artifact_ids)
        self._settle()
        return {"accepted": verdict == "accepted", "verdict": verdict}

    def _delete(self, artifact_ids: Iterable[str]) -> None:
        """Delete artifacts of reports that are not accepted, since nothing refers to them."""
        for artifact_id in artifact_ids:
            # If the collector runs in a process of its own, the deletion takes effect before the commit of the handler.
            # A repeated handler then finds no artifact.
            with suppress(Unknown):
                self.context.delete_artifact(artifact_id)

    def _asked(self, keys: tuple[str, ...] | None) -> Iterable[tuple[str, ExpectedJob | None]]:
        return self._rows.jobs() if keys is None else ((key, self._rows.job(key)) for key in keys)

    def _counts(self) -> dict[str, Any]:
        state = self.state
        return {
            "group_id": state.group_id,
            "status": state.status,
            "expected_count": state.expected_count,
            "completed_count": state.completed_count,
            "failed_count": state.failed_count,
            "pending_count": state.pending_count,
            "waiting_for_home": state.status == "WAITING_FOR_HOME",
        }


def _has_begun(state: ResultCollectorState) -> bool:
    """Return True if `begin` was handled, or the collector was created without it."""
    return bool(state.home_store_id)


def _none_pending(state: ResultCollectorState) -> bool:
    return state.pending_count == 0


def _positive(limit: int, where: str) -> int:
    if limit < 1:
        raise Invalid(f"{where} is {limit}: it must be at least 1")
    return limit


def _whereabouts(key: str, job: ExpectedJob) -> list[dict[str, Any]]:
    seen = job.sighting
    found = [] if seen is None else [(seen.agent_id, seen.host, seen.residence)]
    found += [(older.agent_id, older.host, "lost") for older in job.older]
    return [
        {"job_key": key, "agent_id": agent_id, "host": to_json(host), "residence": residence}
        for agent_id, host, residence in found
    ]
