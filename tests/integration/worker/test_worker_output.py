"""The output of processes, through a real zygote into logs of bounded size."""

from __future__ import annotations

import os
import resource
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import printing_paglets as paglets
import pytest
from fake_host import FakeHost, Told
from printing_paglets import MIB, numbered

from paglets.worker import logs
from paglets.worker.logs import HEAD_BYTES, SEGMENT_BYTES
from paglets.worker.processes import ProcTable
from tests.fakes.waiting import wait_until


def kept(path: str) -> list[tuple[int, bytes]]:
    """Return offset and bytes of each file of a log."""
    return [(part.offset, Path(part.path).read_bytes()) for part in logs.segments(path)]


def start_with_stdout_at(host: FakeHost, path: str, cls: type, **state: object) -> Told:
    """Start a process like `FakeHost.start`, with another log."""
    first = host.start("trivial_paglet:Trivial")
    host.wait(first)
    token = uuid4().hex
    spec = replace(first.spec, token=token, stdout_path=path)
    stamp = replace(first.go.stamp, token=token)
    go = replace(first.go, stamp=stamp, class_name=f"{cls.__module__}:{cls.__qualname__}", state=state)
    return host.launch(Told(spec=spec, go=go))


def test_of_much_output_the_beginning_and_the_end_are_there_when_the_end_is_told(host: FakeHost) -> None:
    told = host.start(paglets.PrintsMuch, number=22)
    how = host.wait(told)
    printed = numbered(22 * MIB)
    for path in (told.spec.stdout_path, told.spec.stderr_path):
        parts = kept(path)
        assert [offset for offset, _ in parts] == [0, 16 * MIB, 20 * MIB]
        assert [len(data) for _, data in parts] == [HEAD_BYTES, SEGMENT_BYTES, 2 * MIB]
        assert all(printed[offset : offset + len(data)] == data for offset, data in parts)
    assert how.stderr_tail == printed[-8184:].decode()


def test_bytes_come_as_they_are_with_or_without_a_newline(host: FakeHost) -> None:
    told = host.start(paglets.PrintsBytes)
    host.wait(told)
    assert kept(told.spec.stdout_path) == [(0, bytes(range(256)) * 3 + b"no newline")]


def test_a_job_that_prints_without_end_is_bounded_and_others_start_and_end(host: FakeHost) -> None:
    endless = [host.start(paglets.PrintsForEver) for _ in range(3)]
    for told in endless:
        wait_until(
            lambda told=told: logs.end_of(told.spec.stdout_path) > 20 * MIB,
            timeout_seconds=60,
            what="20 MiB of output",
        )
    for _ in range(3):
        assert host.wait(host.start("trivial_paglet:Trivial")).exit_code == 0
    for told in endless:
        host.launcher.end(told.spec.token)
        assert host.wait(told).signal is not None
        sizes = [len(data) for _, data in kept(told.spec.stdout_path)]
        assert sum(sizes) <= HEAD_BYTES + logs.KEPT_SEGMENTS * SEGMENT_BYTES
        assert logs.end_of(told.spec.stdout_path) > 20 * MIB


def test_a_job_that_closes_its_stdout_goes_on(host: FakeHost) -> None:
    told = host.start(paglets.ClosesItsStdout)
    assert host.wait(told).exit_code == 0
    assert told.all("report")[0].success
    assert kept(told.spec.stdout_path) == [(0, b"said before\n")]
    assert kept(told.spec.stderr_path) == [(0, b"said after\n")]


def test_a_grandchild_that_keeps_stdout_open_does_not_keep_the_end_from_being_told(host: FakeHost) -> None:
    told = host.start(paglets.LeavesAPrinter)
    how = host.wait(told)
    assert (how.exit_code, how.stderr_tail) == (0, "it was the last word\n")
    assert told.spec.token not in ProcTable().marked().values()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no disk here that is always full")
def test_a_full_disk_neither_holds_up_nor_ends_a_job_that_prints(host: FakeHost) -> None:
    told = start_with_stdout_at(host, "/dev/full", paglets.PrintsMuch, number=3)
    assert host.wait(told).exit_code == 0
    assert logs.end_of(told.spec.stderr_path) == 3 * MIB
    assert host.wait(host.start("trivial_paglet:Trivial")).exit_code == 0


def test_processes_one_after_the_other_append_to_one_log(host: FakeHost) -> None:
    first = host.start(paglets.PrintsBytes)
    host.wait(first)
    second = start_with_stdout_at(host, first.spec.stdout_path, paglets.PrintsBytes)
    host.wait(second)
    assert kept(first.spec.stdout_path) == [(0, (bytes(range(256)) * 3 + b"no newline") * 2)]


def test_a_log_that_cannot_be_opened_fails_the_start_with_the_reason(host: FakeHost, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = start_with_stdout_at(host, str(tmp_path / "file" / "1.1.out"), paglets.PrintsBytes)
    assert str(tmp_path / "file") in host.wait(told).error


def test_the_zygote_keeps_no_descriptor_of_runs_that_are_over(host: FakeHost, tmp_path: Path) -> None:
    staying = host.start(paglets.SaysWhatItMay, path=str(tmp_path / "pids"))
    wait_until((tmp_path / "pids").exists)
    info = ProcTable().get(staying.pid or 0)
    assert info is not None

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{info.parent}/fd"))

    before = descriptors()
    for number in range(5):
        host.wait(host.start(paglets.PrintsBytes, number=number))
    (tmp_path / "file").touch()
    host.wait(start_with_stdout_at(host, str(tmp_path / "file" / "1.1.out"), paglets.PrintsBytes))
    # One more descriptor is open for a moment while the zygote lists its children.
    wait_until(lambda: descriptors() <= before, what="as many descriptors as before")


def test_a_process_may_have_as_many_descriptors_as_the_host(host: FakeHost, tmp_path: Path) -> None:
    host.start(paglets.SaysWhatItMay, path=str(tmp_path / "pids"))
    wait_until((tmp_path / "pids").exists)
    assert int((tmp_path / "pids.limit").read_text()) == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
