"""Folders of hosts that are small file systems, full or read-only."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

as_root = pytest.mark.skipif(
    os.geteuid() != 0, reason="NOT TESTED: full disks are small file systems, and only root mounts: run it as root"
)


def mount(*arguments: object) -> None:
    """Mount a file system. Skip the test if that is not permitted, as in a container."""
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"NOT TESTED: cannot mount: {done.stderr.strip()}")


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """Turn `folder` into a small file system of its own, with the same content."""
    there = folder.with_name(f"{folder.name}.was")
    if folder.exists():
        folder.rename(there)
    folder.mkdir(parents=True)
    mount("-t", "tmpfs", "-o", ",".join(("mode=0700", *options)), "tmpfs", folder)
    try:
        if there.exists():
            shutil.copytree(there, folder, dirs_exist_ok=True)
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def closed(folder: Path) -> Iterator[None]:
    """Make a folder read-only."""
    if os.geteuid() != 0:
        folder.chmod(0o500)
        try:
            yield
        finally:
            folder.chmod(0o700)
        return
    mount("--bind", folder, folder)
    try:
        mount("-o", "remount,ro,bind", folder)
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    filler = folder / "filler"
    try:
        with filler.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 16)):
                pass
    except OSError:
        pass
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def filled(folder: Path, free_bytes: int) -> Iterator[None]:
    """Fill the file system except for this much, with a file that has no name: a host removes unknown files."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        with suppress(OSError):
            while file.write(bytes(1 << 12)):
                pass
        os.ftruncate(file.fileno(), os.fstat(file.fileno()).st_size - free_bytes)
        filler.unlink(missing_ok=True)
        yield


@contextmanager
def without_inodes(folder: Path) -> Iterator[None]:
    many = folder / "many"
    many.mkdir()
    try:
        for nth in range(10_000):
            (many / str(nth)).touch()
    except OSError:
        pass
    try:
        yield
    finally:
        shutil.rmtree(many)
