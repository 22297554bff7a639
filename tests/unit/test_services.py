from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from paglets.api.slots import JobView
from paglets.core.agent import PagletState
from paglets.core.errors import Invalid, NotHandled
from paglets.core.messages import Message
from paglets.slots.service import SlotsStatusReply, SlotsStatusRequest
from paglets.system.services import COMPUTE_SLOTS, Operation, ServiceContract, ServicePaglet, check_fields
from paglets.testing.authors import FakeContext


@dataclass(frozen=True)
class AddRequest:
    left: int
    right: int


@dataclass(frozen=True)
class AddReply:
    total: int
    raw: bytes = b""


ADDER = ServiceContract("adder", Operation("add-up", AddRequest, AddReply))


class Adder(ServicePaglet[PagletState]):
    contract = ADDER

    def add_up(self, request: AddRequest) -> AddReply:
        return AddReply(total=request.left + request.right, raw=b"\0")


class Liar(Adder):
    def add_up(self, request: AddRequest) -> Any:
        return {"total": 1}


def client_of(paglet: ServicePaglet[Any]) -> Any:
    context = FakeContext({"add-up": paglet.handle_message})
    return ADDER.bind(context.proxy("adder"))


def test_a_client_and_a_paglet_of_one_contract_understand_each_other() -> None:
    client = client_of(Adder(PagletState(), FakeContext()))
    assert client.call("add-up", AddRequest(1, 2)) == AddReply(total=3, raw=b"\0")


def test_a_request_of_another_class_is_not_sent() -> None:
    client = client_of(Adder(PagletState(), FakeContext()))
    with pytest.raises(TypeError, match="takes an AddRequest"):
        client.call("add-up", AddReply(1))
    with pytest.raises(Invalid, match=r"AddRequest\.right must be int, got '2'"):
        client.call("add-up", AddRequest(1, "2"))  # type: ignore[arg-type]


def test_a_reply_of_another_class_is_the_fault_of_the_service() -> None:
    client = client_of(Liar(PagletState(), FakeContext()))
    with pytest.raises(Invalid, match="adder add-up: the reply must be an AddReply, got a dict"):
        client.call("add-up", AddRequest(1, 2))


def test_a_wrong_request_does_not_reach_the_handler() -> None:
    paglet = Adder(PagletState(), FakeContext())
    for request in (None, {"left": 1, "right": 2}, AddRequest(True, 1)):
        with pytest.raises(Invalid, match="the request"):
            paglet.handle_message(Message("add-up", {"request": request}))


def test_unknown_operations_are_not_handled() -> None:
    with pytest.raises(NotHandled, match="no operation 'sub'; it has add-up"):
        client_of(Adder(PagletState(), FakeContext())).call("sub", AddRequest(1, 2))
    with pytest.raises(NotHandled):
        Adder(PagletState(), FakeContext()).handle_message(Message("sub"))


def test_a_service_without_a_handler_is_found_when_it_is_written() -> None:
    with pytest.raises(TypeError, match="Lazy lacks add_up"):
        type("Lazy", (ServicePaglet,), {"contract": ADDER})


def test_a_contract_names_dataclasses_and_each_operation_once() -> None:
    with pytest.raises(TypeError, match="not a dataclass"):
        Operation("x", int, AddReply)
    with pytest.raises(ValueError, match="cannot name an operation"):
        Operation("a b", AddRequest, AddReply)
    with pytest.raises(ValueError, match="same name"):
        ServiceContract("x", *ADDER.operations.values(), *ADDER.operations.values())


@dataclass
class Everything:
    number: float = 1
    maybe: str | None = None
    pairs: list[tuple[str, int]] = field(default_factory=list)
    table: dict[str, set[int]] = field(default_factory=dict)
    many: tuple[int, ...] = ()
    anything: Any = None
    nested: AddRequest = AddRequest(1, 2)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("number", 2.5, "2"),
        ("maybe", "x", 3),
        ("pairs", [("a", 1)], [("a", "1")]),
        ("table", {"a": {1}}, {"a": [1]}),
        ("many", (1, 2), [1, 2]),
        ("nested", AddRequest(2, 3), {"left": 2, "right": 3}),
    ],
)
def test_fields_are_held_to_their_types(name: str, good: object, bad: object) -> None:
    check_fields(Everything(**{name: good}))
    with pytest.raises(Invalid, match=rf"Everything\.{name} must be"):
        check_fields(Everything(**{name: bad}))


def test_the_scheduler_of_a_host_is_asked_by_name() -> None:
    reply = SlotsStatusReply(
        host_name="w1",
        host_url="http://w1:8765",
        capacity={"cpu_cores": 4},
        free={"cpu_cores": 3},
        tags=["linux"],
        queued_jobs=0,
        running_jobs=1,
        jobs=[],
    )
    context = FakeContext({"status": lambda message: reply})
    found = COMPUTE_SLOTS.bind(context.proxy("compute-slots")).call("status", SlotsStatusRequest(limit=5))
    assert found == reply
    assert context.sent[0][0] == "compute-slots"
    assert {"agent_id", "status", "lease"} <= set(JobView.__dataclass_fields__)
