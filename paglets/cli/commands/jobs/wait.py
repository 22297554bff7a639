"""The handlers of `paglets jobs wait` and `watch`, which follow a group until its last job has ended."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import suppress

from paglets.cli.collectors import collector_caller, group_of
from paglets.cli.options import client_of
from paglets.cli.output import adapt_commands, print_json, say
from paglets.cli.views.job_records import ended_line
from paglets.client.host_client import HostClient
from paglets.core.clock import SystemClock, system_pause
from paglets.core.errors import PagletsError
from paglets.core.messages import Message
from paglets.core.terminal import draws_on, put_line, put_next
from paglets.core.text import counted, printable
from paglets.system.follower import Follower
from paglets.system.progress import NoProgress, ProgressBar, next_line, shown


def wait(options: argparse.Namespace) -> int:
    """Show the progress of a group, as a waiting script does, until all its jobs have ended. Then print one line."""
    return _follow(options, shown(options.group, False if options.json else None, time.monotonic))


def watch(options: argparse.Namespace) -> int:
    """Follow a group until all its jobs have ended.

    On a terminal, draw a progress bar and print failures. Otherwise, print a line for each ended job.
    """
    if options.json:
        return _follow(options, NoProgress(options.group))
    draws = draws_on(sys.stderr)
    return _follow(
        options, ProgressBar(options.group, time.monotonic, all_failures=True) if draws else JobLines(options.group)
    )


def _follow(options: argparse.Namespace, shows: NoProgress) -> int:
    progress = shows.progress
    try:
        with client_of(options) as client, shows:
            for number, page in enumerate(_follower(client, options.group, shows).pages(options.timeout, brief=True)):
                shows(page)
                if number == 1 and progress.pending:
                    _warn_of_unplaceable_jobs(client, options.group)
                    shows.draw()
    except KeyboardInterrupt:
        so_far = f" ({progress.words()})" if progress.pending >= 0 else ""
        put_line(f"{options.group}: stopped waiting; the jobs continue{so_far}")
        raise
    if options.json:
        counts = {"done": progress.counts["done"], "failed": progress.failed, "cancelled": progress.counts["cancelled"]}
        print_json({"group_id": options.group, **counts})
    else:
        print(f"{options.group}: {progress.words()}")
        next_line(progress)
    return progress.code()


def _follower(client: HostClient, group_id: str, shows: NoProgress) -> Follower:
    collector = client.proxy(group_of(client, group_id).collector)
    follower = Follower(group_id, collector, client, client.proxy, clock=SystemClock(), pause=system_pause)
    return follower.tells(lambda text: shows.tell(adapt_commands(text)))


def _warn_of_unplaceable_jobs(client: HostClient, group_id: str) -> None:
    """Print a warning if some pending jobs cannot run on any host of the mesh: the wait for them would not end."""
    with suppress(PagletsError):
        page = collector_caller(client, group_id)(Message("listed", {"name": "pending_jobs"}))
        never = sum(1 for job in page["entries"] if job.get("never"))
        if never:
            put_line(f"{group_id}: {counted(never, 'job')} cannot run on any host of this mesh")
            put_next(f"paglets jobs why {group_id}")


class JobLines(NoProgress):
    """A progress display with a line on stdout for each ended job, and messages on stderr."""

    def draw(self) -> None:
        for key, record in self.progress.news:
            print(printable(ended_line(key, record)), flush=True)
        self.progress.news = []

    def tell(self, text: str) -> None:
        say(text)
