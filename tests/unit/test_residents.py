"""Residents: processes that wait a few seconds for the next message of their paglet."""

from __future__ import annotations

from typing import Any

import pytest
from host_rig import Rig, envelope, state_change

from paglets.core.errors import HandlerFailed
from paglets.core.record import to_json
from paglets.host.jobs.idle_processes import MIN_FREE_BYTES
from paglets.host.jobs.residents import (
    LEAST_RESIDENTS,
    LEAVE_SECONDS,
    MAX_AGE_SECONDS,
    most_residents,
    surplus,
)
from paglets.host.messaging.mailbox import MAX_ACTIVATIONS
from paglets.host.records.run_repository import Run
from paglets.slots.model import Resources
from paglets.store import residence
from paglets.worker.launch import IDLE_SECONDS
from paglets.worker.protocol import Fault, Stamp
from tests.fakes.processes import HandProcess

OFFLINE_SECONDS = 60.0
"""Time after which a host without contact is offline."""


@pytest.fixture
def rig() -> Rig:
    return Rig()


def add(rig: Rig, agent_id: str = "p1", **fields: Any) -> None:
    rig.write(lambda tx: residence.create(tx, envelope(agent_id, **fields), rig.now()))
    rig.run()


def resident(rig: Rig, agent_id: str = "p1") -> HandProcess:
    """Return the process of a new paglet that has handled one call."""
    add(rig, agent_id)
    rig.call(agent_id, "hi")
    rig.run()
    process = rig.process(agent_id)
    rig.handle(process)
    assert not process.is_to_finish
    return process


def run(agent_id: str, idle_since: float | None) -> Run:
    stamp = Stamp(agent_id=agent_id, epoch=1, generation=1, attempt=0, token=agent_id)
    return Run(stamp=stamp, entry="message", idle_since=idle_since)


# Decisions.


def test_the_longest_idle_residents_beyond_the_limit_and_all_that_were_idle_for_long_end() -> None:
    runs = [run("young", 9.0), run("old", 7.0), run("late", 3.0), run("busy", None), run("older", 6.0)]
    assert [each.agent_id for each in surplus(runs, 10.0, 4)] == ["late"]
    assert [each.agent_id for each in surplus(runs, 10.0, 2)] == ["late", "older"]
    assert [each.agent_id for each in surplus(runs, 10.0, 0)] == ["late", "older", "old", "young"]


def test_residents_only_have_the_places_that_busy_processes_leave() -> None:
    assert most_residents(0, 0) == LEAST_RESIDENTS
    assert most_residents(4, 0) > most_residents(1, 0)
    assert most_residents(4, MAX_ACTIVATIONS - 1) == 1
    assert most_residents(4, MAX_ACTIVATIONS + 1) == 0


# On a host.


def test_a_resident_handles_the_next_call_at_once_and_then_is_idle_anew(rig: Rig) -> None:
    process = resident(rig)
    rig.run(IDLE_SECONDS - 1)
    reply = rig.call("p1", "again")
    rig.run()
    rig.handle(process, "yes", changes=state_change(n=7))
    assert reply.value == "yes"
    assert rig.launcher.of("p1") == [process]
    assert rig.state_of("p1") == {"n": 7}
    rig.run(IDLE_SECONDS - 1)
    assert not process.is_to_finish
    rig.run(2)
    assert process.is_to_finish


def test_a_call_to_a_resident_that_was_asked_to_end_is_handled_by_the_next_process(rig: Rig) -> None:
    process = resident(rig)
    rig.run(IDLE_SECONDS + 1)
    reply = rig.call("p1", "late")
    rig.run()
    assert [each.message.kind for each in process.deliveries] == ["hi"]
    rig.finish(process)
    rig.handle(rig.process("p1"), "yes")
    assert reply.value == "yes"


def test_a_resident_that_ends_by_itself_leaves_its_message_to_the_next_process(rig: Rig) -> None:
    process = resident(rig)
    reply = rig.call("p1", "after a change of the code")
    rig.run()
    rig.finish(process)
    rig.handle(rig.process("p1"), "yes")
    assert reply.value == "yes"


def test_a_resident_that_is_killed_while_idle_costs_nothing(rig: Rig) -> None:
    process = resident(rig)
    process.exit(signal=9)
    rig.run()
    assert rig.value("SELECT count(*) FROM runs") == 0
    reply = rig.call("p1", "again")
    rig.run()
    rig.handle(rig.process("p1"), "yes")
    assert reply.value == "yes"
    assert rig.faults() == []


@pytest.mark.parametrize("action", ["move", "dispose"])
def test_a_resident_ends_at_once_for_an_action(rig: Rig, action: str) -> None:
    process = resident(rig)
    if action == "move":
        target = rig.peer("w1").ref
        rig.ask("POST", "/v1/paglets/p1/dispatch", {"target": target.name})
    else:
        rig.ask("DELETE", "/v1/paglets/p1")
    rig.run()
    assert process.is_to_finish
    rig.finish(process)
    assert rig.process("p1").go.entry == ("dispatching" if action == "move" else "disposing")


def test_a_resident_whose_handler_is_running_ends_after_it_for_an_action(rig: Rig) -> None:
    process = resident(rig)
    rig.call("p1", "again")
    rig.run()
    rig.ask("DELETE", "/v1/paglets/p1")
    rig.run()
    assert not process.is_to_finish
    rig.handle(process)
    assert process.is_to_finish


@pytest.mark.parametrize("action", ["move", "dispose"])
def test_callers_who_never_pause_delay_an_action_for_a_limited_time(rig: Rig, action: str) -> None:
    process = resident(rig)
    rig.peer("w1")
    rig.call("p1", "call 0")
    rig.run()
    if action == "move":
        rig.ask("POST", "/v1/paglets/p1/dispatch", {"target": "w1"})
    else:
        rig.ask("DELETE", "/v1/paglets/p1")
    replies = []
    while not process.is_to_finish and len(replies) < 20:
        replies.append(rig.call("p1", f"call {len(replies) + 1}"))
        rig.run(LEAVE_SECONDS / 4)
        rig.handle(process, "yes")
    assert 3 <= len(replies) <= 5
    assert replies[0].value == "yes"
    rig.finish(process)
    assert rig.process("p1").go.entry == ("dispatching" if action == "move" else "disposing")


def test_messages_that_a_leaving_process_did_not_get_are_handled_by_the_next_one(rig: Rig) -> None:
    rig.network.leave(rig.peer("w1").ref.url)
    rig.run(OFFLINE_SECONDS)
    process = resident(rig)
    rig.call("p1", "first")
    rig.run()
    rig.ask("POST", "/v1/paglets/p1/dispatch", {"target": "w1"})
    late = rig.call("p1", "late")
    rig.run(LEAVE_SECONDS)
    rig.handle(process)
    assert process.is_to_finish
    rig.finish(process)
    rig.handle(rig.process("p1"), "yes")
    assert late.value == "yes"


def test_a_process_whose_handler_raised_does_not_become_a_resident(rig: Rig) -> None:
    add(rig)
    rig.call("p1", "hi")
    rig.run()
    process = rig.process("p1")
    rig.handle(process, fault=Fault(cause="exception", message="oops"))
    assert process.is_to_finish


def test_a_process_is_a_resident_only_for_a_limited_time(rig: Rig) -> None:
    process = resident(rig)
    for nth in range(int(MAX_AGE_SECONDS)):
        if process.is_to_finish:
            break
        rig.run(1)
        rig.call("p1", f"call {nth}")
        rig.run()
        rig.handle(process)
    assert process.is_to_finish


def test_residents_end_when_memory_is_short(rig: Rig) -> None:
    process = resident(rig)
    rig.host.services.meter.offered = Resources(memory_bytes=MIN_FREE_BYTES - 1)
    rig.run(1.5)
    assert process.is_to_finish


def test_residents_give_up_their_places_so_that_every_paglet_gets_its_turn(rig: Rig) -> None:
    ids = [f"q{nth:02d}" for nth in range(MAX_ACTIVATIONS + 18)]
    for agent_id in ids:
        add(rig, agent_id)
    replies = {agent_id: rig.call(agent_id, "hi", call_id=agent_id) for agent_id in ids}
    waiting = set(ids)
    for _ in range(20):
        rig.run()
        for agent_id in sorted(waiting):
            if not rig.launcher.of(agent_id):
                continue
            rig.handle(rig.process(agent_id), agent_id)
            waiting.remove(agent_id)
        for agent_id in ids:
            for process in rig.launcher.of(agent_id):
                if process.is_to_finish and not process.ended:
                    rig.finish(process)
    assert waiting == set()
    assert all(reply.value == agent_id for agent_id, reply in replies.items())
    idle = [each for each in rig.launcher.processes if not each.ended]
    assert len(idle) <= most_residents(rig.settings.offered.cpu_cores, 0)


def test_the_row_of_a_resident_lets_a_restarted_host_kill_it(rig: Rig) -> None:
    process = resident(rig)
    assert rig.all("SELECT agent_id, entry, pid FROM runs") == [("p1", "message", process.pid)]
    assert to_json(process.go.stamp)["token"] == rig.value("SELECT token FROM runs")


def test_a_handler_that_changed_nothing_replies_without_a_commit_but_is_fenced(rig: Rig) -> None:
    process = resident(rig)
    commits: list[tuple[str, ...]] = []
    before, rig.store.on_commit = rig.store.on_commit, lambda wakes, touched: commits.append(touched)
    reply = rig.call("p1", "again")
    rig.run()
    rig.handle(process, "yes")
    assert reply.value == "yes"
    assert commits == []
    rig.store.on_commit = before
    late = rig.call("p1", "late")
    rig.run()
    rig.write(lambda tx: tx.run("DELETE FROM runs"))
    assert rig.handle(process, "no")["error"]["code"] == "fenced"
    assert isinstance(late.error, HandlerFailed)
