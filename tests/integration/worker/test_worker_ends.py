"""The end of processes: reports, and no process that is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import fork_bomb
import pytest
import worker_paglets as paglets
from fake_host import PATIENCE_SECONDS, FakeHost, environment, patient_command

from paglets.worker.host.heartbeat import HeartbeatTimeouts
from paglets.worker.linux import RUN_VARIABLE, zygote_mark
from paglets.worker.processes import ProcessInfo, ProcTable, kill_survivors
from tests.fakes.logs import logger_to
from tests.fakes.waiting import wait_until


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[FakeHost]:
    """A host with a long grace period after SIGTERM, so that a slow job does not look like one that ignores it."""
    host = FakeHost(tmp_path, patient_command(60.0), sample_seconds=0.1)
    yield host
    host.close()


def is_alive(pid: int) -> bool:
    info = ProcTable().get(pid)
    return info is not None and info.alive


def pids_in(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().splitlines()]


def all_pids(folder: Path) -> list[int]:
    """Return the pids of the daemons of `LeavesDaemons`."""
    return [*pids_in(folder / "pids"), *pids_in(folder / "pids.bare")]


def test_a_process_starts_runs_its_entry_and_ends(host: FakeHost) -> None:
    told = host.start("trivial_paglet:Trivial", number=4)
    how = host.wait(told)
    assert (how.exit_code, how.signal, how.error, how.launcher_lost) == (0, None, "", False)
    assert told.order == ["started", "frame", "ended"]
    assert told.done.changes.state["number"] == 5
    assert told.done.fault is None
    assert how.usage.rss_bytes > 5_000_000
    assert how.usage.cpu_seconds > 0


def test_nothing_of_the_user_runs_before_go(patient: FakeHost) -> None:
    patient.paused = True
    told = patient.start(paglets.Counts, "creation")
    wait_until(lambda: told.pid)
    assert is_alive(told.pid or 0)
    patient.launcher.end(told.spec.token)
    assert patient.wait(told).signal == signal.SIGTERM
    assert not Path(told.spec.stdout_path).exists(), "a silent attempt leaves no log"
    assert told.asked == []


@pytest.mark.parametrize(
    ("cls", "number", "exit_code", "killed_by"),
    [
        (paglets.Exits, 0, 0, None),
        (paglets.Exits, 7, 7, None),
        (paglets.ExitsHard, 0, 3, None),
        (paglets.Segfaults, 0, None, signal.SIGSEGV),
    ],
)
def test_an_exit_of_the_jobs_own_is_told_as_it_was(
    host: FakeHost, cls: type, number: int, exit_code: int | None, killed_by: int | None
) -> None:
    told = host.start(cls, number=number)
    how = host.wait(told)
    assert (how.exit_code, how.signal, how.oom) == (exit_code, killed_by, False)
    assert told.asked == []


def test_a_hook_says_first_how_long_its_class_lets_it_take(host: FakeHost) -> None:
    told = host.start(paglets.LimitsItsHooks, "creation")
    assert host.wait(told).exit_code == 0
    assert [name for name, _ in told.asked] == ["hook_limit", "done"]
    assert told.all("hook_limit")[0].seconds == 5.0
    attempt = host.start(paglets.LimitsItsHooks)
    assert host.wait(attempt).exit_code == 0
    assert [name for name, _ in attempt.asked] == ["done"]


def test_the_last_lines_of_stderr_come_with_the_end(host: FakeHost) -> None:
    how = host.wait(host.start(paglets.Segfaults))
    assert how.stderr_tail == "last words\n"


def test_only_the_end_of_a_long_stderr_comes_and_begins_with_a_whole_line(host: FakeHost, tmp_path: Path) -> None:
    told = host.start(paglets.Segfaults)
    earlier = host.wait(told)
    (tmp_path / "2.err").write_text("".join(f"line {number} of an earlier attempt\n" for number in range(2000)))
    again = host.wait(host.start(paglets.Segfaults))
    assert again.stderr_tail == earlier.stderr_tail == "last words\n"


def test_the_log_files_are_private_and_hold_what_was_printed(host: FakeHost) -> None:
    told = host.start(paglets.Counts, "creation")
    host.wait(told)
    assert Path(told.spec.stdout_path).read_text() == "counted\n"
    assert os.stat(told.spec.stdout_path).st_mode & 0o777 == 0o600


def test_daemons_of_a_job_that_ends_are_ended(host: FakeHost, tmp_path: Path) -> None:
    told = host.start(paglets.LeavesDaemons, path=str(tmp_path / "pids"))
    how = host.wait(told)
    assert how.exit_code == 0
    left = all_pids(tmp_path)
    assert len(left) == 4
    assert [pid for pid in left if is_alive(pid)] == []


def test_a_job_that_is_ended_goes_with_its_daemons(patient: FakeHost, tmp_path: Path) -> None:
    told = patient.start(paglets.StaysWithDaemons, path=str(tmp_path / "pids"))
    patient.wait_for_log(told, "all there")
    patient.launcher.end(told.spec.token)
    assert patient.wait(told).signal == signal.SIGTERM
    assert [pid for pid in [told.pid or 0, *all_pids(tmp_path)] if is_alive(pid)] == []


def test_a_neighbour_survives_the_end_of_a_job_with_daemons(host: FakeHost, tmp_path: Path) -> None:
    staying = host.start(paglets.StaysWithDaemons, path=str(tmp_path / "staying"))
    host.wait_for_log(staying, "all there")
    host.wait(host.start(paglets.LeavesDaemons, path=str(tmp_path / "leaving")))
    host.wait(host.start("trivial_paglet:Trivial"))
    assert staying.ended is None
    assert all(is_alive(pid) for pid in pids_in(tmp_path / "staying"))


def test_a_fork_bomb_is_ended(host: FakeHost) -> None:
    told = host.start("fork_bomb:Bomb")
    # Otherwise the process ends by itself.
    how = wait_until(lambda: told.ended, timeout_seconds=fork_bomb.MOST_SECONDS / 2, what="the end of the bomb")
    assert how.exit_code == 0
    assert told.spec.token not in ProcTable().marked().values()


def test_sigterm_that_is_ignored_is_followed_by_sigkill(host: FakeHost, tmp_path: Path) -> None:
    told = host.start(paglets.IgnoresSigterm, path=str(tmp_path / "pids"))
    wait_until((tmp_path / "pids").exists)
    host.launcher.end(told.spec.token)
    how = host.wait(told)
    assert (how.signal, how.oom) == (signal.SIGKILL, False)


def test_sigterm_gives_a_job_the_time_to_clean_up(patient: FakeHost, tmp_path: Path) -> None:
    told = patient.start(paglets.CleansUp, path=str(tmp_path / "pids"))
    wait_until((tmp_path / "pids").exists)
    patient.launcher.end(told.spec.token)
    assert patient.wait(told).exit_code == 9
    assert (tmp_path / "pids.clean").exists()


def test_a_stopped_job_can_be_ended(host: FakeHost, tmp_path: Path) -> None:
    told = host.start(paglets.IgnoresSigterm, path=str(tmp_path / "pids"))
    (pid,) = wait_until(lambda: (tmp_path / "pids").exists() and pids_in(tmp_path / "pids"))
    os.kill(pid, signal.SIGSTOP)
    host.launcher.end(told.spec.token)
    assert host.wait(told).signal == signal.SIGKILL


def test_threads_that_a_job_leaves_do_not_keep_its_process(host: FakeHost) -> None:
    assert host.wait(host.start(paglets.LeavesThreads)).exit_code == 0


def test_a_job_that_closes_its_standard_files_still_reports(host: FakeHost) -> None:
    told = host.start(paglets.ClosesDescriptors)
    assert host.wait(told).exit_code == 0
    assert told.all("report")[0].result == {"still": "here"}


def test_a_child_that_sends_a_bad_frame_is_ended_and_told_why(patient: FakeHost) -> None:
    how = patient.wait(patient.start(paglets.BadFrame))
    assert how.signal == signal.SIGTERM
    assert "bad frame" in how.stderr_tail


def test_a_process_that_cannot_be_started_ends_with_the_reason(host: FakeHost) -> None:
    first = host.start("trivial_paglet:Trivial")
    host.wait(first)
    os.rmdir(first.spec.work_dir)
    first.ended = None
    how = host.wait(host.launch(first))
    assert first.spec.work_dir in how.error
    assert (how.exit_code, how.signal) == (None, None)


def test_usage_is_sampled_while_it_runs_and_once_at_the_end(host: FakeHost, tmp_path: Path) -> None:
    told = host.start(paglets.Writes, path=str(tmp_path / "pids"))
    # The job writes its file first, so an early sample lacks some of its CPU time.
    wait_until(
        lambda: told.usages and told.usages[-1].scratch_bytes and told.usages[-1].cpu_seconds >= 0.1,
        timeout_seconds=PATIENCE_SECONDS,
        what="a sample of all of it",
    )
    sampled = told.usages[-1]
    assert sampled.rss_bytes > 60_000_000
    host.launcher.end(told.spec.token)
    how = host.wait(told)
    assert how.usage.rss_bytes >= sampled.rss_bytes
    assert how.usage.scratch_bytes >= 3_000_000
    assert told.order[-1] == "ended"


class HeldUpTable(ProcTable):
    """The table of a machine that is busy at each sample."""

    def all(self) -> dict[int, ProcessInfo]:
        time.sleep(0.2)
        return super().all()


def test_a_machine_that_holds_up_a_look_is_looked_at_no_less_often(tmp_path: Path) -> None:
    host = FakeHost(tmp_path, sample_seconds=0.1, table=HeldUpTable())
    try:
        told = host.start(paglets.IgnoresSigterm, path=str(tmp_path / "pids"))
        wait_until(lambda: len(told.usages) >= 4, what="a fourth sample")
    finally:
        host.close()


def test_a_killed_zygote_takes_its_children_along_and_is_followed_by_another(host: FakeHost, tmp_path: Path) -> None:
    told = host.start(paglets.StaysWithDaemons, path=str(tmp_path / "pids"))
    host.wait_for_log(told, "all there")
    wait_until(
        lambda: told.usages and told.usages[-1].processes == 5,
        timeout_seconds=PATIENCE_SECONDS,
        what="a sample of the whole tree",
    )
    zygote = ProcTable().get(told.pid or 0)
    assert zygote is not None
    os.kill(zygote.parent, signal.SIGKILL)
    how = host.wait(told)
    assert how.launcher_lost
    assert "all there" in how.stderr_tail
    # The process without a marker was sampled before. One that was not sampled may escape.
    assert [pid for pid in all_pids(tmp_path) if is_alive(pid)] == []
    again = host.start("trivial_paglet:Trivial")
    assert host.wait(again).exit_code == 0


def test_a_job_that_signals_its_parent_ends_nobody(host: FakeHost, tmp_path: Path) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    all_told = [host.start(paglets.SignalsItsParent, number=int(n), path=str(tmp_path / str(n))) for n in numbers]
    wait_until(lambda: all((tmp_path / str(number)).exists() for number in numbers))
    assert host.wait(host.start("trivial_paglet:Trivial")).exit_code == 0
    assert [told.ended for told in all_told] == [None] * len(numbers)


def test_a_job_that_kills_its_parent_is_found_when_it_is_alone(host: FakeHost, tmp_path: Path) -> None:
    neighbour = host.start(paglets.StaysWithDaemons, path=str(tmp_path / "neighbour"), alone=True)
    host.wait_for_log(neighbour, "all there")
    how = host.wait(host.start(paglets.SignalsItsParent, number=signal.SIGKILL, path=str(tmp_path / "1")))
    assert (how.launcher_died, how.is_culprit) == (True, False)
    how = host.wait(host.start(paglets.SignalsItsParent, number=signal.SIGKILL, path=str(tmp_path / "2"), alone=True))
    assert (how.launcher_died, how.is_culprit) == (True, True)
    assert neighbour.ended is None
    assert host.wait(host.start("trivial_paglet:Trivial", alone=True)).exit_code == 0


IMPATIENT = HeartbeatTimeouts(interval_seconds=0.05, unresponsive_seconds=0.3, replace_seconds=60.0)


def test_a_stopped_zygote_is_reported_and_resumed(tmp_path: Path) -> None:
    log: list[str] = []
    host = FakeHost(tmp_path, log=logger_to(log.append), heartbeat=IMPATIENT)
    try:
        staying = host.start(paglets.IgnoresSigterm, path=str(tmp_path / "staying"))
        wait_until((tmp_path / "staying").exists)
        host.start(paglets.SignalsItsParent, number=signal.SIGSTOP, path=str(tmp_path / "stopper"))
        wait_until((tmp_path / "stopper").exists)
        assert host.wait(host.start("trivial_paglet:Trivial")).exit_code == 0
        wait_until(lambda: host.blocked_reasons[1:], what="the end of the trouble")
        assert "does not answer" in host.blocked_reasons[0]
        assert host.blocked_reasons[1:] == [""]
        assert ["has not answered for 0.3 s" in line for line in log] == [True, False]
        assert staying.ended is None
    finally:
        host.close()


SILENT_ZYGOTE = """
import socket, sys, time
from paglets.worker.zygote_protocol import ZygoteReady, to_frame
from paglets.worker.frames import pack
control = socket.socket(fileno=0)
control.sendall(pack(to_frame(ZygoteReady())))
time.sleep(600)
"""


def test_a_zygote_that_hangs_is_replaced_and_what_it_had_is_no_culprit(tmp_path: Path) -> None:
    impatient = HeartbeatTimeouts(interval_seconds=0.05, unresponsive_seconds=0.2, replace_seconds=0.5)
    log: list[str] = []
    host = FakeHost(tmp_path, (sys.executable, "-c", SILENT_ZYGOTE), log=logger_to(log.append), heartbeat=impatient)
    try:
        how = host.wait(host.start("trivial_paglet:Trivial"))
        assert (how.launcher_lost, how.launcher_died, how.is_culprit) == (True, True, False)
        assert any("did not answer for 0.5 s" in line for line in log)
        assert host.blocked_reasons[-1] == ""
    finally:
        host.launcher.close()
        assert host.launcher.wait_closed(PATIENCE_SECONDS)


def test_a_job_under_a_stopped_zygote_can_be_ended(tmp_path: Path) -> None:
    """The zygote stays stopped: no heartbeat resumes it."""
    host = FakeHost(
        tmp_path, heartbeat=HeartbeatTimeouts(interval_seconds=0.05, unresponsive_seconds=0.2, replace_seconds=3600.0)
    )
    told = host.start(paglets.StaysWithDaemons, path=str(tmp_path / "pids"))
    host.wait_for_log(told, "all there")
    zygote = ProcTable().get(told.pid or 0)
    assert zygote is not None
    stopper = subprocess.Popen(
        [sys.executable, "-c", f"import os, signal\nwhile True: os.kill({zygote.parent}, signal.SIGSTOP)"]
    )
    try:
        wait_until(lambda: host.blocked_reasons, what="the trouble")
        host.launcher.end(told.spec.token)
        # On a busy machine the stopper may pause; then the zygote runs for a moment and ends the job by SIGTERM.
        assert host.wait(told).signal in (signal.SIGKILL, signal.SIGTERM)
        assert [pid for pid in [told.pid or 0, *pids_in(tmp_path / "pids")] if is_alive(pid)] == []
    finally:
        stopper.kill()
        stopper.wait()
        host.close()
    assert not is_alive(zygote.parent)


def test_the_end_of_a_zygote_is_logged_and_not_printed_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    command = (sys.executable, "-c", "raise SystemExit(3)")
    host = FakeHost(tmp_path, command, log=logger_to(said.append))
    try:
        assert "does not start" in host.wait(host.start("trivial_paglet:Trivial")).error
    finally:
        host.launcher.close()
        assert host.launcher.wait_closed(60)
    assert "lost the zygote (it ended, status 3); starting a new one" in said
    assert capfd.readouterr().err == ""


def test_a_zygote_that_cannot_be_started_fails_what_waits_for_it(tmp_path: Path) -> None:
    for command in (("/no/such/program",), (sys.executable, "-c", "raise SystemExit(5)")):
        folder = tmp_path / str(len(command))
        folder.mkdir()
        host = FakeHost(folder, command, zygote_log=str(folder / "zygote.log"))
        assert "zygote" in host.wait(host.start("trivial_paglet:Trivial")).error
        host.close()


def test_closing_ends_everything(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    told = host.start(paglets.StaysWithDaemons, path=str(tmp_path / "pids"))
    host.wait_for_log(told, "all there")
    zygote = ProcTable().get(told.pid or 0)
    assert zygote is not None
    host.close()
    assert told.ended is not None
    everything = [told.pid or 0, zygote.parent, *all_pids(tmp_path)]
    assert [pid for pid in everything if is_alive(pid)] == []


HOST_PROCESS = """
import sys, time
from pathlib import Path
import worker_paglets
from fake_host import FakeHost
host = FakeHost(Path(sys.argv[1]))
told = host.start(worker_paglets.StaysWithDaemons, path=sys.argv[1] + "/pids")
host.wait_for_log(told, "all there")
print(told.pid, told.start_time, told.spec.token, flush=True)
time.sleep(600)
"""


def start_host_process(folder: Path) -> tuple[subprocess.Popen[str], int, float, str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOST_PROCESS, str(folder)], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    pid, start_time, token = process.stdout.readline().split()
    return process, int(pid), float(start_time), token


def test_a_host_that_is_killed_leaves_nothing_running(tmp_path: Path) -> None:
    process, pid, _, _ = start_host_process(tmp_path)
    zygote = ProcTable().get(pid)
    assert zygote is not None
    process.kill()
    process.communicate()
    everything = [pid, zygote.parent, *all_pids(tmp_path)]
    wait_until(lambda: not [each for each in everything if is_alive(each)], what="the end of all")


def test_a_stopped_zygote_ends_with_its_host(tmp_path: Path) -> None:
    process, pid, _, _ = start_host_process(tmp_path)
    zygote = ProcTable().get(pid)
    assert zygote is not None
    os.kill(zygote.parent, signal.SIGSTOP)
    process.kill()
    process.communicate()
    everything = [pid, zygote.parent, *all_pids(tmp_path)]
    wait_until(lambda: not [each for each in everything if is_alive(each)], what="the end of all")


def test_a_zygote_of_an_earlier_start_is_found_by_its_mark(tmp_path: Path) -> None:
    """This includes a zygote that is still stopped."""
    mark = zygote_mark(uuid4().hex)
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={RUN_VARIABLE: mark})
    wait_until(lambda: left.pid in ProcTable().marked(), what="its environment")
    left.send_signal(signal.SIGSTOP)
    assert kill_survivors([(None, None, mark)]) == []
    assert left.wait() == -signal.SIGKILL


def test_what_survives_host_and_zygote_is_ended_when_the_host_starts_again(tmp_path: Path) -> None:
    process, pid, start_time, token = start_host_process(tmp_path)
    zygote = ProcTable().get(pid)
    assert zygote is not None
    process.send_signal(signal.SIGSTOP)
    os.kill(zygote.parent, signal.SIGKILL)
    process.kill()
    process.communicate()
    assert all(is_alive(each) for each in all_pids(tmp_path))
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as bystander:
        info = ProcTable().get(bystander.pid)
        assert info is not None
        runs = [
            (pid, start_time, token),
            (bystander.pid, info.start_time - 100, uuid4().hex),
            (None, None, uuid4().hex),
        ]
        try:
            assert kill_survivors(runs) == []
            assert bystander.poll() is None
        finally:
            bystander.kill()
    assert [each for each in [pid, *pids_in(tmp_path / "pids")] if is_alive(each)] == []
    # This process escapes: it has no marker, and its parents ended before the first sample.
    (bare,) = pids_in(tmp_path / "pids.bare")
    os.kill(bare, signal.SIGKILL)


def test_many_starts_at_once_all_end(host: FakeHost) -> None:
    began = time.monotonic()
    runs = [host.start("trivial_paglet:Trivial", number=number) for number in range(50)]
    for number, told in enumerate(runs):
        assert host.wait(told).exit_code == 0
        assert told.done.changes.state["number"] == number + 1
    # Fifty times the duration on an idle machine, but less than with a wait of one second each.
    assert time.monotonic() - began < 25
