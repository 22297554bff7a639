"""Compute jobs: paglets whose `run_compute_job` runs once they hold a slot."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from paglets.core.agent import Paglet, PagletState
from paglets.core.errors import FileChanged, Invalid, PagletsError
from paglets.core.record import to_json
from paglets.core.refs import Kind
from paglets.core.signatures import HookEvent, call_hook, call_method
from paglets.core.text import printable
from paglets.slots.model import SlotRequest
from paglets.slots.states import FINAL
from paglets.system.requests import slot_request_of

MOST_DETAILS = 2000
"""Characters of the details of a reported failure: its message keeps 8,192."""

MOST_PATH = 200
"""Characters of a path in a warning, which is bounded itself."""

SYSTEM_FIELDS = (
    "home_host_name",
    "home_host_url",
    "group_id",
    "job_key",
    "generation",
    "attempt",
    "compute_status",
    "compute_fresh",
)
"""Fields that the host writes over the state before each entry into the job's code."""


@dataclass(kw_only=True)
class ComputeJobState(PagletState):
    """State of a compute job: what it asks of a host, and what the host tells it.

    `estimated_runtime_seconds` 0 means no estimate; `placement_timeout_seconds` and `timeout_seconds`
    (of one attempt) 0 mean none. `max_attempts` counts ends of the job's own doing, `max_losses` lost
    hosts and restarts. Tags, names and URLs are tuples or lists of str.
    """

    cpu_cores: int = 1
    memory_bytes: int = 0
    temp_storage_bytes: int = 0
    gpus: int = 0
    estimated_runtime_seconds: float = 0
    required_host_tags: tuple[str, ...] = ()
    excluded_host_tags: tuple[str, ...] = ()
    preferred_host_tags: tuple[str, ...] = ()
    excluded_host_names: tuple[str, ...] = ()
    excluded_host_urls: tuple[str, ...] = ()
    allow_home_compute: bool = False
    placement_timeout_seconds: float = 0
    timeout_seconds: float = 0
    max_attempts: int = 1
    max_losses: int = 10

    job_key: str = ""
    """Names the job in its group; an empty one is filled in by position."""

    # Written by the host.
    group_id: str = ""
    generation: int = 0
    attempt: int = 0
    compute_status: str = ""
    compute_fresh: bool = True
    """Whether this attempt begins from the submitted state rather than from a checkpoint."""

    def slot_request(self) -> SlotRequest:
        """What this state asks of a host. Raises Invalid naming the wrong field."""
        return slot_request_of(self)


@dataclass(kw_only=True)
class CollectingComputeJobState(ComputeJobState):
    """State of a job whose outcome goes to the collector of its group."""


if TYPE_CHECKING:  # With a default, as `core.agent.S`.
    import typing_extensions

    J = typing_extensions.TypeVar("J", bound=ComputeJobState, default=ComputeJobState)
else:
    J = TypeVar("J", bound=ComputeJobState)


class ComputeJobPaglet(Paglet[J], Generic[J]):
    """A job: override `run_compute_job`, and return the result from it or from `build_result_payload`.

    Each attempt runs in a process of its own while the job holds its slot. The first report of an
    attempt is its outcome; whatever follows in that attempt changes nothing.
    """

    State: ClassVar[type[PagletState]] = ComputeJobState
    kind: ClassVar[Kind] = "job"

    _reported = False
    """Whether this attempt's outcome was reported from here."""

    _returned: Any = None
    """The value that `run_compute_job` returned, until it is the result."""

    @classmethod
    def creation_request(cls, state: PagletState) -> dict[str, Any] | None:
        request: dict[str, Any] = to_json(slot_request_of(state))
        return request

    # To override.

    def run_compute_job(self) -> Any:
        """Do the work, once in each attempt. An exception is the failure of that attempt.

        The value that is returned is the result, unless it is None, the attempt was reported before, or the class
        overrides `build_result_payload`. A value that is not used adds a warning to the log and the record.
        """
        raise NotImplementedError(f"{type(self).__qualname__} has no run_compute_job()")

    def build_result_payload(self) -> dict[str, Any]:
        """Return the result of an attempt that reported and returned nothing."""
        return {}

    def after_compute_success(self) -> None:
        """Report the returned value or `build_result_payload()` after `run_compute_job`, if nothing was reported."""
        if self._reported:
            return
        if self._returned is None or self._builds_payload():
            self.report_compute_success(call_method(self, "build_result_payload"))
        else:
            returned, self._returned = self._returned, None
            self.report_compute_success(returned)

    def _builds_payload(self) -> bool:
        """Return True if `build_result_payload` is not the one of this class."""
        method: Any = self.build_result_payload
        return getattr(method, "__func__", None) is not ComputeJobPaglet.build_result_payload

    def after_compute_failure(self, error: BaseException) -> None:
        """After an exception of `run_compute_job`. A report made here stands in for the exception."""

    # Reporting.

    def report_compute_success(self, result: Any = None) -> bool:
        """Make `result` (any value that a message carries) the outcome; returns once it is stored.

        False, and nothing is sent, where this attempt has an outcome already. Raises Invalid for a
        result that cannot travel; the job is then a failure with cause `bad_result`.
        """
        try:
            return self._report({"success": True, "result": result})
        except Invalid as error:
            self._report_bad_result(error)
            raise

    def report_compute_artifact(
        self,
        path: str | Path,
        *,
        result: Mapping[str, Any] | None = None,
        name: str | None = None,
        move: bool = False,
    ) -> bool:
        """Make a file, and `result` with the file's ref as `artifact`, the outcome; returns once both are stored.

        The file goes to the group's collector, which owns it then; `name` is what it is called there, that of the
        file where it is left out. `move`: no copy stays at `path`, and none is made, on Linux, of a file in the
        scratch directory that nobody has open for writing. Close the file before: what is written later is not in the
        artifact. Of an SQLite database all committed rows are. `result` is None or a mapping without `artifact`.

        False, and nothing is sent, where this attempt has an outcome already. Raises Invalid for a result that
        cannot travel, as `report_compute_success`, and likewise for a database that cannot be copied, FileChanged for
        one that never rests. Raises Invalid or FileChanged for another file that cannot be taken, NoRoom for one that
        never fits here, Invalid for a name that not every system takes, or a job without a collector (use
        `upload_artifact`): then nothing is reported. While the host has no room it waits. Whatever it raises, and
        where it gives False, the file is where it was.
        """
        _check_result(result)
        file = {"path": path, "name": name, "move": move}
        try:
            return self._report({"success": True, "result": None if result is None else dict(result), "file": file})
        except (Invalid, FileChanged) as error:
            if error.details.get("field") in ("result", "database"):
                self._report_bad_result(error)
            raise

    def _report_bad_result(self, error: PagletsError) -> None:
        self._report({"success": False, "cause": "bad_result", "message": error.message, "traceback": ""})

    def report_compute_failure(self, failure: str | BaseException, *, details: Any = None) -> bool:
        """Make the attempt a failure, with a message or an exception and its traceback.

        `details`, such as a dict, are appended to the message as text of at most 2,000 characters.
        Such a failure is final: the job itself says so, and it is not tried again.
        False, and nothing is sent, where this attempt has an outcome already.
        """
        message, trace = (failure, "") if isinstance(failure, str) else (describe(failure), full_trace(failure))
        if details is not None:
            message += f"; details: {str(details)[:MOST_DETAILS]}"
        return self._report({"success": False, "cause": "exception", "message": message, "traceback": trace})

    def _report(self, report: dict[str, Any]) -> bool:
        if self._reported:
            if "file" in report:
                self.context.keep_unsent(report["file"]["path"])
            self._warn(second_report_text(report))
            return False
        accepted = self.context.report(report)
        self._reported = True
        return accepted

    def _warn(self, text: str) -> None:
        """Add a warning to the job's log and its record."""
        print(f"paglets: {self.state.job_key}: {text}", file=sys.stderr)
        self.context.warn(text)

    # The host's entry into a job.

    def compute_attempt(self) -> None:
        """One attempt from start to outcome; the host calls it in the attempt's process."""
        if self.state.compute_status in FINAL:
            return
        if self.state.compute_fresh:
            call_hook(self, "on_creation", HookEvent(kind="creation", when=self.context.wall_time()))
        try:
            self._returned = call_method(self, "run_compute_job")
        except Exception as error:
            self._failed(error)
            raise
        call_method(self, "after_compute_success")
        if self._returned is not None:
            self._warn(
                unused_value_text(self._returned, "build_result_payload" if self._builds_payload() else "the report")
            )

    def _failed(self, error: Exception) -> None:
        try:
            call_method(self, "after_compute_failure", error)
        except Exception as second:
            error.add_note(f"after_compute_failure raised too: {describe(second)}")


class CollectingComputeJobPaglet(ComputeJobPaglet[J], Generic[J]):
    """A job of a group: its host sends the outcome of the last attempt to the group's collector."""

    State: ClassVar[type[PagletState]] = CollectingComputeJobState


def second_report_text(report: Mapping[str, Any]) -> str:
    """Return the warning about a report after the first one."""
    what, way = "a result", ""
    if "file" in report:
        what = f"the file {printable(report['file']['path'])[-MOST_PATH:]} stays where it is"
        way = ", so pack several files into one"
    elif not report["success"]:
        what = f"the failure {printable(report['message'])[:200]!r}"
    return f"error: a second report was not sent, {what}: each attempt has one report{way}"


def unused_value_text(value: object, result: str) -> str:
    """Return the warning about the value of `run_compute_job` where `result` counts instead."""
    return f"run_compute_job returned a value of type {type(value).__name__} that is not used: {result} counts"


def _check_result(result: object) -> None:
    if result is not None and not isinstance(result, Mapping):
        raise Invalid(f"the result beside a file is a mapping or None, not a {type(result).__name__}")
    if result is not None and "artifact" in result:
        raise Invalid("the result beside a file has no 'artifact': the file's ref is put there")


def describe(error: BaseException) -> str:
    """`ValueError: what it says`, as the last line of a traceback has it."""
    return "".join(traceback.format_exception_only(error)).strip()


def full_trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
