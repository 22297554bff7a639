"""Bytes go to another host before what needs them: with paglets, with posts, once, and again after trouble."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from host_rig import Rig, envelope, group, host_ref, job, slot_request

from paglets.api.blobs import AddArtifact, Artifacts, ArtifactView, BlobState, BlobStates
from paglets.api.calls import PostMessage
from paglets.api.groups import GroupView
from paglets.api.limits import LARGE_ENVELOPE_BYTES
from paglets.api.paglets import Done, MovePaglet, PagletView
from paglets.api.transfers import LargeEnvelope, TransferAnswers, Transfers
from paglets.codec.envelope import CarriedArtifact, Envelope, WireMessage
from paglets.core.errors import Conflict, FileChanged, Moved, PagletsError, Unknown
from paglets.core.record import to_json
from paglets.core.refs import ArtifactRef, BlobRef, FileRef, ProxyRef
from paglets.host.runtime.delivery import LOOK_AGAIN_SECONDS
from paglets.slots.eligibility import Reason
from paglets.store import blobs, files, posts, residence
from paglets.wire.request import PendingResponse, Response, reply
from paglets.worker.protocol import ArtifactAdd as Add
from paglets.worker.protocol import (
    ArtifactDelete,
    ArtifactFetch,
    Changes,
    EntryDone,
    Intent,
    NewArtifact,
    NoArguments,
    Publish,
    RegisteredFile,
    Report,
    ReserveSpace,
)
from tests.fakes.processes import HandProcess

DATA = b"the bytes that travel with it, in several pieces"
OTHER = b"other bytes"


def ref(data: bytes) -> BlobRef:
    return BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def file(name: str, data: bytes, **more: Any) -> FileRef:
    return FileRef(name=name, sha256=ref(data).sha256, size_bytes=len(data), **more)


def artifact(artifact_id: str, data: bytes) -> CarriedArtifact:
    return CarriedArtifact(
        artifact_id=artifact_id, name="a.db", sha256=ref(data).sha256, size_bytes=len(data), created_at=1.0
    )


@pytest.fixture
def home() -> Rig:
    return Rig(piece_bytes=10)


@pytest.fixture
def away(home: Rig) -> Rig:
    return Rig(piece_bytes=10, name="away", beside=home)


def put(rig: Rig, *data: bytes) -> None:
    for each in data:
        rig.host.blob_store.put(each)


def make(rig: Rig, each: Envelope) -> None:
    rig.write(lambda tx: residence.create(tx, each, rig.now()))


def status(rig: Rig, agent_id: str = "p1") -> str | None:
    return rig.store.read(lambda tx: getattr(residence.find(tx, agent_id), "status", None))


def move(rig: Rig, target: Rig, agent_id: str = "p1") -> None:
    """Ask for it, and play the process of the hook."""
    rig.get(Done, "POST", f"/v1/paglets/{agent_id}/dispatch", MovePaglet(target=target.settings.name))
    rig.run(0.5)
    rig.until(lambda: any(not process.ended for process in rig.launcher.of(agent_id)))
    rig.finish(rig.process(agent_id))
    rig.run(1)


def sent(rig: Rig, method: str) -> int:
    """Pieces that this host sent or asked for."""
    return sum(
        count
        for (sender, what), count in rig.network.sent.items()
        if sender == rig.settings.store_id and what.startswith(f"{method} /v1/blobs/") and "state" not in what
    )


def test_code_files_and_artifacts_are_there_when_their_paglet_arrives(home: Rig, away: Rig) -> None:
    put(home, DATA, OTHER)
    make(
        home,
        envelope("p1", bundle=ref(OTHER), files=(file("in.txt", DATA),), artifacts=(artifact("art-12345678", DATA),)),
    )
    move(home, away)
    assert (status(home), status(away)) == ("gone", "here")
    view: PagletView = away.get(PagletView, "GET", "/v1/paglets/p1")
    assert (view.bundle, view.files, view.artifacts) == (ref(OTHER), (file("in.txt", DATA),), 1)
    assert away.host.blob_store.read(ref(DATA).sha256, 0, 100) == DATA
    assert sent(home, "PUT") == 7  # 48 bytes in five pieces, 11 in two: each of them once
    go = away.process("p1").go
    assert [(each.file.name, each.path) for each in go.files] == [
        ("in.txt", f"/blobs/{ref(DATA).sha256[:2]}/{ref(DATA).sha256}")
    ]
    assert go.code is not None
    assert (go.code.bundle, go.code.folder) == (ref(OTHER), "/code")
    assert home.value("SELECT count(*) FROM files") == home.value("SELECT count(*) FROM artifacts") == 0


def test_a_hundred_jobs_that_share_an_input_send_it_once(home: Rig, away: Rig) -> None:
    put(home, DATA, OTHER)
    keys = tuple(f"k{number}" for number in range(100))
    wish = slot_request(rules={"excluded_names": ("home",)})
    wanted = group(*keys, request=wish, bundle=ref(OTHER), inputs=(file("in.txt", DATA),))
    home.get(GroupView, "POST", "/v1/groups", wanted)
    away.until(lambda: away.value("SELECT count(*) FROM requests") == 100)
    assert sent(home, "PUT") == 7
    assert away.value("SELECT count(*) FROM files") == 100


def test_a_group_is_not_stored_without_the_bytes_of_its_code_and_inputs(home: Rig) -> None:
    put(home, DATA)
    with pytest.raises(Conflict, match="send its bytes first") as caught:
        home.get(GroupView, "POST", "/v1/groups", group("a", bundle=ref(OTHER), inputs=(file("in.txt", DATA),)))
    assert caught.value.details["missing"] == [ref(OTHER).sha256]
    assert home.value("SELECT count(*) FROM requests") == 0


def test_a_job_has_the_inputs_of_the_group_and_its_own_instead(home: Rig) -> None:
    put(home, DATA, OTHER)
    wanted = group("a", "b", inputs=(file("in.txt", DATA),))
    wanted = replace(wanted, jobs=(wanted.jobs[0], replace(wanted.jobs[1], inputs=(file("in.txt", OTHER),))))
    home.get(GroupView, "POST", "/v1/groups", wanted)
    rows = home.all("SELECT r.job_key, f.sha256 FROM files f JOIN requests r USING (agent_id) ORDER BY 1")
    assert rows == [("a", ref(DATA).sha256), ("b", ref(OTHER).sha256)]


def test_the_bytes_of_a_group_are_kept_at_home_until_it_is_complete(home: Rig) -> None:
    put(home, DATA)
    home.get(GroupView, "POST", "/v1/groups", group("a", bundle=ref(DATA)))
    assert home.value("SELECT count(*) FROM group_blobs") == 1
    home.until(lambda: home.launcher.of(home.value("SELECT agent_id FROM requests")))
    process = home.process(home.value("SELECT agent_id FROM requests"))
    home.report(process)
    home.finish(process)
    home.run(20)
    assert home.value("SELECT count(*) FROM group_blobs") == 0


def test_while_its_files_are_on_their_way_a_paglet_goes_on(home: Rig, away: Rig) -> None:
    put(home, DATA)
    make(home, envelope("p1", files=(file("in.txt", DATA),)))
    away.blobs._full = lambda: True
    home.get(Done, "POST", "/v1/paglets/p1/dispatch", MovePaglet(target="away"))
    home.run(3)
    assert status(home) == "here"
    view: PagletView = home.get(PagletView, "GET", "/v1/paglets/p1")
    assert "its files cannot be sent to away" in view.reason
    assert "disk of away has 0 bytes free" in view.reason
    reply = home.call("p1", "hello")
    home.run()
    process = home.process("p1")
    home.handle(process, "still here")
    home.run()
    assert reply.value == "still here"
    home.finish(process)
    away.blobs._full = lambda: False
    home.run(LOOK_AGAIN_SECONDS * 2)
    home.finish(home.process("p1"))
    home.run(1)
    assert status(away) == "here"


def test_a_source_goes_when_its_paglet_has_arrived_and_only_as_it_was_registered(home: Rig, away: Rig) -> None:
    put(home, DATA)
    make(home, envelope("p1"))
    source = files.RegisteredSource(path="/data/out.db", mtime_ns=5, inode=7)
    home.write(lambda tx: files.register(tx, "p1", file("out.db", DATA, mode="move"), source))
    home.write(lambda tx: files.register(tx, "p1", file("log.txt", DATA, mode="copy"), source))
    home.get(Done, "POST", "/v1/paglets/p1/dispatch", MovePaglet(target="away"))
    home.run(1)
    assert home.disk.removed == []
    home.finish(home.process("p1"))
    home.run(1)
    assert status(away) == "here"
    assert [(each.path, each.size_bytes, each.mtime_ns, each.inode) for each in home.disk.removed] == [
        ("/data/out.db", len(DATA), 5, 7)
    ]
    assert home.value("SELECT count(*) FROM removals") == 0


def test_bytes_that_the_target_lost_again_are_sent_again(home: Rig, away: Rig) -> None:
    put(home, DATA)
    make(home, envelope("p1", files=(file("in.txt", DATA),)))
    home.get(Done, "POST", "/v1/paglets/p1/dispatch", MovePaglet(target="away"))
    home.run(1)
    away.write(lambda tx: blobs.forget(tx, ref(DATA).sha256))
    away.blobs.remove(ref(DATA).sha256)
    home.finish(home.process("p1"))
    home.run(LOOK_AGAIN_SECONDS + 5)
    assert status(away) == "here"
    assert sent(home, "PUT") == 10


def test_an_envelope_without_its_bytes_is_not_taken_and_nothing_is_settled(home: Rig) -> None:
    source = host_ref("w1")
    lacking = replace(envelope("p1", files=(file("in.txt", DATA),)), epoch=2)
    answer = home.write(lambda tx: residence.take(tx, lacking, source, 1.0, lambda tx, each: None))
    assert (answer.verdict, status(home)) == ("missing", None)
    put(home, DATA)
    answer = home.write(lambda tx: residence.take(tx, lacking, source, 1.0, lambda tx, each: None))
    assert (answer.verdict, status(home)) == ("taken", "here")


def test_a_large_envelope_travels_as_a_blob() -> None:
    big = Rig(name="big", beside=Rig(name="from"))
    source = big.together[0]
    make(source, envelope("p1", state={"text": "x" * (LARGE_ENVELOPE_BYTES + 1)}))
    move(source, big)
    big.run(5)
    assert (status(source), status(big)) == ("gone", "here")
    assert len(big.state_of("p1")["text"]) == LARGE_ENVELOPE_BYTES + 1
    assert sent(source, "PUT") == 1


def test_a_large_envelope_that_was_taken_is_not_read_again() -> None:
    rig = Rig(name="big")
    rig.write(lambda tx: residence.create(tx, envelope("p1", epoch=4), rig.now()))
    large = LargeEnvelope(agent_id="p1", epoch=4, blob=BlobRef(sha256="0" * 64, size_bytes=1 << 30))
    asked = Transfers(source=host_ref("from"), envelopes=(), large=(large,))
    (answer,) = rig.get(TransferAnswers, "POST", "/v1/transfers", asked).answers
    assert (answer.verdict, answer.epoch) == ("taken", 4)


# Posts and artifacts.


def send(rig: Rig, target: ProxyRef, data: bytes, artifact_id: str = "art-12345678") -> None:
    carried = ArtifactRef(
        artifact_id=artifact_id,
        name="a.db",
        size_bytes=len(data),
        sha256=ref(data).sha256,
        host_name="away",
        owner=target.agent_id,
        created_at=2.0,
        expires_at=102.0,
    )
    message = WireMessage(kind="here", args={}, artifacts=(carried,))
    rig.get(Done, "POST", "/v1/outbox", PostMessage(target=target, message=message, token=artifact_id))
    rig.run(1)


def test_a_post_is_delivered_with_the_bytes_of_its_artifacts(home: Rig, away: Rig) -> None:
    put(home, DATA)
    make(away, envelope("p1"))
    send(home, ProxyRef(agent_id="p1", host=away.own), DATA)
    page: Artifacts = home.get(Artifacts, "GET", "/v1/artifacts")
    assert page.artifacts == ()
    page = away.get(Artifacts, "GET", "/v1/artifacts?owner=p1")
    (found,) = page.artifacts
    assert (found.artifact_id, found.name, found.host_name, found.owner) == ("art-12345678", "a.db", "away", "p1")
    assert found.expires_at is not None
    assert away.process("p1").deliveries[0].message.artifacts[0].sha256 == ref(DATA).sha256
    assert home.value("SELECT count(*) FROM outbox_blobs") == 0


def test_a_post_with_bytes_finds_a_paglet_that_has_left_a_host_which_is_gone(home: Rig, away: Rig) -> None:
    put(home, DATA)
    make(away, envelope("p1"))
    gone = home.peer("gone").ref
    home.network.leave(gone.url)
    home.run(20)
    send(home, ProxyRef(agent_id="p1", host=gone), DATA)
    home.run(30)
    assert home.all("SELECT problem FROM outbox") == []
    assert away.process("p1").deliveries[0].message.artifacts[0].sha256 == ref(DATA).sha256


def test_posts_without_bytes_pass_one_whose_bytes_cannot_be_sent(home: Rig, away: Rig) -> None:
    put(home, DATA)
    make(away, envelope("p1"))
    away.blobs._full = lambda: True
    send(home, ProxyRef(agent_id="p1", host=away.own), DATA)
    home.write(lambda tx: posts.send(tx, ProxyRef(agent_id="p1", host=away.own), WireMessage(kind="b", args={}), 1.0))
    home.run(1)
    assert away.all("SELECT json_extract(message, '$.kind') FROM inbox") == [("b",)]
    (problem,) = home.all("SELECT problem FROM outbox")
    assert "cannot be sent to away" in problem[0]
    away.blobs._full = lambda: False
    home.run(10)
    assert home.value("SELECT count(*) FROM outbox") == 0


def test_a_post_of_a_client_needs_the_bytes_on_its_host_first(home: Rig) -> None:
    make(home, envelope("p1"))
    with pytest.raises(Conflict, match="send its bytes first"):
        send(home, ProxyRef(agent_id="p1", host=home.own), DATA)
    assert home.value("SELECT count(*) FROM outbox") == 0


def test_the_artifacts_of_a_report_become_the_collectors(home: Rig, away: Rig) -> None:
    home.get(GroupView, "POST", "/v1/groups", group("a", request=slot_request(rules={"excluded_names": ("away",)})))
    agent_id = home.value("SELECT agent_id FROM requests")
    home.until(lambda: home.launcher.of(agent_id))
    process = home.process(agent_id)
    folder = home.answer(process, "reserve_space", ReserveSpace(staged="run.1", size_bytes=len(DATA)))["ok"]["folder"]
    assert folder == home.blobs.staging()
    home.blobs.stage("run.1", DATA)
    home.answer(process, "publish", Publish(staged="run.1", blob=ref(DATA)))
    new = NewArtifact(artifact_id="art-12345678", name="result.db", blob=ref(DATA), created_at=3.0)
    large = replace(new, artifact_id="art-87654321", name="result.json")
    home.answer(process, "report", Report(success=True, result={"n": 1}, artifact=new, stored=(large,)))
    home.finish(process)
    home.run(5)
    assert seen(home, large.artifact_id).artifact.owner == home.value("SELECT collector_id FROM groups")
    view = seen(home)
    assert (view.host.name, view.artifact.owner) == ("away", home.value("SELECT collector_id FROM groups"))
    assert away.host.blob_store.read(ref(DATA).sha256, 0, 100) == DATA


def seen(rig: Rig, artifact_id: str = "art-12345678") -> ArtifactView:
    """What the mesh answers."""
    answer = rig.ask("GET", f"/v1/artifacts/{artifact_id}")
    rig.run(6)
    response = answer if isinstance(answer, Response) else answer.response
    assert response is not None
    return response.parse(ArtifactView)


def test_a_result_whose_bytes_were_never_published_is_not_an_outcome(home: Rig) -> None:
    make(home, job("j1"))
    home.run()
    process = home.process("j1")
    new = NewArtifact(artifact_id="art-12345678", name="result.db", blob=ref(DATA), created_at=3.0)
    assert "error" in home.answer(process, "report", Report(success=True, artifact=new))
    assert home.value("SELECT outcome FROM job_states") is None
    assert home.report(process)["ok"] == {"accepted": True}


def test_a_host_that_answers_nonsense_of_an_artifact_has_none(home: Rig) -> None:
    home.peer("liar").routes["GET /v1/artifacts/art-12345678"] = lambda body: Done()
    with pytest.raises(Unknown):
        seen(home)


def test_a_deletion_whose_first_reply_was_lost_is_done(home: Rig) -> None:
    def no_more(body: Any) -> Done:
        raise Unknown("there is no artifact art-12345678 here")

    peer = home.peer("w1")
    found = ArtifactRef(
        artifact_id="art-12345678", name="x", size_bytes=1, sha256="0" * 64, host_name="w1", owner="", created_at=1.0
    )
    peer.routes["GET /v1/artifacts/art-12345678"] = lambda body: ArtifactView(artifact=found, host=peer.ref)
    peer.routes["DELETE /v1/artifacts/art-12345678"] = no_more
    answer = home.ask("DELETE", "/v1/artifacts/art-12345678")
    home.run(6)
    assert isinstance(answer, PendingResponse)
    assert answer.response is not None
    assert answer.response.parse(Done) == Done()


def test_a_paglet_adds_fetches_and_deletes_artifacts(home: Rig, away: Rig) -> None:
    put(away, DATA)
    put(home, OTHER)
    make(home, envelope("p1", hook="run"))
    add = AddArtifact(artifact_id="art-far00000", name="far.db", sha256=ref(DATA).sha256, size_bytes=len(DATA))
    away.get(ArtifactRef, "POST", "/v1/artifacts", add)
    home.run()
    process = home.process("p1")
    own = NewArtifact(artifact_id="art-own00000", name="own.db", blob=ref(OTHER), created_at=3.0)
    made = home.answer(process, "artifact_add", Add(artifact=own))["ok"]
    assert (made["owner"], made["host_name"], made["name"]) == ("p1", "home", "own.db")
    number = process.ask("artifact_fetch", ArtifactFetch(artifact_id="art-far00000"))
    home.run(5)
    fetched = process.reply(number)["ok"]
    assert fetched["path"] == home.blobs.path(ref(DATA).sha256)
    assert home.blobs.disk.whole[ref(DATA).sha256] == DATA
    assert sent(home, "GET") == 5
    for artifact_id in ("art-far00000", "art-own00000"):
        number = process.ask("artifact_delete", ArtifactDelete(artifact_id=artifact_id))
        home.run(6)
        assert "ok" in process.reply(number)
    assert home.value("SELECT count(*) FROM artifacts") == away.value("SELECT count(*) FROM artifacts") == 0
    number = process.ask("artifact_fetch", ArtifactFetch(artifact_id="art-far00000"))
    home.run(6)
    assert process.reply(number)["error"]["code"] == "unknown"


def test_an_artifact_of_a_paglet_is_made_where_that_is(home: Rig, away: Rig) -> None:
    put(home, DATA)
    put(away, DATA)
    make(home, envelope("p1"))
    move(home, away)
    add = AddArtifact(artifact_id="art-12345678", name="x", sha256=ref(DATA).sha256, size_bytes=len(DATA), owner="p1")
    with pytest.raises(Moved):
        home.get(ArtifactRef, "POST", "/v1/artifacts", add)
    first = away.get(ArtifactRef, "POST", "/v1/artifacts", add)
    assert away.get(ArtifactRef, "POST", "/v1/artifacts", add) == first
    with pytest.raises(PagletsError):
        away.get(ArtifactRef, "POST", "/v1/artifacts", replace(add, owner=""))


def test_artifacts_go_with_their_owner_and_end_with_it(home: Rig, away: Rig) -> None:
    put(home, DATA)
    make(home, envelope("p1", artifacts=(artifact("art-12345678", DATA),)))
    move(home, away)
    assert home.value("SELECT count(*) FROM artifacts") == 0
    assert seen(home).host.name == "away"
    away.write(lambda tx: residence.dispose(tx, "p1", 1.0))
    with pytest.raises(Unknown):
        seen(home)


def test_an_artifact_ends_when_its_time_is_over(home: Rig) -> None:
    put(home, DATA)
    add = AddArtifact(
        artifact_id="art-12345678",
        name="x",
        sha256=ref(DATA).sha256,
        size_bytes=len(DATA),
        expires_in_seconds=30.0,
    )
    home.get(ArtifactRef, "POST", "/v1/artifacts", add)
    home.run(29)
    assert home.value("SELECT count(*) FROM artifacts") == 1
    home.run(2)
    assert home.value("SELECT count(*) FROM artifacts") == 0


def test_an_artifact_of_a_paglet_that_is_leaving_is_not_deleted_here(home: Rig, away: Rig) -> None:
    put(home, DATA)
    make(home, envelope("p1", artifacts=(artifact("art-12345678", DATA),)))
    home.write(lambda tx: residence.leave(tx, "p1", host_ref("nobody"), 1.0))
    response = home.ask("DELETE", "/v1/artifacts/art-12345678?here=1")
    assert isinstance(response, Response)
    assert response.status >= 400
    assert home.value("SELECT count(*) FROM artifacts") == 1


def test_registered_files_are_committed_with_what_registered_them(home: Rig) -> None:
    put(home, DATA, OTHER)
    make(home, envelope("p1", hook="creation"))
    home.run()
    process = home.process("p1")
    registered = RegisteredFile(file=file("out.db", DATA), source_path="/x", source_mtime_ns=1, source_inode=2)
    home.finish(process, changes=Changes(files=(registered,)))
    view: PagletView = home.get(PagletView, "GET", "/v1/paglets/p1")
    assert view.files == (file("out.db", DATA, registered=True),)


def test_a_further_attempt_begins_without_the_files_of_an_earlier_one(home: Rig) -> None:
    put(home, DATA, OTHER)
    make(home, job("j1", request=slot_request(max_attempts=3), collector=None, group_id=None))
    home.write(lambda tx: files.add(tx, "j1", [file("in.txt", OTHER)]))
    home.run()
    for expected in (["in.txt"], ["in.txt"], ["in.txt", "kept.db"]):
        process = home.process("j1")
        assert [each.file.name for each in process.go.files] == expected
        name, op = ("out.db", "commit") if process.go.stamp.attempt == 1 else ("kept.db", "checkpoint")
        registered = RegisteredFile(file=file(name, DATA), source_path="/x", source_mtime_ns=1, source_inode=2)
        answer = home.answer(process, op, {"changes": to_json(Changes(files=(registered,)))})
        assert "ok" in answer
        process.exit(code=1)
        home.run()


def test_a_finished_job_keeps_its_scratch_while_it_is_to_move(home: Rig, away: Rig) -> None:
    make(home, job("j1", collector=None, group_id=None))
    home.run()
    process = home.process("j1")
    home.network.part(("store-home",), ("store-away",))
    home.run(60)
    home.answer(process, "done", EntryDone(intent=Intent(move=away.own)))
    process.exit()
    home.run(5)
    assert home.disk.scratch_ids() == ("j1",)
    view: PagletView = home.get(PagletView, "GET", "/v1/paglets/j1")
    assert view.reason == "it moves to away once that host is online"


def test_a_move_to_a_host_whose_disk_is_full_does_not_begin_before_that_has_room(home: Rig, away: Rig) -> None:
    make(home, job("j1", collector=None, group_id=None))
    home.run()
    process = home.process("j1")
    away.disk.held = Reason(code="disk_full", text="the disk of work is full")
    home.run(30)
    home.answer(process, "done", EntryDone(intent=Intent(move=away.own)))
    process.exit()
    home.run(5)
    view: PagletView = home.get(PagletView, "GET", "/v1/paglets/j1")
    assert view.residence == "here"
    assert view.reason.startswith("it moves to away once that host has room: the disk of work is full")
    away.disk.held = None
    home.run(60)
    dispatching = home.process("j1")
    home.answer(dispatching, "done", EntryDone())
    dispatching.exit()
    home.run(5)
    moved = home.store.read(lambda tx: residence.find(tx, "j1"))
    assert moved is not None
    assert moved.status == "gone"


# Damage on the way


def lose_the_end(rig: Rig) -> None:
    rig.blobs.disk.whole[ref(DATA).sha256] = DATA[:25]


def spoil(rig: Rig) -> None:
    """The bytes are others, as many as before."""
    rig.blobs.disk.whole[ref(DATA).sha256] = DATA[::-1]


@pytest.mark.parametrize("damage", [lose_the_end, spoil])
def test_a_paglet_with_damaged_bytes_stays_until_they_are_replaced(
    home: Rig, away: Rig, damage: Callable[[Rig], None]
) -> None:
    put(home, DATA)
    make(home, envelope("p1", files=(file("in.txt", DATA),)))
    damage(home)
    home.get(Done, "POST", "/v1/paglets/p1/dispatch", MovePaglet(target="away"))
    home.run(60)
    assert sent(home, "PUT") < 100
    view: PagletView = home.get(PagletView, "GET", "/v1/paglets/p1")
    assert "on home are damaged" in view.reason
    put(home, DATA)
    home.until(lambda: home.launcher.of("p1"))
    home.finish(home.process("p1"))
    home.run(1)
    assert status(away) == "here"
    assert away.host.blob_store.read(ref(DATA).sha256, 0, 100) == DATA


def test_a_host_that_takes_nothing_of_a_piece_is_not_sent_it_again_at_once(home: Rig) -> None:
    nothing = BlobState(sha256=ref(DATA).sha256, offset=0, complete=False)
    peer = home.peer("w1", {"POST /v1/blobs/state": lambda body: BlobStates(blobs=(nothing,))})
    home.network.join(
        peer.ref.url,
        peer.ref.store_id,
        lambda request: reply(nothing) if request.method == "PUT" else peer.handle(request),
    )
    put(home, DATA)
    make(home, envelope("p1", files=(file("in.txt", DATA),)))
    home.get(Done, "POST", "/v1/paglets/p1/dispatch", MovePaglet(target="w1"))
    home.run(60)
    assert 1 < sent(home, "PUT") < 100
    view: PagletView = home.get(PagletView, "GET", "/v1/paglets/p1")
    assert "w1 stored none" in view.reason


@pytest.mark.parametrize("damage", [lose_the_end, spoil])
def test_a_fetch_of_a_damaged_artifact_fails_until_its_bytes_are_replaced(
    home: Rig, away: Rig, damage: Callable[[Rig], None]
) -> None:
    put(away, DATA)
    add = AddArtifact(artifact_id="art-12345678", name="x", sha256=ref(DATA).sha256, size_bytes=len(DATA))
    away.get(ArtifactRef, "POST", "/v1/artifacts", add)
    damage(away)
    got: list[Any] = []
    home.host.blob_fetcher.fetch("art-12345678", got.append)
    home.run(60)
    assert [type(each) for each in got] == [FileChanged]
    assert "on away are damaged" in got[0].message
    assert sent(home, "GET") < 20
    put(away, DATA)
    home.host.blob_fetcher.fetch("art-12345678", got.append)
    home.run(6)
    assert got[1].sha256 == ref(DATA).sha256
    damage(home)
    home.host.blob_store.check(ref(DATA).sha256)
    home.host.blob_fetcher.fetch("art-12345678", got.append)  # and it comes anew
    home.run(6)
    assert home.host.blob_store.read(ref(DATA).sha256, 0, 100) == DATA


def test_damaged_bytes_of_an_artifact_that_is_here_are_told(home: Rig) -> None:
    put(home, DATA)
    add = AddArtifact(artifact_id="art-12345678", name="x", sha256=ref(DATA).sha256, size_bytes=len(DATA))
    home.get(ArtifactRef, "POST", "/v1/artifacts", add)
    lose_the_end(home)
    got: list[Any] = []
    home.host.blob_fetcher.fetch("art-12345678", got.append)
    home.run(1)
    assert "on home are damaged" in got[0].message


# What a run publishes


@pytest.fixture
def short() -> Rig:
    """Promises by the clock are short."""
    return Rig(blob_pin_seconds=100.0)


def published(rig: Rig, process: HandProcess, data: bytes) -> BlobRef:
    rig.blobs.stage("run.1", data)
    assert rig.answer(process, "publish", Publish(staged="run.1", blob=ref(data))) == {"reply": 1, "ok": {}}
    return ref(data)


def is_kept(rig: Rig, data: bytes) -> bool:
    return rig.store.read(lambda tx: blobs.size(tx, ref(data).sha256)) is not None


def test_what_a_run_published_is_kept_until_it_says_what_it_is_for(short: Rig) -> None:
    make(short, envelope("p1", hook="creation"))
    short.run()
    process = short.process("p1")
    published(short, process, DATA)
    short.run(1000)
    registered = RegisteredFile(file=file("out.db", DATA), source_path="/x", source_mtime_ns=1, source_inode=2)
    short.finish(process, changes=Changes(files=(registered,)))
    view: PagletView = short.get(PagletView, "GET", "/v1/paglets/p1")
    assert view.files == (file("out.db", DATA, registered=True),)


def test_what_a_run_published_for_nothing_goes_after_its_end(short: Rig) -> None:
    make(short, envelope("p1", hook="creation"))
    short.run()
    process = short.process("p1")
    published(short, process, DATA)
    short.run(1000)
    assert is_kept(short, DATA)
    process.exit(code=1)
    short.run(300)
    assert not is_kept(short, DATA)


def test_what_a_run_said_what_it_is_for_is_not_kept_for_the_run(short: Rig) -> None:
    make(short, envelope("p1", hook="creation"))
    short.run()
    process = short.process("p1")
    blob = published(short, process, DATA)
    new = NewArtifact(artifact_id="art-12345678", name="x", blob=blob, created_at=1.0)
    assert "ok" in short.answer(process, "artifact_add", Add(artifact=new))
    number = process.ask("artifact_delete", ArtifactDelete(artifact_id="art-12345678"))
    short.run(300)
    assert "ok" in process.reply(number)
    assert not is_kept(short, DATA)
    assert not process.ended


def test_the_runner_waits_for_no_disk_when_a_run_publishes_or_fetches(home: Rig) -> None:
    put(home, OTHER)
    add = AddArtifact(artifact_id="art-12345678", name="x", sha256=ref(OTHER).sha256, size_bytes=len(OTHER))
    home.get(ArtifactRef, "POST", "/v1/artifacts", add)
    make(home, envelope("p1", hook="creation"))
    home.run()
    process = home.process("p1")
    acts: list[Callable[[], None]] = []
    home.blobs.run_in_background = acts.append  # type: ignore[method-assign]
    home.blobs.stage("run.1", DATA)
    numbers = [
        process.ask("publish", Publish(staged="run.1", blob=ref(DATA))),
        process.ask("artifact_fetch", ArtifactFetch(artifact_id="art-12345678")),
        process.ask("hosts", NoArguments()),
    ]
    home.run(10)
    assert "ok" in process.reply(numbers[2])
    assert not is_kept(home, DATA)
    for act in acts:
        act()
    home.run()
    assert process.reply(numbers[0])["ok"] == {}
    assert process.reply(numbers[1])["ok"]["path"].endswith(ref(OTHER).sha256)
