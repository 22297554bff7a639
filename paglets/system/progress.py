"""The progress of a group on stderr: a bar on a terminal, occasional lines in a pipe."""

from __future__ import annotations

import shutil
import sys
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TextIO

from paglets.core.errors import EXIT_CANCELLED, EXIT_DONE, EXIT_FAILED
from paglets.core.terminal import CLEAR, draws_on, fitted, put_line, put_next
from paglets.core.text import counted, duration_text, failed_text, printable

RATE_SECONDS = 60.0
LINE_SECONDS = 10.0
MOST_LINE_SECONDS = 300.0
SLOWER = 1.5
"""The factor by which the pause between two lines in a pipe grows."""

MOST_MESSAGE_CHARACTERS = 200


@dataclass(kw_only=True)
class Progress:
    """The progress of a group.

    `pending` is -1 before the first page. `news` has the (job key, record) pairs of the jobs in the last page.
    `seconds` is the time from the creation of the group until its last job ended, or None before that.
    """

    group_id: str
    counts: Counter[str] = field(default_factory=Counter)
    pending: int = -1
    expected: int = 0
    seconds: float | None = None
    news: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def take(self, page: dict[str, Any]) -> None:
        """Count the jobs in a reply to `ended`."""
        self.news = [(entry["job_key"], entry.get("result") or entry["failure"]) for entry in page["ended"]]
        self.counts.update(how_ended(record) for _, record in self.news)
        self.pending, self.expected = page["pending_count"], page["expected_count"]
        completed_at: float | None = page.get("completed_at")
        self.seconds = None if completed_at is None else max(0.0, completed_at - page["created_at"])

    @property
    def failed(self) -> int:
        """The number of jobs without a result, including cancelled ones."""
        return self.counts["failed"] + self.counts["cancelled"]

    @property
    def ended(self) -> int:
        return sum(self.counts.values())

    def words(self, with_pending: bool = False) -> str:
        """Return a text such as `198 done, 2 failed (1 cancelled) of 200`, and ` in 41 s` after the group has ended."""
        failed = f", {failed_text(self.failed, self.counts['cancelled'])}" if self.failed else ""
        pending = f", {self.pending:,} pending" if with_pending and self.pending else ""
        over = "" if self.seconds is None or self.pending else f" in {duration_text(self.seconds)}"
        return f"{self.counts['done']:,} done{failed}{pending} of {self.expected:,}{over}"

    def code(self) -> int:
        if self.counts["failed"]:
            return EXIT_FAILED
        return EXIT_CANCELLED if self.counts["cancelled"] else EXIT_DONE


def how_ended(record: dict[str, Any]) -> str:
    """Return `done`, `failed` or `cancelled`, according to the record of an ended job."""
    if "cause" not in record:
        return "done"
    return "cancelled" if record["cause"] == "cancelled" else "failed"


def failure_text(key: str, record: dict[str, Any]) -> str:
    """Return a text such as `run17 failed on linux-b: ValueError: bad`."""
    cause, message = record["cause"], printable(record.get("message") or "")
    if len(message) > MOST_MESSAGE_CHARACTERS:
        message = message[:MOST_MESSAGE_CHARACTERS] + "..."
    told = message if message and (cause == "exception" or message.startswith(cause)) else f"{cause}: {message}"
    where = f" on {record['host_name']}" if record.get("host_name") else ""
    return f"{key} failed{where}: {told.removesuffix(': ')}"


def next_line(progress: Progress) -> None:
    """Print the command that explains failures, if any job failed or was cancelled."""
    if progress.failed:
        put_next(f"paglets jobs why {progress.group_id}")


class NoProgress:
    """A progress display that shows nothing, and the base class of the others."""

    def __init__(self, group_id: str) -> None:
        self.progress = Progress(group_id=group_id)

    def __enter__(self) -> NoProgress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.clear()

    def __call__(self, page: dict[str, Any]) -> None:
        """Count the jobs in a reply to `ended`, and show the progress."""
        self.progress.take(page)
        self.show()

    def show(self) -> None:
        """Show new failures and the progress."""
        self.show_failures()
        self.draw()

    def show_failures(self) -> None:
        pass

    def draw(self) -> None:
        """Show the current counts. The base class shows nothing."""

    def waits(self, text: str) -> None:
        """Show `text`, the current counts or why there are none: a bar at once, lines at growing intervals."""

    def clear(self) -> None:
        """Clear the bar, so that other code can print."""

    def tell(self, text: str) -> None:
        """Print `text`, the reason for a wait, on a line of its own at once."""

    def over(self) -> None:
        """Print the final counts of the group."""


class ProgressLines(NoProgress):
    """A progress display of lines: the first failure at once, and changes at growing intervals."""

    def __init__(self, group_id: str, now: Callable[[], float]) -> None:
        super().__init__(group_id)
        self._now = now
        self._pause = LINE_SECONDS
        self._due = now() + LINE_SECONDS
        self._said = ""
        self._failed = False

    def draw(self) -> None:
        if self.progress.pending:
            self.waits(self.progress.words(with_pending=True))

    def show_failures(self) -> None:
        found = [(key, record) for key, record in self.progress.news if how_ended(record) == "failed"]
        if found and not self._failed:
            self._failed = True
            left = counted(self.progress.pending, "job continues", "jobs continue")
            self._put(failure_text(*found[0]) + (f"; {left}" if self.progress.pending else ""))

    def waits(self, text: str) -> None:
        if text != self._said and self._now() >= self._due:
            self._said = text
            self._pause = min(MOST_LINE_SECONDS, self._pause * SLOWER)
            self._due = self._now() + self._pause
            self._put(text)

    def _put(self, text: str) -> None:
        put_line(f"{self.progress.group_id}: {text}")

    def tell(self, text: str) -> None:
        self._put(text)

    def over(self) -> None:
        self.clear()
        self._put(self.progress.words())
        next_line(self.progress)


class ProgressBar(ProgressLines):
    """A progress display with a bar in the last line of a terminal. Failures are printed above the bar.

    If `all_failures` is False, only the first failure is printed.
    """

    def __init__(
        self, group_id: str, now: Callable[[], float], *, all_failures: bool = False, out: TextIO | None = None
    ) -> None:
        super().__init__(group_id, now)
        self._all_failures = all_failures
        self._out = out or sys.stderr
        self._seen: deque[tuple[float, int]] = deque()

    def draw(self) -> None:
        progress, now = self.progress, self._now()
        self._seen.append((now, progress.ended))
        while len(self._seen) > 2 and now - self._seen[1][0] > RATE_SECONDS:
            self._seen.popleft()
        self.clear()
        if progress.pending > 0:
            words = progress.words(with_pending=True) + self._speed()
            self._write(fitted(printable(progress.group_id), words, progress.ended / progress.expected))

    def waits(self, text: str) -> None:
        room = shutil.get_terminal_size().columns - 1
        self._write(f"{CLEAR}{printable(f'{self.progress.group_id}: {text}')[:room]}")

    def show_failures(self) -> None:
        if not self._all_failures:
            super().show_failures()
            return
        for key, record in self.progress.news:
            if how_ended(record) == "failed":
                self._put(failure_text(key, record))

    def _speed(self) -> str:
        (began, before), (now, ended) = self._seen[0], self._seen[-1]
        if ended == before or now <= began:
            return ""
        rate = (ended - before) / (now - began)
        return f", {rate:.2g}/s, {duration_text(self.progress.pending / rate)} left"

    def _put(self, text: str) -> None:
        self._out.write(f"{CLEAR}{printable(self.progress.group_id)}: {printable(text)}\n")

    def clear(self) -> None:
        self._write(CLEAR)

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


def shown(group_id: str, progress: bool | None, now: Callable[[], float], *, is_read: bool = True) -> NoProgress:
    """Return the progress display. With `progress` None, it is shown if a user reads stderr (`is_read`)."""
    if not (is_read if progress is None else progress):
        return NoProgress(group_id)
    return ProgressBar(group_id, now) if draws_on(sys.stderr) else ProgressLines(group_id, now)
