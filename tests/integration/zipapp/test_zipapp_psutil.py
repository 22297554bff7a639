"""psutil from the archive: unpacked once by concurrent starts, and omitted if it is not available."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LOAD = (
    "from paglets.native import load_psutil, psutil_problem\n"
    "psutil = load_psutil()\n"
    "print(psutil and (psutil.__file__, psutil.Process().pid > 0), psutil_problem(), sep='|')\n"
)
NO_SITE = ("-S", "-c", LOAD)  # -S: installed packages are not visible


def cached(home: Path) -> list[Path]:
    return list((home / "cache" / "native").iterdir())


def test_an_installed_psutil_wins(run, pyz, tmp_path):
    pytest.importorskip("psutil")
    done = run(sys.executable, "-c", LOAD, PYTHONPATH=pyz)
    assert "site-packages" in done.stdout, done.stderr
    assert not (tmp_path / "home" / "cache" / "native").exists()


def test_without_one_the_bundled_is_unpacked_and_used_again(run, pyz, tmp_path):
    first, second = (run(sys.executable, *NO_SITE, PYTHONPATH=pyz) for _ in range(2))
    assert first.stdout == second.stdout, first.stderr
    (folder,) = cached(tmp_path / "home")
    assert first.stdout == f"{(str(folder / 'psutil' / '__init__.py'), True)}|\n"
    assert folder.stat().st_mode & 0o077 == 0


def test_forty_first_starts_at_once_unpack_one_whole_folder(pyz, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(pyz), "PAGLETS_HOME": str(tmp_path / "home")}
    command = [sys.executable, *NO_SITE]
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True, cwd=tmp_path) for _ in range(40)
    ]
    outputs = {process.communicate(timeout=300)[0] for process in processes}
    assert {process.returncode for process in processes} == {0}
    (folder,) = cached(tmp_path / "home")
    assert outputs == {f"{(str(folder / 'psutil' / '__init__.py'), True)}|\n"}


@pytest.mark.parametrize("harm", ["read-only", "damaged", "writable by others"])
def test_where_the_cache_cannot_be_used_the_run_time_folder_is(run, pyz, tmp_path, harm):
    home, runtime = tmp_path / "home", tmp_path / "runtime"
    if harm == "read-only":
        home = Path("/dev/null/home")
    else:
        run(sys.executable, *NO_SITE, PYTHONPATH=pyz)
        (folder,) = cached(home)
        if harm == "damaged":
            for library in folder.glob("psutil/*.so"):
                library.write_bytes(b"cut")
        else:
            folder.chmod(0o777)
    done = run(sys.executable, *NO_SITE, PYTHONPATH=pyz, XDG_RUNTIME_DIR=runtime, PAGLETS_HOME=home)
    assert str(runtime) in done.stdout, done.stderr


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can give folders away")
def test_root_creates_nothing_in_the_home_of_another_user(run, pyz, tmp_path):
    home = tmp_path / "home"
    home.mkdir(exist_ok=True)
    os.chown(home, 12345, -1)
    done = run(sys.executable, *NO_SITE, PYTHONPATH=pyz, PAGLETS_HOME=home)
    assert "belongs to another user" in done.stdout, done.stderr
    assert list(home.iterdir()) == []


def test_where_no_folder_can_be_used_there_is_a_reason_instead(run, pyz):
    unwritable = {"HOME": "/dev/null/home", "PAGLETS_HOME": "/dev/null/paglets", "XDG_RUNTIME_DIR": "/dev/null/run"}
    done = run(sys.executable, *NO_SITE, PYTHONPATH=pyz, **unwritable)
    module, reason = done.stdout.strip().split("|")
    assert module == "None"
    assert reason.startswith("psutil is not installed; the bundled one cannot be used: /dev/null/paglets")
    assert "/dev/null/run" in reason


def test_a_checkout_without_psutil_says_so(run):
    root = Path(__file__).resolve().parents[3]
    done = run(sys.executable, *NO_SITE, PYTHONPATH=root)
    assert done.stdout == "None|psutil is not installed; only paglets.pyz brings its own\n", done.stderr
