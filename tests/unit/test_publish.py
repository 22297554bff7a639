from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from paglets.client.pacing import FIRST_PIECE_BYTES, no_progress
from paglets.core.errors import (
    CallOutcomeUnknown,
    Conflict,
    FileChanged,
    Invalid,
    NoRoom,
    PagletsError,
    ShuttingDown,
    Unreachable,
)
from tests.unit.files_rig import TIMEOUT, FilesRig, blob_of, some_bytes

DATA = some_bytes(3 * FIRST_PIECE_BYTES + 5)
"""Two pieces: the second may be twice as long, and is not full."""

LONG = some_bytes(8 * FIRST_PIECE_BYTES)


@pytest.fixture
def rig() -> FilesRig:
    return FilesRig()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "data.bin"
    file.write_bytes(DATA)
    return file


def test_a_file_is_sent_in_pieces_and_named_by_its_hash(rig: FilesRig, path: Path) -> None:
    assert rig.files.publish_file(path) == blob_of(DATA)
    assert rig.a.blobs == {blob_of(DATA).sha256: DATA}
    assert rig.offsets("PUT") == [0, FIRST_PIECE_BYTES, 3 * FIRST_PIECE_BYTES]


def test_a_database_is_sent_with_the_rows_that_a_file_beside_it_has(rig: FilesRig, tmp_path: Path) -> None:
    path = tmp_path / "rows.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE t AS SELECT 5 AS n")
        made = rig.files.upload(path, name=None, owner=None, expires_in_seconds=None, move=True, progress=no_progress)
        assert list(tmp_path.iterdir()) == []
    (tmp_path / "copy.db").write_bytes(rig.a.blobs[made.sha256])
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT n FROM t").fetchall() == [(5,)]


def test_what_the_host_has_is_not_sent(rig: FilesRig, path: Path) -> None:
    rig.a.keep(DATA)
    rig.files.publish_file(path)
    assert rig.a.pieces == []


def test_bytes_are_published_too_and_an_empty_blob_is_one_piece(rig: FilesRig) -> None:
    assert rig.files.publish_bytes(b"") == blob_of(b"")
    assert rig.files.publish_bytes(LONG) == blob_of(LONG)
    assert rig.a.blobs == {blob_of(b"").sha256: b"", blob_of(LONG).sha256: LONG}
    assert rig.a.pieces[0] == ("PUT", 0, 0)


def test_the_host_says_which_of_many_blobs_are_missing(rig: FilesRig) -> None:
    wanted = [blob_of(str(number).encode()) for number in range(2500)]
    for number in range(0, 2500, 500):
        rig.a.blobs[wanted[number].sha256] = str(number).encode()
    rig.a.coming[wanted[1].sha256] = bytearray()
    missing = rig.files.missing(wanted)
    assert [blob for blob in wanted if blob not in missing] == wanted[::500]
    assert len(rig.a.asked) == 3


def test_it_begins_with_what_is_missing(rig: FilesRig, path: Path) -> None:
    rig.a.coming[blob_of(DATA).sha256] = bytearray(DATA[:1000])
    rig.files.publish_file(path)
    assert rig.offsets("PUT")[0] == 1000
    assert rig.a.blobs[blob_of(DATA).sha256] == DATA


def test_a_lost_reply_leads_to_the_offset_that_the_host_tells(rig: FilesRig, path: Path) -> None:
    rig.a.lost = [CallOutcomeUnknown("the connection broke")]
    rig.files.publish_file(path)
    assert rig.offsets("PUT")[:2] == [0, FIRST_PIECE_BYTES]
    assert rig.a.blobs[blob_of(DATA).sha256] == DATA


@pytest.mark.parametrize("error", [Unreachable("refused"), CallOutcomeUnknown("cut"), ShuttingDown("ending")])
def test_what_passes_is_waited_for(rig: FilesRig, path: Path, error: PagletsError) -> None:
    failing = [error, error, error]

    def before(method: str, offset: int) -> None:
        if offset and failing:
            raise failing.pop()

    rig.a.before_piece = before
    rig.files.publish_file(path)
    assert failing == []
    assert rig.a.blobs[blob_of(DATA).sha256] == DATA


def test_a_host_that_forgot_a_part_in_a_restart_gets_it_again(rig: FilesRig) -> None:
    sha256, forgot = blob_of(LONG).sha256, []

    def before(method: str, offset: int) -> None:
        if offset and not forgot:
            forgot.append(offset)
            del rig.a.coming[sha256][100:]

    rig.a.before_piece = before
    rig.files.publish_bytes(LONG)
    assert rig.offsets("PUT")[:2] == [0, 100]
    assert rig.a.blobs[sha256] == LONG


def test_the_time_begins_anew_with_each_piece(rig: FilesRig) -> None:
    rig.a.before_piece = lambda method, offset: rig.clock.advance(0.9 * TIMEOUT)
    start = rig.clock.monotonic()
    rig.files.publish_bytes(LONG)
    assert rig.clock.monotonic() - start > 3 * TIMEOUT


def test_without_progress_it_ends_with_what_was_last_heard(rig: FilesRig, path: Path) -> None:
    def before(method: str, offset: int) -> None:
        if offset:
            raise Unreachable("http://a:8765 cannot be reached")

    rig.a.before_piece = before
    start = rig.clock.monotonic()
    with pytest.raises(Unreachable, match="cannot be reached"):
        rig.files.publish_file(path)
    assert 0.5 * TIMEOUT < rig.clock.monotonic() - start < 2 * TIMEOUT


def test_a_host_that_tells_offsets_in_a_circle_does_not_hold_it_for_ever(rig: FilesRig) -> None:
    def before(method: str, offset: int) -> None:
        raise Conflict("no", offset=0 if offset else 7)

    rig.a.before_piece = before
    with pytest.raises(Conflict):
        rig.files.publish_bytes(LONG)


def test_a_full_host_is_told_as_it_is(rig: FilesRig, path: Path) -> None:
    def before(method: str, offset: int) -> None:
        raise NoRoom("a keeps 9 GiB of the 10 GiB that it may")

    rig.a.before_piece = before
    with pytest.raises(NoRoom, match="9 GiB of the 10 GiB"):
        rig.files.publish_file(path)


def test_a_file_that_changes_while_it_is_sent_is_named(rig: FilesRig, path: Path) -> None:
    def before(method: str, offset: int) -> None:
        if offset == FIRST_PIECE_BYTES:
            path.write_bytes(b"x" * len(DATA))

    rig.a.before_piece = before
    with pytest.raises(FileChanged, match=r"data\.bin changed during the upload"):
        rig.files.publish_file(path)
    assert rig.a.blobs == {}


def test_a_file_that_becomes_shorter_while_it_is_sent_is_named(rig: FilesRig, path: Path) -> None:
    rig.a.before_piece = lambda method, offset: path.write_bytes(b"short")
    with pytest.raises(FileChanged, match=r"data\.bin changed during the upload"):
        rig.files.publish_file(path)


def test_what_another_file_left_under_the_same_hash_is_sent_anew(rig: FilesRig, path: Path) -> None:
    rig.a.coming[blob_of(DATA).sha256] = bytearray(b"wrong bytes")
    rig.files.publish_file(path)
    assert rig.a.blobs == {blob_of(DATA).sha256: DATA}
    assert rig.offsets("PUT").count(0) == 1


def test_progress_is_told_of_reading_and_sending(rig: FilesRig, path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    rig.files.publish_file(path, lambda *step: told.append(step))
    assert told[0][0] == "reading"
    assert ("sending", 0, len(DATA)) in told
    assert told[-1] == ("sending", len(DATA), len(DATA))


def test_pieces_shrink_on_a_slow_line(rig: FilesRig) -> None:
    rig.a.before_piece = lambda method, offset: rig.clock.advance(5.0)
    rig.files.publish_bytes(DATA)
    lengths = [length for _, _, length in rig.a.pieces]
    assert lengths[:3] == [FIRST_PIECE_BYTES, FIRST_PIECE_BYTES // 2, FIRST_PIECE_BYTES // 4]


@pytest.mark.parametrize("what", ["missing", "folder"])
def test_what_is_no_file_is_told_before_anything_is_sent(rig: FilesRig, tmp_path: Path, what: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(Invalid, match=what):
        rig.files.publish_file(tmp_path / what)
    assert rig.a.asked == []
