"""Residents: the process of a paglet stays for the next message, and its memory counts for nothing."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import psutil
from mesh_paglets import Notes, NotesState

from paglets.remote.proxy import PagletProxy
from tests.acceptance.rig import HostProcess, Mesh, wait_until

MOVE_SECONDS = 4.0
"""Less than the idle time of a resident. A move of an idle paglet must not wait for the end of that time."""

CALLERS, CALLS = 50, 4
BUSY_CALLERS, BUSY_SECONDS = 8, 12.0
"""More callers than a process that handles one call at a time ever catches up with, for longer than a move takes."""


def create(host: HostProcess) -> PagletProxy:
    return host.client.create(Notes, NotesState())


def is_alive(pid: int) -> bool:
    with suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def test_the_next_call_costs_no_process_and_the_process_ends_when_idle(three: Mesh) -> None:
    notes = create(three["laptop"])
    pids = {notes.send("pid") for _ in range(5)}
    assert len(pids) == 1
    wait_until(lambda: not is_alive(*pids), what="the idle process to end")
    assert notes.send("pid") not in pids
    notes.dispose()


def test_what_was_committed_survives_the_death_of_a_resident(three: Mesh) -> None:
    notes = create(three["laptop"])
    assert notes.send("add", amount=5) == 5
    pid = notes.send("pid")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not three["laptop"].rows("SELECT 1 FROM runs WHERE pid = ?", pid), what="the end of its run")
    assert notes.send("add", amount=1) == 6
    notes.dispose()


def test_an_idle_paglet_moves_at_once(three: Mesh) -> None:
    notes = create(three["laptop"])
    pid = notes.send("pid")
    began = time.monotonic()
    notes.dispatch_to("linux-a")
    wait_until(lambda: notes.info().host.name == "linux-a", what="the move")
    assert time.monotonic() - began < MOVE_SECONDS
    assert not is_alive(pid)
    notes.dispose()


def test_a_paglet_whose_callers_never_pause_moves(three: Mesh) -> None:
    notes = create(three["laptop"])
    until = time.monotonic() + BUSY_SECONDS

    def call(caller: int) -> list[int]:
        answers = []
        while time.monotonic() < until:
            answers.append(three["laptop"].client.call(notes.ref, "add_slowly", amount=1, seconds=0.05))
        return answers

    with ThreadPoolExecutor(BUSY_CALLERS) as pool:
        calls = [pool.submit(call, caller) for caller in range(BUSY_CALLERS)]
        notes.dispatch_to("linux-a")
        wait_until(lambda: notes.info().host.name == "linux-a", what="the move")
        assert time.monotonic() < until, "the paglet moved only when the calls had ended"
        answers = sorted(answer for each in calls for answer in each.result())
    assert answers == list(range(1, len(answers) + 1))
    notes.dispose()


def test_fifty_callers_at_once_get_all_their_answers(three: Mesh) -> None:
    notes = create(three["laptop"])

    def call(caller: int) -> list[int]:
        return [three["linux-a"].client.call(notes.ref, "add", amount=1) for _ in range(CALLS)]

    with ThreadPoolExecutor(CALLERS) as pool:
        answers = [each for some in pool.map(call, range(CALLERS)) for each in some]
    assert sorted(answers) == list(range(1, CALLERS * CALLS + 1))
    notes.dispose()


def test_a_killed_host_leaves_no_resident(three: Mesh) -> None:
    laptop = three["laptop"]
    paglets = [create(laptop) for _ in range(3)]
    pids = [paglet.send("pid") for paglet in paglets]
    laptop.kill()
    wait_until(lambda: not any(map(is_alive, pids)), what="the end of all residents")
    laptop.restart()
    assert all(paglet.send("pid") not in pids for paglet in paglets)
    for paglet in paglets:
        paglet.dispose()
