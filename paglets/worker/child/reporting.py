"""The report of an attempt's outcome to the host.

A result that is too large for a record is published as artifacts. Tags in the result refer to the artifacts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from paglets.codec.encoder import looks_like_tag
from paglets.codec.tagged_json import dump_bytes, encode
from paglets.core.errors import Invalid, NoRoom, TooLarge
from paglets.core.refs import StoredValue
from paglets.core.text import printable
from paglets.worker.child.artifacts import ChildArtifacts, OutgoingArtifact
from paglets.worker.child.faults import say
from paglets.worker.child.storage import Request
from paglets.worker.child.unit_of_work import StateKeeper, UnitOfWork
from paglets.worker.protocol import (
    BAD_RESULT,
    KEPT_DAYS,
    Changes,
    EntryDone,
    Fault,
    Go,
    Intent,
    NewArtifact,
    Report,
)

LARGE_RESULT_NAME = "result.json"
"""Name of artifacts that hold a large result, or a large value of it."""

MAX_INLINE_BYTES = 1 << 20
"""Maximum size of a result in a record. A page of a group's records has space for eight results of this size."""

MAX_PARTS = 16
"""Maximum number of values of a result that become separate artifacts.

If a result is still too large without its 16 largest values, the whole result becomes one artifact.
"""

MAX_ENTRIES = 10_000
"""Maximum number of entries of a result. The values of a larger one do not become separate artifacts."""

Store = Callable[[bytes], Any]
"""A function that publishes bytes as an artifact and returns the tag that refers to it."""


class Reporting:
    """The reporting of an attempt's outcome. Only one report is accepted. `changed`: the lock of the state.

    `reported`: True once the host has answered a report, or one is deferred. `can_defer`: True if the last report may
    be sent with the end of the attempt.
    """

    def __init__(
        self,
        go: Go,
        request: Request,
        artifacts: ChildArtifacts,
        unit: Callable[[], UnitOfWork],
        changed: AbstractContextManager[bool],
        keeper: StateKeeper,
    ) -> None:
        self._go = go
        self._request = request
        self._artifacts = artifacts
        self._unit = unit
        self._changed = changed
        self._keeper = keeper
        self.reported = False
        self.can_defer = False
        self._deferred: Report | None = None

    def report(self, report: Mapping[str, Any]) -> bool:
        """Report the outcome of the attempt. Return True if the host accepts the report, False for a second report.

        `report` is `{"success": True, "result": ...}` or `{"success": False, "cause": ..., "message": ...}`. The latter
        may also have `traceback` and `code`. The former may have `file`, a dict with `path`, `name` and `move` (see
        `core.context`). If a result exceeds MAX_INLINE_BYTES, it or its largest values become artifacts of the
        collector. A report with `is_last` may be deferred.

        Raises Invalid with the detail `field` "result" if the result cannot be encoded, and the errors of
        `BlobPublisher.publish`. After an error nothing is reported, and the file is not moved.
        """
        if self.reported:
            return False
        outcome, sent = _report_of(report), None
        if outcome.fault is not None and outcome.fault.cause == BAD_RESULT:
            outcome = replace(outcome, fault=self._with_place(outcome.fault))
        if report.get("file") is not None:
            outcome, sent = self._with_file(report)
        accepted = False
        try:
            outcome = self._shrunk(outcome, has_file=sent is not None)
            accepted = self._defer(report, outcome) or self._report(outcome)
        finally:
            if sent is not None:
                sent.publication.commit() if accepted else sent.publication.rollback()
        return accepted

    def _defer(self, report: Mapping[str, Any], outcome: Report) -> bool:
        """Keep a report until `last`, unless the host can refuse its artifacts. Return True if it is kept."""
        is_plain = outcome.success and outcome.artifact is None and not outcome.stored
        if self.can_defer and report.get("is_last") and is_plain and self._go.collector is not None:
            self.reported, self._deferred = True, outcome
        return self._deferred is not None

    def last(self, has_unsent_file: bool) -> EntryDone | None:
        """Return the end of the attempt with the deferred report, if any. Send the report now if the end says more."""
        outcome, self._deferred = self._deferred, None
        if outcome is None:
            return None
        unit = self._unit()
        if unit.changes_beside_state() == Changes() and unit.intent == Intent() and not has_unsent_file:
            return EntryDone(report=replace(outcome, changes=self._changes(unit)))
        self._report(outcome)
        return None

    def _with_file(self, report: Mapping[str, Any]) -> tuple[Report, OutgoingArtifact]:
        """Publish the file of a report as an artifact. Return the report, which then refers to it, and the artifact."""
        collector, file = self._go.collector, report["file"]
        if collector is None:
            raise Invalid("this job has no collector to keep the file of its report: use upload_artifact")
        sent = self._artifacts.outgoing(collector, file["path"], file.get("name"), bool(file.get("move")))
        result = {**(report.get("result") or {}), "artifact": sent.ref.to_wire()}
        return replace(_report_of({**report, "result": result}), artifact=sent.new), sent

    def _with_place(self, fault: Fault) -> Fault:
        """Return the fault with the path of the attempt's files, which the host keeps, added to its message."""
        kept = f"files kept for {KEPT_DAYS} days on {self._go.host.name}: {printable(self._go.work_dir)}"
        return replace(fault, message=f"{fault.message}; {kept}")

    def _shrunk(self, outcome: Report, *, has_file: bool) -> Report:
        """Publish the large parts of a result as artifacts of the collector, and return the shorter report.

        A report of a failure, or of a job without a collector, is returned unchanged.
        """
        if not outcome.success or self._go.collector is None:
            return outcome
        stored: list[NewArtifact] = []

        def store(data: bytes) -> Any:
            made = self._artifacts.stored(data, LARGE_RESULT_NAME)
            stored.append(made)
            blob = made.blob
            return encode(
                StoredValue(artifact_id=made.artifact_id, sha256=blob.sha256, size_bytes=blob.size_bytes), "result"
            )

        try:
            result = shrink(outcome.result, store, has_file=has_file)
        except (NoRoom, Invalid) as error:
            raise Invalid(f"the result is too large to be stored: {error.message}", field="result") from error
        return replace(outcome, result=result, stored=tuple(stored))

    def _report(self, outcome: Report) -> bool:
        unit = self._unit()
        with self._changed:
            changes = self._changes(unit)
            try:
                answer = self._request("report", replace(outcome, changes=changes))
            except TooLarge as error:
                text = f"the result is too large to be reported: {error.message}; use an artifact"
                raise Invalid(text, field="result") from error
            self.reported = True
            if answer["accepted"]:
                unit.stored(self._keeper, changes)
        return bool(answer["accepted"])

    def _changes(self, unit: UnitOfWork) -> Changes:
        """Return the changes to commit with the report. A state that cannot be encoded is left out, with a warning."""
        try:
            return unit.changes(self._keeper)
        except Invalid as error:
            say(f"the state was not stored with the report: {error.message}")
            return unit.changes_beside_state()


def _report_of(report: Mapping[str, Any]) -> Report:
    if report["success"]:
        try:
            return Report(success=True, result=encode(report.get("result"), "result"))
        except Invalid as error:
            raise Invalid(error.message, field="result") from error
    texts = {name: str(report.get(name, "")) for name in ("cause", "message", "traceback", "code")}
    return Report(success=False, fault=Fault(**texts, scratch_bytes=0))


# The functions below shrink large results.


def shrink(tree: Any, store: Store, *, has_file: bool = False) -> Any:
    """Return `tree` in at most MAX_INLINE_BYTES, with large parts replaced by tags from `store`.

    If `tree` is a dict, its largest values are replaced if possible, so that small values stay readable. `has_file`:
    True if the entry `artifact` refers to a file and must stay. A tree that is then too large raises Invalid.
    """
    whole = dump_bytes(tree)
    if len(whole) <= MAX_INLINE_BYTES:
        return tree
    large = _large_parts(tree, len(whole))
    if large:
        return {name: store(dump_bytes(part)) if name in large else part for name, part in tree.items()}
    if has_file:
        raise Invalid("the result next to the file is too large and cannot be divided: put it into the file")
    return store(whole)


def _large_parts(tree: Any, size_bytes: int) -> frozenset[str]:
    """Return the names of the values to replace so that the tree is small enough; an empty set if impossible."""
    if type(tree) is not dict or looks_like_tag(tree) or len(tree) > MAX_ENTRIES:
        return frozenset()
    sizes = {name: len(dump_bytes(part)) for name, part in tree.items() if name != "artifact"}
    largest = sorted(sizes, key=lambda name: -sizes[name])
    for count, name in enumerate(largest[:MAX_PARTS], 1):
        size_bytes -= sizes[name]
        if size_bytes <= MAX_INLINE_BYTES:
            return frozenset(largest[:count])
    return frozenset()
