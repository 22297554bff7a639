"""The acceptance of posts: each is stored in the inbox once, and its number is remembered as taken."""

from __future__ import annotations

from paglets.api.paglets import ResidenceRow
from paglets.api.posts import PostAnswer, SettledBelow
from paglets.codec.envelope import Post, WireMessage
from paglets.codec.strict_json import dumps
from paglets.core.record import to_json
from paglets.core.refs import ProxyRef
from paglets.store import artifacts, blobs, notes, posts, residence
from paglets.store.db import Tx

Key = tuple[str, str]
"""A paglet and the store id of a host that sends posts to it. Each such host numbers its posts."""


def receive(tx: Tx, came: tuple[Post, ...], settled: tuple[SettledBelow, ...], now: float) -> tuple[PostAnswer, ...]:
    """Store a batch of posts, each once, and return the answers. The receiver of a post gets its artifacts.

    `settled` has numbers below which the sender repeats no post.
    """
    batch = _Batch(tx, came)
    answers = [batch.take(post, now) for post in came]
    batch.store()
    marks = {mark.agent_id: mark.settled_below for mark in settled}
    for agent_id, sender in batch.keys:
        if agent_id in marks:
            _forget_settled(tx, agent_id, sender, marks[agent_id])
    return tuple(answers)


def deliver_here(tx: Tx, target: ProxyRef, message: WireMessage, now: float) -> None:
    """Put a post into the inbox of a paglet that was created in the same transaction, before any other post."""
    n = posts.send(tx, target, message, now)
    post = Post(sender_store=target.host.store_id, n=n, agent_id=target.agent_id, message=message)
    receive(tx, (post,), (), now)
    posts.remove_delivered(tx, n)


class _Batch:
    """A batch of posts. It reads the rows of each receiver once, and writes all posts together.

    `keys`: the receivers of the posts, each with the sender.
    """

    def __init__(self, tx: Tx, came: tuple[Post, ...]) -> None:
        self._tx = tx
        numbers: dict[Key, list[int]] = {}
        for post in came:
            numbers.setdefault((post.agent_id, post.sender_store), []).append(post.n)
        self.keys = tuple(numbers)
        self._rows: dict[str, ResidenceRow | None] = {
            agent_id: residence.find(tx, agent_id) for agent_id in dict.fromkeys(agent_id for agent_id, _ in numbers)
        }
        self._taken = {key: _taken(tx, key, asked) for key, asked in numbers.items()}
        self._new: list[Post] = []
        self._new_notes: list[Post] = []

    def take(self, post: Post, now: float) -> PostAnswer:
        row = self._rows[post.agent_id]
        is_note = post.agent_id == notes.READER
        if not is_note and (row is None or row.status != "here"):
            return _not_here(post, row)
        taken = self._taken[post.agent_id, post.sender_store]
        if post.n in taken:
            return PostAnswer(n=post.n, verdict="duplicate")
        if is_note:
            self._new_notes.append(post)
        elif blobs.missing(self._tx, (artifact.blob for artifact in post.message.artifacts)):
            return PostAnswer(n=post.n, verdict="missing")
        else:
            for artifact in post.message.artifacts:
                artifacts.add(self._tx, post.agent_id, artifacts.carried_of(artifact), now)
            self._new.append(post)
        taken.add(post.n)
        return PostAnswer(n=post.n, verdict="taken")

    def store(self) -> None:
        new = (*self._new, *self._new_notes)
        keys = dict.fromkeys((post.agent_id, post.sender_store) for post in new)
        self._tx.run_many(
            "INSERT INTO taken VALUES (?, ?, ?)", [(post.agent_id, post.sender_store, post.n) for post in new]
        )
        self._tx.run_many("INSERT OR IGNORE INTO taken_marks VALUES (?, ?, 0)", keys)
        for post in self._new_notes:
            notes.keep(self._tx, post.message.args)
        if self._new:
            self._tx.run_many(
                "INSERT INTO inbox (agent_id, sender_store, n, message, priority) VALUES (?, ?, ?, ?, ?)",
                [_inbox_row(post) for post in self._new],
            )
            self._tx.wake("mailbox")


def _inbox_row(post: Post) -> tuple[str, str, int, str, int]:
    return post.agent_id, post.sender_store, post.n, dumps(to_json(post.message)), post.message.priority


def _not_here(post: Post, row: ResidenceRow | None) -> PostAnswer:
    """Return the answer to a post for a paglet that is not on this host."""
    if row is None or row.status == "disposed":
        return PostAnswer(n=post.n, verdict="unknown")
    if row.status == "leaving":
        return PostAnswer(n=post.n, verdict="moving")
    return PostAnswer(n=post.n, verdict="moved", host=row.peer, epoch=row.epoch)


def _taken(tx: Tx, key: Key, numbers: list[int]) -> set[int]:
    """Return those of `numbers` that were taken before."""
    below = tx.value("SELECT settled_below FROM taken_marks WHERE agent_id = ? AND sender_store = ?", *key)
    rows = tx.all(
        "SELECT n FROM taken WHERE agent_id = ? AND sender_store = ? AND n IN (SELECT value FROM json_each(?))",
        *key,
        dumps(numbers),
    )
    return {row["n"] for row in rows} | {n for n in numbers if below is not None and n < below}


def _forget_settled(tx: Tx, agent_id: str, sender: str, below: int) -> None:
    changed = tx.run(
        "UPDATE taken_marks SET settled_below = ? WHERE agent_id = ? AND sender_store = ? AND settled_below < ?",
        below,
        agent_id,
        sender,
        below,
    )
    if changed:
        tx.run("DELETE FROM taken WHERE agent_id = ? AND sender_store = ? AND n < ?", agent_id, sender, below)
