"""Follow a group until it ends or is lost, even if its collector moves or is unreachable for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from paglets.client.collectors import LOST, CollectorFinder, find_collector, online_collector
from paglets.client.proxy import PagletProxy
from paglets.core.clock import Clock
from paglets.core.errors import PagletsError, PeerReplaced, TimedOut, Unknown
from paglets.core.messages import Message
from paglets.core.text import counted, type_of

T = TypeVar("T")

LOOK_SECONDS = 4.0
"""The longest wait of one request, in seconds, so that an unreachable collector is noticed soon."""

ANSWER_SECONDS = 5.0
"""The time-out, in seconds beyond its own wait, of a request whose reply has no values of users."""

REPLY_SECONDS = 30.0
"""The time-out, in seconds beyond its own wait, of a request whose reply may have many values of users."""

PAUSE_SECONDS = 1.0
SHARE = 20
"""The pause before the next request is at most the time since the first one, divided by this number.

During the pause, several short jobs can end, and one reply then reports all of them.
"""

LONGEST_PAUSE_SECONDS = 2.0


class Follower:
    """A client of the collector of one group, which finds the collector again after it moved.

    `find` is a HostClient, or None inside a paglet, which can only repeat a request.
    """

    def __init__(
        self,
        group_id: str,
        collector: PagletProxy,
        find: CollectorFinder | None,
        proxy: Callable[[Any], PagletProxy],
        *,
        clock: Clock,
        pause: Callable[[float], None],
    ) -> None:
        self.collector = collector
        self._group_id = group_id
        self._find = find
        self._proxy = proxy
        self._clock = clock
        self._pause = pause
        self._tell: Callable[[str], None] = lambda text: None
        self._failures = 0
        self._unknown = False
        self._said = ""

    def tells(self, tell: Callable[[str], None]) -> Follower:
        """From now on, call `tell` with the reason for each wait."""
        self._tell = tell
        return self

    def pages(self, timeout: float | None, *, brief: bool) -> Iterator[dict[str, Any]]:
        """Yield pages of records of ended jobs, until no job is pending.

        A page is the reply of the collector to the message `ended`. With `brief`, records lack their long fields, and
        the last page of a small group also has the summary. Raises TimedOut, and the errors of `ask`.
        """
        now = self._clock.monotonic
        began, after = now(), 0
        end = self.end(timeout)
        answer_seconds = ANSWER_SECONDS if brief else REPLY_SECONDS
        while True:
            wait = min(LOOK_SECONDS, max(0.0, end - now()))
            asked_at = now()
            args = {"after": after, "wait_seconds": wait} | ({"brief": True, "with_summary": True} if brief else {})
            page = self.ask(
                lambda collector, args=args, wait=wait: tree(  # type: ignore[misc]
                    collector.call(Message("ended", args), timeout_seconds=wait + answer_seconds)
                ),
                timeout,
                end,
            )
            after = page["next"]
            yield page
            pending = page["pending_count"]
            if after >= page["expected_count"] - pending or not page["ended"]:
                if not pending:
                    return
                if now() >= end:
                    raise self._late(timeout, pending)
                if page["ended"]:
                    pause = pause_between_pages(now() - began, page["expected_count"] - pending, pending)
                    self._pause(max(0.0, min(pause, end - now())))
                elif now() - asked_at < wait / 2:
                    # Pause, because the collector may be a user's subclass that replies without waiting.
                    self._pause(min(PAUSE_SECONDS, end - now()))

    def ask(self, act: Callable[[PagletProxy], T], timeout: float | None, end: float) -> T:
        """Call `act` with the collector, and return its value. Retry until `end` while the collector is unreachable.

        Raises TimedOut (`timeout` is for its message). Raises Unreachable if the collector's host was removed or has a
        new store, and Unknown if the collector has ended.
        """
        while True:
            try:
                if self._failures:
                    self.find()
                value = act(self.collector)
            except Unknown as error:
                self._note_unknown(error)
                continue
            except PagletsError as error:
                if not _may_answer_later(error):
                    raise
                self._note(error)
                last = error
            else:
                self._failures, self._unknown, self._said = 0, False, ""
                return value
            if self._clock.monotonic() >= end:
                raise TimedOut(
                    f"the collector of {self._group_id} did not answer in {timeout:g} s: {last.message}",
                    next=[why_hint(self._group_id)],
                ) from None
            self._pause(max(0.0, min(PAUSE_SECONDS, end - self._clock.monotonic())))

    def read(self, act: Callable[[PagletProxy], T]) -> T:
        """Call `act` with the collector, and return its value. If the collector has moved, call `act` again.

        Raises Unreachable, with the reason, if the collector cannot be reached.
        """
        try:
            return act(self.collector)
        except PagletsError as error:
            if not _may_answer_later(error):
                raise
            known = self.collector.ref
            self.find()
            if self.collector.ref == known:
                raise error from None
            return act(self.collector)

    def find(self) -> None:
        """Find the collector again. Raises Unreachable if its host is unreachable or lost."""
        if self._find is not None:
            ref = find_collector(
                self._find, self.collector.ref, self._group_id, tell=self._tell, now=self._clock.monotonic
            )
            self.collector = self._proxy(ref)

    def look(self) -> None:
        """Look up the collector's current host.

        Raises Unreachable if that host was removed or replaced. If it is offline, report the wait and return.
        """
        if self._find is None:
            return
        try:
            self.collector = self._proxy(online_collector(self._find, self.collector.ref, self._group_id))
        except PagletsError as error:
            if not error.retryable:
                raise
            self._note(error)
        else:
            self._said = ""

    def end(self, timeout: float | None) -> float:
        return float("inf") if timeout is None else self._clock.monotonic() + timeout

    def _note(self, error: PagletsError) -> None:
        """Report why the follower waits, once per reason. Raises the error if the collector is lost.

        A first failure may be over already, so it is reported only if it names the state of the collector.
        """
        state = error.details.get("collector")
        if state in LOST or (self._find is None and isinstance(error, PeerReplaced)):
            raise error
        # Compare states, not messages, because the time since the last contact differs in each message.
        news = str(state or error)
        if (self._failures or state) and news != self._said:
            self._said = news
            self._tell(f"{error.message}; waiting for it (Ctrl-C ends the wait, not the jobs)")
        self._failures += 1

    def _note_unknown(self, error: Unknown) -> None:
        if self._unknown or self._find is None:
            raise Unknown(
                f"the collector of {self._group_id} has ended, and its results are gone",
                next=["submit again under another group_id"],
            ) from error
        self._unknown = True
        self._failures += 1

    def _late(self, timeout: float | None, pending: int) -> TimedOut:
        left = counted(pending, "job is pending", "jobs are pending")
        return TimedOut(
            f"{self._group_id} is not done after {timeout:g} s; its jobs continue: {left}",
            next=[why_hint(self._group_id)],
        )


def pause_between_pages(elapsed: float, ended: int, pending: int) -> float:
    """Return the pause in seconds before the next request for records, `elapsed` seconds after the first request.

    The rate of the `ended` jobs predicts the time until the last pending job ends. The pause is at most half of that
    time, so requests become frequent towards the end of a group, and its end is noticed soon.
    """
    rest = elapsed * pending / max(1, ended)
    return min(LONGEST_PAUSE_SECONDS, elapsed / SHARE, rest / 2)


def _may_answer_later(error: PagletsError) -> bool:
    """Return True if the collector may answer a later request, perhaps from another address."""
    return error.retryable or error.no_reply


def why_hint(group_id: str) -> str:
    return f"paglets jobs why {group_id}"


def tree(reply: Any) -> dict[str, Any]:
    """Return a reply of the collector. Raises PagletsError if it is not an object."""
    if not isinstance(reply, dict):
        raise PagletsError(f"the collector answered {type_of(reply)} instead of an object")
    return reply
