"""Where is this paglet? Asked of all online hosts at once, as a part of the host.

Questions that come in the same tick go out as one request to each host, and for a second answers are
remembered; so a host with a thousand posts for a paglet that moved asks once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from paglets.api.hosts import MeshHost
from paglets.api.paglets import Locate, Located, ResidenceRow
from paglets.core.clock import Clock
from paglets.core.errors import PagletsError
from paglets.core.parts import Wake
from paglets.core.refs import HostRef
from paglets.wire.request import Request, Response, Transport, dump_json

ANSWER_SECONDS = 2.0
"""A host that does not answer in this time is taken not to know; the question is asked again by who needs it."""

LATE_SECONDS = ANSWER_SECONDS + 1.0
"""A round ends by then, whatever the transport does."""

REMEMBER_SECONDS = 1.0
"""Addresses are hints and may be a second old; who is told `moved` or `unknown` there goes on from that."""

MAX_IDS = 1_000
"""Ids in one request: some 50 kB."""

MAX_REMEMBERED = 10_000

STANDING = {"here": 4, "leaving": 3, "disposed": 2, "gone": 1, "refused": 0}
"""Between rows of one epoch: where it is, then what became of it."""

Asked = Callable[[Located], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one host said."""

    host: HostRef
    located: Located


def merge(answers: Iterable[Answer], others: Located | None = None) -> Located:
    """One row for each paglet: the highest epoch wins, `here` over others of that epoch. And who answered.

    In the result `peer` of a `here` row is the host that answered so. `others`: what was answered besides.
    """
    told, known = tuple(answers), others or Located()
    who = {*known.answered, *(answer.host.store_id for answer in told)}
    return _joined((known, *(_placed(answer) for answer in told)), who)


def combine(rounds: Sequence[Located]) -> Located:
    """Several rounds as one, each paglet once. Only who answered in each of them has answered."""
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
    """The store id decides between equals, so that the order of the answers does not."""
    return (row.epoch, STANDING.get(row.status, -1), row.peer.store_id if row.peer else "")


def pick(located: Located, agent_ids: frozenset[str]) -> Located:
    """The part of `located` that answers a question for these ids."""
    return replace(located, rows=tuple(row for row in located.rows if row.agent_id in agent_ids))


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    agent_ids: frozenset[str]
    done: Asked


@dataclass(slots=True, kw_only=True, eq=False)
class Round:
    """One request to each online host, under way or answered; only the runner touches it."""

    ends_at: float
    waiting: int
    answers: list[Answer] = field(default_factory=list)
    located: Located | None = None


class Locator:
    """`online` gives the other hosts to ask; `on_contact` is told the store of each that answers. What this host itself
    knows, its callers know already."""

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
        """Ask for paglets; from any thread. `done` is called once, on the runner.

        Ids that nobody knows are missing in the answer, as are those whose host did not answer in 2 s; `answered` says
        who did.
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
        """End rounds that are late; drop answers that are old, and all where they are too many."""
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
        hosts = self._online()
        asked = Round(ends_at=now + LATE_SECONDS, waiting=len(hosts))
        self._rounds.update(dict.fromkeys(agent_ids, asked))
        body = dump_json(Locate(agent_ids=tuple(agent_ids)))
        request = Request(method="POST", target="/v1/paglets/locate", body=body, repeatable=True)
        if not hosts:
            self._close(asked, now)
        for member in hosts:
            self._transport.send(member.ref, request, self._taker(asked, member.ref), timeout_seconds=ANSWER_SECONDS)

    def _taker(self, asked: Round, host: HostRef) -> Callable[[Response | PagletsError], None]:
        def done(outcome: Response | PagletsError) -> None:
            asked.waiting -= 1
            if isinstance(outcome, Response):
                self._on_contact(host.store_id)
                # An answer that is an error tells nothing of where the paglet is, like no answer at all.
                with suppress(PagletsError):
                    asked.answers.append(Answer(host=host, located=outcome.parse(Located)))
            if asked.waiting == 0 and asked.located is None:
                self._close(asked, self._clock.monotonic())
                self._wake.wake(self.name)

        return done

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
        # Where one raises, the others are answered by the next tick.
        while self._ready:
            question, located = self._ready.popleft()
            question.done(located)
