"""The locator of a host. It asks all online hosts at once which of them has a paglet.

All questions of one tick share one request to each host, and answers are cached for a second. A host with a thousand
posts for a paglet that moved therefore asks only once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from paglets.api.hosts import MeshHost
from paglets.api.paglets import Locate, Located, ResidenceRow
from paglets.core.clock import Clock
from paglets.core.parts import Wake
from paglets.core.refs import HostRef
from paglets.mesh.ask_all import ask_all
from paglets.wire.request import Request, Response, Transport, dump_json

ANSWER_SECONDS = 2.0
"""Timeout of a request. A host that does not reply in time is left out; the caller asks again if necessary."""

LATE_SECONDS = ANSWER_SECONDS + 1.0
"""Time limit of a round of requests, in case the transport does not report their outcome."""

REMEMBER_SECONDS = 1.0
"""Time for which answers are cached. An old answer does no harm: its host then replies `moved` or `unknown`."""

MAX_IDS = 1_000
"""Maximum number of paglet ids in one request. They take about 50 kB."""

MAX_REMEMBERED = 10_000

STANDING = {"here": 4, "leaving": 3, "disposed": 2, "gone": 1, "refused": 0}
"""Precedence of residence statuses of the same epoch. A status with a higher number replaces a lower one."""

Asked = Callable[[Located], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The reply of one host."""

    host: HostRef
    located: Located


def merge(answers: Iterable[Answer], others: Located | None = None) -> Located:
    """Merge replies into one row per paglet: the one with the highest epoch, then with the highest STANDING.

    In the result, `peer` of a `here` row is the host that has the paglet, and `answered` has the store ids of the hosts
    that replied. `others`: an earlier result to include.
    """
    replies, known = tuple(answers), others or Located()
    answered = {*known.answered, *(answer.host.store_id for answer in replies)}
    return _joined((known, *(_placed(answer) for answer in replies)), answered)


def combine(rounds: Sequence[Located]) -> Located:
    """Combine the results of several rounds. A host counts as answered only if it answered in all rounds."""
    who = set(rounds[0].answered if rounds else ())
    return _joined(rounds, who.intersection(*(each.answered for each in rounds)))


def _joined(parts: Iterable[Located], answered: Iterable[str]) -> Located:
    rows: dict[str, ResidenceRow] = {}
    for part in parts:
        for row in part.rows:
            known = rows.get(row.agent_id)
            if known is None or _standing(row) > _standing(known):
                rows[row.agent_id] = row
    return Located(rows=tuple(rows[key] for key in sorted(rows)), answered=tuple(sorted(answered)))


def _placed(answer: Answer) -> Located:
    rows = answer.located.rows
    return Located(rows=tuple(replace(row, peer=answer.host) if row.status == "here" else row for row in rows))


def _standing(row: ResidenceRow) -> tuple[int, int, str]:
    """Return the precedence of a row. The store id breaks ties, so that the order of replies does not matter."""
    return (row.epoch, STANDING.get(row.status, -1), row.peer.store_id if row.peer else "")


def pick(located: Located, agent_ids: frozenset[str]) -> Located:
    """Return `located` with only the rows of these paglets."""
    return replace(located, rows=tuple(row for row in located.rows if row.agent_id in agent_ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    agent_ids: frozenset[str]
    done: Asked


@dataclass(slots=True, kw_only=True, eq=False)
class Round:
    """A round of requests, one to each online host. Only the runner thread uses it.

    `located`: the merged replies; None while the round is open. `ends_at`: its time limit; afterwards, the time until
    which the replies are cached.
    """

    ends_at: float
    answers: list[Answer] = field(default_factory=list)
    located: Located | None = None


class Locator:
    """The locator of paglets on other hosts. Callers must look into this host's own store first.

    `online`: returns the other hosts to ask. `on_contact`: called with the store id of each host that replies.
    """

    name = "locate"

    def __init__(
        self,
        clock: Clock,
        transport: Transport,
        online: Callable[[], tuple[MeshHost, ...]],
        wake: Wake,
        on_contact: Callable[[str], None] = lambda store_id: None,
    ) -> None:
        self._clock = clock
        self._transport = transport
        self._online = online
        self._wake = wake
        self._on_contact = on_contact
        self._asked: deque[Question] = deque()
        self._waiting: list[Question] = []
        self._ready: deque[tuple[Question, Located]] = deque()
        self._rounds: dict[str, Round] = {}

    def locate(self, agent_ids: Iterable[str], done: Asked) -> None:
        """Ask all online hosts for paglets, and call `done` once with the result, on the runner thread.

        The result has no row for a paglet that no host knows or whose host did not reply in 2 s (see `merge`). May be
        called from any thread.
        """
        self._asked.append(Question(agent_ids=frozenset(agent_ids), done=done))
        self._wake.wake(self.name)

    def tick(self, now: float) -> float | None:
        self._forget(now)
        fresh = [self._asked.popleft() for _ in range(len(self._asked))]
        wanted = dict.fromkeys(agent_id for question in fresh for agent_id in sorted(question.agent_ids))
        unasked = [agent_id for agent_id in wanted if agent_id not in self._rounds]
        for start in range(0, len(unasked), MAX_IDS):
            self._ask(unasked[start : start + MAX_IDS], now)
        self._waiting += fresh
        self._answer()
        return min((r.ends_at for r in self._rounds.values() if r.ends_at > now), default=None)

    def _forget(self, now: float) -> None:
        """Close overdue rounds. Drop cached answers that no question needs, if expired or if there are too many."""
        for late in {id(r): r for r in self._rounds.values()}.values():
            if late.located is None and now >= late.ends_at:
                self._close(late, now)
        crowded = len(self._rounds) > MAX_REMEMBERED
        needed = {agent_id for question in self._waiting for agent_id in question.agent_ids}
        self._rounds = {
            agent_id: r
            for agent_id, r in self._rounds.items()
            if r.located is None or agent_id in needed or (now < r.ends_at and not crowded)
        }

    def _ask(self, agent_ids: list[str], now: float) -> None:
        asked = Round(ends_at=now + LATE_SECONDS)
        self._rounds.update(dict.fromkeys(agent_ids, asked))
        body = dump_json(Locate(agent_ids=tuple(agent_ids)))
        request = Request(method="POST", target="/v1/paglets/locate", body=body, repeatable=True)
        ask_all(
            self._transport,
            [host.ref for host in self._online()],
            request,
            partial(self._read, asked),
            lambda answers: self._answered(asked),
            timeout_seconds=ANSWER_SECONDS,
        )

    def _read(self, asked: Round, host: HostRef, response: Response) -> None:
        self._on_contact(host.store_id)
        # An error response says nothing about the paglets: `parse` raises, and the host counts as unreachable.
        asked.answers.append(Answer(host=host, located=response.parse(Located)))

    def _answered(self, asked: Round) -> None:
        if asked.located is None:
            self._close(asked, self._clock.monotonic())
            self._wake.wake(self.name)

    def _close(self, asked: Round, now: float) -> None:
        asked.located = merge(asked.answers)
        asked.ends_at = now + REMEMBER_SECONDS

    def _answer(self) -> None:
        still = []
        for question in self._waiting:
            rounds = {id(r): r for r in (self._rounds[agent_id] for agent_id in sorted(question.agent_ids))}
            found = [r.located for r in rounds.values() if r.located is not None]
            if len(found) == len(rounds):
                self._ready.append((question, pick(combine(found), question.agent_ids)))
            else:
                still.append(question)
        self._waiting = still
        # Remove each question before its callback. If a callback raises, the next tick answers the other questions.
        while self._ready:
            question, located = self._ready.popleft()
            question.done(located)
