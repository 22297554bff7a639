"""`paglets jobs wait` and `watch`: a group until its last job has ended."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TextIO

from paglets.cli.collectors import asker, collector_of
from paglets.cli.groups import is_cancelled, message_of
from paglets.cli.options import client_of
from paglets.cli.output import print_json, say
from paglets.cli.progress import draws_on, fitted
from paglets.core.errors import (
    AWAY,
    EXIT_CANCELLED,
    EXIT_DONE,
    EXIT_FAILED,
    PagletsError,
    TimedOut,
)
from paglets.core.messages import Message
from paglets.core.refs import ProxyRef
from paglets.core.text import counted, duration_text, failed_text, printable
from paglets.remote.client import HostClient
from paglets.remote.collectors import FORGOTTEN, REPLACED

LOOK_SECONDS = 2.0
"""The collector answers at once when a job ends, and after this long in any case."""

PAUSE_SECONDS = 1.0
RATE_SECONDS = 60.0


def wait(options: argparse.Namespace) -> int:
    """Wait without a word; at the end one line."""
    return _follow(options, lambda group: None)


def watch(options: argparse.Namespace) -> int:
    """On a terminal a bar and the failures, elsewhere a line for each job that ends."""
    view = Bar() if draws_on(sys.stderr) else Lines()
    return _follow(options, view)


@dataclass(kw_only=True)
class Progress:
    """How far a group is; `news`: (job key, record) of those that ended since the last look."""

    group_id: str
    counts: Counter[str] = field(default_factory=Counter)
    pending: int = -1
    news: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    def take(self, page: dict[str, Any]) -> None:
        self.news = [(entry["job_key"], entry.get("result") or entry["failure"]) for entry in page["ended"]]
        self.counts.update(how_ended(record) for _, record in self.news)
        # Pages are bounded: what is beyond this one has ended too, and comes next.
        self.pending = page["pending_count"]

    @property
    def ended(self) -> int:
        return sum(self.counts.values())

    def words(self) -> str:
        """`198 done, 2 failed (1 cancelled) of 200`."""
        failed = f", {failed_text(self.failed, self.counts['cancelled'])}" if self.failed else ""
        return f"{self.counts['done']:,} done{failed} of {self.ended + self.pending:,}"

    @property
    def failed(self) -> int:
        """All that ended without a result, the cancelled ones too."""
        return self.counts["failed"] + self.counts["cancelled"]

    def code(self) -> int:
        if self.counts["failed"]:
            return EXIT_FAILED
        return EXIT_CANCELLED if self.counts["cancelled"] else EXIT_DONE


def how_ended(record: dict[str, Any]) -> str:
    """`done`, `failed` or `cancelled`."""
    if "cause" not in record:
        return "done"
    return "cancelled" if record["cause"] == "cancelled" else "failed"


def _follow(options: argparse.Namespace, show: Callable[[Progress], None]) -> int:
    progress = Progress(group_id=options.group)
    try:
        with client_of(options) as client:
            for number, page in enumerate(pages(client, options.group, options.timeout)):
                progress.take(page)
                if number == 1 and progress.pending:
                    _say_never(client, options.group)
                if not options.json:
                    show(progress)
    except KeyboardInterrupt:
        say(f"the jobs of {options.group} go on; {progress.words() if progress.pending >= 0 else 'nothing was heard'}")
        raise
    if options.json:
        counts = {"done": progress.counts["done"], "failed": progress.failed, "cancelled": progress.counts["cancelled"]}
        print_json({"group_id": options.group, **counts})
    else:
        print(f"{options.group}: {progress.words()}")
    return progress.code()


def _say_never(client: HostClient, group_id: str) -> None:
    """Once, after a look: for what no host can run, one would wait in vain."""
    with suppress(PagletsError):
        page = asker(client, group_id)(Message("listed", {"name": "pending_jobs"}))
        never = sum(1 for job in page["entries"] if job.get("never"))
        if never:
            say(f"{counted(never, 'job')} can never be placed as it is: `paglets jobs why {group_id}` says why")


def pages(
    client: HostClient, group_id: str, timeout: float | None, pause: Callable[[float], None] = time.sleep
) -> Iterator[dict[str, Any]]:
    """Of those that ended, until none is pending. Raises TimedOut; a host that is away is waited for, and said, but not
    one that was forgotten, or began anew: Unreachable."""
    end = None if timeout is None else time.monotonic() + timeout
    after, said = 0, ""
    collector: ProxyRef | None = None
    while True:
        left = LOOK_SECONDS if end is None else min(LOOK_SECONDS, max(0.0, end - time.monotonic()))
        message = Message("ended", {"after": after, "wait_seconds": left})
        try:
            collector = collector or collector_of(client, group_id)
            page = client.call_tree(collector, message, timeout_seconds=left + client.timeout)
        except AWAY as error:
            if error.details.get("collector") in (FORGOTTEN, REPLACED):
                raise  # nobody expects it back
            collector = None
            news = error.details.get("collector") or str(
                error
            )  # not how long ago it was heard of: that is new each time
            if news != said:
                said = news
                say(f"{error}; waiting for it")
            page = None
            pause(PAUSE_SECONDS)
        if page is not None:
            said, after = "", page["next"]
            yield page
            if not page["pending_count"] and not page["ended"]:
                return
        if end is not None and time.monotonic() >= end and (page is None or not page["ended"]):
            if page is None:
                raise TimedOut(f"nothing was heard of {group_id} at the end of {timeout:g} s")
            pending = counted(page["pending_count"], "job")
            raise TimedOut(f"{group_id} is not done after {timeout:g} s, its jobs go on: {pending} pending")


class Lines:
    """A line on stdout for each job that ended."""

    def __call__(self, progress: Progress) -> None:
        for key, record in progress.news:
            print(printable(ended_line(key, record)), flush=True)


def ended_line(key: str, record: dict[str, Any]) -> str:
    """`monday  done  linux-a  3.2 s`, or with why it failed."""
    runtime = record.get("runtime_seconds")
    why = why_ended(record)
    time_text = "" if runtime is None else duration_text(runtime)
    return "  ".join(part for part in (key, how_ended(record), record.get("host_name") or "", time_text, why) if part)


def why_ended(record: dict[str, Any]) -> str:
    """Cause and message of a failure, of a cancelled one only what was said of it: `how_ended` has the rest."""
    if "cause" not in record:
        return ""
    message = message_of(record)
    return message if is_cancelled(record) else f"{record['cause']}: {message}" if message else record["cause"]


class Bar:
    """A bar in the last line of a terminal, and what failed above it."""

    def __init__(self, *, out: TextIO | None = None, now: Callable[[], float] = time.monotonic) -> None:
        self._out = out or sys.stderr
        self._now = now
        self._seen: deque[tuple[float, int]] = deque()

    def __call__(self, progress: Progress) -> None:
        now = self._now()
        self._seen.append((now, progress.ended))
        while len(self._seen) > 2 and now - self._seen[1][0] > RATE_SECONDS:
            self._seen.popleft()
        self._out.write("\r\x1b[K")
        for key, record in progress.news:
            if how_ended(record) != "done":
                self._out.write(f"{printable(ended_line(key, record))}\n")
        total = progress.ended + progress.pending
        if progress.pending:
            words = progress.words() + self._speed(progress)
            self._out.write(fitted(printable(progress.group_id), words, progress.ended / total))
        self._out.flush()

    def _speed(self, progress: Progress) -> str:
        (began, before), (now, ended) = self._seen[0], self._seen[-1]
        if ended == before or now <= began:
            return ""
        rate = (ended - before) / (now - began)
        return f", {rate:.2g}/s, {duration_text(progress.pending / rate)} left"
