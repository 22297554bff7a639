"""Observations of this process: which open files of installed libraries count as a change."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from paglets.worker.library_files import library_folders
from paglets.worker.observation import MAX_LIBRARY_FILES, Observation, difference, observe

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="warm workers need Linux")

LIBRARY_FILE = os.path.realpath(os.__file__)
LIBRARY = os.path.dirname(LIBRARY_FILE)


@pytest.fixture
def kept() -> Iterator[ExitStack]:
    """Return a stack that closes the files which a job left open."""
    with ExitStack() as stack:
        yield stack


def now(*not_libraries: str) -> Observation:
    return observe(0, 1, not_libraries=not_libraries)


def keep(kept: ExitStack, path: str | Path, flags: int = os.O_RDONLY) -> int:
    descriptor = os.open(path, flags)
    kept.callback(os.close, descriptor)
    return descriptor


def test_a_library_may_keep_its_files_open(kept: ExitStack) -> None:
    before = now()
    keep(kept, LIBRARY_FILE)
    after = now()
    assert difference(before, after) == ""
    assert after.library_files == before.library_files + 1


def test_a_later_job_may_close_the_files_of_libraries() -> None:
    with open(LIBRARY_FILE, "rb"):
        before = now()
    assert difference(before, now()) == ""


def test_the_number_of_files_of_libraries_is_limited(kept: ExitStack) -> None:
    before = now()
    for _ in range(MAX_LIBRARY_FILES - before.library_files):
        keep(kept, LIBRARY_FILE)
    assert difference(before, now()) == ""
    keep(kept, LIBRARY_FILE)
    assert difference(before, now()) == "left 65 files of installed libraries open"


def test_no_file_is_one_of_a_library_in_a_process_that_is_to_be_forked(kept: ExitStack) -> None:
    before = observe(0, 1)
    keep(kept, LIBRARY_FILE)
    assert difference(before, observe(0, 1)) == f"left an open file or socket: {LIBRARY_FILE}"


def test_files_in_folders_of_the_job_count(kept: ExitStack) -> None:
    before = now(LIBRARY)
    keep(kept, LIBRARY_FILE)
    assert difference(before, now(LIBRARY)) == f"left an open file or socket: {LIBRARY_FILE}"


def test_a_locked_file_counts(kept: ExitStack) -> None:
    before = now()
    fcntl.flock(keep(kept, LIBRARY_FILE), fcntl.LOCK_SH)
    assert difference(before, now()).startswith("left an open file")


def test_a_file_elsewhere_counts(kept: ExitStack, tmp_path: Path) -> None:
    before = now()
    keep(kept, shutil.copy(LIBRARY_FILE, tmp_path))
    assert difference(before, now()).startswith("left an open file")


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that counts as one of installed libraries."""
    folder = tmp_path / "site-packages"
    folder.mkdir()
    monkeypatch.setattr("site.getsitepackages", lambda: [str(folder)])
    library_folders.cache_clear()
    return folder


@pytest.fixture(autouse=True)
def _found_again() -> Iterator[None]:
    yield
    library_folders.cache_clear()


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR])
def test_a_file_of_a_library_that_can_be_written_counts(kept: ExitStack, library: Path, flags: int) -> None:
    (library / "cache").touch()
    before = now()
    keep(kept, library / "cache")
    assert difference(before, now()) == ""
    keep(kept, library / "cache", flags)
    assert difference(before, now()).startswith("left an open file")


def _pipe(folder: Path) -> Any:
    os.mkfifo(folder / "pipe")
    return os.open(folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)


def _socket(folder: Path) -> Any:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(os.path.relpath(folder / "socket"))
    return listener.detach()


def _folder(folder: Path) -> Any:
    return os.open(folder, os.O_RDONLY)


@pytest.mark.parametrize("make", [_pipe, _socket, _folder])
def test_only_regular_files_can_be_files_of_libraries(kept: ExitStack, library: Path, make: Any) -> None:
    before = now()
    kept.callback(os.close, make(library))
    assert difference(before, now()).startswith("left an open file")
