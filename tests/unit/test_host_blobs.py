"""The bytes of one host: taken in pieces, promised, bounded, and gone when nothing needs them."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from host_rig import Rig, envelope

from paglets.api import AskBlobs, BlobState, BlobStates
from paglets.core.errors import BadRequest, Conflict, FileChanged, Invalid, NoRoom, PagletsError, TooLarge, Unknown
from paglets.core.refs import BlobRef, FileRef
from paglets.remote.exchange import Request, Response
from paglets.store import blobs, residence

DATA = b"one two three four"
PIN = 100.0


def ref(data: bytes) -> BlobRef:
    return BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


BLOB = ref(DATA)


@pytest.fixture
def rig() -> Rig:
    return Rig(piece_bytes=8, blob_pin_seconds=PIN)


def put(rig: Rig, blob: BlobRef, offset: int, piece: bytes) -> BlobState:
    target = f"/v1/blobs/{blob.sha256}?offset={offset}&size={blob.size_bytes}"
    response = rig.router.handle(Request(method="PUT", target=target, body=piece))
    assert isinstance(response, Response)
    return response.parse(BlobState)


def state(rig: Rig, *sha256s: str) -> list[tuple[int, bool]]:
    found: BlobStates = rig.get(BlobStates, "POST", "/v1/blobs/state", AskBlobs(sha256s=sha256s))
    return [(each.offset, each.complete) for each in found.blobs]


def whole(rig: Rig, sha256: str) -> bytes:
    response = rig.ask("GET", f"/v1/blobs/{sha256}?offset=0&length=1000")
    assert isinstance(response, Response)
    if response.status >= 400:
        response.json()
    return response.body


def error_of(act: Any, *args: Any) -> PagletsError:
    with pytest.raises(PagletsError) as caught:
        act(*args)
    return caught.value


def test_bytes_come_in_pieces_and_are_there_when_all_are(rig: Rig) -> None:
    assert state(rig, BLOB.sha256) == [(0, False)]
    assert put(rig, BLOB, 0, DATA[:8]).offset == 8
    assert state(rig, BLOB.sha256) == [(8, False)]
    assert isinstance(error_of(whole, rig, BLOB.sha256), Unknown)
    assert put(rig, BLOB, 8, DATA[8:]).complete
    assert whole(rig, BLOB.sha256) == DATA
    assert state(rig, BLOB.sha256) == [(len(DATA), True)]


def test_a_piece_at_another_place_is_refused_with_the_right_one(rig: Rig) -> None:
    put(rig, BLOB, 0, DATA[:8])
    for offset, piece in ((0, DATA[:8]), (4, DATA[4:8]), (9, DATA[9:])):
        error = error_of(put, rig, BLOB, offset, piece)
        assert isinstance(error, Conflict)
        assert error.details["offset"] == 8


def test_a_whole_one_that_is_sent_again_is_known(rig: Rig) -> None:
    put(rig, BLOB, 0, DATA)
    assert put(rig, BLOB, 0, DATA).complete
    assert put(rig, BLOB, 8, DATA[8:]).complete


def test_bytes_that_are_not_those_of_the_name_are_dropped(rig: Rig) -> None:
    wrong = DATA[::-1]
    put(rig, BLOB, 0, wrong[:8])
    assert isinstance(error_of(put, rig, BLOB, 8, wrong[8:]), FileChanged)
    assert state(rig, BLOB.sha256) == [(0, False)]
    assert put(rig, BLOB, 0, DATA).complete


def test_an_empty_blob_is_one_empty_piece(rig: Rig) -> None:
    assert put(rig, ref(b""), 0, b"").complete
    assert whole(rig, ref(b"").sha256) == b""


@pytest.mark.parametrize("sha256", ["", "../../etc/passwd", "AB" * 32, "ab" * 31, "ab" * 33, "%2e%2e"])
def test_what_is_no_hash_names_nothing(rig: Rig, sha256: str) -> None:
    response = rig.ask("GET", f"/v1/blobs/{sha256}")
    assert isinstance(response, Response)
    assert response.status in (404, 405, 422)
    assert rig.blobs.disk.whole == {}


def test_sizes_and_pieces_are_bounded(rig: Rig) -> None:
    assert isinstance(error_of(put, rig, BlobRef(sha256=BLOB.sha256, size_bytes=4), 0, DATA), TooLarge)
    assert isinstance(error_of(put, rig, BLOB, 8, DATA), TooLarge)
    no_size = rig.router.handle(Request(method="PUT", target=f"/v1/blobs/{BLOB.sha256}?offset=0", body=DATA))
    assert isinstance(no_size, Response)
    assert isinstance(error_of(no_size.json), BadRequest)
    assert state(rig, BLOB.sha256) == [(0, False)]


def test_a_limit_for_one_file_and_a_quota_for_all_are_told_before_bytes_are_taken() -> None:
    rig = Rig(artifact_max_bytes=100, artifact_quota_bytes=150)
    error = error_of(put, rig, ref(b"x" * 101), 0, b"x")
    assert isinstance(error, NoRoom)
    assert "artifact_max_size" in error.message
    put(rig, ref(b"y" * 90), 0, b"y" * 90)
    error = error_of(put, rig, ref(b"z" * 61), 0, b"z")
    assert isinstance(error, NoRoom)
    assert "artifact_storage_quota" in error.message
    assert put(rig, ref(b"z" * 60), 0, b"z" * 60).complete


def test_what_is_coming_counts_for_the_quota() -> None:
    rig = Rig(artifact_quota_bytes=150)
    put(rig, ref(b"y" * 90), 0, b"y")
    assert isinstance(error_of(put, rig, ref(b"z" * 61), 0, b"z"), NoRoom)


def test_a_first_piece_that_could_not_be_written_does_not_count_for_the_quota() -> None:
    rig = Rig(artifact_quota_bytes=150)
    broken = [True]

    def step(name: str) -> None:
        if broken:
            raise NoRoom("the disk is full for this user")

    rig.blobs._step = step
    assert isinstance(error_of(put, rig, ref(b"y" * 90), 0, b"y"), NoRoom)
    broken.clear()
    assert put(rig, ref(b"z" * 100), 0, b"z" * 100).complete


def test_a_full_disk_is_a_reason_that_heals() -> None:
    full = [True]
    rig = Rig()
    rig.blobs._full = lambda: full[0]
    assert isinstance(error_of(put, rig, BLOB, 0, DATA), NoRoom)
    full.clear()
    full.append(False)
    assert put(rig, BLOB, 0, DATA).complete


def test_what_nothing_needs_is_kept_as_long_as_promised_and_no_longer(rig: Rig) -> None:
    put(rig, BLOB, 0, DATA)
    rig.run(PIN * 0.9)
    state(rig, BLOB.sha256)  # which promises it anew
    rig.run(PIN * 0.9)
    assert whole(rig, BLOB.sha256) == DATA  # and so does that
    rig.run(PIN + 120)
    assert state(rig, BLOB.sha256) == [(0, False)]
    assert rig.blobs.disk.whole == {}


def test_what_something_needs_is_kept(rig: Rig) -> None:
    put(rig, BLOB, 0, DATA)
    file = FileRef(name="a", sha256=BLOB.sha256, size_bytes=BLOB.size_bytes)
    rig.write(lambda tx: residence.create(tx, envelope("p1", files=(file,)), rig.now()))
    rig.run(PIN * 5)
    assert whole(rig, BLOB.sha256) == DATA
    rig.write(lambda tx: residence.dispose(tx, "p1", rig.now()))
    rig.run(PIN + 120)
    assert rig.blobs.disk.whole == {}


def test_a_reference_without_its_bytes_cannot_be_stored(rig: Rig) -> None:
    file = FileRef(name="a", sha256=BLOB.sha256, size_bytes=BLOB.size_bytes)
    assert error_of_any(rig, envelope("p1", files=(file,)))
    assert error_of_any(rig, envelope("p1", bundle=BLOB))
    assert rig.value("SELECT count(*) FROM paglets") == 0


def error_of_any(rig: Rig, each: Any) -> bool:
    try:
        rig.write(lambda tx: residence.create(tx, each, rig.now()))
    except Exception as error:
        return "FOREIGN KEY" in str(error)
    return False


def test_partial_bytes_and_files_without_a_row_go_in_time(rig: Rig) -> None:
    put(rig, BLOB, 0, DATA[:8])
    stray = ref(b"stray")
    rig.blobs.put(b"stray")
    rig.blobs.stage("left-behind", b"staged")
    rig.run(PIN * 4 + 10)
    assert (rig.blobs.disk.whole, rig.blobs.disk.partial, rig.blobs.disk.staged) == ({}, {}, {})
    assert state(rig, stray.sha256) == [(0, False)]


def test_a_whole_file_whose_row_was_not_stored_is_found(rig: Rig) -> None:
    rig.blobs.put(DATA)
    assert state(rig, BLOB.sha256) == [(len(DATA), True)]
    assert rig.store.read(lambda tx: blobs.size(tx, BLOB.sha256)) == len(DATA)


def test_a_staged_file_becomes_a_blob_of_its_own_name_only(rig: Rig) -> None:
    rig.blobs.stage("run.1", DATA)
    with pytest.raises(Invalid):
        rig.host.keeper.publish("run.1", ref(b"shorter"))
    with pytest.raises(PagletsError):
        rig.host.keeper.publish("../run.1", BLOB)
    rig.host.keeper.publish("run.1", BLOB)
    assert whole(rig, BLOB.sha256) == DATA
