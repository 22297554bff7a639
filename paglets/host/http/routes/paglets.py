"""Routes about paglets: creation, calls, posts, transfers, moves and disposal."""

from __future__ import annotations

from functools import partial
from typing import Any

from paglets.api.calls import Call, CallReply, PostMessage
from paglets.api.limits import MAX_BATCH_ENVELOPES, MAX_BATCH_POSTS, MAX_CALL_SECONDS
from paglets.api.paglets import (
    CreatePaglet,
    Done,
    FindPaglets,
    FoundPaglets,
    Locate,
    Located,
    MovePaglet,
    Paglets,
    PagletView,
)
from paglets.api.posts import PostAnswer, PostAnswers, Posts
from paglets.api.transfers import CloseTransfers, LargeEnvelope, Settle, TransferAnswer, TransferAnswers, Transfers
from paglets.codec.envelope import Envelope, check_count, check_envelope, check_message
from paglets.codec.strict_json import loads
from paglets.core.errors import Invalid, Moved, Moving, PagletsError, TooLarge, Unknown
from paglets.core.failpoints import reach
from paglets.core.messages import check_priority
from paglets.core.record import from_json, to_json
from paglets.core.refs import HostRef, check_agent_id, check_blob
from paglets.core.text import counted
from paglets.host.host import Host
from paglets.host.http.router import ParsedRequest, route
from paglets.host.messaging.creation import elsewhere, require_here, why_elsewhere
from paglets.host.messaging.parked import ParkedRequest
from paglets.host.records.lifecycle import set_pending_action
from paglets.store import posts as post_rows
from paglets.store import receiving, residence, rollbacks, views
from paglets.store.db import Tx
from paglets.wire.request import PendingResponse, Response, reply, reply_error

MAX_LOCATE_IDS = 10_000
MAX_PAGE = 1_000
EFFECT_SECONDS = 30.0
"""Seconds to wait for a disposal. After that, the caller gets the reply that the disposal continues."""

MAX_MOVE_SECONDS = 10
"""The maximum seconds for which a request for a paglet waits for the end of its move."""

ROLLBACK_SECONDS = 5.0
"""Seconds to wait for the disposal of a leaving paglet, which must first be rolled back.

After that, the caller gets an error that says why the paglet does not come back.
"""


def create(host: Host, asked: ParsedRequest) -> PagletView:
    body: CreatePaglet = asked.body

    def make(tx: Tx) -> PagletView:
        return _view(host, tx, host.creation.create(tx, body.agent_id, body).agent_id)

    return host.services.store.write(make)


def page(host: Host, asked: ParsedRequest) -> Paglets:
    limit = max(1, asked.number("limit", 100, MAX_PAGE))
    after = asked.query.get("after", "")
    brief = asked.number("brief", 0, 1) == 1
    # Read the ids and the views in one transaction. Otherwise a listed paglet could leave before its view is read.
    found = host.services.store.read(
        lambda tx: tuple(_view(host, tx, agent_id, brief) for agent_id in views.page_of_ids(tx, after, limit))
    )
    return Paglets(paglets=found, next=found[-1].agent_id if len(found) == limit else None)


def inspect(host: Host, asked: ParsedRequest) -> Any:
    agent_id = _id(host, asked)
    wait_seconds = asked.number("wait", 0, MAX_MOVE_SECONDS)
    try:
        return host.services.store.read(lambda tx: _view(host, tx, agent_id))
    except Moving:
        if not wait_seconds:
            raise
        return _when_moved(host, agent_id, wait_seconds)
    except Unknown as error:
        if _ended_here(host, agent_id):
            # No other host knows more, because the rows of other hosts are older and point to this host.
            raise
        return _search(host, agent_id, error)
    except Moved as moved:
        if host.gossip.by_store(moved.details["host"]["store_id"]) is not None:
            raise
        # The host that the paglet moved to was removed from the mesh, but the paglet may have moved on before.
        return _search(host, agent_id, moved)


def _when_moved(host: Host, agent_id: str, wait_seconds: int) -> PendingResponse:
    """Reply with the view or new host of a paglet when its move ends, or with Moving after `wait_seconds`."""

    def look() -> Response:
        try:
            return reply(host.services.store.read(lambda tx: _view(host, tx, agent_id)))
        except PagletsError as error:
            return reply_error(error)

    def attempt() -> Response | None:
        row = host.services.store.read(lambda tx: residence.find(tx, agent_id))
        return None if row is not None and row.status == "leaving" else look()

    deadline = host.services.clock.monotonic() + wait_seconds
    return host.parked.park(
        ParkedRequest(agent_id=agent_id, deadline=deadline, attempt=attempt, late=look, pending=PendingResponse())
    )


def _ended_here(host: Host, agent_id: str) -> bool:
    row = host.services.store.read(lambda tx: residence.find(tx, agent_id))
    return row is not None and row.status == "disposed"


def _id(host: Host, asked: ParsedRequest) -> str:
    """Return the id of the paglet in the path. The path may contain the name of a paglet on this host instead."""
    wanted = asked.path["ID"]
    return host.services.store.read(lambda tx: residence.id_of(tx, wanted))


def _view(host: Host, tx: Tx, agent_id: str, brief: bool = False) -> PagletView:
    require_here(tx, agent_id)
    return views.paglet_view(tx, agent_id, host.services.own, host.services.clock.wall(), brief=brief)


def find(host: Host, asked: ParsedRequest) -> FoundPaglets:
    body: FindPaglets = asked.body
    return host.services.store.read(lambda tx: host.directory.here(tx, body))


def _search(host: Host, agent_id: str, error: PagletsError) -> PendingResponse:
    """Ask other hosts for a paglet that is not on this host. The reply is `moved` with its host, or else `error`."""
    pending = PendingResponse()

    def found(located: Located) -> None:
        for row in located.rows:
            if row.status in ("here", "gone", "leaving") and row.peer is not None:
                moved = Moved(f"paglet {agent_id} is on {row.peer.name}", host=to_json(row.peer), epoch=row.epoch)
                pending.complete(reply_error(moved))
                return
        pending.complete(reply_error(error))

    host.paglet_locator.locate((agent_id,), found)
    return pending


def dispose(host: Host, asked: ParsedRequest) -> PendingResponse:
    agent_id = _id(host, asked)
    host.services.store.write(lambda tx: _request_disposal(tx, agent_id))
    return _when_gone(host, agent_id)


def _request_disposal(tx: Tx, agent_id: str) -> None:
    if rollbacks.request(tx, agent_id, rollbacks.DISPOSE):
        return
    require_here(tx, agent_id)
    set_pending_action(tx, agent_id, {"dispose": True})


def _when_gone(host: Host, agent_id: str) -> PendingResponse:
    row = host.services.store.read(lambda tx: residence.find(tx, agent_id))
    leaves = row is not None and row.status == "leaving"

    def attempt() -> Response | None:
        row = host.services.store.read(lambda tx: residence.find(tx, agent_id))
        if row is not None and row.status == "gone":
            return reply_error(elsewhere(agent_id, row))
        return None if row is not None and row.status in ("here", "leaving") else reply(Done())

    def late() -> Response:
        row = host.services.store.read(lambda tx: residence.find(tx, agent_id))
        if row is None or row.status != "leaving":
            return reply(Done(done=False))
        return reply_error(host.services.store.read(lambda tx: why_elsewhere(tx, agent_id)))

    return host.parked.park(
        ParkedRequest(
            agent_id=agent_id,
            deadline=host.services.clock.monotonic() + (ROLLBACK_SECONDS if leaves else EFFECT_SECONDS),
            attempt=attempt,
            late=late,
            pending=PendingResponse(),
        )
    )


def dispatch(host: Host, asked: ParsedRequest) -> Done:
    body: MovePaglet = asked.body
    target = host.gossip.find(body.target)
    agent_id = _id(host, asked)
    host.services.store.write(lambda tx: _request_move(tx, agent_id, target))
    return Done()


def _request_move(tx: Tx, agent_id: str, target: HostRef) -> None:
    require_here(tx, agent_id)
    set_pending_action(tx, agent_id, {"move": to_json(target)})


def call(host: Host, asked: ParsedRequest) -> Any:
    body: Call = asked.body
    check_priority(body.message.priority)
    wanted = asked.path["ID"]
    if wanted in host.named_services:
        return CallReply(value=host.named_services[wanted](body.message))
    return host.call_here(_id(host, asked), body, min(max(0.0, body.wait_seconds), MAX_CALL_SECONDS))


def posts(host: Host, asked: ParsedRequest) -> PostAnswers:
    body: Posts = asked.body
    if len(body.posts) > MAX_BATCH_POSTS:
        raise TooLarge(f"{len(body.posts)} posts in one batch; the limit is {MAX_BATCH_POSTS}")
    asked.require_sender(post.sender_store for post in body.posts)
    for post in body.posts:
        check_message(post.message)
    now = host.services.clock.wall()

    def take(tx: Tx) -> tuple[PostAnswer, ...]:
        answers = receiving.receive(tx, body.posts, body.settled, now)
        reach("after-accept-before-commit")
        return answers

    answers = host.runner.write(take)
    reach("after-report-before-ack")
    return PostAnswers(answers=answers)


def post_message(host: Host, asked: ParsedRequest) -> Done:
    """Store a post of a client in the outbox of this host. A repeat with the same token stores nothing."""
    body: PostMessage = asked.body
    carried = tuple(artifact.blob for artifact in check_message(body.message).artifacts)

    def store(tx: Tx) -> None:
        host.blob_store.require_blobs(tx, carried)
        if post_rows.is_first(tx, body.token):
            post_rows.send(tx, body.target, body.message, host.services.clock.wall())

    host.services.store.write(store)
    return Done()


def transfers(host: Host, asked: ParsedRequest) -> TransferAnswers:
    body: Transfers = asked.body
    count = len(body.envelopes) + len(body.large)
    if count > MAX_BATCH_ENVELOPES:
        raise TooLarge(f"{count} envelopes in one batch; the limit is {MAX_BATCH_ENVELOPES}")
    asked.require_sender([body.source.store_id])
    answers = _taken(host, body.source, body.envelopes)
    # Take the large envelopes one at a time, because each may need much memory.
    for large in body.large:
        answers += _taken_large(host, body.source, large)
    return TransferAnswers(answers=tuple(answers))


def _taken(host: Host, source: HostRef, envelopes: tuple[Envelope, ...]) -> list[TransferAnswer]:
    """Store the envelopes of a transfer, and return the answers to them.

    An envelope that cannot be stored gets no answer, so its source keeps the paglet. The others are still stored.
    """
    now = host.services.clock.wall()

    def take(tx: Tx, envelope: Envelope) -> TransferAnswer:
        answer = residence.take(tx, check_envelope(envelope), source, now, host.refuse)
        reach("after-accept-before-commit")
        return answer

    results = host.runner.write_all([partial(take, envelope=envelope) for envelope in envelopes])
    reach("after-commit-before-reply")
    host.services.logger("handoff").debug(f"{counted(len(envelopes), 'envelope')} from {source.name} answered")
    for envelope, result in zip(envelopes, results, strict=True):
        if isinstance(result, BaseException):
            _log_not_taken(host, source, envelope.agent_id, result)
    return [each for each in results if isinstance(each, TransferAnswer)]


def _taken_large(host: Host, source: HostRef, large: LargeEnvelope) -> list[TransferAnswer]:
    """Store an envelope that was sent as a blob, like `_taken`. If it was answered before, return that answer."""
    known = host.services.store.read(lambda tx: residence.known_answer(tx, large.agent_id, large.epoch))
    if known is not None:
        return [known]
    try:
        envelope = from_json(Envelope, loads(host.blob_store.read_whole(check_blob(large.blob))), "envelope")
        if (envelope.agent_id, envelope.epoch) != (large.agent_id, large.epoch):
            found, wanted = (f"{each.agent_id} with epoch {each.epoch}" for each in (envelope, large))
            raise Invalid(f"the blob holds the envelope of {found}, not of {wanted}")
    except Unknown as error:
        missing = TransferAnswer(agent_id=large.agent_id, epoch=large.epoch, verdict="missing", reason=error.message)
        return [missing]
    except (PagletsError, OSError) as error:
        _log_not_taken(host, source, large.agent_id, error)
        return []
    return _taken(host, source, (envelope,))


def _log_not_taken(host: Host, source: HostRef, agent_id: str, error: BaseException) -> None:
    host.services.logger("handoff").warning(
        f"envelope {agent_id[:100]!r} was not accepted and stays on {source.name}: {error!r}"
    )


def settle(host: Host, asked: ParsedRequest) -> TransferAnswers:
    body: Settle = asked.body
    if len(body.asked) > MAX_BATCH_ENVELOPES:
        raise TooLarge(f"{len(body.asked)} hand-offs in one request; the limit is {MAX_BATCH_ENVELOPES}")
    for each in body.asked:
        check_agent_id(each.agent_id)
        check_count("epoch", each.epoch, least=1)
    asked.require_sender([body.source.store_id])
    now = host.services.clock.wall()

    def store(tx: Tx) -> tuple[TransferAnswer, ...]:
        return tuple(residence.settle(tx, each.agent_id, each.epoch, body.source, now) for each in body.asked)

    return TransferAnswers(answers=host.services.store.write(store))


def close(host: Host, asked: ParsedRequest) -> Done:
    body: CloseTransfers = asked.body
    asked.require_sender([body.source.store_id])

    def note(tx: Tx) -> None:
        for each in body.closed:
            residence.close(tx, each.agent_id, each.epoch)

    host.services.store.write(note)
    return Done()


def locate(host: Host, asked: ParsedRequest) -> Located:
    body: Locate = asked.body
    if len(body.agent_ids) > MAX_LOCATE_IDS:
        raise TooLarge(f"{len(body.agent_ids):,} ids in one request; the limit is {MAX_LOCATE_IDS:,}")

    def look(tx: Tx) -> Located:
        rows = [residence.find(tx, agent_id) for agent_id in body.agent_ids]
        return Located(rows=tuple(row for row in rows if row is not None))

    return host.services.store.read(look)


ROUTES = (
    route("POST", "/v1/paglets", CreatePaglet, PagletView, "create a paglet on this host", create),
    route("GET", "/v1/paglets", None, Paglets, "one page of the paglets on this host", page),
    route("POST", "/v1/paglets/find", FindPaglets, FoundPaglets, "find paglets on this host by name or service", find),
    route("POST", "/v1/paglets/locate", Locate, Located, "where this host last saw the paglets with these ids", locate),
    route("GET", "/v1/paglets/ID", None, PagletView, "where a paglet is and what it does", inspect),
    route("DELETE", "/v1/paglets/ID", None, Done, "dispose of a paglet; the reply comes when it is gone", dispose),
    route("POST", "/v1/paglets/ID/call", Call, CallReply, "send a message and wait for the reply", call),
    route("POST", "/v1/paglets/ID/dispatch", MovePaglet, Done, "ask a paglet to move", dispatch),
    route("POST", "/v1/posts", Posts, PostAnswers, "deliver a batch of posts from one host", posts),
    route("POST", "/v1/outbox", PostMessage, Done, "send a post of a client from this host", post_message),
    route("POST", "/v1/transfers", Transfers, TransferAnswers, "hand off paglets from one source host", transfers),
    route("POST", "/v1/transfers/close", CloseTransfers, Done, "close hand-offs that will not be sent again", close),
    route(
        "POST",
        "/v1/transfers/settle",
        Settle,
        TransferAnswers,
        "ask if hand-offs were accepted, and refuse the others",
        settle,
    ),
)
