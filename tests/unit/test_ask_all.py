"""A question to many hosts: one merged answer, whatever each of them does."""

from __future__ import annotations

from typing import Any

import pytest

from paglets.core.errors import CallOutcomeUnknown, PagletsError, Unknown, Unreachable
from paglets.core.refs import HostRef
from paglets.mesh.ask_all import ask_all
from paglets.wire.request import Completion, Request, Response, reply, reply_error

HOSTS = [HostRef(store_id=f"store-{name}", name=name, url=f"http://{name}") for name in ("a", "b", "c")]


class Asked:
    """A question to HOSTS, or to `hosts`. `merged` has each result."""

    def __init__(self, hosts: list[HostRef] = HOSTS, **more: Any) -> None:
        self.respond: dict[str, Completion] = {}
        self.merged: list[list[tuple[str, Any]]] = []
        request = Request(method="GET", target="/v1/host")
        ask_all(self, hosts, request, self.read, self.merged.append, timeout_seconds=2.0, **more)

    def send(self, host: HostRef, request: Request, done: Completion, *, timeout_seconds: float) -> None:
        self.respond[host.name] = done

    def read(self, host: HostRef, response: Response) -> tuple[str, Any]:
        return host.name, response.json()


def test_the_answers_come_together_when_no_response_is_missing() -> None:
    asked = Asked()
    for name, number in (("b", 2), ("a", 1)):
        asked.respond[name](reply(number))
    assert asked.merged == []
    asked.respond["c"](reply(3))
    assert asked.merged == [[("b", 2), ("a", 1), ("c", 3)]]


@pytest.mark.parametrize(
    "outcome", [Unreachable("off"), CallOutcomeUnknown("cut"), reply_error(Unknown("no")), Response(status=200)]
)
def test_a_host_without_a_usable_response_has_no_answer(outcome: Response | PagletsError) -> None:
    asked = Asked()
    asked.respond["a"](outcome)
    asked.respond["b"](reply(2))
    asked.respond["c"](outcome)
    assert asked.merged == [[("b", 2)]]


def test_an_answer_that_is_enough_ends_the_question_once() -> None:
    asked = Asked(enough=lambda answer: answer[1] == 2)
    for name, number in (("a", 1), ("b", 2), ("c", 2)):
        asked.respond[name](reply(number))
    assert asked.merged == [[("a", 1), ("b", 2)]]


def test_a_question_to_nobody_has_no_answers() -> None:
    assert Asked([]).merged == [[]]
