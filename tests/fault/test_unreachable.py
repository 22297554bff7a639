"""A host that nobody can connect to, as behind a router: it fetches its requests, and takes full part in the mesh."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from mesh_paglets import Notes, NotesState
from telling_jobs import Telling, TellingState

from paglets.core.messages import Message
from paglets.system.compute_slots import submit_compute_job_group
from tests.acceptance.rig import PATIENCE_SECONDS, HostProcess, MakeMesh, Mesh, wait_until
from tests.fault.hosts import asleep, is_online

NOBODY = "http://127.0.0.1:1"
"""An address where nobody listens. Others know it as the address of the unreachable host."""


@pytest.fixture(scope="module")
def started(make_mesh: MakeMesh) -> Iterator[Mesh]:
    with make_mesh("nat") as mesh:
        w1 = mesh.start("w1", "--cpu-cores", 2)
        mesh.start("w2", "--cpu-cores", 2, "--peer", w1.url)
        start_hidden(mesh, "laptop", "--cpu-cores", 2, "--tag", "lap")
        yield mesh


def start_hidden(mesh: Mesh, name: str, *arguments: object) -> HostProcess:
    """Start a host for which other hosts and commands know no working address."""
    home = mesh.folder / name
    home.mkdir(mode=0o700)
    shutil.copy2(mesh.home / "mesh.key", home)
    hidden = ("--unreachable", "--public-url", NOBODY)
    return mesh.start(name, "--peer", mesh["w1"].url, *hidden, *arguments, home=home)


@pytest.fixture
def nat(started: Mesh) -> Mesh:
    """Start w1, w2 and the hidden `laptop`. All tests share them."""
    started.wait_joined()
    return started


def input_file(folder: Path, size_bytes: int) -> Path:
    path = folder / "input"
    path.write_bytes(os.urandom(size_bytes))
    return path


def test_what_is_submitted_there_runs_elsewhere_and_comes_home_though_it_slept(nat: Mesh, tmp_path: Path) -> None:
    laptop, go = nat["laptop"], tmp_path / "go"
    told = laptop.client.create(Notes, NotesState())
    data = input_file(tmp_path, 9 << 20)  # more than a piece
    states = [TellingState(target=told.ref, path=str(go)) for _ in range(4)]
    submission = submit_compute_job_group(
        laptop.client, Telling, states, return_home_when_complete=True, inputs={"input": data}
    )
    assert submission.wait_detached(PATIENCE_SECONDS), submission.detached_reason

    with asleep(laptop):
        wait_until(lambda: not is_online(nat["w1"], "laptop"), what="the laptop to count as offline")
        go.touch()
        summary = nat["w1"].client.proxy(submission.collector.ref).call(Message("drain"))
        assert (summary["completed_count"], summary["failed_count"]) == (4, 0)
        assert {record["host_name"] for record in summary["results"].values()} <= {"w1", "w2"}

    def home() -> bool:
        return bool(laptop.client.summary(submission.group_id)["status"] == "COMPLETE")

    wait_until(home, what="the collector to be home")
    assert laptop.client.summary(submission.group_id)["collector"]["host_name"] == "laptop"
    wait_until(lambda: told.call(Message("add", {"amount": 0})) == 4, what="what the jobs told the paglet there")
    artifacts = laptop.client.list_artifacts(submission.collector.ref)
    for ref in artifacts:
        fetched = laptop.client.download_artifact(ref, tmp_path / ref.artifact_id)
        assert fetched.read_bytes() == data.read_bytes() * 2
    assert len(artifacts) == 4
    # Any host lists the files that are on the laptop now.
    nat.wait_joined()
    got = nat.paglets("artifacts", "get", artifacts[0].artifact_id, tmp_path / "got", PAGLETS_AT="w2")
    assert got.code == 0, got.err
    assert (tmp_path / "got").read_bytes() == data.read_bytes() * 2


def test_it_runs_jobs_of_others_and_their_commands_show_them(nat: Mesh, tmp_path: Path) -> None:
    w1, go = nat["w1"], tmp_path / "go"
    states = [TellingState(path=str(go), required_host_tags=("lap",)) for _ in range(2)]
    submission = submit_compute_job_group(w1.client, Telling, states, inputs={"input": input_file(tmp_path, 1000)})
    wait_until(lambda: w1.client.slots(host="laptop").running_jobs == 2, what="the jobs to run on the laptop")

    queue = nat.paglets("jobs", "queue", "--json", "--at", "laptop").json
    assert {job["job_key"] for job in queue["jobs"]} == {"job-00001", "job-00002"}
    hosts = {
        each["host"]["name"]: each for each in nat.paglets("mesh", "hosts", "--json", PAGLETS_AT="w2").json["hosts"]
    }
    assert hosts["laptop"]["host"]["reachable"] is False
    assert "online, pulls requests" in nat.paglets("mesh", "hosts", PAGLETS_AT="w2").out
    followed = tmp_path / "followed"
    follower = nat.spawn("logs", "-f", f"{submission.group_id}/job-00001", output=followed, PAGLETS_AT="w2")
    wait_until(lambda: "job-00001 read 1000 bytes" in followed.read_text(), what="the first line of the log")
    go.touch()
    summary = submission.drain(timeout=PATIENCE_SECONDS)
    assert (summary["completed_count"], summary["failed_count"]) == (2, 0)
    assert {record["host_name"] for record in summary["results"].values()} == {"laptop"}
    assert follower.wait(PATIENCE_SECONDS) == 0
    assert "job-00001 goes on" in followed.read_text()


def test_a_call_waits_for_a_paglet_there_and_finds_it_after_a_restart(nat: Mesh) -> None:
    laptop, w2 = nat["laptop"], nat["w2"]
    notes = laptop.client.create(Notes, NotesState())
    asks = w2.client.create(Notes, NotesState())
    remote = w2.client.proxy(notes.ref)
    assert asks.call(Message("ask", {"target": notes.ref, "amount": 2})) == 2  # from host to host
    assert remote.call(Message("add", {"amount": 3})) == 5  # from a command, which w2 relays
    answers: list[object] = []
    wait = partial(remote.call, Message("wait", {"least": 7}), timeout_seconds=60)
    waits = threading.Thread(target=lambda: answers.append(wait()))
    waits.start()
    assert remote.call(Message("add", {"amount": 2})) == 7
    waits.join(PATIENCE_SECONDS)
    assert answers == [7]

    laptop.stop()
    asks.call(Message("tell", {"target": notes.ref, "amount": 1}))
    laptop.restart()
    wait_until(lambda: laptop.client.proxy(notes.ref).call(Message("add", {"amount": 0})) == 8)


def test_a_paglet_moves_there_and_back(nat: Mesh) -> None:
    w1 = nat["w1"]
    notes = w1.client.create(Notes, NotesState())
    for host in ("laptop", "w2"):
        w1.client.dispatch(notes.ref, host)
        wait_until(lambda host=host: w1.client.paglet(notes.ref).host.name == host, what=f"it to be on {host}")  # type: ignore[misc]
    assert "arrival at laptop" in notes.call(Message("log"))


def test_two_hosts_that_nobody_reaches_work_through_a_third(nat: Mesh, tmp_path: Path) -> None:
    """Jobs of the laptop run on the tablet and report to the laptop, where their collector has returned."""
    laptop, go = nat["laptop"], tmp_path / "go"
    tablet = start_hidden(nat, "tablet", "--cpu-cores", 4, "--tag", "tab")
    nat.wait_joined()

    notes = laptop.client.create(Notes, NotesState())
    assert tablet.client.proxy(notes.ref).call(Message("add", {"amount": 1})) == 1

    told = tablet.client.create(Notes, NotesState())
    data = input_file(tmp_path, 9 << 20)
    states = [TellingState(target=told.ref, path=str(go), required_host_tags=("tab",)) for _ in range(3)]
    submission = submit_compute_job_group(laptop.client, Telling, states, inputs={"input": data})
    wait_until(lambda: laptop.client.slots(host="tablet").running_jobs == 3)
    laptop.client.dispatch(submission.collector.ref, "laptop")
    wait_until(lambda: laptop.client.paglet(submission.collector.ref).host.name == "laptop")
    cancelled = nat.paglets("jobs", "cancel", f"{submission.group_id}/job-00003", PAGLETS_AT="tablet")
    assert cancelled.code == 0, cancelled.err
    go.touch()
    summary = submission.drain(timeout=PATIENCE_SECONDS)
    assert (summary["completed_count"], summary["failed_count"]) == (2, 1)
    assert {record["host_name"] for record in summary["results"].values()} == {"tablet"}
    artifacts = laptop.client.list_artifacts(submission.collector.ref)
    assert len(artifacts) == 2
    for ref in artifacts:
        fetched = tablet.client.download_artifact(ref, tmp_path / ref.artifact_id)
        assert fetched.read_bytes() == data.read_bytes() * 2
    wait_until(lambda: not tablet.rows("SELECT 1 FROM outbox"), what="the reports to be delivered")
    nat.check_quiet()
    tablet.stop()
