"""The delivery of posts to other hosts, and to paglets on this host.

A post leaves the outbox when its target host has stored it.
"""

from __future__ import annotations

from collections.abc import Sequence

from paglets.api.limits import MAX_BATCH_POSTS
from paglets.api.paglets import ResidenceRow
from paglets.api.posts import PostAnswers, Posts, SettledBelow
from paglets.codec.envelope import Post
from paglets.codec.strict_json import dumps_with
from paglets.core.errors import PagletsError
from paglets.core.failpoints import reach
from paglets.core.record import to_json
from paglets.core.refs import BlobRef, HostRef
from paglets.core.text import counted
from paglets.host.records import outcomes
from paglets.host.runtime.delivery import Settled, Traffic
from paglets.host.runtime.services import HostServices
from paglets.store import posts, receiving
from paglets.store.db import Tx
from paglets.store.events import record_event
from paglets.store.pages import Budget, Page, Place
from paglets.store.posts import Outgoing
from paglets.wire.request import Request

BUDGET = Budget(items=MAX_BATCH_POSTS, size_bytes=4 << 20)


class Outbox(Traffic[Outgoing, PostAnswers]):
    """The traffic of the runner part `outbox`: posts."""

    name = "outbox"
    answers = PostAnswers
    answer_seconds = 30.0

    def __init__(self, services: HostServices) -> None:
        self._services = services

    def hosts(self, tx: Tx) -> list[HostRef]:
        return posts.destinations(tx)

    def select(self, tx: Tx, host: HostRef, after: Place, skip: Sequence[str]) -> Page[Outgoing]:
        return posts.next_outgoing(tx, host.store_id, BUDGET, skip=skip, after=after)

    def needs(self, item: Outgoing) -> tuple[BlobRef, ...]:
        return item.needs

    def encode(self, tx: Tx, host: HostRef, items: Sequence[Outgoing]) -> Request:
        sender = self._services.own.store_id
        texts = (
            dumps_with({"sender_store": sender, "n": each.n, "agent_id": each.agent_id}, "message", each.text)
            for each in items
        )
        tree = to_json(Posts(posts=(), settled=_settled(tx, host, items)))
        body = dumps_with(tree, "posts", f"[{','.join(texts)}]")
        return Request(method="POST", target="/v1/posts", body=body.encode(), repeatable=True)

    def deliver_here(self, tx: Tx, items: Sequence[Outgoing]) -> PostAnswers:
        own = self._services.own
        batch = tuple(
            Post(sender_store=own.store_id, n=each.n, agent_id=each.agent_id, message=each.message) for each in items
        )
        settled = _settled(tx, own, items)
        return PostAnswers(answers=receiving.receive(tx, batch, settled, self._services.clock.wall()))

    def settle(self, tx: Tx, host: HostRef, items: Sequence[Outgoing], answer: PostAnswers) -> Settled[Outgoing]:
        reach("after-ack-before-release")
        now = self._services.clock.wall()
        sent = {each.n: each for each in items}
        missing, unknown = [], []
        for each in answer.answers:
            post = sent.get(each.n)
            if post is None:
                continue
            if each.verdict in ("taken", "duplicate"):
                _remove(tx, each.n, now)
            elif each.verdict == "moved" and each.host is not None:
                posts.redirect(tx, post.agent_id, each.host)
            elif each.verdict == "missing":
                missing.append(post)
            else:
                unknown.append(post)
        tx.wake("groups")
        return Settled(missing=tuple(missing), unknown=tuple(unknown))

    def problems(self, tx: Tx, found: Sequence[tuple[Outgoing, str]]) -> None:
        for post, text in found:
            posts.set_problem(tx, post.n, text)
        tx.wake("groups")

    def failed(self, host: HostRef, items: Sequence[Outgoing], error: PagletsError, *, sent: bool) -> None:
        self._services.runner.change(lambda tx: posts.set_problem_of_host(tx, host.store_id, error.message))

    def located(self, tx: Tx, row: ResidenceRow) -> None:
        if row.status == "disposed":
            self._drop(tx, row.agent_id)
        elif row.peer is not None:
            posts.redirect(tx, row.agent_id, row.peer)

    def _drop(self, tx: Tx, agent_id: str) -> None:
        """Delete from the outbox all posts to a paglet that has ended."""
        now = self._services.clock.wall()
        numbers = posts.numbers_for(tx, agent_id)
        for n in numbers:
            _remove(tx, n, now)
        if numbers:  # Record nothing if all posts were delivered while the mesh was searched.
            text = f"{counted(len(numbers), 'post')} to a paglet that has ended"
            record_event(tx, now, "posts_dropped", agent_id, text)


def _settled(tx: Tx, host: HostRef, items: Sequence[Outgoing]) -> tuple[SettledBelow, ...]:
    return posts.settled_below(tx, tuple(dict.fromkeys(each.agent_id for each in items)), host.store_id)


def _remove(tx: Tx, n: int, now: float) -> None:
    """Delete a post. If it is the report of a job, dispose of the job's copy if nothing of it is pending."""
    job = posts.remove_delivered(tx, n)
    if job is not None:
        outcomes.retire(tx, job, now)
