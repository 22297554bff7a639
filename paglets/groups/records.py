"""What a collector keeps for each job key, and what is reported to it.

`result` is the user's value: whatever the collector was given, tagged JSON or decoded, goes through
untouched. All else is plain JSON.
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
    """The copy of a job that its host last told of. `since`: epoch seconds of the last change of status or reason.

    `residence`: `here` or `leaving`; `target`: where it was leaving for.
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


NO_COPY_SEEN = ("no_copy_seen", "no host has told of a copy of this job yet")
"""Reason and words of a job before the first census."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """What further copies of a job are made of; the state as it was submitted lies in a row of its own.

    `agent_id` is that of the first copy, which was made at `home`. `request`: `slots.model.SlotRequest` as JSON.
    """

    agent_id: str
    home: HostRef
    class_name: str
    request: dict[str, Any]
    files: tuple[FileRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OlderCopy:
    """A copy that was taken for lost because nothing was heard of its host: it may go on there."""

    agent_id: str
    host: HostRef
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedJob:
    """A key the group waits for, or waited for.

    `generation`: the newest. `floor`: reports of older generations count for nothing. `ended`: a result or
    failure is recorded. `since`: epoch seconds when it was registered or begun anew. `older`: copies before the one of
    `sighting` that a cancel has to ask for, the newest few.
    """

    generation: int = 1
    floor: int = 1
    ended: bool = False
    since: float
    sighting: Sighting | None = None
    older: tuple[OlderCopy, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultReport:
    """`job_result`. `generation` 0 means the newest; `runtime_seconds` of the attempt, where known."""

    job_key: str
    result: Any = None
    generation: int = 0
    attempt: int = 0
    host_name: str = ""
    runtime_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReport:
    """`job_failure`. `runtime_seconds` is taken and not kept: a failure's record does not show it."""

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
    """`job_warning`: a warning about an attempt, for its record. It may arrive before the report of that attempt."""

    job_key: str
    generation: int
    attempt: int
    text: str

    def of(self, record: Mapping[str, Any]) -> bool:
        """Return True if `record` is the record of the same attempt."""
        return (record["generation"], record["attempt"]) == (self.generation, self.attempt)


Report = ResultReport | FailureReport


def kind_of(report: Report) -> ReportKind:
    return "result" if isinstance(report, ResultReport) else "failure"


def result_report(args: Mapping[str, Any]) -> ResultReport:
    """The report in a message's arguments. Raises Invalid naming the field."""
    report = from_json(ResultReport, dict(args), "job_result")
    _check(report, "job_result")
    return report


def failure_report(args: Mapping[str, Any]) -> FailureReport:
    """The report in a message's arguments, its texts cut to their bounds. Raises Invalid naming the field."""
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
    """Return the warning in a message's arguments, cut to its bound. Raise Invalid naming the field."""
    warning = from_json(JobWarning, dict(args), "job_warning")
    check_job_key(warning.job_key)
    return replace(warning, text=warning.text[:MAX_WARNING_CHARACTERS])


def with_warnings(record: dict[str, Any], texts: Sequence[str]) -> dict[str, Any]:
    """Return the record with further warnings. Keep the first MAX_WARNINGS, each once."""
    known = dict.fromkeys((*record.get("warnings", ()), *texts))
    return {**record, "warnings": list(known)[:MAX_WARNINGS]} if known else record


def _check(report: Report, where: str) -> None:
    check_job_key(report.job_key)
    for name in ("generation", "attempt", "runtime_seconds"):
        amount = getattr(report, name)
        if amount is not None and (amount < 0 or not math.isfinite(amount)):
            raise Invalid(f"{where}.{name} is {amount}: it cannot be negative")


def report_row(report: Report) -> dict[str, Any]:
    """The report as a row for a later `row_report`; user values stay as they are."""
    return {"kind": kind_of(report)} | {field.name: getattr(report, field.name) for field in fields(report)}


def row_report(row: Mapping[str, Any]) -> Report:
    """What `report_row` wrote."""
    reports: dict[str, type[ResultReport] | type[FailureReport]] = {"result": ResultReport, "failure": FailureReport}
    cls = reports[row["kind"]]
    return cls(**{field.name: row[field.name] for field in fields(cls)})


def record_of(report: Report, generation: int, reported_at: float) -> dict[str, Any]:
    """The entry of `results` or `failures` in a summary; `generation` is the one that counts."""
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
    """Return the report without the artifacts that its result names: a duplicate's files are not kept."""
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
    """Return True for the name of a large value, as tagged JSON or decoded."""
    return isinstance(value, StoredValue) or (type(value) is dict and value.keys() == {"$stored"})


def duplicate_entry(report: Report, generation: int, reported_at: float, why: str) -> dict[str, Any]:
    """An entry of `duplicate_reports`: the record it would have been, its key, kind and why it was not taken."""
    record = record_of(without_artifact(report), generation, reported_at)
    return {"job_key": report.job_key, "kind": kind_of(report), "why": why, **record}
