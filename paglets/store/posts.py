"""Posts between paglets: each is stored in the outbox by the transaction that causes it, and accepted exactly once."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from paglets.api.posts import SettledBelow
from paglets.codec.envelope import WireMessage
from paglets.codec.strict_json import dumps, loads
from paglets.core.record import from_json, to_json
from paglets.core.refs import BlobRef, HostRef, ProxyRef
from paglets.store import blobs, notes
from paglets.store.db import Tx
from paglets.store.pages import FIRST_PLACE, Budget, Page, Place, page_of

MAX_TRIES = 5
"""The number of errors of its handler after which a post is `dead`: it is kept and shown, but not retried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A post in the outbox, which its target has not acknowledged yet: its number, and its message as JSON text.

    The target must have the blobs `needs`, those of the artifacts, before it gets the post.
    """

    n: int
    agent_id: str
    text: str
    needs: tuple[BlobRef, ...] = ()

    @property
    def message(self) -> WireMessage:
        return from_json(WireMessage, loads(self.text))


@dataclass(frozen=True, slots=True, kw_only=True)
class UnhandledPost:
    """A post in the inbox that its paglet has not handled yet. `seq` is its number in the inbox."""

    seq: int
    agent_id: str
    message: WireMessage
    tries: int


def send(
    tx: Tx,
    target: ProxyRef,
    message: WireMessage,
    now: float,
    *,
    group_id: str | None = None,
    report_of: str | None = None,
) -> int:
    """Add a post to the outbox and return its number. The blobs of its artifacts must be on this host."""
    n = tx.insert(
        "INSERT INTO outbox (agent_id, host, host_store, group_id, report_of, created_at) VALUES (?, ?, ?, ?, ?, ?)",
        target.agent_id,
        dumps(to_json(target.host)),
        target.host.store_id,
        group_id,
        report_of,
        now,
    )
    tx.run("INSERT INTO outbox_messages VALUES (?, ?)", n, dumps(to_json(message)))
    blobs.keep_for_post(tx, n, (artifact.blob for artifact in message.artifacts))
    rows = ((artifact.artifact_id, n) for artifact in message.artifacts)
    tx.run_many("INSERT OR IGNORE INTO outbox_artifacts VALUES (?, ?)", rows)
    tx.wake("outbox")
    return n


def skip_numbers(tx: Tx, count: int) -> None:
    """Increase the number of the next post by `count`."""
    if not tx.run("UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'outbox'", count):
        tx.run("INSERT INTO sqlite_sequence VALUES ('outbox', ?)", count)


def is_first(tx: Tx, token: str, keep: int = 10_000) -> bool:
    """Store the token of a client's post. Return True if it is new. Only the newest `keep` tokens are remembered."""
    if tx.value("SELECT 1 FROM client_posts WHERE token = ?", token) is not None:
        return False
    new = tx.insert("INSERT INTO client_posts (token) VALUES (?)", token)
    tx.run("DELETE FROM client_posts WHERE id <= ?", new - keep)
    return True


def destinations(tx: Tx) -> list[HostRef]:
    """Return the hosts with posts in the outbox. The cost grows with the number of hosts, not of posts."""
    rows = tx.all(
        "WITH RECURSIVE hosts (store) AS (SELECT min(host_store) FROM outbox UNION ALL"
        " SELECT (SELECT min(host_store) FROM outbox WHERE host_store > store) FROM hosts WHERE store NOT NULL)"
        " SELECT (SELECT host FROM outbox WHERE host_store = store ORDER BY n DESC LIMIT 1) AS host"
        " FROM hosts WHERE store NOT NULL ORDER BY store"
    )
    return [from_json(HostRef, loads(row["host"])) for row in rows]


def next_outgoing(
    tx: Tx, host_store: str, budget: Budget, *, skip: Collection[str] = (), after: Place = FIRST_PLACE
) -> Page[Outgoing]:
    """Return the oldest posts to one host after the position `after`, except posts to the paglets in `skip`."""
    rows = tx.each(
        "SELECT n, agent_id, message FROM outbox CROSS JOIN outbox_messages USING (n) WHERE host_store = ? AND n > ?"
        " AND agent_id NOT IN (SELECT value FROM json_each(?)) ORDER BY n LIMIT ?",
        host_store,
        after[0],
        dumps(list(skip)),
        budget.items + 1,
    )
    page = page_of(rows, budget, lambda row: len(row["message"].encode()), lambda row: (row["n"], ""))
    needs = blobs.of_posts(tx, [row["n"] for row in page.items])
    items = [
        Outgoing(n=row["n"], agent_id=row["agent_id"], text=row["message"], needs=tuple(needs.get(row["n"], ())))
        for row in page.items
    ]
    return Page(items=items, after=page.after)


def settled_below(tx: Tx, agent_ids: tuple[str, ...], host_store: str) -> tuple[SettledBelow, ...]:
    """Return for each paglet the number below which it has acknowledged all posts from this host.

    Paglets without a post in the outbox are left out. Posts to a paglet follow it to any host, but notes are counted
    for each target host, because each host has its own reader of notes.
    """
    marks = []
    for agent_id in agent_ids:
        oldest = tx.value(
            "SELECT min(n) FROM outbox WHERE agent_id = ? AND (agent_id != ? OR host_store = ?)",
            agent_id,
            notes.READER,
            host_store,
        )
        if oldest is not None:
            marks.append(SettledBelow(agent_id=agent_id, settled_below=oldest))
    return tuple(marks)


def remove_delivered(tx: Tx, n: int) -> str | None:
    """Delete an acknowledged post. If it is the report of a job, return the id of the job's copy, otherwise None."""
    report_of = tx.value("SELECT report_of FROM outbox WHERE n = ?", n)
    tx.run("DELETE FROM outbox WHERE n = ?", n)
    return None if report_of is None else str(report_of)


def redirect(tx: Tx, agent_id: str, host: HostRef) -> None:
    """Set the target host of all posts in the outbox that are for this paglet."""
    tx.run(
        "UPDATE outbox SET host = ?, host_store = ? WHERE agent_id = ? AND host_store != ?",
        dumps(to_json(host)),
        host.store_id,
        agent_id,
        host.store_id,
    )
    tx.wake("outbox")


def unhandled(tx: Tx, agent_id: str, most: int, skip: Iterable[int] = ()) -> list[UnhandledPost]:
    """Return the next posts to this paglet by priority and age, except those whose `seq` is in `skip`."""
    rows = tx.all(
        "SELECT * FROM inbox WHERE agent_id = ? AND status = 'waiting'"
        " AND seq NOT IN (SELECT value FROM json_each(?)) ORDER BY priority DESC, seq LIMIT ?",
        agent_id,
        dumps(list(skip)),
        most,
    )
    return [
        UnhandledPost(
            seq=row["seq"],
            agent_id=agent_id,
            message=from_json(WireMessage, loads(row["message"])),
            tries=row["tries"],
        )
        for row in rows
    ]


def remove_handled(tx: Tx, seq: int) -> bool:
    """Delete a post in the transaction that stores its handler's changes. Return False if it was handled already."""
    return tx.run("DELETE FROM inbox WHERE seq = ?", seq) == 1


def remove_all_handled(tx: Tx, seqs: Iterable[int]) -> None:
    """Like `remove_handled`, for posts that were read in the same transaction."""
    tx.run_many("DELETE FROM inbox WHERE seq = ?", ((seq,) for seq in seqs))


def record_error(tx: Tx, seq: int, error: str) -> int:
    """Record an error of a post's handler, and mark the post as dead after MAX_TRIES errors.

    Return the number of errors so far, or 0 if the post does not exist.
    """
    tx.run(
        "UPDATE inbox SET tries = tries + 1, error = ?,"
        " status = CASE WHEN tries + 1 >= ? THEN 'dead' ELSE 'waiting' END WHERE seq = ?",
        error[:2000],
        MAX_TRIES,
        seq,
    )
    return int(tx.value("SELECT tries FROM inbox WHERE seq = ?", seq) or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class InboxReport:
    """A report in a collector's inbox. It is `dead` after its handler raised MAX_TRIES errors, the last one `error`."""

    seq: int
    job_key: str
    dead: bool
    error: str


def reports(tx: Tx, collector: str, after: int = 0) -> list[InboxReport]:
    """Return the reports in a collector's inbox whose `seq` is above `after`, sorted by `seq`."""
    rows = tx.all(
        "SELECT seq, json_extract(message, '$.args.job_key') AS job_key, status, error FROM inbox"
        " WHERE agent_id = ? AND seq > ? AND json_extract(message, '$.kind') IN ('job_result', 'job_failure')"
        " ORDER BY seq",
        collector,
        after,
    )
    return [
        InboxReport(seq=row["seq"], job_key=str(row["job_key"]), dead=row["status"] == "dead", error=row["error"])
        for row in rows
    ]


def numbers_for(tx: Tx, agent_id: str) -> list[int]:
    """Return the numbers of the posts in the outbox that are for this paglet."""
    return [row["n"] for row in tx.all("SELECT n FROM outbox WHERE agent_id = ? ORDER BY n", agent_id)]


def set_problem(tx: Tx, n: int, text: str) -> None:
    """Store the reason why a post cannot be delivered."""
    _set_problem(tx, "n = ?2", n, text)


def set_problem_of_host(tx: Tx, store_id: str, text: str) -> None:
    """Store the reason why no post to a host can be delivered."""
    _set_problem(tx, "host_store = ?2", store_id, text)


def _set_problem(tx: Tx, which: str, value: int | str, text: str) -> None:
    """Store a problem of posts. If one of them is a report, reconciliation sends the problem to its collector."""
    rows = tx.all(
        f"UPDATE outbox SET problem = ?1 WHERE n IN (SELECT n FROM outbox WHERE {which} AND problem < ?1"
        f" UNION ALL SELECT n FROM outbox WHERE {which} AND problem > ?1) RETURNING report_of",
        text[:500],
        value,
    )
    for row in rows:
        if row["report_of"] is not None:
            tx.touch(row["report_of"])
            tx.wake("reconciliation")
