"""Logs: bounded size, valid offsets, visible gaps, and no errors from a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paglets.worker import logs
from paglets.worker.logs import LogWriter

HEAD = 10
SEGMENT = 7


def small(path: Path, opener: Callable[[str, int, int], int] = os.open) -> LogWriter:
    return LogWriter(str(path), head_bytes=HEAD, segment_bytes=SEGMENT, opener=opener)


def written(path: Path, *blocks: bytes) -> None:
    log = small(path)
    for block in blocks:
        log.write(memoryview(block))
    log.close()


def everything(path: Path, most_bytes: int = 1000) -> list[tuple[int, bytes]]:
    """Return the chunks that a reader gets from offset 0."""
    found = []
    offset = 0
    while piece := logs.read(str(path), offset, most_bytes):
        if not piece.data:
            assert piece.next == offset
            return found
        found.append((piece.offset, piece.data))
        offset = piece.next
    return found


blocks_of_bytes = st.lists(st.binary(max_size=30), max_size=12)


@given(runs=st.lists(blocks_of_bytes, min_size=1, max_size=4), most=st.integers(1, 40))
def test_any_writes_leave_the_head_and_the_newest_tail_at_their_true_offsets(
    tmp_path_factory: pytest.TempPathFactory, runs: list[list[bytes]], most: int
) -> None:
    path = tmp_path_factory.mktemp("logs") / "1.1.out"
    for blocks in runs:
        written(path, *blocks)
    path.parent.mkdir(exist_ok=True)  # a log without a byte leaves no folder
    printed = b"".join(b"".join(blocks) for blocks in runs)

    pieces = everything(path, most)

    assert logs.end_of(str(path)) == len(printed)
    for offset, data in pieces:
        assert printed[offset : offset + len(data)] == data
    kept = {offset + nth for offset, data in pieces for nth in range(len(data))}
    assert kept >= set(range(min(HEAD, len(printed))))
    assert kept >= set(range(max(0, len(printed) - SEGMENT), len(printed)))
    assert sum(file.stat().st_size for file in path.parent.iterdir()) <= HEAD + logs.KEPT_SEGMENTS * SEGMENT


def test_what_is_not_kept_shows_as_a_later_offset(tmp_path: Path) -> None:
    path = tmp_path / "1.1.out"
    written(path, bytes(range(100)))
    piece = logs.read(str(path), HEAD, 1000)
    assert (piece.offset, piece.data, piece.size_bytes) == (87, bytes(range(87, 94)), 100)
    assert sorted(os.listdir(tmp_path)) == ["1.1.out", "1.1.out.000000000087", "1.1.out.000000000094"]


def test_beyond_the_end_and_without_a_log_there_is_an_empty_piece(tmp_path: Path) -> None:
    path = tmp_path / "1.1.out"
    assert logs.read(str(path), 5, 10) == logs.LogChunk(offset=5, data=b"", next=5, size_bytes=0)
    written(path, b"abc")
    assert logs.read(str(path), 1 << 60, 10) == logs.LogChunk(offset=1 << 60, data=b"", next=1 << 60, size_bytes=3)
    assert logs.read(str(tmp_path / "no" / "folder"), 0, 10).size_bytes == 0


def test_a_file_that_is_no_segment_is_not_part_of_a_log(tmp_path: Path) -> None:
    path = tmp_path / "1.1.out"
    written(path, b"abc")
    (tmp_path / "1.1.out.tmp").write_bytes(b"x")
    (tmp_path / "1.1.out.12").write_bytes(b"x")
    (tmp_path / "1.1.out.000000000099").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "1.1.out.000000000098")
    (tmp_path / "1.1.outer").write_bytes(b"x")
    assert everything(path) == [(0, b"abc")]


def test_a_log_from_before_there_was_a_bound_goes_on_in_segments(tmp_path: Path) -> None:
    path = tmp_path / "1.0.out"
    path.write_bytes(b"o" * 50)
    written(path, b"new")
    assert everything(path) == [(0, b"o" * 50), (50, b"new")]


def test_the_last_lines_begin_after_what_was_there_and_with_a_whole_line(tmp_path: Path) -> None:
    path = str(tmp_path / "1.1.err")
    log = LogWriter(path, head_bytes=100, segment_bytes=40)
    log.write(memoryview(b"earlier\n"))
    since = logs.end_of(path)
    assert logs.last_lines(path, since, 50) == b""
    log.write(memoryview(b"one\ntwo\n"))
    assert logs.last_lines(path, since, 50) == b"one\ntwo\n"
    assert logs.last_lines(path, since, 6) == b"two\n"
    log.write(memoryview(b"".join(b"%03d\n" % nth for nth in range(200))))
    assert logs.last_lines(path, since, 30) == b"".join(b"%03d\n" % nth for nth in range(193, 200))
    # Only the last two of these segments are kept.
    assert logs.last_lines(path, since, 10_000).endswith(b"198\n199\n")


# Errors of the disk.


class Disk:
    """A disk. While it is `full`, files can be opened but take no bytes."""

    def __init__(self) -> None:
        self.full = False

    def open(self, path: str, flags: int, mode: int) -> int:
        return os.open("/dev/full" if self.full else path, os.O_WRONLY if self.full else flags, mode)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no disk here that is always full")
def test_bytes_lost_to_a_full_disk_are_noted_when_there_is_space_again(tmp_path: Path) -> None:
    path, disk = tmp_path / "1.1.out", Disk()
    log = small(path, disk.open)
    log.write(memoryview(b"0123456789"))
    disk.full = True
    log.write(memoryview(b"lost"))
    log.write(memoryview(b"lost as well"))
    assert everything(path) == [(0, b"0123456789")]
    log.close()
    disk.full = False
    again = LogWriter(str(path), segment_bytes=1000)
    again.write(memoryview(b"found"))
    assert logs.read(str(path), 10, 100).data == b"found"


LIMITED = """
import resource, sys
from paglets.worker.logs import LogWriter
log = LogWriter(sys.argv[1])
log.write(memoryview(b"a" * 900))
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
log.write(memoryview(b"b" * 300))
log.write(memoryview(b"c" * 300))
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
log.write(memoryview(b"d"))
log.close()
"""


def test_a_write_that_the_system_takes_in_part_goes_on_where_it_can(tmp_path: Path) -> None:
    path = tmp_path / "1.1.out"
    subprocess.run([sys.executable, "-c", LIMITED, str(path)], check=True)
    note = b"\n[paglets: 500 bytes could not be written: File too large]\n"
    assert path.read_bytes() == b"a" * 900 + b"b" * 100 + note + b"d"


STAYS_LIMITED = """
import resource, sys
from paglets.worker.logs import LogWriter
log = LogWriter(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
log.write(memoryview(b"a" * 900))
log.write(memoryview(b"b" * 300))
log.close()
"""


def test_on_a_disk_that_stays_full_the_note_replaces_the_last_bytes(tmp_path: Path) -> None:
    path = tmp_path / "1.1.out"
    subprocess.run([sys.executable, "-c", STAYS_LIMITED, str(path)], check=True)
    note = b"\n[paglets: 259 bytes could not be written: File too large]\n"
    assert path.read_bytes() == b"a" * 900 + b"b" * (100 - len(note)) + note
    assert 1200 - 1000 + len(note) == 259


def test_a_log_whose_empty_folder_is_removed_as_it_is_opened_makes_the_folder_again(tmp_path: Path) -> None:
    path = tmp_path / "job" / "1.1.out"
    removals = 0

    def opener(name: str, flags: int, mode: int) -> int:
        nonlocal removals
        if not removals:
            removals += 1
            path.parent.rmdir()  # like the search for old logs
        return os.open(name, flags, mode)

    log = small(path, opener)
    log.write(memoryview(b"one"))
    log.close()

    assert (removals, path.read_bytes()) == (1, b"one")


def test_a_log_that_cannot_be_opened_notes_the_bytes_that_it_lost(tmp_path: Path) -> None:
    path = tmp_path / "job" / "1.1.out"
    path.parent.touch()
    log = small(path)
    log.write(memoryview(b"lost"))
    path.parent.unlink()
    log.write(memoryview(b"kept"))
    log.close()
    note = b"\n[paglets: 4 bytes could not be written: File exists]\n"
    assert b"".join(data for _, data in everything(path)).endswith((note + b"kept")[-SEGMENT:])
    assert logs.end_of(str(path)) == len(note) + 4


def test_the_first_write_opens_a_log(tmp_path: Path) -> None:
    path = tmp_path / "job" / "1.1.out"
    log = small(path)
    assert os.listdir(tmp_path) == []
    log.write(memoryview(b"one"))
    assert path.read_bytes() == b"one"
    log.close()
