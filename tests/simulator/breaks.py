"""Deliberate bugs, each injected at a seam, that the simulator's checks must find.

No module of the host is changed. A rule rewrites SQL on its way to the database, skips a COMMIT or changes a reply on
the network.

Guarantees that find them, by their number in the description of the architecture:

- S1 (one place): a lost reply treated as a request never sent, a refusal not stored, a theft with its victim's epoch,
  hand-offs without an epoch, an abandoned hand-off that keeps its epoch
- S2 (leases): a lease that ends with the report, a paglet that leaves while it holds a lease
- S4 (records): a report for a key that has ended
- S5 (posts): a lost commit, a dropped forward, an inbox or a list of taken posts that stays or does not travel
- I2 (one outcome of an attempt): a second outcome that replaces the first
- I5 (new copies only of lost jobs): a loss that is not recorded
- I6 (everything ends): posts not forwarded, no detection of lost copies, a host that does not learn what to cancel
- home: a job in its home's queue that may not run there, hosts forgotten by a restart
- rows of one host: a lease that outlives its attempt, units leased twice, processes of the previous start

A second line of defence cannot be broken alone. Outcomes and ends of runs name their attempt in WHERE, but the host
also kills the process before the next attempt starts. Unit tests check this and the fence of forgotten hosts.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

from paglets.core.errors import CallOutcomeUnknown, PagletsError, Unreachable
from paglets.wire.request import Request, Response, reply
from tests.simulator.faults import Trouble
from tests.simulator.network import Weather
from tests.simulator.profile import Profile, calm
from tests.simulator.tampering import Tampering, plain_commit

LOSE_EVERY_COMMITS = 60


# Rules that rewrite a statement.


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule that replaces `pattern` by `by` in a statement. An empty `by` skips the statement.

    `first` runs before the statement, with its arguments at `first_args`. If `when` is set, it must be an argument.
    """

    pattern: str
    by: str
    first: str = ""
    first_args: tuple[int, ...] = ()
    when: str = ""


def rewritten(pattern: str, by: str) -> Rule:
    return Rule(pattern=pattern, by=by)


def finds_none(pattern: str) -> Rule:
    """Return a rule that makes a statement match no rows."""
    return Rule(pattern=pattern, by=pattern.replace("WHERE", "WHERE 0 AND", 1))


def dropped(pattern: str, *, when: str) -> Rule:
    return Rule(pattern=pattern, by="", when=when)


def preceded(pattern: str, first: str, *first_args: int) -> Rule:
    """Return a rule that runs `first` before a statement and leaves the statement unchanged."""
    return Rule(pattern=pattern, by=pattern, first=first, first_args=first_args)


def second_outcome() -> Rule:
    return rewritten("WHERE agent_id = ? AND outcome IS NULL AND EXISTS", "WHERE agent_id = ? AND EXISTS")


def report_after_the_end() -> Rule:
    """Return a rule that hides from the collector that a job has ended."""
    return rewritten(
        "SELECT value FROM storage WHERE agent_id = ? AND key = ?",
        "SELECT replace(value, '\"ended\":true', '\"ended\":false') FROM storage WHERE agent_id = ? AND key = ?",
    )


class RewritingConnection:
    """A connection that rewrites some statements of the host. `hits` counts the statements by rule."""

    def __init__(self, inner: sqlite3.Connection, rules: tuple[Rule, ...], hits: Counter[Rule]) -> None:
        object.__setattr__(self, "_inner", inner)
        object.__setattr__(self, "_rules", rules)
        object.__setattr__(self, "_hits", hits)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)

    def execute(self, sql: str, args: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        for rule in self._rules:
            if rule.pattern in sql and (not rule.when or rule.when in args):
                self._hits[rule] += 1
                if not rule.by:
                    return cast(sqlite3.Cursor, self._inner.execute("SELECT 0 WHERE 0"))
                if rule.first:
                    self._inner.execute(rule.first, tuple(args[index] for index in rule.first_args))
                sql = sql.replace(rule.pattern, rule.by)
        return cast(sqlite3.Cursor, self._inner.execute(sql, args))

    def executemany(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> sqlite3.Cursor:
        for rule in self._rules:
            if rule.pattern in sql:
                assert not rule.first + rule.when, f"this rule is for single statements: {rule}"
                self._hits[rule] += 1
                sql = sql.replace(rule.pattern, rule.by)
        return cast(sqlite3.Cursor, self._inner.executemany(sql, rows))


def _rewriting(rules: tuple[Rule, ...], hits: Counter[Rule]) -> Tampering:
    def connect(database: sqlite3.Connection) -> sqlite3.Connection:
        return cast(sqlite3.Connection, RewritingConnection(database, rules, hits))

    return Tampering(connect=connect)


# Bugs outside SQL.


def _lost_commits() -> Tampering:
    count = 0

    def commit(connection: sqlite3.Connection) -> None:
        nonlocal count
        count += 1
        if count % LOSE_EVERY_COMMITS:
            plain_commit(connection)
        else:
            connection.execute("ROLLBACK")

    return Tampering(commit=commit)


def _unknown_taken_for_unreachable() -> Tampering:
    def lie(error: PagletsError) -> PagletsError:
        return Unreachable(error.message) if isinstance(error, CallOutcomeUnknown) else error

    return Tampering(lie=lie)


def changing_replies(*targets: str, change: Callable[[Any], None]) -> Tampering:
    """Pass the tree of each successful reply of these `targets` to `change`."""

    def filter_reply(request: Request, response: Response) -> Response:
        if request.target not in targets or response.status >= 400:
            return response
        tree = response.json()
        change(tree)
        return reply(tree)

    return Tampering(filter_reply=filter_reply)


def _moved_taken_for_taken(tree: Any) -> None:
    for answer in tree["answers"]:
        if answer["verdict"] == "moved":
            answer.update(verdict="taken", host=None, epoch=0)


def _unwanted_not_told(tree: Any) -> None:
    tree.update(unwanted=[])


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A bug made by `rules` or by `tamper`. `profile` is the kind of run that exposes it.

    `hits` counts the statements that each rule changed, over all runs.
    """

    name: str
    rules: tuple[Rule, ...] = ()
    tamper: Callable[[], Tampering] = Tampering
    profile: Profile | None = None
    hits: Counter[Rule] = field(default_factory=Counter)

    def make(self) -> Tampering:
        """Return new tampering. Call this once for each run."""
        return _rewriting(self.rules, self.hits) if self.rules else self.tamper()

    def unused(self) -> list[str]:
        """Return the patterns that matched no statement."""
        return [rule.pattern for rule in self.rules if not self.hits[rule]]


def by_sql(name: str, *rules: Rule, profile: Profile | None = None) -> Break:
    return Break(name=name, rules=rules, profile=profile)


# Kinds of runs that expose the bugs.


def moving(weather: Weather, hosts: int = 3) -> Profile:
    """Return a run of named paglets that move repeatedly on a bad network."""
    base = calm(hosts)
    return replace(
        base,
        load=replace(base.load, groups=0, counters=0, twins=3, moves=40),
        trouble=Trouble(weather=weather, seconds=30.0),
    )


def posting(weather: Weather | None = None) -> Profile:
    """Return a run of paglets that post to each other and move."""
    base = calm(2)
    return replace(
        base,
        load=replace(base.load, groups=0, moves=12, posts=25),
        trouble=Trouble(weather=weather or Weather(), seconds=5.0),
        handler_trouble=0.2,
        most_events=20_000,
    )


def _cancelling() -> Profile:
    """Return a run of endless jobs that are cancelled."""
    base = calm(2)
    return replace(base, load=replace(base.load, counters=0, plans=("forever",)))


def _stealing() -> Profile:
    """Return a run with more jobs than slots. Most may run at home, and hosts steal them from one another."""
    base = calm(3)
    load = replace(base.load, groups=3, most_jobs=12, counters=0, plans=("slow", "success"), seconds=12.0)
    return replace(base, load=load, trouble=Trouble(weather=Weather(doubled=0.8), seconds=12.0))


def _giving_up() -> Profile:
    """Return a run that cancels jobs during hand-offs and loses replies about them."""
    base = calm(3)
    load = replace(base.load, groups=3, most_jobs=8, counters=0, cancels=20, plans=("forever", "slow"), seconds=20.0)
    return replace(base, load=load, trouble=Trouble(weather=Weather(cut=0.7), holes=6, seconds=40.0))


def _restarting() -> Profile:
    """Return a run of jobs that no host can take for a while: machines crash and restart while the others are away."""
    base = calm(2)
    load = replace(base.load, groups=4, most_jobs=8, counters=0, plans=("success",), seconds=20.0)
    return replace(base, load=load, trouble=Trouble(crashes=12, seconds=20.0))


def _losing() -> Profile:
    """Return a run of jobs on three machines, one of which is lost for good."""
    base = calm(3)
    return replace(
        base,
        load=replace(base.load, groups=3, most_jobs=8, counters=0, stays=2, plans=("success", "slow")),
        trouble=Trouble(departs=True, seconds=12.0),
        lost_after=12.0,
    )


BREAKS: tuple[Break, ...] = (
    Break(name="a change is acknowledged and its commit lost", tamper=_lost_commits),
    Break(
        name="a paglet that moved is taken for one that took the post",
        tamper=partial(changing_replies, "/v1/posts", change=_moved_taken_for_taken),
    ),
    Break(
        name="a lost reply is taken for a request never sent",
        tamper=_unknown_taken_for_unreachable,
        profile=moving(Weather(cut=0.8)),
    ),
    by_sql("a second outcome of an attempt replaces the first", second_outcome()),
    by_sql(
        "posts taken before are taken again",
        finds_none("SELECT n FROM taken WHERE"),
        rewritten("SELECT settled_below FROM", "SELECT 0 FROM"),
        rewritten("INSERT INTO taken VALUES", "INSERT OR IGNORE INTO taken VALUES"),
        rewritten("INSERT INTO inbox", "INSERT OR IGNORE INTO inbox"),
        profile=posting(Weather(doubled=0.5)),
    ),
    by_sql(
        "a post stays in the inbox when it is handled",
        rewritten("DELETE FROM inbox WHERE seq = ?", "UPDATE inbox SET tries = 0 WHERE seq = ?"),
    ),
    by_sql(
        "which posts were taken does not travel",
        rewritten("SELECT sender_store, n FROM taken WHERE", "SELECT '', 0 FROM taken WHERE 0 AND"),
        profile=posting(Weather(doubled=0.5)),
    ),
    by_sql(
        "the inbox does not travel",
        finds_none("SELECT * FROM inbox WHERE agent_id = ? ORDER BY seq"),
        profile=posting(),
    ),
    by_sql("a lease outlives its attempt", finds_none("DELETE FROM leases WHERE")),
    by_sql(
        "a lease ends with the report and not with the process",
        preceded(
            "UPDATE job_states SET outcome = ? WHERE agent_id = ? AND outcome",
            "DELETE FROM leases WHERE agent_id = ?",
            1,
        ),
    ),
    by_sql(
        "a refusal is said and not stored",
        dropped("INSERT INTO residence", when="refused"),
        profile=moving(Weather(doubled=0.8)),
    ),
    by_sql(
        "processes of an earlier start are not closed",
        rewritten("SELECT * FROM runs ORDER BY started_at", "SELECT * FROM runs WHERE 0 ORDER BY started_at"),
    ),
    by_sql(
        "posts are not sent after a paglet that moved",
        rewritten("AND host_store != ?", "AND host_store != ? AND 0"),
        profile=posting(),
    ),
    by_sql("the collector takes a report for a key that has ended", report_after_the_end()),
    by_sql(
        "nobody looks for copies that are lost",
        finds_none("SELECT agent_id FROM paglets WHERE kind = 'collector'"),
        profile=_losing(),
    ),
    Break(
        name="a host is not told which copies nobody wants",
        tamper=partial(changing_replies, "/v1/jobs/status", change=_unwanted_not_told),
        profile=_cancelling(),
    ),
    by_sql(
        "a theft keeps the epoch of its victim",
        preceded(
            "UPDATE requests SET stolen = 1 WHERE agent_id = ?",
            "UPDATE residence SET epoch = epoch - 1 WHERE agent_id = ?",
            0,
        ),
        profile=_stealing(),
    ),
    by_sql(
        "hand-offs carry no epoch",
        rewritten(
            "SELECT * FROM residence WHERE agent_id = ?",
            "SELECT agent_id, 1 AS epoch, status, peer, reason, settled, told, since_at, stale_scratch"
            " FROM residence WHERE agent_id = ?",
        ),
        profile=moving(Weather(doubled=0.5)),
    ),
    by_sql(
        "a paglet leaves while it holds a lease",
        rewritten(
            "WHERE status = 'WAITING_FOR_SLOT' AND p.intent IS NULL",
            "WHERE status IN ('WAITING_FOR_SLOT', 'RUNNING') AND p.intent IS NULL",
        ),
        rewritten("AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.agent_id = r.agent_id)", "AND 1"),
        finds_none("SELECT 1 FROM runs WHERE agent_id = ?"),
        replace(
            finds_none("SELECT 1 FROM leases WHERE agent_id = ?"),
            first="DELETE FROM leases WHERE agent_id = ?",
            first_args=(0,),
        ),
        profile=_stealing(),
    ),
    by_sql(
        "a hand-off that is given up keeps its epoch",
        rewritten(
            "SET epoch = ?, status = ?, peer = ?, reason = '', told = ?, since_at = ? WHERE agent_id = ?",
            "SET epoch = ?1 - (?2 = 'disposed' AND NOT ?4), status = ?2, peer = ?3, reason = '', told = ?4,"
            " since_at = ?5 WHERE agent_id = ?6",
        ),
        profile=_giving_up(),
    ),
    by_sql("that a copy is lost is not noted", dropped("INSERT INTO events", when="lost"), profile=_losing()),
    by_sql(
        "a job runs at home although another host is known",
        rewritten(
            "attempt, request, queued_at",
            "attempt, json_set(request, '$.rules.allow_home', json('true')) AS request, queued_at",
        ),
    ),
    by_sql(
        "a host that starts again has forgotten the other hosts",
        rewritten("FROM hosts ORDER BY store_id", "FROM hosts WHERE 0 ORDER BY store_id"),
        profile=_restarting(),
    ),
    by_sql("units that are leased are leased again", finds_none("SELECT unit FROM lease_units WHERE")),
)
"""Bugs that each break one rule. The checks must find every one."""
