from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from paglets.api.blobs import Artifacts, BlobState, BlobStates
from paglets.api.calls import CallReply
from paglets.api.groups import GroupLine, Groups, GroupView, SubmitGroup
from paglets.api.hosts import HostIdentity
from paglets.api.notes import Note, Notes
from paglets.api.paglets import Done, Paglets, PagletView
from paglets.api.slots import PlacementPreview, Slots
from paglets.client.host_client import HostClient
from paglets.codec import tagged_json
from paglets.codec.bundle import bundle_of
from paglets.core.agent import Paglet, PagletState
from paglets.core.errors import (
    CallOutcomeUnknown,
    GroupExists,
    Invalid,
    Moved,
    NotAllowed,
    Overloaded,
    PagletsError,
    PeerReplaced,
    TimedOut,
    Unknown,
    Unreachable,
)
from paglets.core.messages import Message
from paglets.core.record import to_json
from paglets.core.refs import HostRef, ProxyRef
from paglets.slots.model import Resources
from paglets.system.jobs import ComputeJobState
from paglets.testing.authors import FakeContext
from paglets.wire.request import Request, Response
from tests.fakes.exchange import TableExchange, TableHost
from tests.fakes.mesh import member

CALL = "POST /v1/paglets/p1/call"


@dataclass(kw_only=True)
class CounterState(PagletState):
    count: int = 0


class Counter(Paglet[CounterState]):
    State = CounterState


def running(home: Path, *names: str, pid: int | None = None) -> dict[str, str]:
    """An environment where hosts of these names run."""
    (home / "run").mkdir(parents=True, exist_ok=True)
    for name in names:
        tree = {"name": name, "url": f"http://{name}:8765", "store_id": f"store-{name}", "pid": pid or os.getpid()}
        (home / "run" / f"{name}.json").write_text(json.dumps(tree))
    return {"PAGLETS_HOME": str(home)}


class Given:
    def __init__(self, home: Path) -> None:
        self.a, self.b = TableHost(name="a"), TableHost(name="b")
        self.exchange = TableExchange(self.a, self.b)
        self.environ = running(home, "a")

    def client(self, at: str | None = None, **environ: str) -> HostClient:
        return HostClient(at, timeout=5.0, exchange=self.exchange, environ=self.environ | environ)


@pytest.fixture
def given(tmp_path: Path) -> Given:
    return Given(tmp_path)


def test_the_host_that_runs_here_is_found_by_itself(given: Given) -> None:
    client = given.client()
    assert (client.host, client.note) == (given.a.ref, "")


def test_of_several_hosts_the_first_by_name_is_taken_and_it_is_said(given: Given, tmp_path: Path) -> None:
    running(tmp_path, "b")
    client = given.client()
    assert client.host == given.a.ref
    assert "using host a; also running here: b" in client.note
    assert given.client(PAGLETS_AT="b").host == given.b.ref
    assert given.client("a", PAGLETS_AT="b").host == given.a.ref


def test_a_host_whose_process_is_gone_is_no_host(given: Given, tmp_path: Path) -> None:
    running(tmp_path, "a", pid=2**22 + 12345)
    with pytest.raises(Unreachable, match="no host runs on this machine") as caught:
        given.client()
    assert caught.value.__notes__[0] == "hint: paglets host --background"


def test_a_name_that_no_host_here_can_look_up_is_told_so(given: Given, tmp_path: Path) -> None:
    (tmp_path / "run" / "a.json").unlink()
    with pytest.raises(Unreachable, match="so the name 'b' cannot be looked up") as caught:
        given.client("b")
    assert "http://b:8765" in caught.value.__notes__[0]


def test_a_damaged_run_file_is_left_out(given: Given, tmp_path: Path) -> None:
    (tmp_path / "run" / "x.json").write_text("{}")
    assert given.client().host == given.a.ref


def test_a_host_elsewhere_is_found_by_name_through_the_one_here(given: Given) -> None:
    assert given.client("b").host == given.b.ref
    with pytest.raises(Unknown, match="knows no host 'c'"):
        given.client("c")


def test_without_a_key_it_says_how_to_get_one(given: Given) -> None:
    with pytest.raises(NotAllowed, match="this machine has no mesh key"):
        HostClient("http://a:8765", environ=given.environ)


def test_a_call_carries_values_and_gives_the_reply(given: Given) -> None:
    given.a.routes[CALL] = lambda body: CallReply(value=tagged_json.encode((1, b"x")))
    assert given.client().call("p1", "add", left={1, 2}) == (1, b"x")
    (body,) = given.a.bodies(CALL)
    assert tagged_json.decode(body["message"]["args"]) == {"left": {1, 2}}


def test_a_call_that_waits_is_asked_again_under_its_id(given: Given) -> None:
    replies = [CallReply(waiting=True), CallReply(waiting=True), CallReply(value=7)]
    given.a.routes[CALL] = lambda body: replies.pop(0)
    assert given.client().call("p1", Message("drain")) == 7
    bodies = given.a.bodies(CALL)
    assert len({body["call_id"] for body in bodies}) == 1
    assert [body["again"] for body in bodies] == [False, True, True]


def test_a_waiting_call_begins_anew_where_the_paglet_moved_to(given: Given) -> None:
    moved = Moved("gone", host=to_json(given.b.ref), epoch=2)
    replies: list[object] = [CallReply(waiting=True), moved]

    def answer(body: object) -> object:
        reply = replies.pop(0)
        if isinstance(reply, Moved):
            raise reply
        return reply

    given.a.routes[CALL] = answer
    given.b.routes[CALL] = lambda body: CallReply(value=body["again"])
    assert given.client().call("p1", Message("drain")) is False


def test_a_post_is_given_to_the_host_with_a_token(given: Given) -> None:
    given.a.routes["POST /v1/outbox"] = lambda body: Done()
    ref = ProxyRef(agent_id="p1", host=given.b.ref)
    given.client().proxy(ref).post("note", text="x")
    (body,) = given.a.bodies("POST /v1/outbox")
    assert body["target"] == to_json(ref)
    assert body["message"]["kind"] == "note"
    assert len(body["token"]) >= 16


def view_of(agent_id: str, host: HostRef) -> PagletView:
    return PagletView(agent_id=agent_id, class_name="m:C", kind="paglet", residence="here", epoch=1, host=host)


def test_a_name_is_looked_up_before_anything_is_sent_to_it(given: Given, tmp_path: Path) -> None:
    given.a.routes["POST /v1/outbox"] = lambda body: Done()
    given.a.routes["GET /v1/paglets/visits"] = lambda body: view_of("0123456789abcdef", given.a.ref)
    client = given.client()
    client.post("visits", "add")
    client.proxy("visits").post("add")
    bodies = given.a.bodies("POST /v1/outbox")
    assert [body["target"]["agent_id"] for body in bodies] == ["0123456789abcdef"] * 2


def test_what_is_sent_to_a_name_that_nobody_has_is_not_sent_and_the_file_stays(given: Given, tmp_path: Path) -> None:
    def nobody(body: object) -> PagletView:
        raise Unknown("paglet nobody is not known here")

    given.a.routes["GET /v1/paglets/nobody"] = nobody
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")
    client = given.client()
    with pytest.raises(Unknown, match="no paglet on a has the name 'nobody'"):
        client.proxy("nobody").post("add")
    with pytest.raises(Unknown, match="nothing was sent"):
        client.proxy("nobody").send_artifact(precious, kind="notes", move=True)
    assert precious.read_text() == "mine"
    assert {request.method for request in given.a.asked} == {"GET"}


def test_a_call_to_nobody_is_one_error_without_those_that_led_there(given: Given) -> None:
    def nobody(body: object) -> PagletView:
        raise Unknown("paglet nobody is not known here")

    given.a.routes["GET /v1/paglets/nobody"] = nobody
    given.a.routes["POST /v1/paglets/nobody/call"] = nobody
    with pytest.raises(Unknown, match="nobody is not known") as caught:
        given.client().call("nobody", "add")
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def test_an_id_is_taken_as_it_is_for_its_paglet_may_be_away(given: Given) -> None:
    given.a.routes["POST /v1/outbox"] = lambda body: Done()
    for agent_id in ("0123456789abcdef", "0123456789abcdef.000007", "0123456789abcdef01234567-2"):
        given.client().post(agent_id, "add")
    given.client().post(f"collector-{'0' * 32}", "add")
    assert len(given.a.bodies("POST /v1/outbox")) == 4
    assert {request.target for request in given.a.asked} <= {"/v1/outbox", "/v1/mesh/hosts"}


def test_values_of_a_call_are_named(given: Given) -> None:
    with pytest.raises(TypeError):
        given.client().proxy("p1").call("add", 2)  # type: ignore[misc]
    assert given.a.asked == []


def test_only_a_paglet_is_created(given: Given) -> None:
    with pytest.raises(TypeError, match=r"CounterState.* is not a subclass of Paglet"):
        given.client().create(CounterState)  # type: ignore[arg-type]


def has_all(body: dict) -> BlobStates:
    """The host has all bytes already."""
    states = [BlobState(sha256=sha256, offset=1, complete=True) for sha256 in body["sha256s"]]
    return BlobStates(blobs=tuple(states))


def test_a_paglet_is_created_under_an_id_of_the_client(given: Given, tmp_path: Path) -> None:
    def create(body: dict) -> PagletView:
        return PagletView(
            agent_id=body["agent_id"],
            class_name=body["class_name"],
            kind="paglet",
            residence="here",
            epoch=1,
            host=given.a.ref,
        )

    given.a.routes["POST /v1/paglets"] = create
    given.a.routes["POST /v1/blobs/state"] = has_all
    (tmp_path / "words.txt").write_text("to be")
    proxy = given.client().create(
        Counter, CounterState(count=3), name="counter", inputs={"in.txt": tmp_path / "words.txt"}
    )
    (body,) = given.a.bodies("POST /v1/paglets")
    bundle = bundle_of(Counter)
    assert bundle is not None
    assert body["bundle"] == to_json(bundle.blob)
    assert [(file["name"], file["size_bytes"]) for file in body["files"]] == [("in.txt", 5)]
    assert proxy.agent_id == body["agent_id"]
    assert body["class_name"].endswith("test_client:Counter")
    assert (body["state"]["count"], body["name"], body["kind"], body["request"]) == (3, "counter", "paglet", None)


def test_a_state_of_another_class_is_a_mistake_of_the_caller(given: Given) -> None:
    with pytest.raises(TypeError, match="takes a CounterState"):
        given.client().create(Counter, PagletState())


def test_a_group_without_an_id_gets_one_so_that_it_may_be_sent_again(given: Given) -> None:
    context = FakeContext()

    def submit(body: dict) -> GroupView:
        context.submit_group(body)
        return context.view(context.groups[-1])

    given.a.routes["POST /v1/groups"] = submit
    view = given.client().submit_group({"group_id": None, "class_name": "m:C", "jobs": []})
    assert str(view["group_id"]).startswith("group-")
    assert context.groups[0].group_id == view["group_id"]


def test_candidates_are_asked_for_with_a_state(given: Given) -> None:
    given.a.routes["POST /v1/slots/candidates"] = lambda body: PlacementPreview(verdicts=())
    given.client().candidates(ComputeJobState(cpu_cores=4, required_host_tags=("gpu",)))
    (body,) = given.a.bodies("POST /v1/slots/candidates")
    assert body["request"]["resources"]["cpu_cores"] == 4
    assert body["request"]["rules"]["required_tags"] == ["gpu"]


def test_a_view_of_the_mesh_has_the_hosts_that_answer_and_the_errors_of_others(given: Given) -> None:
    slots = Slots(
        host=given.a.ref, capacity=Resources(), free=Resources(), tags=(), queued_jobs=0, running_jobs=0, jobs=()
    )
    given.a.routes["GET /v1/slots"] = lambda body: slots
    good, errors = given.client().mesh_slots()
    assert good == (slots,)
    assert len(errors) == 1


def test_who_asks_all_hosts_bounds_each_answer_and_is_told_whose_is_missing(tmp_path: Path) -> None:
    seconds: list[float] = []

    class OneIsMute(TableExchange):
        def request(self, url: str, store_id: str | None, request: Request, *, timeout_seconds: float) -> Response:
            if url == "http://b:8765":
                seconds.append(timeout_seconds)
                raise CallOutcomeUnknown("no complete reply came in time")
            return super().request(url, store_id, request, timeout_seconds=timeout_seconds)

    a = TableHost(name="a")
    a.routes["GET /v1/paglets"] = lambda body: Paglets(paglets=(), next=None)
    a.routes["GET /v1/notes"] = lambda body: Notes(notes=(), next=0)
    a.routes["GET /v1/artifacts"] = lambda body: Artifacts(artifacts=(), next="")
    client = HostClient(exchange=OneIsMute(a, TableHost(name="b")), environ=running(tmp_path, "a"))
    answers = (client.paglets(timeout=1.0), client.mesh_artifacts(timeout=1.0))
    errors = [*(error for _, errors in answers for error in errors), *client.notes(timeout=1.0).errors]
    assert [error.message for error in errors] == ["b: no complete reply came in time"] * 3
    assert max(seconds) <= 1.0


def test_old_notes_of_a_home_that_answers_for_the_first_time_are_no_news(given: Given) -> None:
    def note(text: str) -> Note:
        return Note(at=1.0, level="info", text=text, host_name="a", agent_id="p1", class_name="m:C")

    given.a.routes["GET /v1/notes"] = lambda body: Notes(notes=(note("new"),), next=8)
    given.b.routes["GET /v1/notes"] = lambda body: Notes(notes=(note("old"),), next=5)
    client = given.client()
    first = client.notes(seen={"store-a": 7})
    assert [each.text for each in first.notes] == ["new"]
    assert first.seen == {"store-a": 8, "store-b": 5}
    assert len(client.notes(seen=first.seen).notes) == 2
    assert len(client.notes().notes) == 2
    asked = [request.target for request in given.b.asked if request.target.startswith("/v1/notes")]
    assert ["after" in target for target in asked] == [False, True, False]


def test_groups_are_those_of_the_mesh_each_as_the_host_of_its_collector_has_it(given: Given) -> None:
    def line(number: int, host: HostRef, **further: Any) -> GroupLine:
        ref = ProxyRef(agent_id=f"c{number}", host=host)
        return GroupLine(
            group_id=f"g{number}", status="DETACHED", created_at=0.0, home=given.a.ref, collector=ref, **further
        )

    gone = HostRef(store_id="gone", name="gone")
    counted = line(1, given.b.ref, expected_count=3, completed_count=1, failed_count=0, here=True)
    given.a.routes["GET /v1/groups"] = lambda body: Groups(groups=(line(1, given.b.ref), line(2, gone)))
    given.b.routes["GET /v1/groups"] = lambda body: Groups(groups=(counted,))
    assert given.client().groups() == (counted, line(2, gone))


def test_dispatch_and_dispose_go_to_the_host_of_the_paglet(given: Given) -> None:
    given.b.routes["POST /v1/paglets/p1/dispatch"] = lambda body: Done()
    given.b.routes["DELETE /v1/paglets/p1"] = lambda body: Done()
    proxy = given.client().proxy(ProxyRef(agent_id="p1", host=given.b.ref))
    proxy.dispatch_to("a")
    proxy.dispose()
    assert given.b.bodies("POST /v1/paglets/p1/dispatch") == [{"target": "a"}]


def test_ids_cannot_leave_their_place_in_a_route(given: Given) -> None:
    with pytest.raises(Invalid, match="is not the id of a paglet"):
        given.client().paglet("../groups?x=")
    assert given.a.asked == []


def test_leaving_a_client_closes_its_connections(given: Given) -> None:
    with given.client():
        pass
    assert given.exchange.closed


@pytest.mark.parametrize("name", ["", "a/b", "a\nb"])
def test_what_can_name_no_group_and_no_paglet_is_refused_before_a_host_is_asked(given: Given, name: str) -> None:
    client = given.client()
    with pytest.raises(Invalid, match="cannot name a group"):
        client.group(name)
    with pytest.raises(Invalid, match="is not the id of a paglet"):
        client.paglet(name)


# Groups whose id is known to the mesh already.


def known_group(given: Given, home: HostRef) -> None:
    view = replace(FakeContext().view(SubmitGroup(group_id="count", class_name="m:C", jobs=())), home=home)
    given.a.routes["GET /v1/groups/count"] = lambda body: view
    identity = HostIdentity.of(member("b"), program="1", python="3.12", pid=1)
    given.b.routes["GET /v1/host"] = lambda body: identity
    for host in (given.a, given.b):
        host.routes["POST /v1/groups"] = lambda body: replace(view, was_there=True)


def submit_count(given: Given) -> Mapping[str, Any]:
    return given.client().submit_group({"group_id": "count", "class_name": "m:C", "jobs": []})


def test_a_group_that_another_host_submitted_is_asked_for_there(given: Given) -> None:
    known_group(given, given.b.ref)
    assert submit_count(given)["was_there"]
    assert (len(given.a.bodies("POST /v1/groups")), len(given.b.bodies("POST /v1/groups"))) == (0, 1)


def test_a_group_that_this_host_submitted_is_asked_for_here(given: Given) -> None:
    known_group(given, given.a.ref)
    submit_count(given)
    assert (len(given.a.bodies("POST /v1/groups")), len(given.b.bodies("POST /v1/groups"))) == (1, 0)


def test_a_group_whose_home_hangs_is_not_sent_there(given: Given) -> None:
    known_group(given, given.b.ref)
    given.b.broken = [CallOutcomeUnknown("no answer within 5 s")] * 100
    client = given.client()
    client.timeout = 0.2
    with pytest.raises(GroupExists, match=r"home host b does not answer \(no answer within 5 s\)"):
        client.submit_group({"group_id": "count", "class_name": "m:C", "jobs": []})
    assert given.b.bodies("POST /v1/groups") == []


def test_a_group_whose_home_is_offline_is_not_submitted_again(given: Given) -> None:
    known_group(given, HostRef(store_id="store-c", name="c"))
    with pytest.raises(GroupExists, match=r"home host c is offline\nnext: submit it again when c is back"):
        submit_count(given)
    assert given.a.bodies("POST /v1/groups") == []


@pytest.mark.parametrize("error", [Unreachable("refused"), PeerReplaced("another host")])
def test_a_group_whose_home_died_a_moment_ago_is_told_to_be_there_and_where(given: Given, error: PagletsError) -> None:
    known_group(given, given.b.ref)
    given.b.broken = [error] * 100
    client = given.client()
    client.timeout = 0.2
    with pytest.raises(GroupExists, match=r"group count exists, and its home host b does not answer") as caught:
        client.submit_group({"group_id": "count", "class_name": "m:C", "jobs": []})
    assert error.message in caught.value.message
    assert caught.value.next_steps[0].startswith("submit it again when b is back")


@pytest.mark.parametrize("error", [Overloaded("too many requests"), TimedOut("late"), CallOutcomeUnknown("no reply")])
def test_other_errors_of_the_home_host_are_not_reported_as_group_exists(given: Given, error: PagletsError) -> None:
    known_group(given, given.b.ref)

    def answer(body: Any) -> Any:
        raise error

    given.b.routes["POST /v1/groups"] = answer
    client = given.client()
    client.timeout = 0.2
    with pytest.raises(type(error), match=f"^{error.message}$"):
        client.submit_group({"group_id": "count", "class_name": "m:C", "jobs": []})
    known_group(given, given.b.ref)
    assert submit_count(given)["was_there"]


def test_errors_of_the_clients_host_as_home_are_raised_unchanged(given: Given) -> None:
    known_group(given, given.a.ref)

    def busy(body: Any) -> Any:
        raise Overloaded("too many requests")

    given.a.routes["POST /v1/groups"] = busy
    with pytest.raises(Overloaded):
        submit_count(given)


# A group whose collector is not where its home knew it.


def collected_on(given: Given, host: TableHost, there: bool = True) -> None:
    """Let that host have the collector. b has no collector or, without `there`, does not know the group."""

    def unknown(body: Any) -> GroupView:
        raise Unknown("no such group")

    view = FakeContext().view(SubmitGroup(group_id="count", class_name="m:C", jobs=()))
    given.a.routes["GET /v1/groups/count"] = lambda body: replace(view, home=given.a.ref)
    given.b.routes["GET /v1/groups/count"] = unknown
    if there:
        ref = ProxyRef(agent_id="collector-1", host=host.ref)
        host.routes["GET /v1/groups/count"] = lambda body: replace(view, collector=ref, status="ACTIVE")


def test_a_collector_is_where_the_host_that_has_it_says_and_not_where_home_knew_it(given: Given) -> None:
    collected_on(given, given.b)
    found = given.client().collected("count")
    assert found is not None
    assert (found.collector.host, found.status) == (given.b.ref, "ACTIVE")
    assert {request.target for host in (given.a, given.b) for request in host.asked if "groups" in request.target} == {
        "/v1/groups/count?here=1"
    }


def test_a_summary_is_asked_for_where_the_collector_is(given: Given) -> None:
    collected_on(given, given.b)
    given.b.routes["POST /v1/paglets/collector-1/call"] = lambda body: CallReply(value={"status": "ACTIVE"})
    assert given.client().summary("count") == {"status": "ACTIVE"}


def test_a_collector_is_gone_only_if_all_online_hosts_say_so(given: Given) -> None:
    collected_on(given, given.b, there=False)
    assert given.client().collected("count") is None
    given.b.broken = [Unreachable("refused")] * 100
    with pytest.raises(Unreachable, match="the collector of count is on no host that answered; b: refused") as caught:
        given.client().collected("count", timeout=0.2)
    assert caught.value.details == {"collector": "away"}
