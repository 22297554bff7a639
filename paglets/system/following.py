"""Following a group to its end, for scripts and commands: its collector may move, be away for a while, or be lost."""

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
"""The collector answers at once when a job ends, and after this long in any case: so it is soon known if it cannot."""

ANSWER_SECONDS = 5.0
"""For a reply without users' values, beyond the wait."""

REPLY_SECONDS = 30.0
"""For a reply that waits for nothing, and may have many values in it."""

PAUSE_SECONDS = 1.0
SHARE = 20
"""Of the time that has passed, the part that may go by before the next look: many short jobs are not asked for one by
one, and the end of a group is noticed late by no more than that."""

LONGEST_PAUSE_SECONDS = 2.0


class Follower:
    """Asks the collector of one group, and finds out why it does not answer.

    `find`: a HostClient, or None within a paglet, which can only ask again.
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
        """From now on call `tell` with what is in the way."""
        self._tell = tell
        return self

    def pages(self, timeout: float | None, *, brief: bool) -> Iterator[dict[str, Any]]:
        """Yield replies to `ended` until no job is pending. Raises TimedOut, and what `ask` raises."""
        now = self._clock.monotonic
        began, after = now(), 0
        end = self.end(timeout)
        answer_seconds = ANSWER_SECONDS if brief else REPLY_SECONDS
        while True:
            wait = min(LOOK_SECONDS, max(0.0, end - now()))
            asked_at = now()
            args = {"after": after, "wait_seconds": wait} | ({"brief": True} if brief else {})
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
                    self._pause(max(0.0, min(LONGEST_PAUSE_SECONDS, (now() - began) / SHARE, end - now())))
                elif now() - asked_at < wait / 2:  # a collector of the user's own need not wait
                    self._pause(min(PAUSE_SECONDS, end - now()))

    def ask(self, act: Callable[[PagletProxy], T], timeout: float | None, end: float) -> T:
        """Return what `act` gives with the collector, again and again while that is away, until `end`.

        Raises TimedOut; Unreachable where its host was forgotten or began anew, Unknown where it has ended.
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
                    f"nothing was heard of the collector of {self._group_id} in {timeout:g} s: {last.message}",
                    next=[why_hint(self._group_id)],
                ) from None
            self._pause(max(0.0, min(PAUSE_SECONDS, end - self._clock.monotonic())))

    def read(self, act: Callable[[PagletProxy], T]) -> T:
        """Return what `act` gives with the collector. Raises Unreachable with the reason where that cannot be asked."""
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
        """Find the collector anew. Raises Unreachable where its host is away or lost."""
        if self._find is not None:
            ref = find_collector(
                self._find, self.collector.ref, self._group_id, tell=self._tell, now=self._clock.monotonic
            )
            self.collector = self._proxy(ref)

    def look(self) -> None:
        """Ask the own host for the collector's: raise Unreachable where that is lost, and tell where it is away."""
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
        """Tell what is in the way, once. What is so for the first time may be over already."""
        state = error.details.get("collector")
        if state in LOST or (self._find is None and isinstance(error, PeerReplaced)):
            raise error
        # Not how long ago it was heard of: that is new each time.
        news = str(state or error)
        if (self._failures or state) and news != self._said:
            self._said = news
            self._tell(f"{error.message}; waiting for it (Ctrl-C ends the wait, not the jobs)")
        self._failures += 1

    def _note_unknown(self, error: Unknown) -> None:
        if self._unknown or self._find is None:
            raise Unknown(
                f"the collector of {self._group_id} has ended, and its results with it",
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


def _may_answer_later(error: PagletsError) -> bool:
    """Return True if the collector may answer a later request, perhaps from another address."""
    return error.retryable or error.no_reply


def why_hint(group_id: str) -> str:
    return f"paglets jobs why {group_id}"


def tree(reply: Any) -> dict[str, Any]:
    """Return a reply of the collector. Raises PagletsError where it is no object."""
    if not isinstance(reply, dict):
        raise PagletsError(f"the collector answered {type_of(reply)} instead of an object")
    return reply
