"""Files that the process of a paglet writes: the paglet's files, its code, and fetched artifacts."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from paglets.codec.bundle import zipped
from paglets.core.errors import Invalid, PagletsError, Unknown
from paglets.core.record import to_json
from paglets.core.refs import ArtifactRef, BlobRef, FileRef, HostRef
from paglets.worker.child.artifacts import ChildArtifacts
from paglets.worker.child.bundle_cache import unpack_once
from paglets.worker.child.files import copy_files
from paglets.worker.child.publishing import BlobPublisher
from paglets.worker.protocol import Entry, Go, GoCode, GoFile, Stamp

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes of paglets are of POSIX")

STAMP = Stamp(agent_id="p1", epoch=1, generation=1, attempt=1, token="token")
HOST = HostRef(store_id="store-1", name="here")


class Steps:
    """The recorded system calls that make files durable: ("fsync", path) and ("rename", new path)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.taken: list[tuple[str, str]] = []
        sync = os.fsync

        def fsync(descriptor: int) -> None:
            self.taken.append(("fsync", os.path.realpath(f"/dev/fd/{descriptor}")))
            sync(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        for name in ("rename", "replace"):
            monkeypatch.setattr(os, name, self._renaming(getattr(os, name)))

    def _renaming(self, rename: Any) -> Any:
        def act(source: Any, target: Any) -> None:
            self.taken.append(("rename", os.path.realpath(target)))
            rename(source, target)

        return act


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def blob_of(data: bytes) -> BlobRef:
    return BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def stored(folder: Path, data: bytes) -> Path:
    path = folder / "blob"
    path.write_bytes(data)
    return path


def go(folder: Path, entry: Entry) -> Go:
    blob = blob_of(b"precious")
    file = FileRef(name="in.txt", sha256=blob.sha256, size_bytes=blob.size_bytes)
    work = folder / "work"
    work.mkdir()
    files = (GoFile(file=file, path=str(stored(folder, b"precious"))),)
    return Go(
        stamp=STAMP,
        class_name="m:C",
        kind="paglet",
        entry=entry,
        state={},
        system={},
        host=HOST,
        files=files,
        work_dir=str(work),
    )


# Power failure.


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="nothing tells which file is synced")
def test_a_file_has_its_name_in_the_scratch_only_when_its_bytes_are_safe(tmp_path: Path, steps: Steps) -> None:
    copy_files(go(tmp_path, "message"))
    work = tmp_path / "work"
    (synced, part), renamed = steps.taken
    assert (synced, os.path.dirname(part)) == ("fsync", str(work))
    assert renamed == ("rename", str(work / "in.txt"))
    assert (work / "in.txt").read_bytes() == b"precious"


def test_the_scratch_of_an_attempt_is_not_synced(tmp_path: Path, steps: Steps) -> None:
    copy_files(go(tmp_path, "attempt"))
    assert steps.taken == [("rename", str(tmp_path / "work" / "in.txt"))]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="nothing tells which file is synced")
def test_code_has_its_name_only_when_all_of_its_files_and_folders_are_safe(tmp_path: Path, steps: Steps) -> None:
    data = zipped({"a.py": b"x = 1\n", "pkg/__init__.py": b"", "pkg/deep/b.py": b"y = 2\n"})
    code = tmp_path / "code"
    folder = unpack_once(GoCode(bundle=blob_of(data), path=str(stored(tmp_path, data)), folder=str(code)))
    at = steps.taken.index(("rename", folder))
    beside = os.path.dirname(next(path for _, path in steps.taken if path.endswith("/a.py")))
    synced = [os.path.relpath(path, beside) for step, path in steps.taken[:at] if step == "fsync"]
    assert sorted(synced[:3]) == ["a.py", "pkg/__init__.py", "pkg/deep/b.py"]
    assert synced[3:] == ["pkg/deep", "pkg", "."]
    assert steps.taken[at + 1 :] == [("fsync", str(code))]


# Fetched artifacts.


class Fetching:
    """The artifacts of a paglet. The host has one of them."""

    def __init__(self, folder: Path, data: bytes) -> None:
        blob = blob_of(data)
        self.path = stored(folder, data)
        self.ref = ArtifactRef(
            artifact_id="art-12345678",
            name="big.bin",
            size_bytes=blob.size_bytes,
            sha256=blob.sha256,
            host_name="there",
            owner="",
            created_at=1.0,
        )
        self.deletion: PagletsError | None = None
        self.fetched = threading.Barrier(1)
        publisher = BlobPublisher("token", self._answer, lambda mtime_ns: None)
        self.artifacts = ChildArtifacts("token", self._answer, publisher, lambda: 0.0)

    def _answer(self, operation: str, args: Any) -> Any:
        if operation == "artifact_fetch":
            self.fetched.wait(60)
            return {"artifact": to_json(self.ref), "path": str(self.path)}
        if self.deletion is not None:
            raise self.deletion
        return None


def test_threads_may_fetch_one_artifact_into_one_folder(tmp_path: Path) -> None:
    fetching, folder = Fetching(tmp_path, b"x" * (16 << 20)), tmp_path / "to"
    folder.mkdir()
    fetching.fetched = threading.Barrier(4)
    names = [folder / f"{number}.bin" for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(lambda name: fetching.artifacts.download(fetching.ref, name, False), names)) == names
    assert sorted(folder.iterdir()) == names


def test_what_another_process_left_of_a_download_is_in_nobodys_way(tmp_path: Path) -> None:
    fetching = Fetching(tmp_path, b"data")
    left = tmp_path / f".art-12345678.part-{os.getpid()}"
    left.write_bytes(b"da")
    assert fetching.artifacts.download(fetching.ref, tmp_path, False).read_bytes() == b"data"
    assert left.read_bytes() == b"da"


def test_an_artifact_that_is_deleted_during_its_fetch_is_still_fetched(tmp_path: Path) -> None:
    fetching = Fetching(tmp_path, b"data")
    fetching.deletion = Unknown("there is no artifact art-12345678 here")
    assert fetching.artifacts.download(fetching.ref, tmp_path, True).read_bytes() == b"data"
    with pytest.raises(Unknown):
        fetching.artifacts.delete(fetching.ref)


def test_a_pipe_is_not_replaced_by_a_file_even_where_it_may_be(tmp_path: Path) -> None:
    fetching, pipe = Fetching(tmp_path, b"data"), tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(Invalid, match="neither a file nor a folder"):
        fetching.artifacts.download(fetching.ref, pipe, False, replace=True)
    assert stat.S_ISFIFO(os.lstat(pipe).st_mode)
