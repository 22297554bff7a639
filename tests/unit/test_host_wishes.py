"""What is asked of a paglet while something else that was asked for begins, or its hook runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from host_rig import Rig, envelope, host_ref

from paglets.api.paglets import Done, MovePaglet
from paglets.codec.strict_json import dumps, loads
from paglets.core.record import to_json
from paglets.store import residence
from paglets.store.db import Tx
from paglets.worker.protocol import Fault, Intent, Rest
from tests.fakes.processes import HandProcess

OOPS = Fault(cause="exception", message="ValueError: oops", traceback="tb")
REST: dict[str, Any] = {"rest": None}
STAY = {"move": to_json(host_ref("home"))}
GO = {"move": to_json(host_ref("w1"))}
END: dict[str, Any] = {"dispose": True}


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    rig.peer("w1")
    rig.peer("w2")
    return rig


def add(rig: Rig, agent_id: str = "p1", **fields: Any) -> None:
    rig.write(lambda tx: residence.create(tx, envelope(agent_id, **fields), rig.now()))


def ask_to_move(rig: Rig, target: str) -> None:
    assert rig.get(Done, "POST", "/v1/paglets/p1/dispatch", MovePaglet(target=target)) == Done()


def intent(rig: Rig) -> dict[str, Any]:
    text = rig.value("SELECT intent FROM paglets WHERE agent_id = 'p1'")
    return {} if text is None else loads(text)


def status(rig: Rig) -> str:
    return str(rig.value("SELECT status FROM residence WHERE agent_id = 'p1'"))


def peer_of(rig: Rig) -> str:
    return str(loads(rig.value("SELECT target FROM handoffs WHERE agent_id = 'p1'"))["name"])


def entries(rig: Rig) -> list[str]:
    """Of the processes so far; those that have not begun do now."""
    rig.run()
    for process in rig.launcher.of("p1"):
        if not process.heard:
            process.begin()
    rig.run()
    return [process.go.entry for process in rig.launcher.of("p1")]


@pytest.mark.parametrize("begins", [REST, STAY, GO, END])
@pytest.mark.parametrize("asked", ["move", "dispose"])
def test_what_is_asked_for_while_something_else_begins_is_not_lost(rig: Rig, begins: Any, asked: str) -> None:
    def ask(agent_id: str) -> None:
        if agent_id == "p0" and asked == "move":
            ask_to_move(rig, "w2")
        elif agent_id == "p0":
            rig.ask("DELETE", "/v1/paglets/p1")

    add(rig)
    while_preparing(rig, ask)
    add_and_ask(rig, begins)
    rig.run()
    if asked == "dispose":
        assert entries(rig) == ["disposing"]
    else:
        assert entries(rig) == ["dispatching"]
        rig.finish(rig.process("p1"))
        assert (status(rig), peer_of(rig)) == ("leaving", "w2")


def while_preparing(rig: Rig, act: Callable[[str], None]) -> None:
    """`act` gets the id of each paglet whose process the host is about to start."""
    prepare = rig.disk.prepare

    def prepared(agent_id: str, fresh: bool) -> str:
        act(agent_id)
        return prepare(agent_id, fresh)

    rig.disk.prepare = prepared  # type: ignore[method-assign]


def add_and_ask(rig: Rig, wish: dict[str, Any]) -> None:
    """The mailbox looks at both at once, and serves p0, whose process it starts, first."""

    def change(tx: Tx) -> None:
        residence.create(tx, envelope("p0", hook="creation"), rig.now())
        tx.run("UPDATE paglets SET intent = ? WHERE agent_id = 'p1'", dumps(wish))

    rig.write(change)
    rig.host.runner.wake("mailbox")


@pytest.mark.parametrize("wish", [Intent(rest=Rest(seconds=None)), Intent(move=host_ref("w1")), Intent(stay=True)])
def test_a_disposal_wins_over_what_the_running_code_asks_for(rig: Rig, wish: Intent) -> None:
    add(rig, hook="run")
    assert entries(rig) == ["run"]
    rig.ask("DELETE", "/v1/paglets/p1")
    rig.finish(rig.process("p1"), intent=wish)
    assert entries(rig) == ["run", "disposing"]


# While `on_dispatching` runs.


@pytest.fixture
def going(rig: Rig) -> HandProcess:
    """Its `on_dispatching` runs, for a move to w1; its `run` was due before."""
    add(rig)
    rig.write(lambda tx: tx.run("UPDATE paglets SET hook = 'run'"))
    ask_to_move(rig, "w1")
    assert entries(rig) == ["dispatching"]
    return rig.process("p1")


@pytest.mark.parametrize("done", [{}, {"fault": OOPS}])
def test_a_disposal_that_is_asked_for_while_it_is_dispatched_runs_its_hook(
    rig: Rig, going: HandProcess, done: dict[str, Any]
) -> None:
    rig.ask("DELETE", "/v1/paglets/p1")
    rig.finish(going, **done)
    assert entries(rig) == ["dispatching", "disposing"]
    rig.finish(rig.process("p1"))
    assert status(rig) == "disposed"


@pytest.mark.parametrize("done", [{}, {"fault": OOPS}])
def test_another_move_that_is_asked_for_while_it_is_dispatched_runs_its_hook_again(
    rig: Rig, going: HandProcess, done: dict[str, Any]
) -> None:
    ask_to_move(rig, "w2")
    rig.finish(going, **done)
    assert entries(rig) == ["dispatching", "dispatching"]
    rig.finish(rig.process("p1"))
    assert (status(rig), peer_of(rig)) == ("leaving", "w2")


def test_a_run_that_was_due_is_due_again_where_the_second_move_is_dropped(rig: Rig, going: HandProcess) -> None:
    ask_to_move(rig, "w2")
    rig.finish(going)
    rig.finish(rig.process("p1"), fault=OOPS)
    assert entries(rig) == ["dispatching", "dispatching", "run"]
    assert intent(rig) == {}


def test_a_run_that_was_due_is_due_again_where_the_hook_asks_to_stay(rig: Rig, going: HandProcess) -> None:
    rig.finish(going, intent=Intent(stay=True))
    assert entries(rig) == ["dispatching", "run"]
    assert intent(rig) == {}


def test_a_move_elsewhere_that_the_hook_itself_asks_for_runs_it_no_second_time(rig: Rig, going: HandProcess) -> None:
    rig.finish(going, intent=Intent(move=host_ref("w2")))
    assert len(rig.launcher.of("p1")) == 1
    assert (status(rig), peer_of(rig)) == ("leaving", "w2")


def test_a_move_that_is_asked_for_while_it_is_disposed_runs_its_hook(rig: Rig) -> None:
    add(rig)
    rig.ask("DELETE", "/v1/paglets/p1")
    assert entries(rig) == ["disposing"]
    ask_to_move(rig, "w2")
    rig.finish(rig.process("p1"))
    assert entries(rig) == ["disposing", "dispatching"]
