"""The parts of a launcher that need no real process."""

from __future__ import annotations

import errno
import importlib
import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from paglets.api.slots import Usage
from paglets.codec.class_names import resolve_class
from paglets.core.errors import Conflict, ImportFailed
from paglets.core.text import placed
from paglets.program import this_program
from paglets.worker.child.faults import MAX_TRACEBACK_CHARACTERS, NOT_SENT, entry_fault_of, fault_of, show
from paglets.worker.host.sampler import SampledRun, larger, sample_runs
from paglets.worker.host.supervisor import BACKOFF_SECONDS, FAILED_STARTS, STABLE_SECONDS, RestartBackoff
from paglets.worker.launch import HOST_FILES_MISSING
from paglets.worker.processes import (
    ProcessInfo,
    ProcTable,
    RunTree,
    descendants,
    kill_runs,
    process_table,
    same_process,
)
from paglets.worker.scratch import scratch_bytes


def info(pid: int, parent: int, state: str = "S") -> ProcessInfo:
    return ProcessInfo(
        pid=pid, parent=parent, session=pid, state=state, start_time=float(pid), cpu_seconds=1.0, rss_bytes=10
    )


TREE = {each.pid: each for each in (info(10, 1), info(11, 10), info(12, 11), info(13, 10, "Z"), info(20, 1))}


class Table:
    """A process table that does not change."""

    def get(self, pid: int) -> ProcessInfo | None:
        return TREE.get(pid)

    def all(self) -> dict[int, ProcessInfo]:
        return TREE

    def marked(self) -> dict[int, str]:
        return {20: "another run"}


def test_descendants_are_the_roots_and_all_below_them() -> None:
    assert set(descendants(TREE, [10])) == {10, 11, 12, 13}
    assert set(descendants(TREE, [12, 99])) == {12}


def test_a_process_is_the_same_only_if_it_lives_and_began_at_the_same_time() -> None:
    assert same_process(TREE[10], 10.0)
    assert not same_process(TREE[10], 11.0)
    assert not same_process(TREE[13], 13.0)
    assert not same_process(None, 10.0)


def test_a_sample_adds_up_the_tree_without_its_zombies(tmp_path: Path) -> None:
    watched = SampledRun(token="t", pid=10, start_time=10.0, work_dir=str(tmp_path))
    stranger = SampledRun(token="u", pid=20, start_time=1.0, work_dir=str(tmp_path))
    samples = sample_runs(Table(), (watched, stranger), with_scratch=True)
    assert list(samples) == ["t"]
    assert samples["t"].usage == Usage(cpu_seconds=3.0, rss_bytes=30, scratch_bytes=0, processes=3)
    assert samples["t"].seen == {10: 10.0, 11: 11.0, 12: 12.0}


def test_usage_is_kept_as_maxima() -> None:
    one = Usage(cpu_seconds=1.0, rss_bytes=9, scratch_bytes=5, processes=2)
    other = Usage(cpu_seconds=2.0, rss_bytes=3, scratch_bytes=6, processes=1)
    assert larger(one, other) == Usage(cpu_seconds=2.0, rss_bytes=9, scratch_bytes=6, processes=2)


def test_scratch_counts_the_disk_space_below_and_follows_no_link(tmp_path: Path) -> None:
    below = tmp_path / "scratch" / "deep"
    below.mkdir(parents=True)
    (below / "file").write_bytes(os.urandom(100_000))
    (tmp_path / "outside").write_bytes(os.urandom(500_000))
    (below / "link").symlink_to(tmp_path / "outside")
    (below / "loop").symlink_to(tmp_path)
    assert 100_000 <= scratch_bytes(str(tmp_path / "scratch")) < 200_000


def test_scratch_that_is_gone_or_endless_is_no_reason_to_hang(tmp_path: Path) -> None:
    for number in range(50):
        (tmp_path / str(number)).write_bytes(b"x" * 10_000)
    assert scratch_bytes(str(tmp_path / "gone")) == 0
    assert scratch_bytes(str(tmp_path), most_entries=10) < scratch_bytes(str(tmp_path))


def test_this_process_is_in_the_table_as_it_is() -> None:
    table = process_table()
    own = table.get(os.getpid())
    assert own is not None
    assert (own.parent, own.session, own.alive) == (os.getppid(), os.getsid(0), True)
    assert 1_000_000 < own.rss_bytes < 10_000_000_000
    assert table.all()[os.getpid()].start_time == own.start_time
    assert table.get(2**22 + 5) is None


def test_psutil_and_proc_tell_the_same_of_a_process() -> None:
    psutil = pytest.importorskip("psutil")
    from paglets.worker.processes import PsutilTable

    one, other = ProcTable().get(os.getpid()), PsutilTable(psutil).get(os.getpid())
    assert one is not None
    assert other is not None
    assert (one.pid, one.parent, one.alive) == (other.pid, other.parent, other.alive)
    assert abs(one.rss_bytes - other.rss_bytes) < 5_000_000


def test_a_pid_that_another_program_uses_now_is_left_alone() -> None:
    # A wrong match would kill this very process.
    own = ProcTable().get(os.getpid())
    assert own is not None
    assert kill_runs(ProcTable(), [RunTree(token="x", pid=own.pid, start_time=own.start_time + 5, seen={})]) == set()
    assert kill_runs(Table(), [RunTree(token="x", pid=20, start_time=20.0, seen={})]) == set()


def test_zygotes_that_end_soon_are_started_again_after_growing_pauses() -> None:
    restarts, now, pauses = RestartBackoff(), 100.0, []
    for _ in range(8):
        restarts.started(now)
        due = restarts.ended(now + 1, was_ready=True)
        pauses.append(due - now - 1)
        now = due
    assert pauses == pytest.approx([*BACKOFF_SECONDS, BACKOFF_SECONDS[-1], BACKOFF_SECONDS[-1]])
    assert not restarts.is_crash_looping
    restarts.started(now)
    assert restarts.ended(now + STABLE_SECONDS, was_ready=True) == now + STABLE_SECONDS


def test_zygotes_that_are_never_ready_are_in_a_crash_loop() -> None:
    restarts = RestartBackoff()
    for _ in range(FAILED_STARTS):
        assert not restarts.is_crash_looping
        restarts.ended(0.0, was_ready=False)
    assert restarts.is_crash_looping
    restarts.ended(0.0, was_ready=True)
    assert not restarts.is_crash_looping


def raised(error: Exception) -> Exception:
    try:
        raise error
    except Exception as caught:
        return caught


def test_a_fault_names_the_exception_and_carries_the_code_of_ours() -> None:
    fault = fault_of(raised(ValueError("no \udcff such")))
    assert (fault.cause, fault.message, fault.code) == ("exception", "ValueError: no \\udcff such", "")
    assert "in raised" in fault.traceback
    assert fault_of(raised(Conflict("two"))).code == "conflict"
    assert fault_of(raised(ImportFailed("no module here"))).cause == "import_failed"


def test_a_file_that_was_not_sent_is_told_with_the_way_to_send_it() -> None:
    def told(act: Callable[[], object]) -> str:
        with pytest.raises(FileNotFoundError) as caught:
            act()
        return fault_of(caught.value).message

    assert told(Path("no-words.csv").read_text) == (
        f"FileNotFoundError: [Errno 2] No such file or directory: 'no-words.csv'; {NOT_SENT}"
    )
    assert NOT_SENT not in told(Path("/no/words.csv").read_text)
    assert NOT_SENT not in told(lambda: subprocess.run(["no-such-program"], check=False))


def test_a_fault_is_bounded_and_shows_both_ends() -> None:
    fault = fault_of(raised(ValueError("a" * 50_000 + "the end")))
    assert len(fault.message) < 5_000
    assert fault.message.endswith("the end")
    assert len(fault.traceback) < MAX_TRACEBACK_CHARACTERS + 100


def imported(folder: Path, text: str) -> ImportFailed:
    """Import a class from a module with that text, and return the error."""
    (folder / "users.py").write_text(text)
    sys.path.insert(0, str(folder))
    try:
        resolve_class("users:Job")
    except ImportFailed as error:
        below = error.__traceback__
        return error.with_traceback(below.tb_next if below else None)
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("users", None)
        importlib.invalidate_caches()
    raise AssertionError("it can be imported")


@pytest.mark.parametrize(
    ("text", "frames", "last"),
    [
        ("x = 1\nimport no_such_library", ["line 2, in <module>"], "ModuleNotFoundError: No module named"),
        ("def f():\n    1 / 0\nf()", ["line 3, in <module>", "line 2, in f"], "ZeroDivisionError: "),
        ("x = 1\ndef f(:", ["line 2"], "SyntaxError: "),
        (
            "from paglets.codec.class_names import refuse_while_importing\nrefuse_while_importing()",
            ["line 2, in <module>"],
            "paglets.core.errors.ImportFailed: put the submission under",
        ),
    ],
)
def test_of_a_failed_import_only_the_users_lines_are_shown(
    text: str, frames: list[str], last: str, tmp_path: Path
) -> None:
    trace = fault_of(imported(tmp_path, text)).traceback
    assert [line.partition(", ")[2] for line in trace.splitlines() if "File " in line] == frames
    assert trace.splitlines()[-1].startswith(last)


def test_a_class_that_is_not_there_has_a_message_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = imported(tmp_path, "")
    assert fault_of(error).traceback == ""
    show(error)
    assert capsys.readouterr().err == f"paglets: {error.message}\n"


def test_a_missing_library_is_reported_with_interpreter_and_advice() -> None:
    fault = fault_of(raised(ModuleNotFoundError("No module named 'x'", name="x")))
    assert fault.cause == "import_failed"
    assert f"No module named 'x': {sys.executable} (Python {platform.python_version()}) lacks it;" in fault.message


def test_a_library_that_cannot_be_loaded_at_work_is_a_failed_import_too() -> None:
    fault = fault_of(raised(ImportError("libcuda.so.1: cannot open shared object file")))
    assert (fault.cause, fault.message) == (
        "import_failed",
        "ImportError: libcuda.so.1: cannot open shared object file",
    )


def test_an_exception_without_a_text_is_a_fault_too() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert "RuntimeError" in fault_of(raised(Mute())).message


def test_a_problem_of_the_system_is_told_with_its_place_if_there_is_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        os.open(tmp_path / "missing", os.O_RDONLY)
    assert placed(missing.value) == f"{tmp_path}/missing: No such file or directory"
    assert placed(OSError(errno.EMFILE, os.strerror(errno.EMFILE))) == "Too many open files"


# Causes of faults.


def cause_of(error: BaseException, work_dir: Path) -> str:
    return entry_fault_of(error, str(work_dir)).cause


def raised_from(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def test_an_error_that_is_its_own_cause_is_told_like_others(tmp_path: Path) -> None:
    # `raise error from error` has itself as its cause. An endless walk along the causes would hang the process.
    error = ValueError("oops")
    assert cause_of(raised_from(error, error), tmp_path) == "exception"
    first, second = ValueError("one"), ValueError("two")
    assert cause_of(raised_from(first, raised_from(second, first)), tmp_path) == "exception"


def test_what_the_files_of_the_host_lack_is_no_doing_of_the_paglets(tmp_path: Path) -> None:
    scratch = tmp_path / "work" / "job-1"
    scratch.mkdir(parents=True)
    program = FileNotFoundError(errno.ENOENT, "No such file", str(this_program().path))
    assert cause_of(program, scratch) == HOST_FILES_MISSING
    assert cause_of(raised_from(ImportFailed("no class"), program), scratch) == HOST_FILES_MISSING
    assert cause_of(ImportFailed("it cannot be unpacked", passes=True), scratch) == HOST_FILES_MISSING
    assert cause_of(ImportFailed("no module"), scratch) == "import_failed"
    own = FileNotFoundError(errno.ENOENT, "No such file", str(scratch / "table.csv"))
    assert cause_of(own, scratch) == "exception"
    scratch.parent.rename(tmp_path / "away")
    assert cause_of(own, scratch) == HOST_FILES_MISSING
    assert cause_of(FileNotFoundError(errno.ENOENT, "No such file", "/data/table.csv"), scratch) == "exception"
