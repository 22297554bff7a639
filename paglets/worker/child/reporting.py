"""The report of an attempt's outcome to the host.

Results that are too large for a record are published as artifacts, and a tag in the result names each.
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
from paglets.worker.protocol import BAD_RESULT, KEPT_DAYS, Changes, Fault, Go, NewArtifact, Report

LARGE_RESULT_NAME = "result.json"
"""Name of an artifact that holds a large result."""

MAX_INLINE_BYTES = 1 << 20
"""Largest result in a record. A page of a group's records holds eight of this size."""

MAX_PARTS = 16
"""The maximum number of values of one result that become artifacts of their own.

If a result is still too large without its 16 largest values, it becomes one artifact.
"""

MAX_ENTRIES = 10_000
"""Most entries of a dict whose values are stored one by one."""

Store = Callable[[bytes], Any]
"""A function that publishes bytes and returns the tag for them."""


class Reporting:
    """The one report of a process. `changed`: the lock of the state."""

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
        self._reported = False

    def report(self, report: Mapping[str, Any]) -> bool:
        """Report the outcome. Return True if the host accepts it; a second report returns False.

        `report`: `{"success": True, "result": value}`, or `{"success": False, "cause", "message"}` with an optional
        `traceback` and `code`. A result may come with `file`, {"path", "name", "move"}: see `core.context`. A result
        over MAX_INLINE_BYTES becomes an artifact of the collector, or its largest values do.

        Raises Invalid with the detail `field` "result" if the result cannot be encoded, and the errors of publishing a
        file. After an error nothing is reported, and the file is where it was.
        """
        if self._reported:
            return False
        outcome, sent = _report_of(report), None
        if outcome.fault is not None and outcome.fault.cause == BAD_RESULT:
            outcome = replace(outcome, fault=self._with_place(outcome.fault))
        if report.get("file") is not None:
            outcome, sent = self._with_file(report)
        accepted = False
        try:
            accepted = self._report(self._shrunk(outcome, has_file=sent is not None))
        finally:
            if sent is not None:
                sent.publication.commit() if accepted else sent.publication.rollback()
        return accepted

    def _with_file(self, report: Mapping[str, Any]) -> tuple[Report, OutgoingArtifact]:
        """Publish the file of a report. Return the report with the artifact's ref in its result."""
        collector, file = self._go.collector, report["file"]
        if collector is None:
            raise Invalid("this job has no collector that could keep its file: use upload_artifact")
        sent = self._artifacts.outgoing(collector, file["path"], file.get("name"), bool(file.get("move")))
        result = {**(report.get("result") or {}), "artifact": sent.ref.to_wire()}
        return replace(_report_of({**report, "result": result}), artifact=sent.new), sent

    def _with_place(self, fault: Fault) -> Fault:
        """Add to the fault of a bad result where the host keeps the files of the attempt."""
        kept = f"files kept for {KEPT_DAYS} days on {self._go.host.name}: {printable(self._go.work_dir)}"
        return replace(fault, message=f"{fault.message}; {kept}")

    def _shrunk(self, outcome: Report, *, has_file: bool) -> Report:
        """Publish the large parts of a result. Return the report unchanged if there is no collector to own them."""
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
            raise Invalid(f"the result does not fit: {error.message}", field="result") from error
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
            self._reported = True
            if answer["accepted"]:
                unit.stored(self._keeper, changes)
        return bool(answer["accepted"])

    def _changes(self, unit: UnitOfWork) -> Changes:
        """Return the changes; without the state if it cannot be encoded, because the attempt ends with the result."""
        try:
            return unit.changes(self._keeper)
        except Invalid as error:
            say(f"the state is not stored with the report: {error.message}")
            return unit.changes_beside_state()


def _report_of(report: Mapping[str, Any]) -> Report:
    if report["success"]:
        try:
            return Report(success=True, result=encode(report.get("result"), "result"))
        except Invalid as error:
            raise Invalid(error.message, field="result") from error
    texts = {name: str(report.get(name, "")) for name in ("cause", "message", "traceback", "code")}
    return Report(success=False, fault=Fault(**texts, scratch_bytes=0))


# Large results.


def shrink(tree: Any, store: Store, *, has_file: bool = False) -> Any:
    """Return `tree` with large parts replaced by tags from `store`, so that the rest is at most MAX_INLINE_BYTES.

    The parts are the values of a dict, so that small values stay readable beside large ones. `has_file`: the entry
    `artifact` names a file and must stay. Raises Invalid if the tree cannot be made small enough.
    """
    whole = dump_bytes(tree)
    if len(whole) <= MAX_INLINE_BYTES:
        return tree
    large = _large_parts(tree, len(whole))
    if large:
        return {name: store(dump_bytes(part)) if name in large else part for name, part in tree.items()}
    if has_file:
        raise Invalid("the result beside the file is too large and cannot be divided; put it into the file")
    return store(whole)


def _large_parts(tree: Any, size_bytes: int) -> frozenset[str]:
    """Return the names of the values to store so that the rest is small; none if that is not possible."""
    if type(tree) is not dict or looks_like_tag(tree) or len(tree) > MAX_ENTRIES:
        return frozenset()
    sizes = {name: len(dump_bytes(part)) for name, part in tree.items() if name != "artifact"}
    largest = sorted(sizes, key=lambda name: -sizes[name])
    for count, name in enumerate(largest[:MAX_PARTS], 1):
        size_bytes -= sizes[name]
        if size_bytes <= MAX_INLINE_BYTES:
            return frozenset(largest[:count])
    return frozenset()
