"""The log and the console of a host: neither raises if it cannot write."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path

import pytest

from paglets.host.console import Console
from paglets.host.datadir.host_log import MAX_LOG_BYTES, LogFile, LogFileHandler, about, host_logger

FULL = Path("/dev/full")
full = pytest.mark.skipif(not FULL.exists(), reason="there is no disk here that is always full")


def test_each_line_has_its_time(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "host.log")
    log.line("first")
    log.line("second: \ud800")
    log.close()
    log.line("after the end")
    first, second = (tmp_path / "host.log").read_text().splitlines()
    assert first[:2] == "20"
    assert first.endswith(" first")
    assert second.endswith(" second: \\ud800")


def test_what_others_say_cannot_play_with_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = LogFile(tmp_path / "host.log")
    log.line("host \x1b[2Jw1\u202e\nnext line")
    log.close()
    Console().print("host \x1b[2Jw1\u202e")
    assert "host \\x1b[2Jw1\\u202e\nnext line\n" in (tmp_path / "host.log").read_text()
    assert capsys.readouterr().err == "host \\x1b[2Jw1\\u202e\n"


def test_a_long_log_begins_anew_and_keeps_its_last_part(tmp_path: Path) -> None:
    log = LogFile(tmp_path / "host.log")
    log.line("x" * MAX_LOG_BYTES)
    log.line("then")
    log.close()
    assert (tmp_path / "host.log").read_text().endswith(" then\n")
    assert (tmp_path / "host.log.1").stat().st_size > MAX_LOG_BYTES


def test_the_log_of_a_host_in_the_background_has_its_output_too_wherever_that_is(tmp_path: Path) -> None:
    path, output = tmp_path / "host.log", os.open(os.devnull, os.O_WRONLY)
    log = LogFile(path)
    log.take_output((output,))
    os.write(output, b"a traceback\n")
    log.line("x" * MAX_LOG_BYTES)  # this moves the file
    os.write(output, b"another one\n")
    log.close()
    log.line("after the end")
    os.close(output)
    assert (tmp_path / "host.log.1").read_text().startswith("a traceback\n")
    first, second = path.read_text().splitlines()
    assert (first, second.endswith(" after the end")) == ("another one", True)


@pytest.mark.parametrize("background", [False, True])
def test_a_host_in_the_background_speaks_to_its_log_once_it_is_ready(
    background: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    console, log, given = Console(background=background), [], []
    console.print("paglets: a new key")
    console.announce(log.append, "warning: once")
    console.detach(log.append, lambda: given.append("output"))
    console.print("paglets: host laptop is stopping")
    console.announce(log.append, "warning: twice")
    before = ["paglets: a new key", "paglets: warning: once"]
    later = ["host laptop is stopping"] if background else []
    assert log == ["warning: once", *later, "warning: twice"]
    assert given == ["output"] * background
    after = [] if background else ["paglets: host laptop is stopping", "paglets: warning: twice"]
    assert capsys.readouterr().err.splitlines() == before + after


@full
def test_a_line_that_finds_no_room_on_the_disk_is_dropped() -> None:
    log = LogFile(FULL)
    log.line("lost")
    log.close()


@full
def test_a_terminal_that_takes_nothing_does_not_stop_a_host() -> None:
    with FULL.open("w", buffering=1) as gone:
        with contextlib.redirect_stderr(gone):
            Console().print("lost")
            assert sys.stderr is gone
        with contextlib.suppress(OSError):
            gone.close()


def test_a_line_has_level_host_part_and_what_the_call_gave_of_the_job(tmp_path: Path) -> None:
    with host_logger(tmp_path / "host.log", "linux-a", "info") as (log, _):
        part = log.getChild("runs")
        part.debug("left out")
        part.info("process 7 started", extra=about("words/monday", 2))
        try:
            raise ValueError("oops")
        except ValueError:
            part.exception("fault in a part")
        log.warning("of the host itself: 100 %s")
    log.warning("after the end")
    first, second, *middle, last = (tmp_path / "host.log").read_text().splitlines()
    assert first.endswith(" info linux-a runs: process 7 started (job words/monday, attempt 2)")
    assert second.endswith(" error linux-a runs: fault in a part")
    assert middle[-1] == "ValueError: oops"
    assert last.endswith(" warning linux-a: of the host itself: 100 %s")


def test_a_text_with_line_breaks_cannot_look_like_another_event(tmp_path: Path) -> None:
    with host_logger(tmp_path / "host.log", "linux-a", "info") as (log, _):
        log.info("w2: %s", "no\n2020-01-01T00:00:00 error linux-a: forged")
    _, second = (tmp_path / "host.log").read_text().splitlines()
    assert second == "    2020-01-01T00:00:00 error linux-a: forged"


def test_each_level_leaves_out_those_below(tmp_path: Path) -> None:
    levels = ("debug", "info", "warning", "error")
    for number, level in enumerate(levels):
        path = tmp_path / level
        with host_logger(path, "x", level) as (log, _):
            for each in levels:
                getattr(log, each)(each)
        assert [line.split(": ")[1] for line in path.read_text().splitlines()] == list(levels[number:])


def test_a_wrong_log_call_does_not_fail_its_caller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = LogFile(tmp_path / "host.log")
    wrong = logging.LogRecord("paglets", logging.INFO, "", 0, "%d jobs", ("no number",), None)
    LogFileHandler(file, "x").handle(wrong)
    file.close()
    assert (tmp_path / "host.log").read_text() == ""
    assert "Logging error" in capsys.readouterr().err
