"""The handler of `paglets logs`: it shows a job's output and follows the job through its attempts."""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

from paglets.api.groups import GroupView
from paglets.api.logs import AttemptView, UnfinishedJob
from paglets.cli.commands.logs.group import logs_of_group, show_group
from paglets.cli.commands.logs.missing import explain_missing_log
from paglets.cli.commands.logs.tail import offset_of_last_lines
from paglets.cli.job_copies import attempts_of, kept_of
from paglets.cli.options import LOOK_SECONDS, client_of
from paglets.cli.output import attempt_text, notice_if_slow, print_json, say, waiting_for_all
from paglets.cli.views.hooks import print_failed_hook
from paglets.cli.views.log_output import LogOutput
from paglets.cli.views.offline_hosts import MissingHosts
from paglets.cli.views.wait_reasons import wait_reason_text
from paglets.client.host_client import HostClient
from paglets.client.job_logs import JobAttempts, LogBytes
from paglets.core.errors import EXIT_DONE, EXIT_FAILED, Invalid, PagletsError, Unknown
from paglets.core.refs import GROUP_ID
from paglets.core.terminal import put_line
from paglets.slots.states import FINAL

T = TypeVar("T")

FOLLOW_TIMEOUT_SECONDS = 5.0
"""The timeout for a host's answer with `--follow`. A slower host is reported as unreachable, and asked again."""

FOLLOW_PIECE_BYTES = 1 << 18
SHORTEST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 1.0

LOOKS_FOR_MORE = 2
"""The number of lookups in a row that find no new attempt and no copy, after which a job counts as ended.

One lookup is not enough, because it may miss a job that is moving between hosts.
"""

_SPAN = re.compile(r"[0-9.]+ (s|min|h|d)\b ?")


def logs(options: argparse.Namespace) -> int:
    """Show the output of `options.job`: its stdout on stdout, its stderr on stderr."""
    seconds = options.timeout or LOOK_SECONDS
    if options.follow:
        options.timeout = min(options.timeout or FOLLOW_TIMEOUT_SECONDS, FOLLOW_TIMEOUT_SECONDS)
    with client_of(options) as client:
        group = _group_of(client, options.job)
        if group is not None:
            return _logs_of_group(client, group, options, seconds)
        if options.json:
            print_json(_listing(attempts_of(client, options.job, seconds)))
            return EXIT_DONE
        reader = Reader(
            client=client,
            job=options.job,
            streams=options.streams,
            tail=options.tail,
            seconds=seconds,
            _out=LogOutput(raw=options.raw),
        )
        if options.follow:
            try:
                return reader.follow(options.attempt)
            except KeyboardInterrupt:
                put_line(f"{options.job}: stopped following; the job continues")
                raise
        return reader.show_once(options.attempt)


def _group_of(client: HostClient, name: str) -> GroupView | None:
    """Return the group with this id; None if there is none or the request fails."""
    if "/" in name or not GROUP_ID.fullmatch(name):
        return None
    try:
        return client.group(name)
    except PagletsError:
        return None


def _logs_of_group(client: HostClient, group: GroupView, options: argparse.Namespace, seconds: float) -> int:
    if options.follow or options.attempt:
        flag = "-f" if options.follow else "--attempt"
        raise Invalid(
            f"{flag} needs a job, but {group.group_id} is a group",
            hint=[f"name a job as {group.group_id}/JOBKEY"],
            next=[f"paglets jobs list {group.group_id}"],
        )
    with notice_if_slow(waiting_for_all(seconds)):
        found = logs_of_group(client, group.group_id, group.job_keys, seconds)
    if options.json:
        print_json(_listing(found.all_attempts()))
        return EXIT_DONE
    return show_group(client, found, LogOutput(raw=options.raw), options.streams, options.tail)


def _listing(found: JobAttempts) -> dict[str, object]:
    return {
        "attempts": found.attempts,
        "unfinished": found.unfinished,
        "unreachable": MissingHosts(errors=tuple(found.unreachable)).lines(),
    }


def choose_attempt(found: JobAttempts, wanted: tuple[int | None, int] | None) -> AttemptView | None:
    """Return the newest attempt that matches `wanted` (None: any). Return None if the job has no attempts.

    Raises Unknown if the job has other attempts only.
    """
    fitting = [view for view in found.attempts if wanted is None or _fits(view, wanted)]
    if fitting:
        return fitting[-1]
    if wanted is None or not found.attempts:
        return None
    there = ", ".join(_name(view) for view in found.attempts[-20:])
    raise Unknown(f"no online host knows that attempt of the job; known attempts: {there}")


def _fits(view: AttemptView, wanted: tuple[int | None, int]) -> bool:
    generation, number = wanted
    return view.attempt == number and generation in (None, view.generation)


@dataclass(kw_only=True)
class Reader:
    """A reader that prints the output of a job's attempts.

    `tail`: the number of lines to print from the end of each stream; None: all. `seconds`: the timeout for each host's
    answer to a request to all hosts.
    """

    client: HostClient
    job: str
    streams: tuple[str, ...]
    tail: int | None
    seconds: float = LOOK_SECONDS
    _out: LogOutput = field(default_factory=LogOutput)
    _sleep: Callable[[float], None] = time.sleep
    _pause: float = SHORTEST_PAUSE_SECONDS
    _said: str = ""

    def show_once(self, wanted: tuple[int | None, int] | None) -> int:
        """Show the output that an attempt has printed so far. Return the exit code of the command."""
        found = attempts_of(self.client, self.job, self.seconds)
        attempt = choose_attempt(found, wanted)
        for error in found.unreachable if attempt else ():
            say(f"there may be newer attempts: {error.message}")
        if attempt is None:
            return self._say_why_not(found)
        shown = [self._show_to_end(attempt, stream) for stream in self.streams]
        shown += self._show_hooks(attempt, found)
        if attempt.kept and not any(shown) and self.tail != 0:
            say(f"{self.job} printed nothing" if attempt.ended else f"{self.job} has printed nothing yet")
        return self._kept(attempt)

    def _show_hooks(self, attempt: AttemptView, found: JobAttempts) -> list[bool]:
        """Show the output of hooks that ran on other hosts after the attempt, and all failures of the job's hooks.

        Return a list with a value for each stream and failure: True if there was anything to show.
        """
        shown = []
        for other in found.attempts:
            if other.host != attempt.host and other.kept and _run_of(other) == _run_of(attempt):
                shown += [self._show_to_end(other, stream) for stream in self.streams]
        group_id, slash, job_key = self.job.partition("/")
        hooks = kept_of(self.client, group_id, job_key, self.seconds).hooks if slash else ()
        for hook in hooks:
            print_failed_hook(hook, traceback="err" not in self.streams or not any(shown))
        return [*shown, *(True for _ in hooks)]

    def _say_why_not(self, found: JobAttempts) -> int:
        if found.unfinished:
            say(f"{self.job} has not started: {_reason(found.unfinished[-1])}")
            return EXIT_DONE
        reason = explain_missing_log(self.client, self.job, found.unreachable)
        say(reason.text)
        return EXIT_DONE if reason.waits else EXIT_FAILED

    def _kept(self, attempt: AttemptView) -> int:
        """Return EXIT_FAILED, and print a message, if the log of an ended attempt was removed.

        `kept` is also True for an attempt without output, so False means that the log was removed.
        """
        if attempt.kept or not attempt.ended:
            return EXIT_DONE
        say(
            f"the log of attempt {_name(attempt)} of {self.job} was removed from {attempt.host.name}: "
            "hosts remove their oldest logs"
        )
        return EXIT_FAILED

    def _show_to_end(self, attempt: AttemptView, stream: str) -> bool:
        """Show a stream up to its size at the first read, because the job may print without end.

        Return True if there was any output.
        """
        offset = self._begin(attempt, stream)
        end: int | None = None
        while end is None or offset < end:
            piece = self.client.read_log(attempt, stream, offset)
            end = piece.size_bytes if end is None else end
            offset = self._put(stream, offset, piece)
            if not piece.data:
                break
        return bool(end)

    def _put(self, stream: str, offset: int, piece: LogBytes) -> int:
        """Show a piece of a log that was requested at `offset`, and return the next offset."""
        if piece.data:
            self._out.gap(stream, piece.offset - offset)
            self._out.write(stream, piece.data)
        return max(offset, piece.next)

    def _begin(self, attempt: AttemptView, stream: str) -> int:
        return 0 if self.tail is None else offset_of_last_lines(self.client, attempt, stream, self.tail)

    # The methods below follow a job.

    def follow(self, wanted: tuple[int | None, int] | None) -> int:
        """Follow the job to its end, or to the end of the `wanted` attempt, and return the exit code."""
        last: AttemptView | None = None
        looks, code = 0, EXIT_DONE
        while True:
            found = self._ask(lambda: self.client.job_attempts(self.job))
            attempt = choose_attempt(found, wanted) if last is None else _after(found, last)
            if attempt is not None:
                if last is not None:
                    say(f"attempt {_name(attempt)} on {attempt.host.name}:")
                code = self._follow_one(attempt)
                if wanted is not None:
                    return code
                last, looks, self.tail = attempt, 0, None
            elif _is_over(found, last):
                return code
            else:
                looks = 0 if found.unfinished or found.unreachable else looks + 1
                if looks >= LOOKS_FOR_MORE and last is not None:
                    return code
                if looks >= LOOKS_FOR_MORE and not self._may_start():
                    return EXIT_FAILED
                self._say_why_waiting(found, last)
                self._wait()

    def _say_why_waiting(self, found: JobAttempts, last: AttemptView | None) -> None:
        if found.unfinished:
            words = "has not started" if last is None else "will be retried"
            self._say_once(f"{self.job} {words}: {_reason(found.unfinished[-1])}")
        elif found.unreachable:
            self._say_once(f"waiting: {found.unreachable[0].message}")

    def _may_start(self) -> bool:
        """Print why a job has no attempt. Return True if it may still start. Raises errors that are not retryable."""
        try:
            found = explain_missing_log(self.client, self.job, ())
        except PagletsError as error:
            if not error.retryable:
                raise
            self._say_once(f"waiting: {error.message}")
            return True
        self._say_once(found.text)
        return found.waits

    def _follow_one(self, attempt: AttemptView) -> int:
        """Follow an attempt until it has ended and its last byte is shown, and return the exit code."""
        code = self._kept(attempt)
        offsets = {stream: self._ask(partial(self._begin, attempt, stream)) for stream in self.streams}
        open_streams = list(self.streams)
        while open_streams:
            moved = False
            for stream in tuple(open_streams):
                offset = offsets[stream]
                piece, attempt = self._read(attempt, stream, offset)
                offsets[stream] = self._put(stream, offset, piece)
                moved = moved or bool(piece.data)
                if piece.is_last:
                    open_streams.remove(stream)
            if moved:
                self._pause = SHORTEST_PAUSE_SECONDS
            elif open_streams:
                self._wait()
        return code

    def _read(self, attempt: AttemptView, stream: str, offset: int) -> tuple[LogBytes, AttemptView]:
        """Return the next piece of a log, and the attempt with the current address of its host."""

        def read() -> tuple[LogBytes, AttemptView]:
            here = attempt
            if self._said:
                # The host was unreachable, and may have come back at another address.
                members = (view.host.ref for view in self.client.hosts())
                known = next((ref for ref in members if ref.store_id == attempt.host.store_id), attempt.host)
                here = replace(attempt, host=known)
            return self.client.read_log(here, stream, offset, FOLLOW_PIECE_BYTES), here

        return self._ask(read)

    def _ask(self, ask: Callable[[], T]) -> T:
        """Call `ask` until it returns, and return its value. Retryable errors are reported and retried."""
        while True:
            try:
                value = ask()
            except PagletsError as error:
                if not error.retryable:
                    raise
                self._say_once(f"waiting: {error.message}")
                self._wait()
            else:
                return value

    def _say_once(self, text: str) -> None:
        # Do not print a message again if only the offline time of a host, which the message contains, has changed.
        news = _SPAN.sub("", text)
        if news != self._said:
            self._said = news
            say(text)

    def _wait(self) -> None:
        self._sleep(self._pause)
        self._pause = min(LONGEST_PAUSE_SECONDS, self._pause * 1.5)


def _after(found: JobAttempts, last: AttemptView) -> AttemptView | None:
    """Return the first attempt after `last`, or None."""
    newer = (view for view in found.attempts if (view.generation, view.attempt) > (last.generation, last.attempt))
    return next(newer, None)


def _is_over(found: JobAttempts, last: AttemptView | None) -> bool:
    """Return True if the attempt `last` is known to be the job's last one."""
    if last is None or found.unfinished or not found.attempts:
        return False
    newest = found.attempts[-1]
    return (newest.generation, newest.attempt) == (last.generation, last.attempt) and newest.status in FINAL


def _run_of(attempt: AttemptView) -> tuple[str, int, int]:
    return attempt.agent_id, attempt.generation, attempt.attempt


def _name(attempt: AttemptView) -> str:
    return attempt_text(attempt.generation, attempt.attempt)


def _reason(job: UnfinishedJob) -> str:
    text = job.reason_text or job.reason or f"it is {job.status} on {job.host.name}"
    return wait_reason_text("", text, never=job.never)
