"""Compute jobs: paglets whose `run_compute_job` runs once they hold a slot."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from paglets.core.agent import Paglet, PagletState
from paglets.core.errors import Invalid
from paglets.core.record import to_json
from paglets.core.refs import Kind
from paglets.core.text import printable
from paglets.slots.model import SlotRequest
from paglets.slots.states import FINAL
from paglets.system.requests import slot_request_of

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


J = TypeVar("J", bound=ComputeJobState)


class ComputeJobPaglet(Paglet[J], Generic[J]):
    """A job: override `run_compute_job`, and `build_result_payload` for what it found.

    Each attempt runs in a process of its own while the job holds its slot. The first report of an
    attempt is its outcome; whatever follows in that attempt changes nothing.
    """

    State: ClassVar[type[PagletState]] = ComputeJobState
    kind: ClassVar[Kind] = "job"

    _reported = False
    """Whether this attempt's outcome was reported from here."""

    @classmethod
    def creation_request(cls, state: PagletState) -> dict[str, Any] | None:
        request: dict[str, Any] = to_json(slot_request_of(state))
        return request

    # To override.

    def run_compute_job(self) -> None:
        """The work. It runs once in each attempt; what it raises is the failure of that attempt."""
        raise NotImplementedError(f"{type(self).__qualname__} has no run_compute_job()")

    def build_result_payload(self) -> dict[str, Any]:
        """The result that a job reports which did not report one itself."""
        return {}

    def after_compute_success(self) -> None:
        """After `run_compute_job` returned: reports `build_result_payload()` where nothing was reported yet."""
        if not self._reported:
            self.report_compute_success(self.build_result_payload())

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
        scratch directory that nobody has open for writing: close it before, since what is written later is not in
        the artifact. `result` is None or a mapping without `artifact`.

        False, and nothing is sent, where this attempt has an outcome already. Raises Invalid for a result that
        cannot travel, as `report_compute_success`; Invalid or FileChanged for a file that cannot be taken, NoRoom for
        one that never fits here, Invalid for a name that not every system takes, or a job without a collector (use
        `upload_artifact`): then nothing is reported. While the host has no room it waits. Whatever it raises, and
        where it gives False, the file is where it was.
        """
        _check_result(result)
        file = {"path": path, "name": name, "move": move}
        try:
            return self._report({"success": True, "result": None if result is None else dict(result), "file": file})
        except Invalid as error:
            if error.details.get("field") == "result":
                self._report_bad_result(error)
            raise

    def _report_bad_result(self, error: Invalid) -> None:
        self._report({"success": False, "cause": "bad_result", "message": error.message, "traceback": ""})

    def report_compute_failure(self, failure: str | BaseException) -> bool:
        """Make the attempt a failure, with a message or an exception and its traceback.

        Such a failure is final: the job itself says so, and it is not tried again.
        False, and nothing is sent, where this attempt has an outcome already.
        """
        message, trace = (failure, "") if isinstance(failure, str) else (describe(failure), full_trace(failure))
        return self._report({"success": False, "cause": "exception", "message": message, "traceback": trace})

    def _report(self, report: dict[str, Any]) -> bool:
        if self._reported:
            self._say(second_report_text(report))
            return False
        accepted = self.context.report(report)
        self._reported = True
        return accepted

    def _say(self, text: str) -> None:
        """In the job's log."""
        print(f"paglets: {self.state.job_key}: {text}", file=sys.stderr)

    # The host's entry into a job.

    def compute_attempt(self) -> None:
        """One attempt from start to outcome; the host calls it in the attempt's process."""
        if self.state.compute_status in FINAL:
            return
        if self.state.compute_fresh:
            self.on_creation()
        try:
            returned: object = self.run_compute_job()  # type: ignore[func-returns-value]
        except Exception as error:
            self._failed(error)
            raise
        if returned is not None:
            dropped = f"run_compute_job returned a {type(returned).__name__}, which is dropped"
            self._say(f"{dropped}: a job's result is what build_result_payload returns")
        self.after_compute_success()

    def _failed(self, error: Exception) -> None:
        try:
            self.after_compute_failure(error)
        except Exception as second:
            error.add_note(f"after_compute_failure raised too: {describe(second)}")


class CollectingComputeJobPaglet(ComputeJobPaglet[J], Generic[J]):
    """A job of a group: its host sends the outcome of the last attempt to the group's collector."""

    State: ClassVar[type[PagletState]] = CollectingComputeJobState


def second_report_text(report: Mapping[str, Any]) -> str:
    """What the log says of a report that came too late."""
    what, way = "a result", ""
    if "file" in report:
        what, way = f"the file {printable(report['file']['path'])}", ", so one file: pack several into one, as a zip"
    elif not report["success"]:
        what = f"the failure {printable(report['message'])[:200]!r}"
    return f"a second report was not sent, {what}: each attempt has one report{way}"


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
