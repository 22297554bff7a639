"""Blobs on a real disk: permissions, errors and threads; and the in-memory disk of other tests."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from paglets.artifacts.folder import MAX_RUNNING_HASHES, BlobFolder
from paglets.core.content import copy_hashed
from paglets.core.errors import Conflict, FileChanged, Invalid, NoRoom
from paglets.core.refs import BlobRef
from tests.fakes.blobs import BLOB_STEPS, MemoryBlobs, MemoryDisk
from tests.fakes.clock import SeededEntropy
from tests.fakes.logs import logger_to

ROOT = Path(__file__).resolve().parents[2]
MIB = 1 << 20

posix = pytest.mark.skipif(os.name != "posix", reason="files as POSIX has them")

counted = pytest.mark.skipif(not os.path.exists("/proc/self/io"), reason="nothing counts what is read")


def bytes_read() -> int:
    """Return the number of bytes this process has read so far."""
    return int(Path("/proc/self/io").read_text().split()[1])


def blob_of(data: bytes) -> BlobRef:
    return BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def data_of(number: int, size: int = 1000) -> bytes:
    return number.to_bytes(4, "big") * (size // 4)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "host"
    path.mkdir()
    return path


@pytest.fixture
def blobs(folder: Path, said: list[str]) -> BlobFolder:
    return BlobFolder(folder, logger_to(said.append))


def partial_path(folder: Path, blob: BlobRef) -> Path:
    return folder / "blobs" / "incoming" / blob.sha256


@posix
def test_all_is_for_the_owner_alone_and_lies_where_its_name_says(blobs: BlobFolder, folder: Path) -> None:
    blob = blobs.put(b"data")
    blobs.append("ab" * 32, 0, b"x")

    assert blobs.path(blob.sha256) == str(folder / "blobs" / blob.sha256[:2] / blob.sha256)
    assert blobs.staging() == str(folder / "blobs" / "staging")
    assert blobs.code_folder() == str(folder / "code")
    rights = {entry.stat().st_mode & 0o777 for entry in folder.rglob("*") if entry.is_dir()}
    assert rights == {0o700}
    rights = {entry.stat().st_mode & 0o777 for entry in folder.rglob("*") if entry.is_file()}
    assert rights == {0o600}


def test_what_a_process_copied_becomes_a_blob(blobs: BlobFolder, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(data_of(1))
    blob = copy_hashed(source, Path(blobs.staging()) / "token.1")
    assert blobs.staged("token.1") == blob.size_bytes
    blobs.adopt("token.1", blob)
    assert blobs.read(blob.sha256, 0, 2000) == data_of(1)
    assert blobs.staged("token.1") == 0
    assert os.listdir(blobs.staging()) == []


def test_a_file_that_was_written_long_ago_and_moved_just_now_stays_staged(blobs: BlobFolder, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"old")
    os.utime(source, (1, 1))
    source.rename(Path(blobs.staging()) / "token.1")
    blobs.drop_staged(3600)
    assert os.listdir(blobs.staging()) == ["token.1"]


@posix
@pytest.mark.parametrize("put", [Path.mkdir, lambda path: path.symlink_to("/etc/passwd"), lambda path: os.mkfifo(path)])
def test_a_staged_thing_that_is_no_file_is_refused(blobs: BlobFolder, put: Callable[[Path], object]) -> None:
    put(Path(blobs.staging()) / "token.1")
    with pytest.raises(Invalid, match="not a regular file"):
        blobs.adopt("token.1", blob_of(b""))


@posix
def test_a_link_in_the_place_of_a_partial_blob_is_not_followed(blobs: BlobFolder, folder: Path) -> None:
    precious = folder / "precious"
    precious.write_bytes(b"")
    blob = blob_of(b"data")
    partial_path(folder, blob).symlink_to(precious)
    with pytest.raises(NoRoom, match="link"):
        blobs.append(blob.sha256, blobs.partial(blob.sha256), b"data")
    assert precious.read_bytes() == b""


def test_bytes_that_the_disk_has_changed_while_the_host_was_down_are_found(blobs: BlobFolder, folder: Path) -> None:
    blob = blob_of(data_of(1))
    blobs.append(blob.sha256, 0, data_of(1))
    with partial_path(folder, blob).open("r+b") as file:
        file.write(b"?")

    with pytest.raises(FileChanged):
        BlobFolder(folder, logger_to(print)).finish(blob)

    assert blobs.partial(blob.sha256) == 0


def test_a_partial_blob_that_lost_its_end_goes_on_where_it_ends_now(blobs: BlobFolder, folder: Path) -> None:
    data = data_of(1)
    blob = blob_of(data)
    blobs.append(blob.sha256, 0, data[:600])
    os.truncate(partial_path(folder, blob), 500)

    with pytest.raises(Conflict) as refused:
        blobs.append(blob.sha256, 600, data[600:])
    assert refused.value.details == {"offset": 500}
    blobs.append(blob.sha256, 500, data[500:])
    blobs.finish(blob)

    assert blobs.read(blob.sha256, 0, 2000) == data


def test_more_blobs_at_a_time_than_hashes_are_kept_all_become_whole(blobs: BlobFolder) -> None:
    contents = [data_of(number) for number in range(2 * MAX_RUNNING_HASHES)]
    for begin in range(0, 1000, 250):
        for data in contents:
            blobs.append(blob_of(data).sha256, begin, data[begin : begin + 250])
    for data in contents:
        blobs.finish(blob_of(data))
    assert blobs.all_hashes() == tuple(sorted(blob_of(data).sha256 for data in contents))


def test_a_system_without_fdatasync_takes_blobs(blobs: BlobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fdatasync", raising=False)  # as Python on macOS
    data = data_of(1)
    blobs.append(blob_of(data).sha256, 0, data)
    blobs.finish(blob_of(data))
    assert blobs.size(blob_of(data).sha256) == len(data)


def test_what_waits_for_the_disk_is_done_on_other_threads_several_at_a_time(blobs: BlobFolder) -> None:
    meeting = threading.Barrier(3)
    for _ in range(2):
        blobs.run_in_background(lambda: meeting.wait(60))
    meeting.wait(60)


@counted
def test_a_blob_that_came_through_this_process_is_not_read_again(blobs: BlobFolder) -> None:
    data = data_of(1, 8 * MIB)
    for begin in range(0, 8 * MIB, MIB):
        blobs.append(blob_of(data).sha256, begin, data[begin : begin + MIB])
    before = bytes_read()
    blobs.finish(blob_of(data))
    assert bytes_read() - before < MIB


@counted
def test_hashes_are_kept_of_the_blobs_used_last_only(blobs: BlobFolder) -> None:
    contents = [data_of(number, MIB // 4) for number in range(MAX_RUNNING_HASHES + 1)]
    for data in contents:
        blobs.append(blob_of(data).sha256, 0, data)

    def read_to_finish(data: bytes) -> int:
        before = bytes_read()
        blobs.finish(blob_of(data))
        return bytes_read() - before

    assert read_to_finish(contents[0]) >= MIB // 4
    assert read_to_finish(contents[1]) < MIB // 4
    assert read_to_finish(contents[-1]) < MIB // 4


def test_of_many_threads_that_send_one_blob_each_piece_is_taken_once(blobs: BlobFolder) -> None:
    data = data_of(1, 40_000)
    blob = blob_of(data)
    lock = threading.Lock()

    def send(number: int) -> int:
        taken = offset = 0
        while offset < len(data):
            with lock:
                try:
                    offset = blobs.append(blob.sha256, offset, data[offset : offset + 1000])
                    taken += 1
                except Conflict as refused:
                    offset = refused.details["offset"]
        return taken

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(send, range(4))) == 40
    blobs.finish(blob)
    assert blobs.read(blob.sha256, 0, 50_000) == data


def test_different_blobs_come_at_the_same_time(blobs: BlobFolder) -> None:
    def send(number: int) -> bool:
        data = data_of(number, 20_000)
        for begin in range(0, 20_000, 1000):
            blobs.append(blob_of(data).sha256, begin, data[begin : begin + 1000])
        blobs.finish(blob_of(data))
        small = blobs.put(data_of(number, 8))
        return blobs.read(blob_of(data).sha256, 0, 30_000) == data and blobs.size(small.sha256) == 8

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(send, range(100)))
    assert len(blobs.all_hashes()) == 200


@pytest.mark.parametrize("name", [f"{'ab' * 32}.1.1.gone", ".abababab-k3x_9"])
def test_partly_removed_or_unpacked_code_is_removed_at_the_next_start(
    blobs: BlobFolder, folder: Path, name: str
) -> None:
    (folder / "code" / name / "package").mkdir(parents=True)
    (folder / "code" / ("cd" * 32)).mkdir()
    assert blobs.all_hashes() == ("cd" * 32,)
    BlobFolder(folder, logger_to(print))
    assert os.listdir(folder / "code") == ["cd" * 32]


def test_what_cannot_be_removed_is_told(blobs: BlobFolder, said: list[str]) -> None:
    (Path(blobs.staging()) / "odd").mkdir()
    blobs.drop_staged(-60)
    assert len(said) == 1
    assert "odd cannot be removed" in said[0]


FULL_AFTER_A_MIB = """
import hashlib, logging, resource, sys
from pathlib import Path
from paglets.artifacts.folder import BlobFolder
from paglets.core.errors import NoRoom
from paglets.core.refs import BlobRef
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.RLIM_INFINITY))
blobs = BlobFolder(Path(sys.argv[1]), logging.getLogger())
data = b"x" * (3 << 19)
blob = BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
half = 3 << 18
blobs.append(blob.sha256, 0, data[:half])
for act in (lambda: blobs.append(blob.sha256, half, data[half:]), lambda: blobs.put(data)):
    try:
        act()
    except NoRoom as error:
        print(error.message)
print(blobs.partial(blob.sha256) == half)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
blobs.append(blob.sha256, half, data[half:])
blobs.finish(blob)
print(blobs.size(blob.sha256) == len(data))
"""


@posix
def test_without_room_a_piece_is_not_taken_in_part_and_goes_on_later(folder: Path) -> None:
    command = [sys.executable, "-c", FULL_AFTER_A_MIB, str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    first, second, *rest = ended.stdout.splitlines()
    for line in (first, second):
        assert line.startswith(f"a limit of the system forbids files of that size in {folder}: ")
        assert line.endswith(" bytes free")
    assert rest == ["True", "True"]
    assert list((folder / "blobs" / "staging").iterdir()) == []


# The disk in memory


class Crash(BaseException):
    pass


def test_a_machine_without_power_loses_only_what_was_not_synced() -> None:
    lengths = set()
    for seed in range(50):
        disk = MemoryDisk()
        blobs = MemoryBlobs(disk)
        whole = blobs.put(b"whole")
        blobs.append("ab" * 32, 0, b"01234")
        blobs.stage("synced", b"x")
        blobs.stage("not synced", b"y", synced=False)

        disk.power_off(SeededEntropy(str(seed)))

        blobs = MemoryBlobs(disk)
        lengths.add(blobs.partial("ab" * 32))
        assert blobs.read(whole.sha256, 0, 9) == b"whole"
        assert list(disk.staged) == ["synced"]
        assert b"01234".startswith(disk.partial["ab" * 32])
    assert lengths == {0, 1, 2, 3, 4, 5}


def test_a_full_disk_in_memory_takes_nothing_and_keeps_what_it_has() -> None:
    full = False
    blobs = MemoryBlobs(MemoryDisk(), full=lambda: full)
    blob = blob_of(b"data")
    blobs.append(blob.sha256, 0, b"data")
    full = True
    for act in (
        lambda: blobs.append("ab" * 32, 0, b"x"),
        lambda: blobs.put(b"more"),
        lambda: blobs.stage("token.1", b"x"),
    ):
        with pytest.raises(NoRoom, match="full"):
            act()
    assert blobs.free() == 0
    blobs.finish(blob)
    assert blobs.all_hashes() == (blob.sha256,)


@pytest.mark.parametrize("step", BLOB_STEPS)
@pytest.mark.parametrize("passes", [1, 2])
def test_a_crash_comes_before_or_after_each_change(step: str, passes: int) -> None:
    left = passes

    def count(name: str) -> None:
        nonlocal left
        left -= name == step
        if left == 0:
            raise Crash

    disk = MemoryDisk()
    data, kept = blob_of(b"data"), MemoryBlobs(disk).put(b"kept")
    MemoryBlobs(disk).stage("token.1", b"staged")
    if step == "finish":
        MemoryBlobs(disk).append(data.sha256, 0, b"data")
    blobs = MemoryBlobs(disk, step=count)
    acts: dict[str, Callable[[], object]] = {
        "append": lambda: blobs.append(data.sha256, 0, b"data"),
        "finish": lambda: blobs.finish(data),
        "adopt": lambda: blobs.adopt("token.1", blob_of(b"staged")),
        "put": lambda: blobs.put(b"data"),
        "remove": lambda: blobs.remove(kept.sha256),
    }
    is_done: dict[str, Callable[[], bool]] = {
        "append": lambda: blobs.partial(data.sha256) == 4,
        "finish": lambda: blobs.size(data.sha256) == 4,
        "adopt": lambda: blobs.size(blob_of(b"staged").sha256) == 6,
        "put": lambda: blobs.size(data.sha256) == 4,
        "remove": lambda: blobs.size(kept.sha256) is None,
    }

    with pytest.raises(Crash):
        acts[step]()

    assert is_done[step]() == (passes == 2)


@posix
def test_whatever_the_disk_has_against_it_is_told_as_no_room_with_the_folder(blobs: BlobFolder, folder: Path) -> None:
    blob, known = blob_of(b"data"), blobs.put(b"known")
    (Path(blobs.staging()) / "run.1").write_bytes(b"data")
    (folder / "blobs").rename(folder / "away")
    (folder / "blobs").write_text("in its place")
    acts: list[Callable[[], object]] = [
        lambda: blobs.staged("run.1"),
        lambda: blobs.size(known.sha256),
        lambda: blobs.append(blob.sha256, 0, b"data"),
        lambda: blobs.adopt("run.1", blob),
        lambda: blobs.drop_partial(blob.sha256),
        lambda: blobs.put(b"more"),
    ]
    for act in acts:
        with pytest.raises(NoRoom, match=f"{folder / 'blobs'} is not a folder") as refused:
            act()
        assert refused.value.passes
    (folder / "blobs").unlink()
    (folder / "away").rename(folder / "blobs")
    blobs.adopt("run.1", blob)
    assert blobs.is_intact(blob)


@posix
@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="rights say nothing to this user")
def test_a_folder_without_rights_is_named_and_no_other(blobs: BlobFolder, folder: Path) -> None:
    (Path(blobs.staging()) / "run.1").write_bytes(b"data")
    (folder / "blobs").chmod(0o500)
    with pytest.raises(NoRoom, match=f"no permission to write to {folder / 'blobs'}$"):
        blobs.adopt("run.1", blob_of(b"data"))
    (folder / "blobs").chmod(0)
    with pytest.raises(NoRoom, match=f"no permission to enter {folder / 'blobs'}$"):
        blobs.staged("run.1")
    (folder / "blobs").chmod(0o700)


def test_a_folder_of_blobs_that_was_removed_is_made_anew(blobs: BlobFolder) -> None:
    blob = blobs.put(b"data")
    Path(blobs.path(blob.sha256)).unlink()
    Path(blobs.path(blob.sha256)).parent.rmdir()
    assert blobs.is_intact(blobs.put(b"data"))
