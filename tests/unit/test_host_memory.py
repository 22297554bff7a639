"""What a host remembers of others ends with them: hosts that came and were forgotten, paglets that ended, jobs."""

from __future__ import annotations

import socket
from collections import Counter, deque
from collections.abc import Iterator, Set
from contextlib import suppress
from functools import reduce
from typing import Any

from host_rig import Rig, envelope, host_ref, job, slot_request
from recall_rig import leave

from paglets.api.hosts import ForgetHost
from paglets.api.paglets import Located, ResidenceRow
from paglets.api.posts import PostAnswer, PostAnswers, Posts
from paglets.api.pull import Pull
from paglets.api.slots import Stolen
from paglets.codec.envelope import WireMessage
from paglets.core.clock import SystemClock
from paglets.core.errors import InternalError, PagletsError, Unreachable
from paglets.core.record import from_json
from paglets.core.refs import BlobRef, HostRef, ProxyRef
from paglets.core.urls import parse_url
from paglets.host.records import outcomes
from paglets.store import posts, residence
from paglets.store.db import Tx
from paglets.wire.keys import parse_key
from paglets.wire.pool import ConnectionPool
from paglets.wire.pooled_client import MOST_PEERS, PooledClient
from paglets.wire.request import Request
from paglets.wire.signed_http import Connection
from tests.fakes.clock import SeededEntropy
from tests.fakes.exchange import TableHost

OF_A_HOST = ("paglets.host.", "paglets.mesh.", "paglets.wire.", "paglets.client.")
BOUNDED = {
    "Table.forgotten": "MAX_HOSTS marks: an old row of a host that was forgotten must not bring it back",
    "DuplicateEvictor._asked[]": "as many as there are fences, which are rows: a host that was forgotten may come back",
}


def sizes(root: object) -> Counter[str]:
    """How much each collection holds that can be reached from there, by class and attribute."""
    found: Counter[str] = Counter()
    seen: set[int] = set()

    def look(value: Any, name: str) -> None:
        if isinstance(value, (dict, Set, deque, list)):
            found[name] += len(value)
            for each in value.values() if isinstance(value, dict) else value:
                look(each, f"{name}[]")
        elif type(value).__module__.startswith(OF_A_HOST) and id(value) not in seen:
            seen.add(id(value))
            for attribute, held in _attributes(value):
                look(held, f"{type(value).__name__}.{attribute}")

    look(root, "")
    return found


def _attributes(value: object) -> Iterator[tuple[str, Any]]:
    yield from vars(value).items() if hasattr(value, "__dict__") else ()
    for cls in type(value).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        yield from ((name, getattr(value, name)) for name in slots if hasattr(value, name))


def unknown(body: Any) -> PostAnswers:
    asked = from_json(Posts, body).posts
    return PostAnswers(answers=tuple(PostAnswer(n=post.n, verdict="unknown") for post in asked))


def ended(*agent_ids: str) -> Located:
    return Located(rows=tuple(ResidenceRow(agent_id=each, epoch=9, status="disposed") for each in agent_ids))


def knows_nothing(body: Any) -> Any:
    raise InternalError("it hangs")


def forget(rig: Rig, host: HostRef) -> None:
    rig.network.leave(host.url)
    rig.until(lambda: host.store_id not in [member.store_id for member in rig.host.gossip.online()])
    rig.ask("POST", "/v1/mesh/forget", ForgetHost(store_id=host.store_id))
    rig.run(1)


def busy_host(rig: Rig, number: int) -> TableHost:
    """One with jobs to steal, that takes nothing and to which a post, a paglet and bytes are to go."""
    name = f"w{number}"
    routes = {
        "POST /v1/slots/steal": lambda body: Stolen(agent_ids=()),
        "POST /v1/posts": unknown,
        "POST /v1/transfers": knows_nothing,
        "POST /v1/paglets/locate": lambda body: ended(f"q{number}"),
    }
    table = rig.peer(name, routes, queued_jobs=5)
    target = ProxyRef(agent_id=f"q{number}", host=table.ref)
    rig.write(lambda tx: posts.send(tx, target, WireMessage(kind="hi", args={}), rig.now()))
    leave(rig, envelope(f"p{number}"), table.ref)
    rig.host.blob_pusher.ready(table.ref, [BlobRef(sha256="ab" * 32, size_bytes=1)])
    rig.run(30)
    return table


def one_that_fetches(rig: Rig, number: int) -> TableHost:
    table = rig.peer(f"n{number}", reachable=False)
    rig.ask("POST", "/v1/outbox/pull", Pull(at_work=(), wait_seconds=1.0), sender=table.ref.store_id)
    rig.run(2)
    return table


def job_that_ends_before_it_is_placed(rig: Rig, number: int) -> None:
    wish = slot_request(rules={"required_tags": ("nowhere",)}, placement_timeout_seconds=9e9)
    each = job(f"j{number}", key=f"k{number}", status="PLACING", request=wish, group_id=None, collector=None)
    rig.write(lambda tx: residence.create(tx, each, rig.now()))
    rig.run(10)

    def cancel(tx: Tx) -> None:
        outcomes.fail_waiting(tx, each.agent_id, outcomes.CANCELLED, "", rig.own, rig.now())

    rig.write(cancel)


def lives(rig: Rig, number: int) -> None:
    """Meet some hosts and lose them again."""
    job_that_ends_before_it_is_placed(rig, number)
    for table in (busy_host(rig, number), one_that_fetches(rig, number)):
        forget(rig, table.ref)
    rig.ask("DELETE", f"/v1/paglets/p{number}")
    rig.run(5)
    rig.process(f"p{number}")
    rig.finish(rig.process(f"p{number}"))
    rig.run(5)
    assert rig.value("SELECT count(*) FROM paglets WHERE agent_id = ?", f"p{number}") == 0


def at_rest(rig: Rig) -> Counter[str]:
    """The least of a few looks, as something may be under way at each."""
    looks = [sizes(rig.host)]
    for _ in range(5):
        rig.run(7)
        looks.append(sizes(rig.host))
    return reduce(lambda one, other: one & other, looks)


def grown(rig: Rig, live: Any) -> dict[str, tuple[int, int]]:
    """What is larger after three further lives, and some time without any, than it was after the first three."""
    counts = []
    for numbers in (range(3), range(3, 6)):
        for number in numbers:
            live(rig, number)
        for _ in range(20):
            rig.run(60)
        counts.append(at_rest(rig))
    first, then = counts
    return {name: (first[name], then[name]) for name in then if then[name] > first[name] and name not in BOUNDED}


def test_memory_does_not_grow_with_forgotten_hosts_and_ended_jobs() -> None:
    rig = Rig()
    wish = slot_request(rules={"required_tags": ("nowhere",)})
    rig.write(lambda tx: residence.create(tx, job("j", key="k", status="PLACING", request=wish), rig.now()))
    target = ProxyRef(agent_id="q", host=host_ref("away"))
    rig.write(lambda tx: posts.send(tx, target, WireMessage(kind="hi", args={}), rig.now()))
    rig.peer("w", {"POST /v1/paglets/locate": lambda body: Located()})
    assert grown(rig, lives) == {}


def test_nor_does_it_on_a_host_that_nobody_can_connect_to() -> None:
    rig = Rig(reachable=False)
    relay = rig.peer("relay")

    def has_no_way(body: Any) -> Any:
        raise Unreachable("it does not fetch")

    def live(rig: Rig, number: int) -> None:
        table = rig.peer(f"n{number}", reachable=False)
        relay.routes[f"POST /v1/via/{table.ref.store_id}"] = has_no_way
        outcomes: list[Any] = []
        rig.host.services.transport.send(
            table.ref, Request(method="GET", target="/v1/host"), outcomes.append, timeout_seconds=5.0
        )
        rig.until(lambda: outcomes)
        forget(rig, table.ref)

    assert grown(rig, live) == {}


def test_of_a_bounded_number_of_addresses_it_is_remembered_who_answers_there() -> None:
    key, clock = parse_key("A" * 43, "a test"), SystemClock()
    connections = PooledClient(key, clock=clock, entropy=SeededEntropy(1), connect_seconds=0.05)
    with socket.socket() as held:  # without a listener, so that nobody answers on any address of this machine
        held.bind(("", 0))
        for number in range(MOST_PEERS + 20):
            url = f"http://127.1.{number // 250}.{number % 250 + 1}:{held.getsockname()[1]}"
            with suppress(PagletsError):
                connections.request(url, None, Request(method="GET", target="/"), timeout_seconds=0.05)
    assert sizes(connections)["PooledClient._peers"] == MOST_PEERS


def test_of_an_address_where_no_connection_is_left_nothing_is_kept() -> None:
    pool = ConnectionPool(idle_seconds=20.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = parse_url(f"http://127.0.0.1:{server.getsockname()[1]}")
        pool.keep("http://one", Connection(address, SystemClock(), connect_seconds=5.0), now=0.0)
        pool.keep("http://two", Connection(address, SystemClock(), connect_seconds=5.0), now=30.0)
        assert pool.take("http://one", now=30.0) is None
        assert sizes(pool)["ConnectionPool._idle"] == 1
        pool.seal()
    assert sizes(pool)["ConnectionPool._idle"] == 0
