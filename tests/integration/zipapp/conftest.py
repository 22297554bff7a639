"""The archive, built once for all its tests, and the interpreters of this machine."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from build_zipapp import PSUTIL_WHEELS, ROOT, TOMLI_W_WHEEL, fetch
from tests.acceptance.rig import built_archive

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def copy_of_checkout(source: Path, target: Path) -> Path:
    """Copy the input of a build to another folder, with the wheels, so that they are fetched once."""
    for name in ("paglets", "archive_root"):
        shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    (target / "build" / "wheels").mkdir(parents=True)
    # List the files by name, because another process of these tests may be fetching others into this folder.
    for name in ("build_zipapp.py", *(f"build/wheels/{wheel.name}" for wheel in (*PSUTIL_WHEELS, TOMLI_W_WHEEL))):
        shutil.copy(source / name, target / name)
    return target


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy this checkout, with its archive, as it is when the tests start."""
    base = tmp_path_factory.getbasetemp()
    # Each worker of pytest-xdist has a folder of its own in a shared one. One of them copies and builds.
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    place = shared / "checkout" / "paglets"
    place.parent.mkdir(exist_ok=True)
    with (place.parent / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (place / "dist").exists():
            for wheel in (*PSUTIL_WHEELS, TOMLI_W_WHEEL):
                fetch(wheel)
            copy_of_checkout(ROOT, place)
            archive = built_archive(tmp_path_factory)
            (place / "dist").mkdir()
            shutil.copy2(archive, place / "dist")
    return place


@pytest.fixture(scope="session")
def pyz(checkout: Path) -> Path:
    """Build the archive from the checkout."""
    return checkout / "dist" / "paglets.pyz"


@pytest.fixture
def another_checkout(checkout: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies the checkout to a folder of this name."""
    return lambda name: copy_of_checkout(checkout, tmp_path / name)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a function that runs a command to its end in an empty folder, with only the given environment of this
    Python."""
    folder = tmp_path / "empty"
    folder.mkdir()

    def run(*command: object, cwd: Path = folder, **environment: object) -> subprocess.CompletedProcess[str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PAGLETS"))}
        given = {"PAGLETS_HOME": str(tmp_path / "home")} | {name: str(value) for name, value in environment.items()}
        return subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env=kept | given,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run
