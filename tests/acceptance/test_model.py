"""Clones, rest, priorities, services and notes, with real hosts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from model_jobs import Diary, DiaryState, Telling, TellingState

from paglets.core.errors import HandlerFailed
from paglets.core.messages import Message
from paglets.remote.proxy import PagletProxy
from paglets.slots.service import SlotsStatusRequest
from paglets.system.compute_slots import submit_compute_job_group
from paglets.system.services import COMPUTE_SLOTS
from tests.acceptance.rig import PATIENCE_SECONDS, Mesh, wait_until


def create(mesh: Mesh, host: str, name: str | None = None, *, log: tuple[str, ...] = ()) -> PagletProxy:
    """Create a diary and wait until its first `run` is over."""
    diary = mesh[host].client.create(Diary, DiaryState(log=list(log)), name=name)
    wait_until(lambda: diary.info().hook is None, what="its run to be over")
    return diary


def listed(mesh: Mesh, paglet: PagletProxy, at: str = "laptop") -> dict[str, Any] | None:
    found = mesh.paglets("list", "--json", "--at", at).json["paglets"]
    return next((each for each in found if each["agent_id"] == paglet.agent_id), None)


def test_a_clone_has_state_storage_and_files_and_lives_where_it_was_sent(three: Mesh) -> None:
    original = create(three, "laptop", "original", log=("one",))
    original.send("keep", text="bytes")
    clone = original.clone("copy", host="gpu-a")
    wait_until(lambda: clone.info().host.name == "gpu-a", what="the clone to have moved")
    wait_until(lambda: clone.info().hook is None, what="its run to be over")
    assert clone.agent_id != original.agent_id
    assert clone.send("kept") == ("bytes", "bytes")
    common = ["one", "run at laptop", "cloning at laptop"]
    assert clone.send("log") == [*common, "clone at laptop", "arrival at gpu-a", "run at gpu-a"]
    assert original.send("log") == common
    original.send("keep", text="other")
    assert clone.send("kept") == ("bytes", "bytes")
    with pytest.raises(HandlerFailed, match="'original' already exists"):
        original.clone("original")
    for each in (original, clone):
        each.dispose()


def test_one_that_rests_outlasts_its_host_and_a_message_wakes_it(three: Mesh) -> None:
    diary = create(three, "linux-a")
    diary.deactivate()
    wait_until(lambda: diary.info().inactive, what="it to be at rest")
    row = listed(three, diary)
    assert row is not None
    assert (row["status"], row["host"]) == ("inactive", "linux-a")
    three["linux-a"].kill()
    three["linux-a"].restart()
    three.wait_joined()
    assert diary.info().inactive
    diary.post("note", text="woken")
    wait_until(lambda: not diary.info().inactive, what="it to be awake")
    wait_until(lambda: diary.info().hook is None and not diary.info().inbox, what="all to be done")
    log = diary.send("log")
    assert log[:3] == ["run at linux-a", "deactivating at linux-a", "activation at linux-a"]
    assert sorted(log[3:]) == ["run at linux-a", "woken"]
    diary.dispose()


def test_one_that_rests_is_woken_by_its_time_or_by_somebody_and_not_by_a_move(three: Mesh) -> None:
    diary = create(three, "linux-a")
    diary.deactivate(seconds=3600)
    wait_until(lambda: diary.info().inactive, what="it to be at rest")
    diary.dispatch_to("gpu-a")
    wait_until(lambda: diary.info().host.name == "gpu-a" and diary.info().hook is None, what="it to have moved")
    assert diary.info().inactive
    diary.activate()
    assert not diary.info().inactive
    diary.deactivate(seconds=0.2)
    wait_until(lambda: diary.info().state["log"].count("activation at gpu-a") == 2, what="its time to be over")
    diary.dispose()


def test_messages_that_wait_are_handled_by_priority(three: Mesh, tmp_path: Path) -> None:
    diary = create(three, "gpu-a")
    gate = tmp_path / "gate"
    diary.post("wait_for", path=str(gate))
    wait_until((tmp_path / "gate.awaited").exists, what="the first to be handled")
    for text, priority in (("a", 0), ("low", -10), ("b", 0), ("high", 10), ("c", 0)):
        diary.post(Message("note", {"text": text}, priority=priority))
    wait_until(lambda: diary.info().inbox == 6, what="all to have come")
    gate.touch()
    wait_until(lambda: diary.info().inbox == 0, what="all to be handled")
    assert diary.send("log")[1:] == ["high", "a", "b", "c", "low"]
    diary.dispose()


def test_services_and_names_are_found_from_every_host(three: Mesh) -> None:
    first, second, asker = create(three, "gpu-a", "bob"), create(three, "linux-a", "bob"), create(three, "laptop")
    client = three["linux-a"].client
    assert [each.host_name for each in client.lookup("diary")] == ["linux-a", "gpu-a", "laptop"]
    assert client.find("bob") == (second, first)
    assert asker.send("named", name="bob") == ["gpu-a", "linux-a"]
    first.dispatch_to("laptop")
    wait_until(lambda: first.info().host.name == "laptop" and first.info().hook is None)
    assert client.find("bob") == (second, first)
    asker.dispose()
    second.dispose()
    other = create(three, "gpu-a")
    assert other.send("ask_all", service="diary") == {"laptop": first.send("log")}
    first.dispose()
    other.dispose()
    assert client.lookup("diary") == ()
    schedulers = [COMPUTE_SLOTS.bind(each) for each in client.lookup("compute-slots")]
    answers = [each.call("status", SlotsStatusRequest()).host_name for each in schedulers]
    assert answers == ["linux-a", "gpu-a", "laptop"]


def test_notes_come_home_and_any_host_shows_them(three: Mesh) -> None:
    output = three.logs / "follow"
    follower = three.spawn("notes", "--follow", "--json", "--at", "linux-a", output=output)
    states = [TellingState(job_key=key, required_host_tags=("gpu",)) for key in ("a", "b")]
    submission = submit_compute_job_group(three["laptop"].client, Telling, states)
    submission.drain(timeout=PATIENCE_SECONDS)

    def told(*more: str) -> list[dict[str, Any]]:
        return list(three.paglets("notes", "--json", "--at", "gpu-a", *more).json["notes"])

    notes = three["laptop"].client.notes
    wait_until(lambda: len(notes().notes) == 2, what="the notes of the jobs to be at home")
    diary = three["laptop"].client.create(Diary, name="teller")
    diary.dispatch_to("linux-a")
    wait_until(lambda: diary.info().host.name == "linux-a")
    diary.send("tell", text="two\nlines", level="error")

    wait_until(lambda: len(notes().notes) == 3, what="all notes to be at home")
    assert told()[-1] | {"at": 0, "agent_id": ""} == {
        "at": 0,
        "level": "error",
        "text": "two\nlines",
        "host_name": "linux-a",
        "agent_id": "",
        "class_name": "model_jobs:Diary",
        "name": "teller",
        "group_id": None,
        "job_key": "",
    }
    of_group = told("--group", submission.group_id)
    assert sorted((each["job_key"], each["text"]) for each in of_group) == [
        ("a", "half of a is done"),
        ("b", "half of b is done"),
    ]
    assert {(each["level"], each["host_name"], each["group_id"]) for each in of_group} == {
        ("warning", "gpu-a", submission.group_id)
    }
    plain = three.paglets("notes", "--limit", 1).out.splitlines()
    assert plain[0].split() == ["TIME", "LEVEL", "FROM", "HOST", "NOTE"]
    assert "teller" in plain[1]
    assert "\\n" in plain[1]
    wait_until(lambda: output.read_text().count("\n") == 3, what="the follower to have all")
    assert {json.loads(line)["text"] for line in output.read_text().splitlines()} == {
        "half of a is done",
        "half of b is done",
        "two\nlines",
    }
    follower.terminate()
    follower.wait(PATIENCE_SECONDS)
    diary.dispose()
