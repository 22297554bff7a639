"""Compute jobs: paglets whose `run_compute_job` runs as soon as they hold a slot."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from paglets.core.agent import Paglet, PagletState
from paglets.core.errors import FileChanged, Invalid, PagletsError
from paglets.core.record import to_json
from paglets.core.refs import Kind
from paglets.core.signatures import HookEvent, call_hook, call_method
from paglets.core.text import printable, type_of
from paglets.slots.model import SlotRequest
from paglets.slots.states import FINAL
from paglets.system.requests import isolation_of, slot_request_of

MOST_DETAILS = 2000
"""The maximum number of characters of the details of a reported failure. Its complete message may have 8,192."""

MOST_PATH = 200
"""The maximum number of characters of a path in a warning, because the length of a warning is limited."""


@dataclass(kw_only=True)
class ComputeJobState(PagletState):
    """The state of a job: its input values, its requirements, and fields that the host sets.

    Derive a dataclass from this class and add a field, with a default, for each value. Set all fields by keyword.
    Tags, names and URLs are tuples or lists of str. You set:

        job_key = ""                    Name of the job in its group; by default job-00001, ... by position.
        cpu_cores = 1                   Cores that the host sets aside while the job runs.
        memory_bytes = 0                Bytes of memory that it sets aside.
        temp_storage_bytes = 0          Bytes of the scratch directory that it sets aside.
        gpus = 0                        GPUs that it sets aside; CUDA_VISIBLE_DEVICES names them.
        required_host_tags = ()         Tags of which a host must have all.
        excluded_host_tags = ()         Tags of which a host must have none.
        preferred_host_tags = ()        Tags that decide between hosts that fit.
        excluded_host_names = ()        Names of hosts where the job must not run.
        excluded_host_urls = ()         URLs of hosts where the job must not run.
        allow_home_compute = False      True if the job may run on the submitting host even if it knows others.
        placement_timeout_seconds = 0   Time to find a host, in seconds; then the job fails. 0: no limit.
        timeout_seconds = 0             Time for one attempt, in seconds; then the attempt fails. 0: no limit.
        estimated_runtime_seconds = 0   Your estimate for one attempt, in seconds; 0: none. Nothing depends on it.
        max_attempts = 1                Number of attempts if they fail.
        max_losses = 10                 Number of repeats after losses and restarts of hosts; failures do not count.
        isolation = ""                  "process" or "worker"; "": the `isolation` of the job's class.

    The host sets these before it calls the job's code:

        home_host_name = ""             Name of the host where the job was submitted.
        home_host_url = ""              URL of that host.
        group_id = ""                   Name of the job's group.
        generation = 0                  Number of this copy of the job, from 1; a lost copy is replaced by the next one.
        attempt = 0                     Number of the attempt of this copy, from 1.
        compute_status = ""             Status of the job, such as RUNNING.
        compute_fresh = True            False if the attempt starts from a checkpoint.

    A job that uses more cores, memory, disk or GPUs than it asked for is not stopped.
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
    isolation: str = ""

    job_key: str = ""

    # The host sets these fields.
    group_id: str = ""
    generation: int = 0
    attempt: int = 0
    compute_status: str = ""
    compute_fresh: bool = True

    def slot_request(self) -> SlotRequest:
        """Return the resources and placement rules of this state. Raises Invalid, which names the wrong field."""
        return slot_request_of(self)


@dataclass(kw_only=True)
class CollectingComputeJobState(ComputeJobState):
    __doc__ = ComputeJobState.__doc__


if TYPE_CHECKING:  # a type variable with a default, like `core.agent.S`
    import typing_extensions

    J = typing_extensions.TypeVar("J", bound=ComputeJobState, default=ComputeJobState)
else:
    J = TypeVar("J", bound=ComputeJobState)


class ComputeJobPaglet(Paglet[J], Generic[J]):
    """A job: a class whose `run_compute_job` runs on a host with room for it, with `State` as its input.

    Override:

        run_compute_job            do the work, and return the result or report it
        build_result_payload       build the result after the work
        after_compute_success      report the outcome after `run_compute_job`, if nothing was reported
        after_compute_failure      clean up after an exception, or report something else

    Report the outcome of an attempt; the first report counts:

        report_compute_success     a value
        report_compute_artifact    a file, and a dict beside it
        report_compute_failure     a failure that is not retried

    During an attempt, use:

        state                      the fields of the job's state
        work_dir, file_path        the scratch directory; a file that came with the job
        checkpoint, register_file  store the state, or a file, for a further attempt
        notify_user                leave a note for the user

    Each attempt runs in a process of its own, unless `isolation` is "worker". A job may run more than once, if its host
    is lost; its outcome counts once. All other methods are those of a `Paglet`. Do not call `compute_attempt` and
    `creation_request` yourself.
    """

    State: ClassVar[type[PagletState]] = ComputeJobState
    kind: ClassVar[Kind] = "job"

    preload: ClassVar[bool] = True
    """True if a host may import the module of the class once, in a process that it forks for each attempt.

    Set it to False if something in the module must happen in each attempt, such as reading the clock.
    """

    isolation: ClassVar[str] = "process"
    """"worker" to let one process run jobs of this class one after the other. They share its imports and globals.

    Later jobs see what a job changed in modules. A job that leaves a thread, a child process, an open file or a changed
    environment ends its process. Jobs that ask for a GPU have a process of their own.
    """

    _reported = False
    """True once this object has reported the outcome of the attempt."""

    _returned: Any = None
    """The value that `run_compute_job` returned, until it is reported."""

    _is_last = False
    """True if no code of the job class runs after the report."""

    @classmethod
    def creation_request(cls, state: PagletState) -> dict[str, Any] | None:
        """Return the job's requirements as JSON. paglets calls this before it creates the job. Raises Invalid."""
        if type(cls.preload) is not bool:
            raise Invalid(f"{cls.__qualname__}.preload is {cls.preload!r:.60}: it must be True or False")
        value = getattr(state, "isolation", "")
        given = (cls.isolation, f"{cls.__qualname__}.isolation") if value == "" else (value, "isolation")
        request: dict[str, Any] = to_json(
            replace(slot_request_of(state), preload=cls.preload, isolation=isolation_of(*given))
        )
        return request

    # Methods that a job class overrides.

    def run_compute_job(self) -> Any:
        """Do the work, once in each attempt. An exception fails the attempt.

        The returned value is the result, unless it is None, the attempt was reported before, or the class overrides
        `build_result_payload`. A returned value that is not used adds a warning to the log and the record.
        """
        raise NotImplementedError(f"{type(self).__qualname__} has no run_compute_job()")

    def build_result_payload(self) -> dict[str, Any]:
        """Return the result of an attempt that reported nothing. The base class returns {}.

        A value that `run_compute_job` returned is used instead, unless the job class overrides this method.
        """
        return {}

    def after_compute_success(self) -> None:
        """Report the result after `run_compute_job`, if nothing was reported.

        The result is the returned value, or `build_result_payload()` if nothing was returned or the class overrides it.
        """
        if self._reported:
            return
        if self._returned is None or self._builds_payload():
            result = call_method(self, "build_result_payload")
        else:
            result, self._returned = self._returned, None
        overridden = (self._overrides(name) for name in ("after_compute_success", "report_compute_success"))
        self._is_last = self._returned is None and not any(overridden)
        self.report_compute_success(result)

    def _builds_payload(self) -> bool:
        return self._overrides("build_result_payload")

    def _overrides(self, name: str) -> bool:
        """Return True if the job class overrides the method `name` of this class."""
        return getattr(getattr(self, name), "__func__", None) is not getattr(ComputeJobPaglet, name)

    def after_compute_failure(self, error: BaseException) -> None:
        """Handle an exception of `run_compute_job`. If this method reports, that report is the outcome instead."""

    # Methods that report the outcome.

    def report_compute_success(self, result: Any = None) -> bool:
        """Store `result` (any value that a message carries) as the outcome of this attempt.

        Return True once it is stored. Return False, and send nothing, if this attempt has an outcome already. Raises
        Invalid for a result that cannot be sent; the job then fails with cause `bad_result`.
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
        """Store a file as the outcome of this attempt, with `result`, which gets a reference to the file as `artifact`.

        `path`: the file. Close it first, because later writes are not in the artifact. Of an SQLite database, all
        committed rows are stored. `result`: None or a mapping without the key `artifact`. `name`: the file's name at
        the collector, by default that of `path`. `move`: remove the file at `path`. On Linux, this does not copy a file
        in the scratch directory that nobody has open for writing.

        Return True once both are stored; the file then belongs to the group's collector. Return False, and send
        nothing, if this attempt has an outcome already. Wait while the host has no room.

        Raises Invalid for a result that cannot be sent or a database that cannot be copied, and FileChanged for a
        database that keeps changing. These errors fail the job with cause `bad_result`. Nothing is reported after
        other errors: Invalid or FileChanged for another file that cannot be read, NoRoom for a file that can never fit
        on this host, and Invalid for a name that some operating system does not allow or for a job without a collector
        (use `upload_artifact`). After an error or False, the file is left in its place.
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
        """Store a failure as the outcome: a message, or an exception and its traceback. The job is not retried.

        `details`, such as a dict, are appended to the message as text of at most 2,000 characters.
        Return True once it is stored. Return False, and send nothing, if this attempt has an outcome already.
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
        accepted = self.context.report({**report, "is_last": True} if self._is_last else report)
        self._reported = True
        return accepted

    def _warn(self, text: str) -> None:
        """Add a warning to the job's log and its record."""
        print(f"paglets: {self.state.job_key}: {text}", file=sys.stderr)
        self.context.warn(text)

    # The method that the host calls to run a job.

    def compute_attempt(self) -> None:
        """Run one attempt and report its result. The host calls this; an exception fails the attempt."""
        if self.state.compute_status in FINAL:
            return
        if self.state.compute_fresh and self._overrides("on_creation"):
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
    __doc__ = ComputeJobPaglet.__doc__

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
    """Return the warning that `result` is used instead of the value that `run_compute_job` returned."""
    kind = type(value).__name__
    return f"run_compute_job returned a value of type {kind} that is not used: the result is that of {result}"


def _check_result(result: object) -> None:
    if result is not None and not isinstance(result, Mapping):
        raise Invalid(f"the result next to a file must be a mapping or None, not {type_of(result)}")
    if result is not None and "artifact" in result:
        raise Invalid("the result next to a file must not have the key 'artifact': paglets sets it")


def describe(error: BaseException) -> str:
    """Return the last line of a traceback of `error`: its class and its text."""
    return "".join(traceback.format_exception_only(error)).strip()


def full_trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
