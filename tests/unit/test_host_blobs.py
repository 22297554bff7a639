"""The bytes of one host: taken in pieces, promised, bounded, and gone when nothing needs them."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from host_rig import Rig, envelope

from paglets.api.blobs import AddArtifact, AskBlobs, BlobState, BlobStates
from paglets.core.errors import BadRequest, Conflict, FileChanged, Invalid, NoRoom, PagletsError, TooLarge, Unknown
from paglets.core.refs import ArtifactRef, BlobRef, FileRef
from paglets.host.blobs.blob_store import BlobPins, BlobStore
from paglets.host.blobs.quota import FREE_BYTES, RESERVED_SECONDS
from paglets.host.runtime.services import HostServices
from paglets.store import blobs, residence
from paglets.store.db import Store
from paglets.store.migrations.steps import migrate
from paglets.wire.request import Request, Response
from tests.fakes.blobs import DISK_BYTES, MemoryBlobs, MemoryDisk
from tests.fakes.clock import FakeClock
from tests.fakes.logs import logger_to

DATA = b"one two three four"
PIN = 100.0
RUN = "the token of a run"


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


def test_a_whole_file_whose_row_was_not_stored_counts_when_it_is_sent_again(rig: Rig) -> None:
    rig.blobs.put(DATA)
    assert state(rig, BLOB.sha256) == [(0, False)]
    assert put(rig, BLOB, 0, DATA[:8]).complete
    assert rig.store.read(lambda tx: blobs.size(tx, BLOB.sha256)) == len(DATA)


def test_a_staged_file_becomes_a_blob_of_its_own_name_only(rig: Rig) -> None:
    rig.blobs.stage("run.1", DATA)
    with pytest.raises(Invalid):
        rig.host.blob_store.publish("run.1", ref(b"shorter"))
    with pytest.raises(PagletsError):
        rig.host.blob_store.publish("../run.1", BLOB)
    rig.host.blob_store.publish("run.1", BLOB)
    assert whole(rig, BLOB.sha256) == DATA


@pytest.mark.parametrize("left", [DATA[:5], None])
def test_what_the_disk_lost_is_told_and_may_be_sent_again(rig: Rig, left: bytes | None) -> None:
    put(rig, BLOB, 0, DATA)
    rig.blobs.remove(BLOB.sha256)
    if left is not None:
        rig.blobs.disk.whole[BLOB.sha256] = left
    assert isinstance(error_of(whole, rig, BLOB.sha256), FileChanged)
    wanted = AddArtifact(artifact_id="art-00000001", name="n", sha256=BLOB.sha256, size_bytes=BLOB.size_bytes, owner="")
    error = error_of(rig.get, ArtifactRef, "POST", "/v1/artifacts", wanted)
    assert error.details["missing"] == [BLOB.sha256]
    assert state(rig, BLOB.sha256) == [(0, False)]
    assert put(rig, BLOB, 0, DATA).complete
    assert whole(rig, BLOB.sha256) == DATA


def test_a_piece_that_announces_another_size_is_held_against_the_limits_anew() -> None:
    rig = Rig(piece_bytes=8, artifact_max_bytes=len(DATA))
    put(rig, BLOB, 0, DATA[:8])
    longer = BlobRef(sha256=BLOB.sha256, size_bytes=len(DATA) + 1)
    assert isinstance(error_of(put, rig, longer, 8, DATA[8:]), NoRoom)
    assert put(rig, BLOB, 8, DATA[8:]).complete


# What is on its way


def test_two_files_that_are_written_at_once_do_not_share_the_room_of_one() -> None:
    rig = Rig(artifact_quota_bytes=100)
    rig.host.blob_store.staging("run.1", 80, RUN)
    rig.host.blob_store.staging("run.1", 80, RUN)  # asked again
    assert isinstance(error_of(rig.host.blob_store.staging, "run.2", 80, RUN), NoRoom)
    rig.host.blob_store.staging("run.2", 20, RUN)
    publish(rig, "run.1", b"y" * 80)
    assert isinstance(error_of(rig.host.blob_store.staging, "run.3", 1, RUN), NoRoom)
    rig.run(RESERVED_SECONDS + 1)
    rig.host.blob_store.staging("run.3", 20, RUN)  # nobody heard of the second one for long


def test_the_room_of_a_run_ends_with_it() -> None:
    rig = Rig(artifact_quota_bytes=100)
    rig.host.blob_store.staging("run.1", 60, RUN)
    rig.blobs.stage("run.1", b"x" * 10)
    rig.host.blob_store.run_ended("another")
    assert isinstance(error_of(rig.host.blob_store.staging, "run.2", 90, "another"), NoRoom)
    rig.host.blob_store.run_ended(RUN)
    assert isinstance(error_of(rig.host.blob_store.staging, "run.2", 91, "another"), NoRoom)  # what lies there counts
    rig.host.blob_store.staging("run.2", 90, "another")


def test_a_file_of_less_than_no_bytes_makes_no_room() -> None:
    rig = Rig(artifact_quota_bytes=100)
    assert isinstance(error_of(rig.host.blob_store.staging, "run.1", -1000, RUN), Invalid)
    assert isinstance(error_of(rig.host.blob_store.staging, "run.2", 101, RUN), NoRoom)


def publish(rig: Rig, staged: str, data: bytes) -> None:
    rig.blobs.stage(staged, data)
    rig.host.blob_store.publish(staged, ref(data))


def test_a_staged_file_that_became_too_large_is_refused_when_it_is_published() -> None:
    rig = Rig(artifact_max_bytes=100, artifact_quota_bytes=150)
    rig.host.blob_store.staging("run.1", 10, RUN)
    assert "artifact_max_size" in error_of(publish, rig, "run.1", b"x" * 101).message
    publish(rig, "run.2", b"y" * 90)
    assert "artifact_storage_quota" in error_of(publish, rig, "run.3", b"z" * 61).message
    assert rig.store.read(blobs.total_bytes) == 90
    publish(rig, "run.4", b"y" * 90)  # which is here


def test_the_disk_has_room_for_what_comes_beside_what_is_on_its_way() -> None:
    rig = Rig()
    half = (DISK_BYTES - FREE_BYTES) // 2
    rig.host.blob_store.staging("run.1", half, RUN)
    rig.blobs.stage("run.1", b"x" * 1000)  # what lies there is not counted twice
    rig.host.blob_store.staging("run.2", half, RUN)
    assert isinstance(error_of(put, rig, BLOB, 0, DATA), NoRoom)


def test_bytes_that_somebody_removed_from_the_disk_are_not_told_to_be_here_for_long(rig: Rig) -> None:
    put(rig, BLOB, 0, DATA[:8])
    put(rig, BLOB, 8, DATA[8:16])
    assert put(rig, BLOB, 16, DATA[16:]).complete
    rig.blobs.disk.whole.clear()
    rig.run(PIN / 2)
    assert rig.value("SELECT count(*) FROM blobs") == 0


def test_a_renamed_file_needs_no_further_room_and_a_copy_does() -> None:
    rig = Rig()
    size = DISK_BYTES - FREE_BYTES + 1
    rig.host.blob_store.staging("run.1", size, RUN, on_disk=True)
    rig.host.blob_store.staging("run.2", size - 1, RUN)  # what is moved leaves the room to others
    assert isinstance(error_of(rig.host.blob_store.staging, "run.1", size, RUN), NoRoom)


def test_only_a_file_that_never_fits_is_refused_for_good() -> None:
    rig = Rig(artifact_max_bytes=200, artifact_quota_bytes=100)
    rig.host.blob_store.staging("run.1", 60, RUN)
    for size, passes in ((60, True), (101, False), (201, False)):
        error = error_of(rig.host.blob_store.staging, "run.2", size, RUN)
        assert isinstance(error, NoRoom)
        assert error.passes is passes


def test_of_a_transfer_that_nobody_goes_on_with_only_what_is_here_counts() -> None:
    rig = Rig(artifact_quota_bytes=150)
    put(rig, ref(b"y" * 90), 0, b"y" * 10)
    assert isinstance(error_of(put, rig, ref(b"z" * 140), 0, b"z"), NoRoom)
    rig.run(RESERVED_SECONDS + 1)
    assert isinstance(error_of(put, rig, ref(b"z" * 141), 0, b"z"), NoRoom)
    put(rig, ref(b"z" * 140), 0, b"z")
    assert isinstance(error_of(put, rig, ref(b"y" * 90), 10, b"y"), NoRoom)
    assert state(rig, ref(b"y" * 90).sha256) == [(10, False)]  # it may go on when there is room


# Damage


@pytest.mark.parametrize("left", [None, b"", DATA[:5], DATA + b"?"])
def test_a_file_that_the_disk_has_lost_or_cut_is_not_here_and_comes_anew(rig: Rig, left: bytes | None) -> None:
    put(rig, BLOB, 0, DATA)
    damage(rig, left)
    assert state(rig, BLOB.sha256) == [(0, False)]
    assert put(rig, BLOB, 0, DATA[:8]) == BlobState(sha256=BLOB.sha256, offset=8, complete=False)
    assert put(rig, BLOB, 8, DATA[8:]).complete
    assert whole(rig, BLOB.sha256) == DATA


def damage(rig: Rig, left: bytes | None) -> None:
    rig.blobs.disk.whole.pop(BLOB.sha256)
    if left is not None:
        rig.blobs.disk.whole[BLOB.sha256] = left


@pytest.mark.parametrize("mend", [lambda rig: rig.host.blob_store.put(DATA), lambda rig: publish(rig, "run.1", DATA)])
@pytest.mark.parametrize("left", [None, DATA[:5], DATA[::-1]])
def test_bytes_made_here_take_the_place_of_damaged_ones(
    rig: Rig, mend: Callable[[Rig], object], left: bytes | None
) -> None:
    put(rig, BLOB, 0, DATA)
    damage(rig, left)
    rig.get(BlobStates, "POST", "/v1/blobs/state", AskBlobs(sha256s=(BLOB.sha256,), check=True))
    mend(rig)
    assert whole(rig, BLOB.sha256) == DATA
    assert state(rig, BLOB.sha256) == [(len(DATA), True)]


def test_a_file_with_other_bytes_is_found_by_a_check_and_not_given_any_more(rig: Rig) -> None:
    put(rig, BLOB, 0, DATA)
    ask = AskBlobs(sha256s=(BLOB.sha256, "ab" * 32), check=True)
    assert [each.complete for each in rig.get(BlobStates, "POST", "/v1/blobs/state", ask).blobs] == [True, False]
    damage(rig, DATA[::-1])
    assert state(rig, BLOB.sha256) == [(len(DATA), True)]
    assert [each.complete for each in rig.get(BlobStates, "POST", "/v1/blobs/state", ask).blobs] == [False, False]
    error = error_of(whole, rig, BLOB.sha256)
    assert isinstance(error, FileChanged)
    assert "on home are damaged" in error.message
    assert state(rig, BLOB.sha256) == [(0, False)]
    assert put(rig, BLOB, 0, DATA).complete


def test_what_lies_behind_the_bytes_that_are_left_is_told_and_not_given_as_nothing(rig: Rig) -> None:
    put(rig, BLOB, 0, DATA)
    damage(rig, DATA[:8])
    assert rig.host.blob_store.read(BLOB.sha256, 0, 8) == DATA[:8]
    for offset in (4, 8, 10):
        assert isinstance(error_of(rig.host.blob_store.read, BLOB.sha256, offset, 8), FileChanged)
    assert rig.host.blob_store.read(BLOB.sha256, len(DATA), 8) == b""


# BlobPins


def test_a_promise_that_is_made_while_old_ones_are_forgotten_stands() -> None:
    pins = BlobPins(100.0, lambda: 0.0)
    names = [f"{number:064x}" for number in range(30_000)]
    with ThreadPoolExecutor(1) as pool:
        pinning = pool.submit(lambda: [pins.pin(name) for name in names])
        while not pinning.done():
            pins.expire()
    assert all(pins.is_pinned(name) for name in names)


def test_what_is_promised_while_it_is_collected_is_kept_or_was_not_promised(tmp_path: Path) -> None:
    clock, disk = FakeClock(), MemoryBlobs(MemoryDisk())
    asking: list[Callable[[], Future[BlobState]]] = []
    told: list[Future[BlobState]] = []
    path = tmp_path / "host.db"

    def open_reader() -> sqlite3.Connection:
        return sqlite3.connect(path, check_same_thread=False)

    def commit(connection: sqlite3.Connection) -> None:
        if asking:
            # Somebody asks just now; a keeper that lets him wait until this is over tells him what is so then.
            told.append(asking.pop()())
            wait(told, timeout=0.5)
        connection.execute("COMMIT")

    writer = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
    writer.execute("PRAGMA journal_mode = WAL")
    migrate(writer)
    store = Store(writer, open_reader=open_reader, commit=commit)
    settings = SimpleNamespace(blob_pin_seconds=PIN, artifact_max_bytes=0, artifact_quota_bytes=0)
    own = SimpleNamespace(name="h")
    services = SimpleNamespace(
        store=store, blobs=disk, clock=clock, settings=settings, own=own, logger=lambda part: logger_to(print)
    )
    keeper = BlobStore(cast(HostServices, services))
    keeper.put(DATA)
    clock.advance(PIN * 2)
    with ThreadPoolExecutor(1) as pool:
        asking.append(lambda: pool.submit(keeper.state, BLOB.sha256))
        keeper.collect()
        state_then = told[0].result()
    kept = store.read(lambda tx: blobs.size(tx, BLOB.sha256)) is not None
    assert (state_then.complete, disk.size(BLOB.sha256) is not None) == (kept, kept)
    store.close()
