"""The submission of a group of jobs, and the object that follows the group."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from paglets.api.groups import DEFAULT_COLLECTOR, CreationError, GroupView, SubmitGroup
from paglets.client.collectors import CollectorFinder
from paglets.client.group_records import all_records, whole_summary
from paglets.client.inputs import GroupInputs, InputPaths, UploadSession
from paglets.client.large_results import load, load_all, load_summary
from paglets.client.proxy import PagletProxy, Sender
from paglets.codec.bundle import publish_code
from paglets.codec.class_names import class_name, refuse_while_importing
from paglets.core.clock import Clock, SystemClock, system_pause
from paglets.core.errors import PagletsError, trim_traceback
from paglets.core.messages import Message
from paglets.core.record import from_json, to_json
from paglets.core.refs import BlobRef, ProxyRef, check_group_id
from paglets.core.signatures import check_methods
from paglets.core.text import type_of
from paglets.system.collector import ResultCollectorPaglet
from paglets.system.follower import LOOK_SECONDS, REPLY_SECONDS, Follower, tree
from paglets.system.job_specs import job_specs
from paglets.system.jobs import ComputeJobPaglet, J
from paglets.system.main_guard import check_guarded
from paglets.system.progress import NoProgress, shown
from paglets.system.requests import isolation_of
from paglets.system.submission_messages import (
    STATUS_SECONDS,
    GroupReader,
    Remark,
    attached_line,
    counted_view,
    detached_if_seen,
    detached_line,
    group_lost,
    interrupted_lines,
    obstacle_text,
    remarks_on,
    report_if_slow,
    report_interruption,
    report_slow_storing,
    say,
    submission_lines,
    without_collector,
)

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 2.0


@runtime_checkable
class Submitter(Sender, Protocol):
    """A paglet's context, or a HostClient."""

    def submit_group(self, request: Mapping[str, Any]) -> Mapping[str, Any]: ...
    def publish_bytes(self, data: bytes) -> BlobRef: ...
    def publish_file(self, path: str | Path) -> BlobRef: ...
    def proxy(self, target: ProxyRef) -> Any: ...


class Submission:
    """A submitted group of jobs. `submit_compute_job_group` returns it.

    Its jobs and results do not depend on this object or its process. Ctrl-C ends a wait, not the jobs.

        as_completed, drain                          yield each job as it ends; wait for all
        results, summary, status                     the results so far; all records; the state of the group
        detached, wait_detached, detached_reason     may this machine be switched off; wait until it may; why not yet
        group_id, jobs, warnings, creation_errors    name; keys; problems found at submission
        collector                                    proxy of the paglet that keeps the results

    Times are in seconds; a `timeout` of None means no limit.
    """

    def __init__(
        self,
        view: GroupView,
        submitter: Submitter,
        refresh: Callable[[], GroupView],
        *,
        remarks: tuple[Remark, ...] = (),
        from_script: bool = False,
        clock: Clock | None = None,
        pause: Callable[[float], None] = system_pause,
    ) -> None:
        """Follow the group that `view` describes; `refresh` reads it again. `from_script`: print messages on stderr."""
        self._view = view
        self._remarks = remarks
        self._from_script = from_script
        self._refresh = refresh
        self._clock = clock or SystemClock()
        self._pause = pause
        self._source: Any = submitter
        self._follower = Follower(
            view.group_id,
            submitter.proxy(view.collector),
            submitter if isinstance(submitter, CollectorFinder) else None,
            submitter.proxy,
            clock=self._clock,
            pause=lambda seconds: self._pause(seconds),
        )

    @property
    def collector(self) -> PagletProxy:
        """A proxy of the group's collector at its last known host."""
        return self._follower.collector

    @property
    def group_id(self) -> str:
        """The name of the group."""
        return self._view.group_id

    @property
    def jobs(self) -> tuple[str, ...]:
        """The keys of all jobs of the group, including those with creation errors."""
        return self._view.job_keys

    @property
    def creation_errors(self) -> tuple[CreationError, ...]:
        """The jobs that could not be created. The collector records each as a failure with cause `invalid`."""
        return self._view.creation_errors

    @property
    def warnings(self) -> tuple[str, ...]:
        """The problems found at submission, such as that no host fits or that the group existed already."""
        return (*map(obstacle_text, self._view.obstacles), *(remark.text for remark in self._remarks))

    @property
    def detached(self) -> bool:
        """True once this machine is no longer needed and may be switched off. Each read asks the host until then."""
        if not self._view.detached:
            self._view = self._refresh()
        return self._view.detached

    @property
    def detached_reason(self) -> str:
        """The reason why `detached` was False when it was last read."""
        return self._view.detached_reason

    @trim_traceback
    def wait_detached(self, timeout: float | None = None, *, progress: bool | None = None) -> bool:
        """Wait until `detached` is True, and return True.

        Return False after `timeout` seconds. Return False at once if the group is COMPLETE, or if its host knows no
        other host; in that case add a host and call this again. The reason for False is in `detached_reason`; a script
        also prints it on stderr. `progress`: see `drain`. Raises Unreachable if the collector is lost.
        """
        with self._interruptible(), self._shown(progress) as shows:
            follower, look_at = self._follower.tells(shows.tell), self._clock.monotonic() + LOOK_SECONDS
            for detached in self._poll(lambda: self.detached, timeout):
                if detached:
                    if self._tells(progress):
                        say(detached_line(self._view))
                    return True
                if self._view.status == "COMPLETE" or self._view.only_host:
                    break
                if self._clock.monotonic() >= look_at:
                    look_at = self._clock.monotonic() + LOOK_SECONDS
                    follower.look()
                    shows.waits(f"not detached yet: {self._view.detached_reason}")
        if self._tells(progress):
            say(attached_line(self._view))
        return False

    def _tells(self, progress: bool | None) -> bool:
        return self._from_script and progress is not False

    def summary(self) -> dict[str, Any]:
        """Return the collector's summary with all its records.

        Raises TooLarge if they are over 1 GiB in all (`as_completed` yields them one by one), and Unreachable with the
        reason if the collector cannot be asked.
        """
        return self._follower.read(lambda collector: self._whole(collector, Message("summary")))

    def _whole(self, collector: PagletProxy, message: Message, summary: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the complete summary. `summary` is the reply to `message`, or None to send that message first."""
        summary = summary or tree(collector.call(message, timeout_seconds=REPLY_SECONDS))
        return load_summary(self._source, whole_summary(collector.call, summary), self.group_id)

    @trim_traceback
    def drain(self, timeout: float | None = None, *, progress: bool | None = None) -> dict[str, Any]:
        """Wait until every job has a result or a failure; return the summary with all its records.

        Its `results` and `failures` map job keys to records. Wait for unreachable hosts, and name them on
        stderr. Do not wait until the collector is home. `progress`: True to show progress on stderr; by default, only a
        script does. Raises TimedOut; Unreachable or Unknown if the collector is lost; TooLarge.
        """
        with self._interruptible(), self._shown(progress) as shows:
            follower, end = self._follower.tells(shows.tell), self._follower.end(timeout)
            page: dict[str, Any] = {}
            for page in follower.pages(timeout, brief=True):
                shows(page)
            small = page.get("summary")
            summary = follower.ask(lambda collector: self._whole(collector, Message("drain"), small), timeout, end)
            shows.over()
        return summary

    def results(self) -> dict[str, dict[str, Any]]:
        """Return the results so far: job key -> record with `result`, `host_name`, `runtime_seconds`, ...

        Raises the errors of `summary`.
        """
        found = self._follower.read(lambda collector: all_records(collector.call, self.group_id, "result")[0])
        return load_all(self._source, found, self.group_id)

    def as_completed(
        self, timeout: float | None = None, *, progress: bool | None = None
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (job key, record) of each job as it ends: a record has `result`, or `cause` and `message`.

        `progress`: see `drain`. Raises TimedOut, and Unreachable or Unknown if the collector is lost.
        """
        try:
            with self._interruptible():
                yield from self._completed(timeout, progress)
        except (PagletsError, KeyboardInterrupt) as error:
            # The user should see only the frame of the caller, as with `trim_traceback`.
            raise error.with_traceback(None) from None

    def _completed(self, timeout: float | None, progress: bool | None) -> Iterator[tuple[str, dict[str, Any]]]:
        with self._shown(progress) as shows:
            follower, end = self._follower.tells(shows.tell), self._follower.end(timeout)
            for page in follower.pages(timeout, brief=False):
                shows(page)
                if page["ended"]:
                    shows.clear()  # clear the bar, since the loop of the caller may print
                    for entry in page["ended"]:
                        record = partial(self._loaded, entry.get("result") or entry["failure"])
                        yield entry["job_key"], follower.ask(record, timeout, end)
                    shows.draw()
            shows.over()

    def _loaded(self, record: dict[str, Any], collector: PagletProxy) -> dict[str, Any]:
        return load(self._source, record)

    def _shown(self, progress: bool | None) -> NoProgress:
        return shown(self.group_id, progress, self._clock.monotonic, is_read=self._from_script)

    @contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Print on Ctrl-C that only the wait has ended, and how to cancel the jobs."""
        try:
            yield
        except KeyboardInterrupt:
            if self._from_script:
                say(*interrupted_lines(self.group_id))
            raise

    def status(self) -> str:
        """Return the state of the group from its collector: ACTIVE, WAITING_FOR_HOME, RETURNING_HOME or COMPLETE."""
        return str(self._counts().get("status", ""))

    def _counts(self) -> dict[str, Any]:
        return tree(self.collector.call(Message("counts"), timeout_seconds=STATUS_SECONDS))

    def _poll(self, look: Callable[[], Any], timeout: float | None) -> Iterator[Any]:
        """Yield the values of `look`, with growing pauses, until the time-out."""
        end = self._follower.end(timeout)
        pause = FIRST_PAUSE_SECONDS
        while True:
            yield look()
            left = end - self._clock.monotonic()
            if left <= 0:
                return
            self._pause(min(pause, left))
            pause = min(LONGEST_PAUSE_SECONDS, pause * 1.5)


@trim_traceback
def submit_compute_job_group(
    context_or_client: Submitter,
    job_class: type[ComputeJobPaglet[J]],
    states: Iterable[J],
    *,
    group_id: str | None = None,
    collector_host: str | None = None,
    return_home_when_complete: bool = False,
    collector_class: type[ResultCollectorPaglet] | None = None,
    inputs: InputPaths | None = None,
    job_inputs: Mapping[str, InputPaths] | None = None,
    allow_home_compute: bool = False,
    isolation: str | None = None,
) -> Submission:
    """Submit jobs as one group, and return once the host has stored the whole group.

    `context_or_client`: a HostClient in a script, `self.context` within a paglet. `states`: one for each job.
    `group_id`: name of the group; by default a new one. `collector_host`: name or URL of the host that keeps the
    results; by default another host if there is one. `return_home_when_complete`: move the results to the submitting
    host when all jobs have ended. `inputs` (name -> path): files for each job; `job_inputs` (job_key -> name -> path):
    files for single jobs. A job finds the files under these names in its scratch directory. `allow_home_compute=True`
    sets this field in each state. Otherwise jobs run on the submitting host only while it knows no other.
    `isolation`: "process" or "worker", for each state that sets none; None: that of the class.

    The code of the classes, and of classes in the states, is sent along: their modules, and what these import below the
    script's folder or top-level package.

    The same `group_id` with the same jobs is the same group, and nothing runs twice. Raises GroupExists for other jobs,
    GroupLost if its collector is lost with its host, TypeError for a state of another class, and ValueError for a
    repeated or malformed `job_key` or a file that cannot be read: then nothing is stored. A state with a wrong value,
    such as `cpu_cores=0`, becomes a failure with cause `invalid`. Warnings are also printed on stderr.
    """
    refuse_while_importing()
    if not isinstance(context_or_client, Submitter):
        raise TypeError(
            f"jobs are submitted to a HostClient, or to self.context in a paglet, not to {type_of(context_or_client)}"
        )
    if collector_class is not None and not issubclass(collector_class, ResultCollectorPaglet):
        raise TypeError(f"{collector_class.__qualname__} is not a subclass of ResultCollectorPaglet")
    check_methods(job_class, collector_class or ResultCollectorPaglet)
    if type(allow_home_compute) is not bool:
        raise TypeError(f"allow_home_compute is {allow_home_compute!r}: it must be True or False")
    chosen = "" if isolation is None else isolation_of(isolation, "isolation")
    jobs = job_specs(job_class, states, allow_home=allow_home_compute, isolation=chosen)
    request = SubmitGroup(
        group_id=None if group_id is None else check_group_id(group_id),
        class_name=class_name(job_class),
        jobs=jobs,
        collector_host=collector_host,
        collector_class=class_name(collector_class) if collector_class else DEFAULT_COLLECTOR,
        return_home_when_complete=return_home_when_complete,
    )
    files = GroupInputs(request, inputs, job_inputs)
    classes = (job_class, job_class.State, *((collector_class, collector_class.State) if collector_class else ()))
    check_guarded(classes)
    sending = UploadSession(context_or_client)
    with report_interruption(context_or_client, request.group_id) as interruption:
        bundle = publish_code(sending, *classes, states=(job.state for job in request.jobs if job.state))
        stored = replace(files.put_into(request, sending), bundle=bundle)
        with report_slow_storing(context_or_client, request.group_id):
            interruption.sent = True
            view = sending.submit(lambda: _submit(context_or_client, stored))
    return _told(view, context_or_client, _refresher(context_or_client, view, stored))


def _told(view: GroupView, submitter: Submitter, refresh: Callable[[], GroupView]) -> Submission:
    """Print the messages about a submission on stderr. Return the submission."""
    from_script, clock = isinstance(submitter, GroupReader), SystemClock()
    if view.lost and not from_script:
        raise group_lost(view.group_id, view.lost)
    trouble: Remark | None = None
    if view.was_there and isinstance(submitter, GroupReader) and not view.status:
        try:
            with report_if_slow(view.group_id, f"waiting for {view.collector.host.name}, which has its collector"):
                # Probe the host first, because a call to a host that hangs may take longer than its timeout.
                submitter.paglet(view.collector, timeout=STATUS_SECONDS)
                view = counted_view(view, Submission(view, submitter, refresh)._counts())
        except PagletsError as error:
            view, trouble = without_collector(view, submitter, error)
            if trouble:
                refresh = partial(detached_if_seen, submitter, refresh)
    remarks = remarks_on(view, clock.wall(), from_script=from_script, trouble=trouble)
    say(*submission_lines(view, remarks, from_script=from_script))
    return Submission(view, submitter, refresh, remarks=remarks, from_script=from_script, clock=clock)


def _submit(submitter: Submitter, request: SubmitGroup) -> GroupView:
    return from_json(GroupView, dict(submitter.submit_group(to_json(request))))


def _refresher(submitter: Submitter, view: GroupView, request: SubmitGroup) -> Callable[[], GroupView]:
    if isinstance(submitter, GroupReader):
        return partial(submitter.group, view.group_id)
    again = replace(request, group_id=view.group_id)
    return lambda: _submit(submitter, again)
