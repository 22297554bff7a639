"""The outcome of an attempt, from its process to its host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from paglets.codec.tagged_json import encode
from paglets.core.errors import Invalid, NoRoom, TooLarge
from paglets.core.refs import StoredValue
from paglets.core.text import printable
from paglets.worker.child.artifacts import Addressed, ChildArtifacts
from paglets.worker.child.faults import say
from paglets.worker.child.large_results import shrink
from paglets.worker.child.storage import Request
from paglets.worker.child.unit_of_work import StateKeeper, UnitOfWork
from paglets.worker.protocol import BAD_RESULT, KEPT_DAYS, Changes, Fault, Go, NewArtifact, Report

LARGE_RESULT_NAME = "result.json"
"""Of the artifact that holds a large result."""


class Reporting:
    """Of one process. `changed` is held while the state is looked at."""

    def __init__(
        self,
        go: Go,
        request: Request,
        artifacts: ChildArtifacts,
        scope: Callable[[], UnitOfWork],
        changed: AbstractContextManager[bool],
        keeper: StateKeeper,
    ) -> None:
        self._go = go
        self._request = request
        self._artifacts = artifacts
        self._scope = scope
        self._changed = changed
        self._keeper = keeper
        self._reported = False

    def report(self, report: Mapping[str, Any]) -> bool:
        """`{"success": True, "result": value}`, or False with `cause`, `message` and perhaps `traceback`, `code`.

        Beside a result `file` may stand, {"path", "name", "move"}: see `core.context`. Whatever is raised, nothing is
        reported and the file is where it was. Raises Invalid for a result that cannot travel, with the detail `field`
        "result"; and what publishing a file raises. A result over 1 MiB becomes an artifact of the collector, or its
        largest values do.
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
                sent.publication.keep() if accepted else sent.publication.drop()
        return accepted

    def _with_file(self, report: Mapping[str, Any]) -> tuple[Report, Addressed]:
        """The report with its file published, and the ref in its result."""
        collector, file = self._go.collector, report["file"]
        if collector is None:
            raise Invalid("this job has no collector that could keep its file: use upload_artifact")
        sent = self._artifacts.addressed(collector, file["path"], file.get("name"), bool(file.get("move")))
        result = {**(report.get("result") or {}), "artifact": sent.ref.to_wire()}
        return replace(_report_of({**report, "result": result}), artifact=sent.new), sent

    def _with_place(self, fault: Fault) -> Fault:
        """The fault of a result that cannot travel, with the place where the host keeps the files of the attempt."""
        kept = f"files kept for {KEPT_DAYS} days on {self._go.host.name}: {printable(self._go.work_dir)}"
        return replace(fault, message=f"{fault.message}; {kept}")

    def _shrunk(self, outcome: Report, *, has_file: bool) -> Report:
        """The report with the large parts of its result published. Without a collector nobody could keep them."""
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
        scope = self._scope()
        with self._changed:
            changes = self._changes(scope)
            try:
                answer = self._request("report", replace(outcome, changes=changes))
            except TooLarge as error:
                text = f"the result is too large to be reported: {error.message}; use an artifact"
                raise Invalid(text, field="result") from error
            self._reported = True
            if answer["accepted"]:
                scope.stored(self._keeper, changes)
        return bool(answer["accepted"])

    def _changes(self, scope: UnitOfWork) -> Changes:
        """Without the state where that cannot travel: the result counts, and the attempt ends with it."""
        try:
            return scope.changes(self._keeper)
        except Invalid as error:
            say(f"the state is not stored with the report: {error.message}")
            return scope.changes_beside_state()


def _report_of(report: Mapping[str, Any]) -> Report:
    if report["success"]:
        try:
            return Report(success=True, result=encode(report.get("result"), "result"))
        except Invalid as error:
            raise Invalid(error.message, field="result") from error
    texts = {name: str(report.get(name, "")) for name in ("cause", "message", "traceback", "code")}
    return Report(success=False, fault=Fault(**texts, scratch_bytes=0))
