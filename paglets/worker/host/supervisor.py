"""The supervisor of a host's zygotes. It starts, pings and replaces zygotes on the launcher's I/O thread.

Most runs are forked from one shared zygote. A run with `LaunchSpec.alone` has its own zygote, and others are forked
from templates (`template_pool`). The supervisor pings each zygote that has runs. If a zygote does not answer, the
supervisor first sends SIGCONT, in case the zygote was stopped, and later replaces the zygote (`heartbeat`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from paglets.worker.host.reactor import WRITE, Reactor
from paglets.worker.host.zygote_link import ZygoteLink
from paglets.worker.zygote_protocol import Ping, Pong, ZygoteReady

CLOSE_SECONDS = 12.0
"""Time limit for a zygote to end. It is longer than the zygote's own limit (`zygote.main.CLOSING_SECONDS`)."""

ZYGOTE_LABEL = "the process that starts jobs"
"""The term for a zygote in messages to users."""

STABLE_SECONDS = 10.0
"""A zygote that ran for at least this long is replaced at once. Each shorter life increases the restart delay."""

BACKOFF_SECONDS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)

FAILED_STARTS = 3
"""Number of consecutive zygotes that end before they are ready, after which the waiting runs fail."""


class RestartBackoff:
    """The delay before the next start of a zygote. It grows with each zygote that ends soon after its start.

    Times are monotonic, in seconds.
    """

    def __init__(self) -> None:
        self._started_at = 0.0
        self._short_lives = 0
        self._failed_starts = 0

    @property
    def is_crash_looping(self) -> bool:
        return self._failed_starts >= FAILED_STARTS

    def started(self, now: float) -> None:
        self._started_at = now

    def ended(self, now: float, *, was_ready: bool) -> float:
        """Record the end of a zygote, and return the time at which to start the next one."""
        lived_long = now - self._started_at >= STABLE_SECONDS
        self._short_lives = 0 if lived_long else min(self._short_lives + 1, len(BACKOFF_SECONDS))
        self._failed_starts = 0 if was_ready else self._failed_starts + 1
        return now + BACKOFF_SECONDS[max(self._short_lives - 1, 0)]


class ZygoteEvents(Protocol):
    """Callbacks from the supervisor to the launcher, which knows the runs of each zygote."""

    def has_work(self, link: ZygoteLink) -> bool:
        """Return True if the zygote has a run that has not ended, or is the shared zygote and a run waits for it."""
        ...

    def on_ready(self, link: ZygoteLink) -> None: ...

    def on_record(self, link: ZygoteLink, record: Any) -> None: ...

    def on_unresponsive(self, link: ZygoteLink) -> None:
        """Kill those runs whose end was requested, because their zygote does not answer."""
        ...

    def on_gone(self, link: ZygoteLink) -> int:
        """Handle the end of a zygote. Return how many of its runs had not ended."""
        ...

    def on_crash_loop(self, problem: str) -> None:
        """Fail the runs that wait for the shared zygote, which failed to start FAILED_STARTS times with `problem`."""
        ...

    def on_blocked(self, text: str) -> None:
        """Receive the reason why the shared zygote cannot start processes, or "" if it can start processes again."""
        ...


class ZygoteSupervisor:
    """A supervisor of the shared zygote, the zygotes that serve a single run, and the templates.

    `shared`: the shared zygote; None while it is not running. `links`: all running zygotes.
    """

    def __init__(
        self, open_zygote: Callable[..., ZygoteLink], reactor: Reactor, log: logging.Logger, events: ZygoteEvents
    ) -> None:
        self._open_zygote = open_zygote
        self._reactor = reactor
        self._log = log.getChild("zygote")
        self._events = events
        self._backoff = RestartBackoff()
        self._open_at: float | None = 0.0
        self._blocked_reason = ""
        self.shared: ZygoteLink | None = None
        self.links: list[ZygoteLink] = []

    # The methods below perform timed actions.

    def next_due(self) -> float | None:
        """Return the monotonic time by which `do_due` must be called; None if nothing is scheduled."""
        due = [at for at in (self._open_at, *(link.ends_by for link in self.links)) if at is not None]
        return min(due, default=None)

    def do_due(self) -> None:
        """Perform the actions that are due: start, ping, resume, replace or kill zygotes."""
        now = time.monotonic()
        if self._open_at is not None and self._open_at <= now:
            self._open(now)
        for link in tuple(self.links):
            if link.ends_by is None:
                self._check_heartbeat(link, now)
            elif link.ends_by <= now:
                self._gone(link, "the zygote did not end in time")

    # The methods below start and end zygotes.

    def open_alone(self) -> ZygoteLink:
        """Start a zygote that serves a single run. Raises OSError."""
        return self.add(self._open_zygote(is_alone=True))

    def end(self, link: ZygoteLink) -> None:
        """Ask a zygote to end. It is killed if it has not ended after CLOSE_SECONDS."""
        if link.ends_by is None:
            link.hang_up(time.monotonic() + CLOSE_SECONDS)

    def close(self) -> None:
        """End all zygotes, and do not start new ones."""
        self._open_at = None
        for link in self.links:
            self.end(link)

    def _open(self, now: float) -> None:
        self._open_at = None
        self._backoff.started(now)
        try:
            self.shared = self.add(self._open_zygote())
        except OSError as error:
            self._schedule_restart(f"cannot run {error.filename or 'the zygote'}: {error.strerror}", was_ready=False)

    def _schedule_restart(self, problem: str, *, was_ready: bool) -> None:
        self._open_at = self._backoff.ended(time.monotonic(), was_ready=was_ready)
        self._log.warning(f"lost the zygote ({problem}); starting a new one")
        if self._backoff.is_crash_looping:
            self._events.on_crash_loop(problem)

    def add(self, link: ZygoteLink) -> ZygoteLink:
        """Supervise a zygote that was started."""
        self.links.append(link)
        self._watch(link)
        return link

    def _gone(self, link: ZygoteLink, problem: str) -> None:
        self._reactor.unwatch(link)
        how = f"{problem}, {link.kill_and_reap()}"
        self.links.remove(link)
        left = self._events.on_gone(link)
        if link is not self.shared:
            if left:
                self._log.warning(f"lost {'the zygote of one run' if link.is_alone else 'a template'} ({how})")
            return
        self.shared = None
        self._set_blocked("")
        if link.ends_by is None:
            self._schedule_restart(how, was_ready=link.ready)

    # The methods below exchange frames with zygotes.

    def send(self, link: ZygoteLink, record: Any, *descriptors: int) -> None:
        """Send a record and descriptors to a zygote. Raises TooLarge if the record exceeds a frame."""
        link.send(record, *descriptors)
        self._watch(link)

    def _watch(self, link: ZygoteLink) -> None:
        self._reactor.watch(link, partial(self._on_zygote, link), writing=link.writing)

    def _on_zygote(self, link: ZygoteLink, mask: int) -> None:
        if mask & WRITE:
            link.flush()
        records = link.read()
        if records is None:
            self._gone(link, link.problem)
            return
        for record in records:
            if isinstance(record, ZygoteReady):
                self._on_ready(link, record)
            elif isinstance(record, Pong):
                self._on_pong(link)
            else:
                self._events.on_record(link, record)
        self._watch(link)

    def _on_ready(self, link: ZygoteLink, ready: ZygoteReady) -> None:
        link.ready = True
        link.heartbeat.answered()
        for problem in ready.preload_errors:
            self._log.warning(f"the zygote could not import {problem}")
        self._events.on_ready(link)

    # The methods below check that zygotes answer.

    def _check_heartbeat(self, link: ZygoteLink, now: float) -> None:
        if not self._events.has_work(link):
            link.heartbeat.pause()
            return
        was_unresponsive = link.heartbeat.is_unresponsive
        action = link.heartbeat.check(now)
        if action == "ping":
            self.send(link, Ping())
        elif action == "replace":
            self._gone(link, f"the zygote did not answer for {link.heartbeat.timeouts.replace_seconds:g} s")
        elif action == "resume":
            if not was_unresponsive:
                self._on_unresponsive(link)
            link.resume()

    def _on_unresponsive(self, link: ZygoteLink) -> None:
        timeouts = link.heartbeat.timeouts
        text = f"the zygote (process {link.pid}) has not answered for {timeouts.unresponsive_seconds:g} s"
        self._log.warning(f"{text}; sent it SIGCONT, and will replace it after {timeouts.replace_seconds:g} s")
        if link is self.shared:
            self._set_blocked(f"{ZYGOTE_LABEL} (zygote, process {link.pid}) does not answer")
        self._events.on_unresponsive(link)

    def _on_pong(self, link: ZygoteLink) -> None:
        if link.heartbeat.is_unresponsive:
            self._log.info(f"the zygote (process {link.pid}) answers again")
            if link is self.shared:
                self._set_blocked("")
        link.heartbeat.answered()

    def _set_blocked(self, text: str) -> None:
        if text != self._blocked_reason:
            self._blocked_reason = text
            self._events.on_blocked(text)
