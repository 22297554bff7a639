"""What a paglet's process may not do: name bytes that are not here, ids of others, times that are none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from host_rig import Rig, envelope, host_ref, job
from test_host_bytes_travel import DATA, OTHER, artifact, file, make, put, ref

from paglets.codec.envelope import WireMessage
from paglets.core.refs import ArtifactRef, ProxyRef
from paglets.worker.protocol import (
    ArtifactAdd,
    Changes,
    Commit,
    Create,
    EntryDone,
    NewArtifact,
    OutgoingPost,
    RegisteredFile,
    Report,
    ReserveSpace,
)
from tests.fakes.processes import HandProcess

ABSENT = b"bytes that were never published"


@pytest.fixture
def rig() -> Rig:
    rig = Rig()
    put(rig, DATA, OTHER)
    make(rig, envelope("p1", hook="run"))
    make(rig, job("j1"))
    rig.run()
    return rig


def new(data: bytes, **more: Any) -> NewArtifact:
    return NewArtifact(artifact_id="art-12345678", name="x", blob=ref(data), created_at=1.0, **more)


def with_file(data: bytes) -> Changes:
    found = RegisteredFile(file=file("f", data), source_path="/x", source_mtime_ns=1, source_inode=1)
    return Changes(has_state=True, state={"n": 2}, files=(found,))


def with_post(data: bytes) -> Changes:
    sent = ArtifactRef(
        artifact_id="art-12345678",
        name="x",
        size_bytes=len(data),
        sha256=ref(data).sha256,
        host_name="w1",
        owner="q",
        created_at=1.0,
    )
    target = ProxyRef(agent_id="q", host=host_ref("w1"))
    post = OutgoingPost(target=target, message=WireMessage(kind="k", args={}, artifacts=(sent,)))
    return Changes(has_state=True, state={"n": 2}, posts=(post,))


@pytest.mark.parametrize(
    ("agent_id", "op", "args"),
    [
        ("p1", "artifact_add", ArtifactAdd(artifact=new(ABSENT))),
        ("p1", "commit", Commit(changes=with_file(ABSENT))),
        ("p1", "commit", Commit(changes=with_post(ABSENT))),
        ("p1", "done", EntryDone(changes=with_file(ABSENT))),
        ("j1", "report", Report(success=True, artifact=new(ABSENT))),
        ("j1", "report", Report(success=True, changes=with_post(ABSENT))),
    ],
)
def test_bytes_that_are_not_here_are_named_and_nothing_is_changed(rig: Rig, agent_id: str, op: str, args: Any) -> None:
    error = rig.answer(rig.process(agent_id), op, args)["error"]
    assert error["code"] == "conflict"
    assert error["details"]["missing"] == [ref(ABSENT).sha256]
    assert "send its bytes first" in error["message"]
    assert rig.state_of("p1") == {"n": 1}
    assert rig.value("SELECT outcome FROM job_states") is None
    assert rig.value("SELECT count(*) FROM outbox") == 0
    assert rig.faults() == []


def add(rig: Rig, process: HandProcess, made: NewArtifact) -> dict[str, Any]:
    return rig.answer(process, "artifact_add", ArtifactAdd(artifact=made))


def test_an_artifact_is_added_once_and_its_id_is_no_others(rig: Rig) -> None:
    process = rig.process("p1")
    first = add(rig, process, new(DATA, expires_in_seconds=60.0))["ok"]
    assert first["expires_at"] == pytest.approx(rig.now() + 60.0)
    assert add(rig, process, new(DATA, expires_in_seconds=60.0))["ok"] == first
    assert add(rig, process, new(OTHER))["error"]["code"] == "invalid"
    make(rig, envelope("p2", artifacts=(artifact("art-22222222", DATA),)))
    other = NewArtifact(artifact_id="art-22222222", name="x", blob=ref(DATA), created_at=1.0)
    assert "another artifact" in add(rig, process, other)["error"]["message"]
    assert rig.value("SELECT count(*) FROM artifacts") == 2


@pytest.mark.parametrize("seconds", [0.0, -5.0, 1e300])
def test_an_artifact_lasts_for_a_time_that_can_be(rig: Rig, seconds: float) -> None:
    made = new(DATA, expires_in_seconds=seconds)
    assert add(rig, rig.process("p1"), made)["error"]["code"] == "invalid"
    error = rig.answer(rig.process("j1"), "report", Report(success=True, artifact=made))["error"]
    assert error["code"] == "invalid"


def test_room_that_a_process_had_asked_for_is_free_when_it_has_ended() -> None:
    rig = Rig(artifact_quota_bytes=100)
    for agent_id in ("p1", "p2"):
        make(rig, envelope(agent_id, hook="run"))
    rig.run()
    one, two = rig.process("p1"), rig.process("p2")
    assert "ok" in rig.answer(one, "reserve_space", ReserveSpace(staged="one.1", size_bytes=60))
    assert "ok" not in rig.answer(two, "reserve_space", ReserveSpace(staged="two.1", size_bytes=60))
    one.exit()
    rig.run(1)
    assert "ok" in rig.answer(two, "reserve_space", ReserveSpace(staged="two.1", size_bytes=60))


def test_a_paglet_that_would_have_the_id_of_another_one_is_refused(rig: Rig) -> None:
    process = rig.process("p1")
    new = Create(nth=1, class_name="m:D", kind="paglet", state={})
    assert "ok" in rig.answer(process, "create", new)
    assert rig.answer(process, "create", replace(new, class_name="m:E"))["error"]["code"] == "conflict"
    assert rig.value("SELECT count(*) FROM paglets WHERE class_name = 'm:E'") == 0
