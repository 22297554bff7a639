"""Files as bytes: hashes and copies match the file, and each error is one clear line."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paglets.core.content import PIECE_BYTES, SourceStat, closed, copy_hashed, hash_file, stat_of, sync_folder
from paglets.core.errors import Conflict, FileChanged, Invalid
from paglets.core.record import INT_BOUND
from paglets.core.refs import BlobRef

posix = pytest.mark.skipif(os.name != "posix", reason="files as POSIX has them")

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
SIZES = (0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 7)


def blob_of(data: bytes) -> BlobRef:
    return BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def bytes_of(size: int) -> bytes:
    return (b"0123456789abcdef\n" * (size // 17 + 1))[:size]


def hashing(source: Path, target: Path, progress: Callable[[int], None] | None = None) -> BlobRef:
    return hash_file(source, progress)


ACTS = (hashing, copy_hashed)


@contextmanager
def as_nobody() -> Iterator[None]:
    """Run as another user for a while, since root has all permissions."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(bytes_of(3 * PIECE_BYTES))
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("act", ACTS)
def test_bytes_of_every_size_are_hashed(act: Callable[..., BlobRef], size: int, source: Path, target: Path) -> None:
    data = bytes_of(size)
    source.write_bytes(data)
    done: list[int] = []

    assert act(source, target, done.append) == blob_of(data)

    assert done == sorted(set(done))
    assert done[-1:] == ([size] if size else [])
    assert source.exists()
    if act is not hashing:
        assert target.read_bytes() == data


@posix
def test_what_was_written_is_for_its_owner_alone(source: Path, target: Path) -> None:
    source.chmod(0o644)
    copy_hashed(source, target)
    assert target.stat().st_mode & 0o777 == 0o600


def append_to(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(PIECE_BYTES)
        file.write(b"other")
    os.utime(path, ns=(1, 1))


def cut(path: Path) -> None:
    os.truncate(path, PIECE_BYTES)


@pytest.mark.parametrize("change", [append_to, overwrite, cut])
@pytest.mark.parametrize("act", ACTS)
def test_a_file_that_is_written_to_while_it_is_read_is_refused(
    act: Callable[..., BlobRef], change: Callable[[Path], None], source: Path, target: Path
) -> None:
    def progress(done: int) -> None:
        if done == PIECE_BYTES:
            change(source)

    with pytest.raises(FileChanged, match="source changed while it was read"):
        act(source, target, progress)

    assert source.exists()
    assert not target.exists()


def test_a_file_that_grows_as_fast_as_it_is_read_is_not_read_for_ever(source: Path, target: Path) -> None:
    def progress(done: int) -> None:
        with source.open("ab") as file:
            file.truncate(source.stat().st_size + PIECE_BYTES)

    with pytest.raises(FileChanged, match=r"had 3,145,728 bytes and has \d"):
        copy_hashed(source, target, progress)

    assert source.stat().st_size <= 8 * PIECE_BYTES


@pytest.mark.parametrize("act", ACTS)
def test_a_file_that_is_replaced_meanwhile_is_taken_as_it_was(
    act: Callable[..., BlobRef], source: Path, target: Path, tmp_path: Path
) -> None:
    data = source.read_bytes()

    def progress(done: int) -> None:
        if done == PIECE_BYTES:
            (tmp_path / "new").write_bytes(b"new")
            os.replace(tmp_path / "new", source)

    assert act(source, target, progress) == blob_of(data)
    assert source.read_bytes() == b"new"


def test_an_end_in_the_middle_leaves_the_source_and_no_target(source: Path, target: Path) -> None:
    data = source.read_bytes()

    def progress(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_hashed(source, target, progress)

    assert source.read_bytes() == data
    assert not target.exists()


@pytest.mark.parametrize("put", [lambda path: path.write_bytes(b"x"), lambda path: path.symlink_to("nowhere")])
def test_nothing_is_written_over(put: Callable[[Path], object], source: Path, target: Path) -> None:
    put(target)
    with pytest.raises(Conflict, match="target exists already"):
        copy_hashed(source, target)
    assert source.exists()
    assert os.path.lexists(target)


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


def nothing(path: Path) -> None:
    pass


@posix
@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (Path.mkdir, "is a folder"),
        (make_fifo, "is a pipe"),
        (make_socket, "is a socket"),
        (lambda path: path.symlink_to("/dev/zero"), "is a device"),
        (nothing, "cannot be read: there is no such file"),
        (lambda path: path.symlink_to(path), "cannot be read: "),
    ],
)
@pytest.mark.parametrize("act", [*ACTS, lambda source, target: stat_of(source)])
def test_what_is_no_file_is_refused_at_once(
    act: Callable[..., object],
    make: Callable[[Path], object],
    problem: str,
    tmp_path: Path,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)  # The path of a socket has a short limit.
    path = tmp_path / "odd"
    make(path)
    with pytest.raises(Invalid, match=f"odd {problem}") as refused:
        act(path, target)
    assert "\n" not in refused.value.message
    assert not target.exists()


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "line\nline"])
@pytest.mark.parametrize("act", ACTS)
def test_a_path_that_no_file_has_is_one_line(
    act: Callable[..., BlobRef], name: str, tmp_path: Path, target: Path
) -> None:
    with pytest.raises(Invalid, match="cannot be read") as refused:
        act(tmp_path / name, target)
    assert refused.value.message.isprintable()


@posix
@pytest.mark.parametrize("act", ACTS)
def test_a_file_without_the_right_to_read_it_is_refused(
    act: Callable[..., BlobRef], source: Path, target: Path, tmp_path: Path
) -> None:
    source.chmod(0)
    tmp_path.chmod(0o777)
    with as_nobody(), pytest.raises(Invalid, match="source cannot be read: no permission"):
        act(source, target)
    assert source.exists()


@pytest.mark.parametrize(("folder", "problem"), [("file", "not a folder"), ("missing", "there is no such")])
def test_a_folder_that_is_none_cannot_be_written_to(folder: str, problem: str, source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Invalid, match=rf"source \(3,145,728 bytes\) cannot be written to .*{folder}: .*{problem}"):
        copy_hashed(source, tmp_path / folder / "target")
    assert source.exists()


@pytest.mark.skipif(not os.path.isdir("/sys/kernel"), reason="a file system that takes no files")
def test_a_file_system_that_takes_no_files_is_named(source: Path) -> None:
    with pytest.raises(Invalid, match=r"cannot be written to /sys/kernel: (no permission|read-only file system)"):
        copy_hashed(source, Path("/sys/kernel/target"))
    assert source.exists()


SMALL_FILES_ONLY = """
import resource, sys
from pathlib import Path
from paglets.core.content import copy_hashed
from paglets.core.errors import NoRoom
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
try:
    copy_hashed(Path(sys.argv[1]), Path(sys.argv[2]))
except NoRoom as error:
    print(error.message)
"""


@posix
def test_where_there_is_no_room_the_sizes_are_told_and_nothing_is_left(source: Path, target: Path) -> None:
    command = [sys.executable, "-c", SMALL_FILES_ONLY, str(source), str(target)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    assert ended.stdout.startswith(f"{source} (3,145,728 bytes) cannot be written to {target.parent}: a limit")
    assert ended.stdout.rstrip().endswith("bytes free")
    assert not target.exists()


def test_an_inode_of_64_bits_fits_into_a_record() -> None:
    found = os.stat_result((0o100600, INT_BOUND + 7, 1, 1, 0, 0, 3, 1, 1, 1))
    assert SourceStat.of(found).inode == 7


def test_links_are_followed(source: Path, target: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    assert hash_file(tmp_path / "link") == copy_hashed(tmp_path / "link", target) == hash_file(source)
    assert stat_of(tmp_path / "link") == stat_of(source)
    assert target.is_file()
    assert not target.is_symlink()


@pytest.mark.parametrize("change", [append_to, overwrite, lambda path: os.replace(path.with_suffix(".new"), path)])
def test_a_file_that_was_written_to_or_replaced_is_another(change: Callable[[Path], object], source: Path) -> None:
    source.with_suffix(".new").write_bytes(source.read_bytes())
    before = stat_of(source)
    assert stat_of(source) == before
    change(source)
    assert stat_of(source) != before


def test_a_large_file_takes_no_more_memory_than_a_small_one(tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.touch()
    os.truncate(large, 300 << 20)
    tracemalloc.start()
    try:
        assert hash_file(large).size_bytes == 300 << 20
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * PIECE_BYTES


def test_a_copy_takes_no_more_memory_than_a_piece(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "source"
    source.touch()
    os.truncate(source, 24 << 20)
    tracemalloc.start()
    try:
        copy_hashed(source, target)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * PIECE_BYTES


def test_a_folder_can_be_synced(tmp_path: Path) -> None:
    sync_folder(tmp_path)
    with pytest.raises(OSError, match="missing"):
        sync_folder(tmp_path / "missing")


# Which folder is at fault


def test_of_a_path_the_folder_at_fault_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b" / "c"
    assert closed(folder) == f"{tmp_path / 'a'} does not exist"
    (tmp_path / "a").write_text("in its place")
    assert closed(folder) == f"{tmp_path / 'a'} is not a folder"
    (tmp_path / "a").unlink()
    folder.mkdir(parents=True)
    assert closed(folder) == ""


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="rights say nothing to this user")
def test_a_folder_without_rights_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    folder.mkdir(parents=True)
    folder.chmod(0o500)
    assert closed(folder) == f"there is no permission to write to {folder}"
    folder.parent.chmod(0)
    told = closed(folder)
    folder.parent.chmod(0o700)
    folder.chmod(0o700)
    assert told == f"there is no permission to enter {folder.parent}"
