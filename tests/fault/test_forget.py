"""A host that is lost for good is removed: its incoming hand-offs return, and exist once if it comes back."""

from __future__ import annotations

import signal
import sqlite3
from pathlib import Path

from mesh_paglets import Notes, NotesState

from tests.acceptance.rig import Mesh, wait_until
from tests.fault.hosts import forget, is_online

SCRIPTS = Path(__file__).parents[1] / "acceptance" / "scripts"


def test_a_paglet_that_a_dead_host_has_is_back_when_that_is_forgotten(mesh: Mesh) -> None:
    a = mesh.start("a")
    b = mesh.host("b", "--peer", a.url)
    # The target dies after it stored the envelope, which leaves the source in doubt.
    b.spawn(PAGLETS_FAIL="after-commit-before-reply:kill")
    b.wait_ready()
    mesh.wait_joined()
    notes = a.client.create(Notes, NotesState())
    assert notes.send("add", amount=2) == 2
    refused = mesh.paglets("mesh", "forget", "b", "--at", "a")
    assert (refused.code, "b is online" in refused.complaint) == (1, True)
    notes.dispatch("b")
    assert b.wait_ended() == -signal.SIGKILL

    wait_until(lambda: not is_online(a, "b"), what="b to be offline")
    listed = mesh.paglets("list", "--at", "a")
    assert (listed.code, "paglets: offline and not asked: b for " in listed.err) == (0, True)
    a.stop()
    with sqlite3.connect(a.data / "paglets.db") as base:  # as if that had been a day ago
        assert base.execute("UPDATE hosts SET offline_since = offline_since - 86400").rowcount == 1
    base.close()
    a.restart()
    listed = mesh.paglets("list", "--at", "a")
    assert (listed.code, listed.err) == (0, "paglets: no paglets on the hosts that answered\n")
    assert mesh.paglets("mesh", "hosts", "--at", "a").err.endswith("mesh forget b` removes it\n")

    done = forget(mesh, "b", at="a")

    assert done.out == "a: removed, took back 1 paglet in transfer\n"
    assert notes.send("add", amount=1) == 3
    assert [view.host.name for view in a.client.hosts()] == ["a"]

    b.restart()
    mesh.wait_joined()
    row = "SELECT status, epoch FROM residence WHERE agent_id = ?"
    ((status, epoch),) = a.rows(row, notes.agent_id)
    assert status == "here"
    wait_until(
        lambda: [tuple(each) for each in b.rows(row, notes.agent_id)] == [("refused", epoch)],
        what="b to end its old copy",
    )
    views, errors = a.client.paglets()
    assert (errors, [(view.agent_id, view.host.name) for view in views]) == ((), [(notes.agent_id, "a")])
    assert notes.send("add", amount=1) == 4


def test_files_that_were_to_go_to_a_home_that_is_gone_for_good_are_kept_and_fetched(mesh: Mesh, tmp_path: Path) -> None:
    home = mesh.start("home")
    work = mesh.start("linux-a", "--peer", home.url, "--tag", "linux")
    mesh.wait_joined()
    done = mesh.script(SCRIPTS / "leaving.py", "left", "Held", tmp_path, "a", "b", PAGLETS_AT="home")
    assert done.code == 0, done.err
    wait_until(lambda: work.rows("SELECT 1 FROM runs"), what="a job to run")
    home.kill()
    (tmp_path / "release").touch()

    def waiting() -> bool:
        return [job.reason_text for job in work.client.jobs()] == ["it moves to home once that host is online"] * 2

    wait_until(waiting, what="both files to wait for home")

    forgotten = mesh.paglets("mesh", "forget", "home", "--at", "linux-a")

    assert (forgotten.code, forgotten.out) == (
        0,
        "linux-a: removed, dropped 2 moves to it, kept 2 files of group left\n",
    )
    assert forgotten.err.endswith("artifacts get --group left DIR\n")
    got = mesh.paglets("artifacts", "get", "--group", "left", tmp_path / "got", "--at", "linux-a")
    assert got.code == 0, got.err
    assert sorted(path.read_text() for path in (tmp_path / "got").iterdir()) == ["rows of a", "rows of b"]
