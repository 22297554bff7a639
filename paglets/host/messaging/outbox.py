"""The outbox, which delivers posts: within this host in one transaction, to another host in batches."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.api.limits import MAX_BATCH_POSTS
from paglets.api.paglets import Located
from paglets.api.posts import PostAnswer, PostAnswers, Posts
from paglets.codec.envelope import Post
from paglets.core.errors import PagletsError
from paglets.core.failpoints import reach
from paglets.core.refs import HostRef
from paglets.core.text import counted
from paglets.host.blobs.pusher import BlobPusher
from paglets.host.network.locator import PagletLocator
from paglets.host.records import outcomes
from paglets.host.runtime.backoff import Backoff
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.store import posts
from paglets.store.db import Tx
from paglets.store.events import record_event
from paglets.store.posts import Outgoing
from paglets.wire.request import Request, Response, dump_json, parsed

BATCH_BYTES = 4 << 20
ANSWER_SECONDS = 30.0
LOCATE_AFTER_SECONDS = 5.0
LOCATE_PAUSE_SECONDS = 2.0
LOOK_AGAIN_SECONDS = 5.0
MAX_WITH_BYTES = 100
"""The page size, in posts, when posts with artifacts are read for one host.

If that host lacks blobs of every post in a page, the next page is read. So posts whose blobs cannot be pushed do not
delay the others.
"""

NEXT_PAGE_SECONDS = 0.5

FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 5.0


@dataclass(slots=True, kw_only=True)
class _Astray:
    """A paglet that was not found on the host to which its posts were sent. Times are in monotonic seconds.

    `since`: the time of the first failed delivery. `asked_at`: the time of the last search in the mesh.
    """

    since: float
    asked_at: float = float("-inf")


class Outbox:
    """The runner part `outbox`, which delivers posts."""

    name = "outbox"

    def __init__(
        self, services: HostServices, gossip: Gossiper, paglet_locator: PagletLocator, blob_pusher: BlobPusher
    ) -> None:
        self._services = services
        self._blob_pusher = blob_pusher
        self._gossip = gossip
        self._locator = paglet_locator
        self._backoff = Backoff(services.entropy)
        self._astray: dict[str, _Astray] = {}
        self._paused: dict[str, float] = {}
        self._after: dict[str, int] = {}

    def tick(self, now: float) -> float | None:
        hosts = self._services.store.read(posts.destinations)
        if not hosts:
            self._astray.clear()
        stores = {host.store_id for host in hosts}
        self._after = {store_id: n for store_id, n in self._after.items() if store_id in stores}
        self._paused = {agent_id: at for agent_id, at in self._paused.items() if at > now}
        due = list(self._paused.values())
        for host in hosts:
            self._backoff.contacted(host.store_id, self._gossip.last_seen_at(host.store_id))
            if not self._backoff.may_send(host.store_id, now) or self._send(host):
                due.append(self._backoff.next_due([host.store_id], now) or float("inf"))
            else:
                due.append(now + (NEXT_PAGE_SECONDS if host.store_id in self._after else LOOK_AGAIN_SECONDS))
        first = min(due, default=float("inf"))
        return None if first == float("inf") else first

    def _send(self, host: HostRef) -> bool:
        """Send a batch of posts to a host.

        Return False if none is ready, because all wait for blobs or for paglets that were not found.
        """
        paused = tuple(self._paused)
        ready = self._with_bytes_there(host, paused)
        batch = self._services.store.read(
            lambda tx: posts.next_outgoing(tx, host.store_id, MAX_BATCH_POSTS, BATCH_BYTES, paused, ready)
        )
        if not batch:
            return False
        self._backoff.sent(host.store_id)
        if host.store_id == self._services.own.store_id:
            self._services.runner.change(
                lambda tx: self._deliver_here(tx, batch), lambda result: self._taken(host, batch, result)
            )
            return True
        request = Request(method="POST", target="/v1/posts", body=dump_json(self._posts(batch)), repeatable=True)
        self._services.transport.send(
            self._gossip.address(host),
            request,
            lambda result: self._answered(host, batch, result),
            timeout_seconds=ANSWER_SECONDS,
        )
        return True

    def _with_bytes_there(self, host: HostRef, paused: tuple[str, ...]) -> list[int]:
        """Read a page of posts with artifacts. Return the numbers of those whose artifacts the host already has.

        Push the blobs of the others. If this fails, search the mesh for the target paglets of these posts, which may
        have moved.
        """
        after = self._after.pop(host.store_id, 0)
        carrying = self._services.store.read(
            lambda tx: posts.with_artifacts(tx, host.store_id, MAX_WITH_BYTES, paused, after)
        )
        ready = [each.n for each in carrying if self._blob_pusher.ready(host, each.blobs)]
        if not ready and len(carrying) == MAX_WITH_BYTES:
            self._after[host.store_id] = carrying[-1].n
        waiting = [each for each in carrying if each.n not in ready]
        if waiting:
            problems = {each.n: self._blob_pusher.reason(host, each.blobs) for each in waiting}
            self._services.runner.change(lambda tx: _set_problems(tx, problems))
            stuck = {each.agent_id for each in waiting if self._blob_pusher.is_stuck(host, each.blobs)}
            self._search(stuck, self._services.clock.monotonic())
        return ready

    def _posts(self, batch: list[Outgoing]) -> Posts:
        agents = tuple(dict.fromkeys(outgoing.target.agent_id for outgoing in batch))
        host_store = batch[0].target.host.store_id
        settled = self._services.store.read(lambda tx: posts.settled_below(tx, agents, host_store))
        return Posts(posts=tuple(self._post(outgoing) for outgoing in batch), settled=settled)

    def _post(self, outgoing: Outgoing) -> Post:
        return Post(
            sender_store=self._services.own.store_id,
            n=outgoing.n,
            agent_id=outgoing.target.agent_id,
            message=outgoing.message,
        )

    def _deliver_here(self, tx: Tx, batch: list[Outgoing]) -> tuple[PostAnswer, ...]:
        """Move posts from the outbox to the inbox in one transaction."""
        agents = tuple(dict.fromkeys(outgoing.target.agent_id for outgoing in batch))
        sent = tuple(self._post(outgoing) for outgoing in batch)
        settled = posts.settled_below(tx, agents, self._services.own.store_id)
        answers = posts.receive(tx, sent, settled, self._services.clock.wall())
        return self._settle(tx, batch, answers)

    def _answered(self, host: HostRef, batch: list[Outgoing], result: Response | PagletsError) -> None:
        try:
            answers = parsed(result, PostAnswers).answers
        except PagletsError as error:
            self._failed(host, batch, error)
            return
        self._services.logger(self.name).debug(f"{host.name} answered {counted(len(answers), 'post')}")
        reach("after-ack-before-release")
        self._services.runner.change(
            lambda tx: self._settle(tx, batch, answers), lambda value: self._taken(host, batch, value)
        )

    def _settle(self, tx: Tx, batch: list[Outgoing], answers: tuple[PostAnswer, ...]) -> tuple[PostAnswer, ...]:
        now = self._services.clock.wall()
        targets = {outgoing.n: outgoing.target.agent_id for outgoing in batch}
        for answer in answers:
            if answer.n not in targets:
                continue
            if answer.verdict in ("taken", "duplicate"):
                job = posts.remove_delivered(tx, answer.n)
                if job is not None:
                    outcomes.retire(tx, job, now)
            elif answer.verdict == "moved" and answer.host is not None:
                posts.redirect(tx, targets[answer.n], answer.host)
        tx.wake("groups")
        return answers

    def _taken(self, host: HostRef, batch: list[Outgoing], result: object) -> None:
        now = self._services.clock.monotonic()
        if isinstance(result, BaseException):
            self._backoff.failed(host.store_id, now)
            self._services.runner.wake(self.name)
            raise result
        assert isinstance(result, tuple)
        lost = {a.n for a in result if a.verdict in ("unknown", "moving")}
        lacking = {a.n for a in result if a.verdict == "missing"}
        for outgoing in batch:
            if outgoing.n in lacking:
                self._blob_pusher.not_there(host, (artifact.blob for artifact in outgoing.message.artifacts))
        self._backoff.succeeded(host.store_id)
        astray = {outgoing.target.agent_id for outgoing in batch if outgoing.n in lost}
        for agent_id in sorted({outgoing.target.agent_id for outgoing in batch} - astray):
            self._astray.pop(agent_id, None)
        self._search(astray, now)
        for agent_id in sorted(astray):
            self._paused[agent_id] = now + self._pause(agent_id, now)
        self._services.runner.wake(self.name)

    def _pause(self, agent_id: str, now: float) -> float:
        """Return the seconds before posts to a paglet that was not found are sent again. The pauses grow over time."""
        return min(LONGEST_PAUSE_SECONDS, max(FIRST_PAUSE_SECONDS, (now - self._astray[agent_id].since) / 2))

    def _failed(self, host: HostRef, batch: list[Outgoing], error: PagletsError) -> None:
        now = self._services.clock.monotonic()
        self._backoff.failed(host.store_id, now)
        self._services.runner.change(lambda tx: posts.set_problem_of_host(tx, host.store_id, error.message))
        self._search({outgoing.target.agent_id for outgoing in batch}, now)
        self._services.runner.wake(self.name)

    def _search(self, agent_ids: set[str], now: float) -> None:
        """Search the mesh for paglets to which no post could be delivered for LOCATE_AFTER_SECONDS or longer."""
        due = []
        for agent_id in sorted(agent_ids):
            each = self._astray.setdefault(agent_id, _Astray(since=now))
            if now - each.since >= LOCATE_AFTER_SECONDS and now - each.asked_at >= LOCATE_PAUSE_SECONDS:
                each.asked_at = now
                due.append(agent_id)
        if due:
            self._locator.locate(due, self._located)

    def _located(self, located: Located) -> None:
        for row in located.rows:
            if row.status == "disposed":
                self._astray.pop(row.agent_id, None)
        self._services.runner.change(lambda tx: self._redirect(tx, located))

    def _redirect(self, tx: Tx, located: Located) -> None:
        now = self._services.clock.wall()
        for row in located.rows:
            if row.status == "disposed":
                _drop(tx, row.agent_id, now)
            elif row.peer is not None:
                posts.redirect(tx, row.agent_id, row.peer)


def _set_problems(tx: Tx, texts: dict[int, str]) -> None:
    for n, text in texts.items():
        posts.set_problem(tx, n, text)
    tx.wake("groups")


def _drop(tx: Tx, agent_id: str, now: float) -> None:
    """Delete from the outbox all posts to a paglet that has ended."""
    numbers = posts.numbers_for(tx, agent_id)
    for n in numbers:
        job = posts.remove_delivered(tx, n)
        if job is not None:
            outcomes.retire(tx, job, now)
    if numbers:  # Record nothing if all posts were delivered during the search.
        record_event(tx, now, "posts_dropped", agent_id, f"{counted(len(numbers), 'post')} to a paglet that has ended")
