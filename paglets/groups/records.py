"""The records that a collector stores for each job key, and the reports that it receives.

A `result` is the user's value, as tagged JSON or decoded. The collector stores it unchanged. All other fields are plain
JSON values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from paglets.core.errors import Invalid
from paglets.core.record import from_json
from paglets.core.refs import FileRef, HostRef, StoredValue, check_job_key

MAX_MESSAGE_CHARACTERS = 8 << 10
MAX_TRACEBACK_CHARACTERS = 64 << 10
MAX_STDERR_CHARACTERS = 8 << 10
MAX_CAUSE_CHARACTERS = 100
MAX_WARNINGS = 20
MAX_WARNING_CHARACTERS = 500

ReportKind = Literal["result", "failure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """The state of a copy of a job as its host last reported it.

    `residence`: `here` or `leaving`. `target`: the host to which a leaving copy moves. `never`: True if waiting is
    useless. `since`: the time of the last change of status or reason, in seconds since the epoch.
    """

    agent_id: str
    host: HostRef
    generation: int
    attempt: int
    epoch: int
    residence: str
    status: str
    reason: str
    reason_text: str
    never: bool
    since: float
    target: HostRef | None = None


NO_COPY_SEEN = ("no_copy_seen", "no host has reported a copy of this job yet")
"""Reason code and text of a job of which no copy has been reported yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobDescription:
    """A job description, from which further copies of a job are created. The submitted state is in a separate row.

    `agent_id`: the id of the first copy, created on the host `home`. `request`: a `slots.model.SlotRequest` as JSON.
    """

    agent_id: str
    home: HostRef
    class_name: str
    request: dict[str, Any]
    files: tuple[FileRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OlderCopy:
    """A copy that counts as lost because its host was not seen. It may still run on that host."""

    agent_id: str
    host: HostRef
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedJob:
    """A job key of a group, pending or ended.

    `generation`: the newest generation. `floor`: the lowest generation whose reports are accepted. `ended`: True if it
    was cancelled or has a record. `since`: the time of its registration or last resubmission, in seconds since the
    epoch. `sighting`: the last reported state of the newest copy. `older`: a few earlier copies, which may still run; a
    cancel must end them as well.
    """

    generation: int = 1
    floor: int = 1
    ended: bool = False
    since: float
    sighting: Sighting | None = None
    older: tuple[OlderCopy, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultReport:
    """The message `job_result`. `generation`: 0 means the newest. `runtime_seconds`: the runtime of the attempt."""

    job_key: str
    result: Any = None
    generation: int = 0
    attempt: int = 0
    host_name: str = ""
    runtime_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReport:
    """The message `job_failure`. `runtime_seconds` is accepted but not stored in the record of a failure."""

    job_key: str
    cause: str
    message: str = ""
    traceback: str = ""
    stderr_tail: str = ""
    generation: int = 0
    attempt: int = 0
    host_name: str = ""
    runtime_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWarning:
    """The message `job_warning`: a warning for the record of an attempt. It may arrive before the attempt's report."""

    job_key: str
    generation: int
    attempt: int
    text: str

    def of(self, record: Mapping[str, Any]) -> bool:
        """Return True if `record` belongs to the same attempt as this warning."""
        return (record["generation"], record["attempt"]) == (self.generation, self.attempt)


Report = ResultReport | FailureReport


def kind_of(report: Report) -> ReportKind:
    return "result" if isinstance(report, ResultReport) else "failure"


def result_report(args: Mapping[str, Any]) -> ResultReport:
    """Return the result report in the arguments of a message. Raises Invalid, which names the field."""
    report = from_json(ResultReport, dict(args), "job_result")
    _check(report, "job_result")
    return report


def failure_report(args: Mapping[str, Any]) -> FailureReport:
    """Return the failure report in the arguments of a message, with long texts cut. Raises Invalid."""
    report = from_json(FailureReport, dict(args), "job_failure")
    _check(report, "job_failure")
    if not report.cause or len(report.cause) > MAX_CAUSE_CHARACTERS:
        raise Invalid(f"job_failure.cause: expected 1 to {MAX_CAUSE_CHARACTERS} characters")
    return replace(
        report,
        message=report.message[:MAX_MESSAGE_CHARACTERS],
        traceback=report.traceback[-MAX_TRACEBACK_CHARACTERS:],
        stderr_tail=report.stderr_tail[-MAX_STDERR_CHARACTERS:],
    )


def job_warning(args: Mapping[str, Any]) -> JobWarning:
    """Return the warning in the arguments of a message, with a long text cut. Raises Invalid."""
    warning = from_json(JobWarning, dict(args), "job_warning")
    check_job_key(warning.job_key)
    return replace(warning, text=warning.text[:MAX_WARNING_CHARACTERS])


def with_warnings(record: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """Return the record with further warnings: each text once, and at most MAX_WARNINGS."""
    known = dict.fromkeys((*record.get("warnings", ()), *texts))
    return {**record, "warnings": list(known)[:MAX_WARNINGS]} if known else record


def _check(report: Report, where: str) -> None:
    check_job_key(report.job_key)
    for name in ("generation", "attempt", "runtime_seconds"):
        amount = getattr(report, name)
        if amount is not None and (amount < 0 or not math.isfinite(amount)):
            raise Invalid(f"{where}.{name} is {amount}: it must be a finite number of at least 0")


def report_row(report: Report) -> dict[str, Any]:
    """Return the report as a dict to store, which `row_report` converts back. User values are not converted."""
    return {"kind": kind_of(report)} | {field.name: getattr(report, field.name) for field in fields(report)}


def row_report(row: Mapping[str, Any]) -> Report:
    """Return the report from a dict that `report_row` made."""
    reports: dict[str, type[ResultReport] | type[FailureReport]] = {"result": ResultReport, "failure": FailureReport}
    cls = reports[row["kind"]]
    return cls(**{field.name: row[field.name] for field in fields(cls)})


def record_of(report: Report, generation: int, reported_at: float) -> dict[str, Any]:
    """Return a report as an entry of `results` or `failures` in a summary. `generation`: the effective generation."""
    common = {
        "host_name": report.host_name,
        "generation": generation,
        "attempt": report.attempt,
        "reported_at": reported_at,
    }
    if isinstance(report, ResultReport):
        return {"result": report.result, **common, "runtime_seconds": report.runtime_seconds}
    return {
        "cause": report.cause,
        "message": report.message,
        "traceback": report.traceback,
        "stderr_tail": report.stderr_tail,
        **common,
    }


def without_artifact(report: Report) -> Report:
    """Return the report without references to artifacts in its result. The artifacts of a duplicate are deleted."""
    if not isinstance(report, ResultReport):
        return report
    if _is_stored(report.result):
        return replace(report, result=None)
    if isinstance(report.result, Mapping):
        lost = {name for name, value in report.result.items() if name == "artifact" or _is_stored(value)}
        if lost:
            return replace(report, result={name: value for name, value in report.result.items() if name not in lost})
    return report


def _is_stored(value: Any) -> bool:
    """Return True if the value refers to an artifact with a large value (StoredValue), as tagged JSON or decoded."""
    return isinstance(value, StoredValue) or (type(value) is dict and value.keys() == {"$stored"})


def duplicate_entry(report: Report, generation: int, reported_at: float, why: str) -> dict[str, Any]:
    """Return an entry of `duplicate_reports`: the record, its job key and kind, and why it was not accepted."""
    record = record_of(without_artifact(report), generation, reported_at)
    return {"job_key": report.job_key, "kind": kind_of(report), "why": why, **record}
