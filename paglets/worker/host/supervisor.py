"""The zygotes of a host: started, listened to, pinged, replaced. Everything is done on the launcher's I/O thread.

One is shared by all runs but those that are to be alone: each of these has a zygote of its own. A zygote that has
work is pinged. One that does not answer is continued, in case it is stopped, and replaced if that does not help
(`pulse`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from paglets.worker.host.reactor import WRITE, Reactor
from paglets.worker.host.restarts import Restarts
from paglets.worker.host.zygote_link import ZygoteLink
from paglets.worker.zygote_protocol import Ping, Pong, ZygoteReady

CLOSE_SECONDS = 12.0
"""More than a zygote takes by itself (`zygote.CLOSING_SECONDS`)."""

ZYGOTE_LABEL = "the process that starts jobs"
"""A zygote, in words for people."""


class Owner(Protocol):
    """The launcher, which knows the runs."""

    def has_work(self, link: ZygoteLink) -> bool:
        """Return True if a run waits for that zygote or is its child."""
        ...

    def on_ready(self, link: ZygoteLink) -> None: ...

    def on_record(self, link: ZygoteLink, record: Any) -> None: ...

    def on_silent(self, link: ZygoteLink) -> None:
        """It does not answer: what is to end, ends without it."""
        ...

    def on_gone(self, link: ZygoteLink) -> int:
        """It is gone. Gives how many runs it left behind."""
        ...

    def on_hopeless(self, problem: str) -> None:
        """The shared zygote does not start."""
        ...

    def on_trouble(self, text: str) -> None:
        """Why the shared zygote starts nothing just now, "" when that is over."""
        ...


class ZygoteSupervisor:
    """`shared` is None while there is none."""

    def __init__(
        self, open_zygote: Callable[..., ZygoteLink], reactor: Reactor, log: Callable[[str], None], owner: Owner
    ) -> None:
        self._open_zygote = open_zygote
        self._reactor = reactor
        self._log = log
        self._owner = owner
        self._restarts = Restarts()
        self._open_at: float | None = 0.0
        self._trouble = ""
        self.shared: ZygoteLink | None = None
        self.links: list[ZygoteLink] = []

    # Times.

    def next_due(self) -> float | None:
        """When something is to be done next, by the monotonic clock."""
        due = [at for at in (self._open_at, *(link.ends_by for link in self.links)) if at is not None]
        return min(due, default=None)

    def do_due(self) -> None:
        now = time.monotonic()
        if self._open_at is not None and self._open_at <= now:
            self._open(now)
        for link in tuple(self.links):
            if link.ends_by is None:
                self._feel_pulse(link, now)
            elif link.ends_by <= now:
                self._gone(link, "it did not end in time")

    # Starting and ending.

    def open_alone(self) -> ZygoteLink:
        """Start a zygote for one run. Raises OSError."""
        return self._add(self._open_zygote(is_alone=True))

    def end(self, link: ZygoteLink) -> None:
        """Let it end by itself, and end it if it takes too long."""
        if link.ends_by is None:
            link.hang_up(time.monotonic() + CLOSE_SECONDS)

    def close(self) -> None:
        """End all; none is started any more."""
        self._open_at = None
        for link in self.links:
            self.end(link)

    def _open(self, now: float) -> None:
        self._open_at = None
        self._restarts.opened(now)
        try:
            self.shared = self._add(self._open_zygote())
        except OSError as error:
            self._open_again(f"{error.filename or 'its command'}: {error.strerror}", was_ready=False)

    def _open_again(self, problem: str, *, was_ready: bool) -> None:
        self._open_at = self._restarts.ended(time.monotonic(), was_ready=was_ready)
        self._log(f"the zygote is gone ({problem}); a new one is started")
        if self._restarts.hopeless:
            self._owner.on_hopeless(problem)

    def _add(self, link: ZygoteLink) -> ZygoteLink:
        self.links.append(link)
        self._watch(link)
        return link

    def _gone(self, link: ZygoteLink, problem: str) -> None:
        self._reactor.forget(link)
        how = f"{problem}, {link.bury()}"
        self.links.remove(link)
        left = self._owner.on_gone(link)
        if link is not self.shared:
            if left:
                self._log(f"the zygote of one run is gone ({how})")
            return
        self.shared = None
        self._say_trouble("")
        if link.ends_by is None:
            self._open_again(how, was_ready=link.ready)

    # What they say.

    def tell(self, link: ZygoteLink, record: Any, descriptor: int | None = None) -> None:
        """Send a frame; `descriptor` travels with it. Raises PagletsError for what cannot be one."""
        link.send(record, descriptor)
        self._watch(link)

    def _watch(self, link: ZygoteLink) -> None:
        self._reactor.watch(link, partial(self._on_zygote, link), writing=link.wants_write)

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
                self._owner.on_record(link, record)
        self._watch(link)

    def _on_ready(self, link: ZygoteLink, ready: ZygoteReady) -> None:
        link.ready = True
        link.heartbeat.answered()
        for problem in ready.preload_errors:
            self._log(f"the zygote could not load {problem}")
        self._owner.on_ready(link)

    # Whether they answer.

    def _feel_pulse(self, link: ZygoteLink, now: float) -> None:
        if not self._owner.has_work(link):
            link.heartbeat.rest()
            return
        was_silent = link.heartbeat.is_silent
        sign = link.heartbeat.look(now)
        if sign == "ask":
            self.tell(link, Ping())
        elif sign == "hung":
            self._gone(link, f"it did not answer for {link.heartbeat.patience.replace_seconds:g} s")
        elif sign == "silent":
            if not was_silent:
                self._on_silent(link)
            link.resume()

    def _on_silent(self, link: ZygoteLink) -> None:
        silent, hung = link.heartbeat.patience.unresponsive_seconds, link.heartbeat.patience.replace_seconds
        text = f"the zygote (process {link.pid}) has not answered for {silent:g} s"
        self._log(f"{text}; it is continued now, and replaced after {hung:g} s")
        if link is self.shared:
            self._say_trouble(f"{ZYGOTE_LABEL} (zygote, process {link.pid}) does not answer")
        self._owner.on_silent(link)

    def _on_pong(self, link: ZygoteLink) -> None:
        if link.heartbeat.is_silent:
            self._log(f"the zygote (process {link.pid}) answers again")
            if link is self.shared:
                self._say_trouble("")
        link.heartbeat.answered()

    def _say_trouble(self, text: str) -> None:
        if text != self._trouble:
            self._trouble = text
            self._owner.on_trouble(text)
