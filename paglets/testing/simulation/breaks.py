"""Deliberate breaks of the promises, each at a seam, to see that the simulator's checks find them.

No module of the host is touched: SQL is rewritten on its way to the database, a COMMIT is not made, a reply
is changed on the network.

What finds them, by the numbers of the architecture's description:

- S1 (one place): a lost reply taken for a request never sent, a refusal not stored, a theft under its victim's epoch,
  hand-offs without an epoch, a hand-off that is given up and keeps its epoch
- S2 (leases): one that ends with the report; a paglet that leaves while it holds one
- S4 (records): a report for a key that has ended
- S5 (posts): a lost commit, a dropped forward, an inbox that stays or does not travel, the same of what was taken
- I2 (one outcome of an attempt): a second one that replaces the first
- I5 (a further copy only of what is lost): a loss that is not noted
- I6 (all comes to an end): posts not sent on, nobody who looks for lost copies, a host that is not told what to end
- the rows of one host: a lease that outlives its attempt, units leased twice, processes of an earlier start

Second lines of defence cannot be broken alone: that an outcome or the end of a run names its attempt is in their WHERE,
while the host ends the process, and with it all that it says, before another attempt begins. What a fence is for, a
host that was forgotten and comes back, breaks promises that nobody made to a paglet which lived there: unit tests
look at both.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

from paglets.core.errors import CallOutcomeUnknown, PagletsError, Unreachable
from paglets.remote.exchange import Request, Response, reply
from paglets.testing.simulation.faults import Trouble
from paglets.testing.simulation.network import Weather
from paglets.testing.simulation.profile import Profile, calm
from paglets.testing.simulation.world import Tampering, plain_commit

LOSE_EVERY_COMMITS = 60


@dataclass(slots=True, kw_only=True)
class Rule:
    """Statements that hold `pattern` have it replaced by `by`; `hits` counts them.

    `first` runs before, with those of their arguments. `when`: only where that is among their arguments. Without `by`
    they are not run at all.
    """

    pattern: str
    by: str = ""
    first: str = ""
    first_args: tuple[int, ...] = ()
    when: str = ""
    hits: int = 0


class RewritingConnection:
    """A connection on which some statements are not what the host wrote."""

    def __init__(self, inner: sqlite3.Connection, rules: tuple[Rule, ...]) -> None:
        object.__setattr__(self, "_inner", inner)
        object.__setattr__(self, "_rules", rules)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)

    def execute(self, sql: str, args: tuple[Any, ...] = ()) -> sqlite3.Cursor:
        for rule in self._rules:
            if rule.pattern in sql and (not rule.when or rule.when in args):
                rule.hits += 1
                if not rule.by:
                    return cast(sqlite3.Cursor, self._inner.execute("SELECT 0 WHERE 0"))
                if rule.first:
                    self._inner.execute(rule.first, tuple(args[index] for index in rule.first_args))
                sql = sql.replace(rule.pattern, rule.by)
        return cast(sqlite3.Cursor, self._inner.execute(sql, args))

    def executemany(self, sql: str, rows: Iterable[tuple[Any, ...]]) -> sqlite3.Cursor:
        for rule in self._rules:
            if rule.pattern in sql:
                rule.hits += 1
                sql = sql.replace(rule.pattern, rule.by)
        return cast(sqlite3.Cursor, self._inner.executemany(sql, rows))


def _rewriting(rules: tuple[Rule, ...]) -> Tampering:
    def connect(database: sqlite3.Connection) -> sqlite3.Connection:
        return cast(sqlite3.Connection, RewritingConnection(database, rules))

    return Tampering(connect=connect)


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


def _moved_taken_for_taken() -> Tampering:
    def filter_reply(request: Request, response: Response) -> Response:
        if request.target != "/v1/posts" or response.status >= 400:
            return response
        tree = response.json()
        for answer in tree["answers"]:
            if answer["verdict"] == "moved":
                answer.update(verdict="taken", host=None, epoch=0)
        return reply(tree)

    return Tampering(filter_reply=filter_reply)


def _unknown_taken_for_unreachable() -> Tampering:
    def lie(error: PagletsError) -> PagletsError:
        return Unreachable(error.message) if isinstance(error, CallOutcomeUnknown) else error

    return Tampering(lie=lie)


def _unwanted_not_told() -> Tampering:
    def filter_reply(request: Request, response: Response) -> Response:
        if request.target != "/v1/census" or response.status >= 400:
            return response
        return reply({**response.json(), "unwanted": []})

    return Tampering(filter_reply=filter_reply)


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """`within_seeds`: so many seeds from 1 on find it, at the latest. `profile`: the kind of run that brings it out.

    It is made of `rules`, or of what `tamper` makes.
    """

    name: str
    within_seeds: int
    rules: tuple[Rule, ...] = ()
    tamper: Callable[[], Tampering] = Tampering
    profile: Profile | None = None

    def make(self) -> Tampering:
        """To be made anew for each run."""
        return _rewriting(self.rules) if self.rules else self.tamper()


def _moving(weather: Weather, hosts: int = 3) -> Profile:
    """Named paglets that move again and again, in bad weather."""
    base = calm(hosts)
    return replace(
        base,
        load=replace(base.load, groups=0, counters=0, twins=3, moves=40),
        trouble=Trouble(weather=weather, seconds=30.0),
    )


def _posting(weather: Weather | None = None) -> Profile:
    """Paglets that post to each other and move."""
    base = calm(2)
    return replace(
        base,
        load=replace(base.load, groups=0, moves=12, posts=25),
        trouble=Trouble(weather=weather or Weather(), seconds=5.0),
        handler_trouble=0.2,
        most_events=20_000,
    )


def _cancelling() -> Profile:
    """Jobs without end, which are cancelled."""
    base = calm(2)
    return replace(base, load=replace(base.load, counters=0, plans=("forever",)))


def _stealing() -> Profile:
    """More jobs than there is room for, most of which may run at home: hosts take them from one another."""
    base = calm(3)
    load = replace(base.load, groups=3, most_jobs=12, counters=0, plans=("slow", "success"), seconds=12.0)
    return replace(base, load=load, trouble=Trouble(weather=Weather(doubled=0.8), seconds=12.0))


def _giving_up() -> Profile:
    """Jobs are cancelled that are on their way, and replies to what is asked about them are lost."""
    base = calm(3)
    load = replace(base.load, groups=3, most_jobs=8, counters=0, cancels=20, plans=("forever", "slow"), seconds=20.0)
    return replace(base, load=load, trouble=Trouble(weather=Weather(cut=0.7), holes=6, seconds=40.0))


def _losing() -> Profile:
    """Jobs on three machines, of which one is lost for good."""
    base = calm(3)
    return replace(
        base,
        load=replace(base.load, groups=3, most_jobs=8, counters=0, stays=2, plans=("success", "slow")),
        trouble=Trouble(departs=True, seconds=12.0),
        lost_after=12.0,
    )


BREAKS: tuple[Break, ...] = (
    Break(name="a change is acknowledged and its commit lost", tamper=_lost_commits, within_seeds=25),
    Break(
        name="a paglet that moved is taken for one that took the post", tamper=_moved_taken_for_taken, within_seeds=25
    ),
    Break(
        name="a lost reply is taken for a request never sent",
        tamper=_unknown_taken_for_unreachable,
        within_seeds=25,
        profile=_moving(Weather(cut=0.8)),
    ),
    Break(
        name="a second outcome of an attempt replaces the first",
        rules=(Rule(pattern="AND attempt = ? AND outcome IS NULL", by="AND attempt = ?"),),
        within_seeds=25,
    ),
    Break(
        name="posts taken before are taken again",
        rules=(
            Rule(pattern="SELECT 1 FROM taken WHERE", by="SELECT 1 FROM taken WHERE 0 AND"),
            Rule(pattern="SELECT settled_below FROM", by="SELECT 0 FROM"),
            Rule(pattern="INSERT INTO taken VALUES", by="INSERT OR IGNORE INTO taken VALUES"),
            Rule(pattern="INSERT INTO inbox", by="INSERT OR IGNORE INTO inbox"),
        ),
        within_seeds=25,
        profile=_posting(Weather(doubled=0.5)),
    ),
    Break(
        name="a post stays in the inbox when it is handled",
        rules=(Rule(pattern="DELETE FROM inbox WHERE seq = ?", by="UPDATE inbox SET tries = 0 WHERE seq = ?"),),
        within_seeds=25,
    ),
    Break(
        name="which posts were taken does not travel",
        rules=(Rule(pattern="SELECT sender_store, n FROM taken WHERE", by="SELECT '', 0 FROM taken WHERE 0 AND"),),
        within_seeds=25,
        profile=_posting(Weather(doubled=0.5)),
    ),
    Break(
        name="the inbox does not travel",
        rules=(
            Rule(
                pattern="SELECT * FROM inbox WHERE agent_id = ? ORDER BY seq",
                by="SELECT * FROM inbox WHERE 0 AND agent_id = ? ORDER BY seq",
            ),
        ),
        within_seeds=25,
        profile=_posting(),
    ),
    Break(
        name="a lease outlives its attempt",
        rules=(Rule(pattern="DELETE FROM leases WHERE", by="DELETE FROM leases WHERE 0 AND"),),
        within_seeds=25,
    ),
    Break(
        name="a lease ends with the report and not with the process",
        rules=(
            Rule(
                pattern="UPDATE requests SET outcome = ? WHERE agent_id = ? AND status",
                by="UPDATE requests SET outcome = ? WHERE agent_id = ? AND status",
                first="DELETE FROM leases WHERE agent_id = ?",
                first_args=(1,),
            ),
        ),
        within_seeds=25,
    ),
    Break(
        name="a refusal is said and not stored",
        rules=(Rule(pattern="INSERT INTO residence", when="refused"),),
        within_seeds=25,
        profile=_moving(Weather(doubled=0.8)),
    ),
    Break(
        name="processes of an earlier start are not closed",
        rules=(
            Rule(pattern="SELECT * FROM runs ORDER BY started_at", by="SELECT * FROM runs WHERE 0 ORDER BY started_at"),
        ),
        within_seeds=25,
    ),
    Break(
        name="posts are not sent after a paglet that moved",
        rules=(Rule(pattern="AND host_store != ?", by="AND host_store != ? AND 0"),),
        within_seeds=25,
        profile=_posting(),
    ),
    Break(
        name="the collector takes a report for a key that has ended",
        rules=(
            Rule(
                pattern="SELECT value FROM storage WHERE agent_id = ? AND key = ?",
                by="SELECT replace(value, '\"ended\":true', '\"ended\":false') FROM storage"
                " WHERE agent_id = ? AND key = ?",
            ),
        ),
        within_seeds=25,
    ),
    Break(
        name="nobody looks for copies that are lost",
        rules=(
            Rule(
                pattern="SELECT agent_id FROM paglets WHERE kind = 'collector'",
                by="SELECT agent_id FROM paglets WHERE 0 AND kind = 'collector'",
            ),
        ),
        within_seeds=25,
        profile=_losing(),
    ),
    Break(
        name="a host is not told which copies nobody wants",
        tamper=_unwanted_not_told,
        within_seeds=25,
        profile=_cancelling(),
    ),
    Break(
        name="a theft keeps the epoch of its victim",
        rules=(
            Rule(
                pattern="UPDATE requests SET stolen = 1 WHERE agent_id = ?",
                by="UPDATE requests SET stolen = 1 WHERE agent_id = ?",
                first="UPDATE residence SET epoch = epoch - 1 WHERE agent_id = ?",
                first_args=(0,),
            ),
        ),
        within_seeds=25,
        profile=_stealing(),
    ),
    Break(
        name="hand-offs carry no epoch",
        rules=(
            Rule(
                pattern="SELECT * FROM residence WHERE agent_id = ?",
                by="SELECT agent_id, 1 AS epoch, status, peer, reason, settled, told, since_at, stale_scratch"
                " FROM residence WHERE agent_id = ?",
            ),
        ),
        within_seeds=25,
        profile=_moving(Weather(doubled=0.5)),
    ),
    Break(
        name="a paglet leaves while it holds a lease",
        rules=(
            Rule(
                pattern="WHERE status = 'WAITING_FOR_SLOT' AND p.intent IS NULL",
                by="WHERE status IN ('WAITING_FOR_SLOT', 'RUNNING') AND p.intent IS NULL",
            ),
            Rule(
                pattern="AND NOT EXISTS (SELECT 1 FROM runs WHERE runs.agent_id = r.agent_id)",
                by="AND 1",
            ),
            Rule(pattern="SELECT 1 FROM runs WHERE agent_id = ?", by="SELECT 1 FROM runs WHERE 0 AND agent_id = ?"),
            Rule(
                pattern="SELECT 1 FROM leases WHERE agent_id = ?",
                by="SELECT 1 FROM leases WHERE 0 AND agent_id = ?",
                first="DELETE FROM leases WHERE agent_id = ?",
                first_args=(0,),
            ),
        ),
        within_seeds=25,
        profile=_stealing(),
    ),
    Break(
        name="a hand-off that is given up keeps its epoch",
        rules=(
            Rule(
                pattern="SET epoch = ?, status = ?, peer = ?, reason = '', told = ?, since_at = ? WHERE agent_id = ?",
                by="SET epoch = ?1 - (?2 = 'disposed' AND NOT ?4), status = ?2, peer = ?3, reason = '', told = ?4,"
                " since_at = ?5 WHERE agent_id = ?6",
            ),
        ),
        within_seeds=25,
        profile=_giving_up(),
    ),
    Break(
        name="that a copy is lost is not noted",
        rules=(Rule(pattern="INSERT INTO events", when="lost"),),
        within_seeds=25,
        profile=_losing(),
    ),
    Break(
        name="units that are leased are leased again",
        rules=(Rule(pattern="SELECT unit FROM lease_units WHERE", by="SELECT unit FROM lease_units WHERE 0 AND"),),
        within_seeds=25,
    ),
)
"""Each breaks one rule; every one of them must be found."""
