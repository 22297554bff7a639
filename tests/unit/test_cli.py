from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paglets.api.groups import GroupLine, GroupView, SubmitGroup, WaitingReport
from paglets.api.hosts import MeshHostView
from paglets.api.paglets import PagletView
from paglets.api.slots import JobView, Lease, Slots, Usage
from paglets.api.undelivered import FailedHook
from paglets.cli.commands.host import parser
from paglets.cli.commands.jobs import why
from paglets.cli.commands.jobs.hosts import no_host_lines
from paglets.cli.commands.jobs.parser import parser as jobs_parser
from paglets.cli.host_flags import machine_name, options_of
from paglets.cli.main import COMMANDS, main
from paglets.cli.options import names_and_urls
from paglets.cli.output import (
    adapt_commands,
    column_widths,
    notice_if_slow,
    print_paragraph,
    print_table,
    ranges_text,
    shortened,
)
from paglets.cli.views.explanation import Explanation, JobsReason, print_reason
from paglets.cli.views.hosts import HEADERS, details_text, host_row, part_text
from paglets.cli.views.job_records import failure_row, result_fields, result_row
from paglets.cli.views.job_rows import job_row
from paglets.cli.views.offline_hosts import missing_hosts
from paglets.client.fan_out import with_host_name
from paglets.client.job_logs import JobAttempts
from paglets.client.orphaned_groups import OrphanedGroup
from paglets.client.undelivered import MeshUndelivered
from paglets.config import HostOptions
from paglets.core.errors import (
    EXIT_DONE,
    EXIT_UNREACHABLE,
    Invalid,
    NotAllowed,
    PagletsError,
    Unknown,
    Unreachable,
)
from paglets.core.messages import Message
from paglets.core.refs import ArtifactRef, HostRef, ProxyRef
from paglets.core.text import duration_text, printable
from paglets.slots.model import Resources
from paglets.testing.authors import FakeContext
from tests.fakes.mesh import member
from tests.fakes.waiting import wait_until


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


# The command and its errors.


def test_without_a_command_it_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    told = capsys.readouterr().out
    assert all(name in told for name in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["jobs"], "missing command; see `paglets jobs --help`"),
        (["jobs", "hosts", "--cores", "4 cpus"], "invalid int value"),
        (["jobs", "hosts", "--cpu-cores", "-3"], "cpu_cores is -3"),
        (["jobs", "hosts", "--mem", "lots"], "is not an amount of bytes"),
        (["jobs", "hosts", "--exclude-host", "Not Good"], "excluded_host_names"),
        (["jobs", "why"], "see `paglets jobs why --help`"),
        (["jobs", "queue", "--timeout", "0"], "is not a positive number of seconds"),
        (["jobs", "queue", "--js"], "unknown option --js: did you mean '--json'?; see `paglets jobs queue --help`"),
        (["artifacts", "get"], "missing artifact"),
        (["artifacts", "get", "art-x", "y", "--group", "g"], "--group takes a folder, not an artifact"),
        (["artifacts", "get", "--group", "g", "/nowhere/results"], "no folder /nowhere"),
        (["artifacts", "put", "x", "--expires", "7 days"], "'7 days' is not a duration"),
        (["artifacts", "list", "--group", "g", "--owner", "p"], "not allowed with argument"),
        (["artifacts", "rm"], "see `paglets artifacts rm --help`"),
        (["host", "--address", "x"], "paglets: unknown option --address; see `paglets host --help`"),
        (["host", "--port", "70000"], "--port: "),
        (["host", "--name", "Big Name"], "cannot name a host"),
        (["host", "--property", "x"], "KEY=VALUE"),
    ],
)
def test_wrong_usage_is_a_line_and_hints_on_stderr_and_exit_code_2(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert told.out == ""
    message, *hints = told.err.splitlines()
    assert message.startswith("paglets: ")
    assert text in message
    assert all(line.startswith("hint: ") for line in hints)


def test_with_debug_an_error_has_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["jobs", "why", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_no_host_means_exit_code_4_and_the_next_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PAGLETS_HOME", str(tmp_path))
    monkeypatch.setenv("PAGLETS_API_KEY", "A" * 43)
    monkeypatch.delenv("PAGLETS_AT", raising=False)
    assert main(["mesh", "hosts"]) == 4
    assert capsys.readouterr().err.splitlines() == [
        "paglets: no host runs on this machine",
        "hint: paglets host --background",
        "hint: or name a host elsewhere with --at URL or PAGLETS_AT",
    ]
    assert main(["mesh", "hosts", "--at", "http://127.0.0.1:1"]) == 4
    told = capsys.readouterr()
    assert (told.out, len(told.err.splitlines())) == ("", 2)


def test_without_a_key_nothing_is_asked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PAGLETS_HOME", str(tmp_path))
    monkeypatch.delenv("PAGLETS_API_KEY", raising=False)
    assert main(["jobs", "queue", "--at", "http://127.0.0.1:1"]) == 5
    assert "scp -p FIRST-MACHINE" in capsys.readouterr().err


def test_the_version_is_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "--json"]) == 0
    assert {"paglets", "protocol", "python", "program", "sha256"} == set(json.loads(capsys.readouterr().out))
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("paglets ")


# Output.


def test_nothing_from_outside_reaches_a_terminal_raw() -> None:
    assert printable("a\x1b[2J\nb\x9b\u202e\ud800é") == "a\\x1b[2J\\nb\\x9b\\u202e\\ud800é"


def test_what_is_waited_for_is_said_only_where_that_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    with notice_if_slow("waiting for w1", 600.0):
        pass
    assert capsys.readouterr().err == ""
    told: list[str] = []

    def all_told() -> bool:
        told.append(capsys.readouterr().err)
        return "".join(told).endswith("\n")

    with notice_if_slow("waiting for w1", 0.0):
        wait_until(all_told)
    assert "".join(told) == "paglets: waiting for w1\n"


def test_advice_that_is_for_scripts_is_turned_into_that_for_commands() -> None:
    assert adapt_commands("start one with `paglets host`, or name another with HostClient(URL) or PAGLETS_AT") == (
        "start one with `paglets host`, or name another with --at URL or PAGLETS_AT"
    )


def test_a_table_fits_the_terminal_and_is_whole_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("NO_COLOR", "1")
    row = ("short", "a very long reason " * 5)
    terminal, pipe = Terminal(), io.StringIO()
    print_table(("HOST", "WHY"), [row], out=terminal)
    print_table(("HOST", "WHY"), [row], out=pipe)
    assert all(len(line) <= 30 for line in terminal.getvalue().splitlines())
    assert "…" in terminal.getvalue()
    assert row[1].strip() in pipe.getvalue()


def test_what_one_copies_is_never_cut_and_the_last_long_column_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    print_table(("ID", "CLASS", "WHY"), [("art-" + "7" * 32, "c" * 20, "w" * 20)], out=terminal)
    _, row = terminal.getvalue().splitlines()
    assert row.split() == ["art-" + "7" * 32, "c" * 9 + "…", "w" * 9 + "…"]


def test_a_column_that_is_empty_in_all_rows_is_left_out() -> None:
    pipe = io.StringIO()
    print_table(("HOST", "TAGS", "JOBS"), [("a", "", 0), ("b", "", 0)], out=pipe)
    assert pipe.getvalue() == "HOST  JOBS\na     0\nb     0\n"
    empty = io.StringIO()
    print_table(("HOST", "TAGS"), [], out=empty)
    assert empty.getvalue() == "HOST  TAGS\n"


def test_a_paragraph_is_wrapped_on_a_terminal_and_one_line_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal, pipe = Terminal(), io.StringIO()
    for out in (terminal, pipe):
        print_paragraph("no member can ever run /a/path/of/more/than/a/line", "  ", out=out)
    assert terminal.getvalue() == "  no member can ever\n  run\n  /a/path/of/more/than/a/line\n"
    assert pipe.getvalue() == "  no member can ever run /a/path/of/more/than/a/line\n"


def test_the_hosts_of_a_mesh_fit_a_usual_terminal_and_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    whole = Resources(cpu_cores=16, memory_bytes=int(125.6 * 2**30), temp_storage_bytes=int(915.3 * 2**30), gpus=2)
    free = Resources(cpu_cores=14, memory_bytes=int(118.2 * 2**30), temp_storage_bytes=int(811.5 * 2**30), gpus=1)
    gpu = member("gpu-host", url="http://192.168.178.123:18765", capacity=whole, free=free, running_jobs=2)
    gpu = replace(gpu, queued_jobs=12, tags=("linux", "gpu"), properties={"python": "3.12"})
    views = [MeshHostView(host=each, online=True, seconds_since_seen=0.0) for each in (member("a"), gpu)]
    terminal, pipe = Terminal(), io.StringIO()
    for out in (terminal, pipe):
        print_table(HEADERS, [host_row(view) for view in views], below=[details_text(view) for view in views], out=out)
    assert max(len(line) for line in terminal.getvalue().splitlines()) <= 80
    *_, amounts, further = pipe.getvalue().splitlines()
    assert amounts.split("  ")[0] == "gpu-host"
    assert amounts.endswith("online  14 of 16    118.2 of 125.6 GiB  811.5 of 915.3 GiB  1 of 2")
    assert further == "  http://192.168.178.123:18765  2 running, 12 queued  tags linux, gpu  properties python=3.12"
    assert "http://192.168.178.123:18765" in terminal.getvalue().split()


def view_of(name: str, *, offline_seconds: float = 0.0, **more: Any) -> MeshHostView:
    """Return the view of a host, offline if `offline_seconds` is not 0."""
    online = not offline_seconds
    return MeshHostView(
        host=member(name), online=online, seconds_since_seen=0.1, offline_seconds=offline_seconds, **more
    )


DAY = 86_400.0


def test_hosts_that_are_away_share_a_line_and_those_away_for_a_day_are_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    missing = missing_hosts([view_of("w1"), view_of("a", offline_seconds=180), view_of("b", offline_seconds=DAY - 1)])
    missing.say()
    assert capsys.readouterr().err == "paglets: offline and not asked: a for 3 min, b for 23 h 59 min\n"
    old = missing_hosts([view_of("try1", offline_seconds=3 * DAY)])
    old.say()
    assert capsys.readouterr().err == ""
    assert (old.lines(), old.exit_code) == (["try1 is offline"], EXIT_DONE)


def test_where_nothing_was_found_hosts_that_are_long_away_are_named_too(capsys: pytest.CaptureFixture[str]) -> None:
    missing = missing_hosts([view_of("try1", offline_seconds=3 * DAY)])
    missing.say(is_empty=True)
    assert capsys.readouterr().err == "paglets: offline and not asked: try1 for 3 d\n"
    assert missing.note() == " (offline and not asked: try1 for 3 d)"
    assert missing_hosts([view_of("w1")]).note() == ""


def test_many_hosts_that_are_away_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    missing_hosts([view_of(f"w{number}", offline_seconds=60) for number in range(7)]).say()
    assert capsys.readouterr().err.endswith("w4 for 1 min and 2 more\n")


def test_hosts_that_do_not_answer_share_a_line_and_another_error_keeps_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    errors = [with_host_name(member(name).ref, Unreachable("no connection")) for name in "ab"]
    refused = with_host_name(member("c").ref, NotAllowed("another key"))
    missing = missing_hosts([view_of("a", offline_seconds=1), view_of("b"), view_of("c")], [*errors, refused])
    missing.say()
    assert capsys.readouterr().err == "paglets: c: another key\npaglets: no answer from a, b\n"
    assert missing.lines() == ["a: no connection", "b: no connection", "c: another key"]
    assert missing.exit_code == EXIT_UNREACHABLE
    missing_hosts([], errors[:1]).say()
    assert capsys.readouterr().err == "paglets: a: no connection\n"


def test_an_old_store_is_not_told_to_be_offline() -> None:
    old = view_of("w1", offline_seconds=9, problem="an old store (d3b76f7e): the name w1 is that of another now")
    assert missing_hosts([view_of("w1"), old]).lines() == []


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (3 << 29, 2 << 30, "1.5 of 2 GiB"),
        (900 << 20, 2 << 30, "900 MiB of 2 GiB"),
        (0, 2 << 30, "0 bytes of 2 GiB"),
        (0, 0, "0 of 0 bytes"),
    ],
)
def test_an_amount_of_another_is_short(part: int, whole: int, text: str) -> None:
    assert part_text(part, whole) == text


def test_headers_are_bold_on_a_terminal_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    coloured = Terminal()
    print_table(("HOST",), [], out=coloured)
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    print_table(("HOST",), [], out=plain)
    assert ("\x1b" in coloured.getvalue(), "\x1b" in plain.getvalue()) == (True, False)


def test_the_widest_column_gives_way_first() -> None:
    assert column_widths([["x" * 10, "y" * 50]], 42) == [10, 30]
    assert column_widths([["x" * 10, "y" * 50]], None) == [10, 50]
    assert column_widths([["x" * 10, "y" * 50]], 5) == [8, 8]
    assert column_widths([["x" * 10, "y" * 50]], 42, {1}) == [8, 50]
    assert column_widths([["x" * 10, "y" * 50]], 42, {0, 1}) == [10, 50]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0.0 s"), (0.44, "0.4 s"), (59, "59 s"), (200, "3 min 20 s"), (7200, "2 h"), (360000, "4 d 4 h")],
)
def test_durations_are_in_words(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([3], "3"), ([8, 0, 1, 2, 3], "0-3,8"), ([1, 2, 5, 6], "1-2,5-6")]
)
def test_core_ids_are_written_as_ranges(numbers: list[int], text: str) -> None:
    assert ranges_text(numbers) == text


def test_a_running_job_shows_its_lease_and_usage() -> None:
    job = JobView(
        agent_id="p1",
        group_id="g",
        job_key="a",
        generation=1,
        attempt=2,
        status="RUNNING",
        residence="here",
        reason="",
        reason_text="",
        never=False,
        waited_seconds=5,
        running_seconds=90,
        request={"resources": {"cpu_cores": 2, "memory_bytes": 1 << 30}},
        lease=Lease(
            agent_id="p1",
            attempt=2,
            generation=1,
            cpu_cores=(0, 1),
            gpu_ids=(),
            memory_bytes=1 << 30,
            temp_storage_bytes=0,
            granted_at=0.0,
        ),
        usage=Usage(cpu_seconds=100.0, rss_bytes=1 << 20),
    )
    capacity = Resources(cpu_cores=2)
    host = HostRef(store_id="s", name="w1", url="http://w1:8765")
    counts = {"queued_jobs": 0, "running_jobs": 1}
    slots = Slots(host=host, capacity=capacity, free=Resources(), tags=(), jobs=(job,), **counts)
    assert job_row(job, slots) == (
        "g/a", "RUNNING", "2", "1 min 30 s", 2, "1 GiB", "0-1", "", "1 min 40 s", "1 MiB", "0 bytes", "",
    )  # fmt: skip


# Flags.


@pytest.mark.parametrize(
    "words",
    [
        ["--cores", "2", "--mem", "4G", "--disk", "1G", "--allow-home"],
        ["--cpu-cores", "2", "--memory", "4G", "--temp-storage", "1G", "--home"],
    ],
)
def test_amounts_have_one_spelling_in_all_commands_and_the_older_one_is_taken(words: list[str]) -> None:
    asked = jobs_parser().parse_args(["hosts", *words])
    assert (asked.cpu_cores, asked.memory_bytes, asked.temp_storage_bytes) == (2, 4 << 30, 1 << 30)
    assert asked.allow_home_compute
    offered = parser().parse_args(words[:-1])
    assert (offered.cpu_cores, offered.memory, offered.temp_storage) == (2, "4G", "1G")


def test_a_host_to_exclude_may_be_a_name_or_a_url() -> None:
    asked = jobs_parser().parse_args(["hosts", "--exclude-host", "gpu-a", "--exclude-host", "http://w1:8765"])
    assert names_and_urls(asked.excluded_hosts) == (("gpu-a",), ("http://w1:8765",))


def test_repeated_flags_append_and_become_options(tmp_path: Path) -> None:
    flags = [
        *("--name", "gpu-a", "--bind-public", "auto", "--port", "0", "--mesh-version", "analysis"),
        *("--peer", "http://laptop:8765", "--peer", "other:1", "--tag", "linux", "--tag", "gpu"),
        *("--property", "python=3.12", "--memory", "2G", "--cpu-cores", "3", "--code-path", "/code"),
        *("--artifact-max-size", "1G", "--artifact-storage-quota", "20G"),
        *("--host-lost-after", "60", "--input-wait", "3600", "--report-grace", "60"),
    ]
    assert options_of(parser().parse_args(flags), tmp_path) == HostOptions(
        name="gpu-a",
        bind_public="auto",
        port=0,
        mesh_version="analysis",
        peers=("http://laptop:8765", "http://other:1"),
        tags=("linux", "gpu"),
        properties={"python": "3.12"},
        memory_bytes=2 << 30,
        cpu_cores=3,
        code_paths=("/code",),
        artifact_max_bytes=1 << 30,
        artifact_quota_bytes=20 << 30,
        host_lost_after_seconds=60.0,
        input_wait_seconds=3600.0,
        report_grace_seconds=60.0,
    )


def test_a_host_that_nobody_can_connect_to_says_so_by_a_flag_or_in_its_section(tmp_path: Path) -> None:
    (tmp_path / "hosts.toml").write_text("[hosts.a]\nreachable = false\n[hosts.b]\n")
    reachable = [
        options_of(parser().parse_args(["--name", *words]), tmp_path).reachable
        for words in (["a"], ["b"], ["b", "--unreachable"])
    ]
    assert reachable == [False, True, False]


def test_a_host_finds_its_section_in_the_folder_or_in_the_file_named(tmp_path: Path) -> None:
    (tmp_path / "hosts.toml").write_text("[hosts.a]\ntags = ['x']")
    assert options_of(parser().parse_args(["--name", "a"]), tmp_path).tags == ("x",)
    named = ["--name", "b", "--config", str(tmp_path / "hosts.toml")]
    with pytest.raises(Invalid, match=r"no section \[hosts.b\]\nhint: use --name with one of a"):
        options_of(parser().parse_args(named), tmp_path)


def test_a_host_named_by_a_flag_needs_its_section_if_there_are_some(tmp_path: Path) -> None:
    (tmp_path / "hosts.toml").write_text("[hosts.w]\n[hosts.gpu]\n")
    with pytest.raises(Invalid, match=r"no section \[hosts.wt\]\nhint: did you mean 'w'\?\nhint: .*init --name wt"):
        options_of(parser().parse_args(["--name", "wt"]), tmp_path)
    with pytest.raises(Invalid, match="'W_b' cannot name a host"):
        options_of(parser().parse_args(["--name", "W_b"]), tmp_path)
    (tmp_path / "hosts.toml").write_text("[mesh]\n")
    assert options_of(parser().parse_args(["--name", "wt"]), tmp_path).name == "wt"


def test_a_host_without_a_name_and_a_section_is_warned_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hosts.toml").write_text("[hosts.some-other-machine]\ntags = ['x']")
    for re_enters in (True, False):
        assert options_of(parser().parse_args([]), tmp_path, re_enters=re_enters).tags == ()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("paglets: warning: hosts.toml has no section [hosts.")
    assert line.endswith("uses default settings")


@pytest.mark.parametrize(("hostname", "name"), [("Ann-s MacBook.local", "ann-s-macbook"), ("", "host"), ("--x--", "x")])
def test_a_machines_name_becomes_a_hosts_name(hostname: str, name: str) -> None:
    assert machine_name(hostname) == name


# Which host.


def test_where_no_host_can_run_a_job_the_nearest_one_says_what_helps() -> None:
    why, hint = no_host_lines(("gpu",), [("gpu",)], ["too_large", "home_excluded"])
    assert why == "no host can run this job"
    assert hint == "add a host with `paglets host --bind-public auto --peer URL`, or set allow_home_compute=True"
    assert no_host_lines(("gpu",), [("gpu",)], ["tag_missing", "too_large"])[1] == (
        "ask for less, or add a larger host"
    )


def test_of_a_tag_that_no_host_has_the_nearest_is_told() -> None:
    lines = no_host_lines(("linix", "gpu"), [("linux", "gpu"), ()], ["tag_missing"])
    assert lines[0] == (
        "no host can run this job: no host has the tag 'linix': did you mean 'linux'? there are: gpu, linux"
    )


# A group.


def test_the_file_in_a_result_is_named_and_the_rest_is_shortened() -> None:
    artifact = ArtifactRef(
        artifact_id="art-" + "7" * 8,
        name="f.db",
        size_bytes=1,
        sha256="ab" * 32,
        host_name="w1",
        created_at=1.0,
        owner="",
    )
    long = "x" * 1000
    record = {"result": {"n": long, "artifact": artifact.to_wire()}, "host_name": "w1", "runtime_seconds": 2.0}
    assert result_row("a", record) == ("a", "w1", "2.0 s", "f.db", shortened(json.dumps({"n": long})))
    assert result_row("a", record | {"result": {"artifact": artifact.to_wire()}})[3:] == ("f.db", "")
    assert result_row("a", record | {"result": None})[3:] == ("", "null")
    both = {"result": {"n": 1, "artifact": artifact.to_wire()}}
    assert result_fields(both) == {"result": '{"n": 1}', "artifact": "f.db (1 byte)"}
    assert result_fields({"result": 0}) == {"result": "0"}
    assert result_fields({"cause": "exception"}) == {}


# Why.


class FakeHost:
    """A HostClient that knows one group `g` and no other paglet."""

    timeout = 30.0
    failed_hooks: tuple[FailedHook, ...] = ()

    def __init__(self, **summary: Any) -> None:
        self._summary = SUMMARY | summary
        self._context = FakeContext()

    def group(self, group_id: str) -> GroupView:
        if group_id != "g":
            raise Unknown("no such group")
        return self._context.view(SubmitGroup(group_id="g", class_name="m:C", jobs=()))

    def collected(self, group_id: str, *, timeout: float | None = None) -> GroupView | None:
        return None

    def hosts(self) -> tuple[MeshHostView, ...]:
        """Return only the collector's host, whose name no job's host has."""
        row = member("collects", store_id="store-w1")
        return (MeshHostView(host=row, online=True, seconds_since_seen=0.0),)

    def call_tree(self, target: ProxyRef, message: Message, timeout_seconds: float | None = None) -> dict[str, Any]:
        assert target.agent_id == "collector-1"
        return {"summary": self._summary, "reasons": REASONS | self._summary}[message.kind]

    def paglet(self, agent_id: Any, *, timeout: float | None = None) -> PagletView:
        raise Unknown("no such paglet")

    def mesh_groups(self, timeout: float) -> tuple[tuple[GroupLine, ...], dict[HostRef, PagletsError]]:
        assert timeout == 5.0
        return (), {}

    def mesh_slots(self, *, limit: int, timeout: float) -> tuple[tuple[Slots, ...], tuple[PagletsError, ...]]:
        return (), ()

    def job_attempts(self, job: str, *, timeout: float | None = None) -> JobAttempts:
        return JobAttempts(attempts=(), unfinished=(), unreachable=())

    def undelivered(self, group_id: str, job_key: str = "", *, timeout: float | None = None) -> MeshUndelivered:
        return MeshUndelivered(hooks=self.failed_hooks)

    def orphaned_group(self, group_id: str, *, timeout: float | None = None) -> OrphanedGroup:
        return OrphanedGroup(group_id=group_id)

    def waiting_reports(
        self, left: OrphanedGroup, job_key: str | None = None
    ) -> Iterator[tuple[HostRef, WaitingReport]]:
        return iter(())


SUMMARY: dict[str, Any] = {
    "group_id": "g",
    "collector": {"host_name": "collects"},
    "status": "ACTIVE",
    "expected_count": 4,
    "completed_count": 1,
    "failed_count": 1,
    "pending_count": 2,
    "pending_jobs": [
        {
            "job_key": key,
            "status": "PLACING",
            "host_name": "home",
            "reason": "home_excluded",
            "never": True,
            "since": 1.0,
        }
        | {"reason_text": "tag 'gpu' is on no host"}
        for key in ("c", "d")
    ],
    "results": {"a": {"result": {}, "host_name": "w1", "generation": 1, "attempt": 1, "runtime_seconds": 3.0}},
    "failures": {"b/1": {"cause": "exit:3", "message": "the process ended", "stderr_tail": "x\nboom", "traceback": ""}},
}


REASONS: dict[str, Any] = {
    "pending_reasons": [
        {
            "status": "PLACING",
            "host_name": "home",
            "reason": "home_excluded",
            "reason_text": "tag 'gpu' is on no host",
            "never": True,
            "count": 2,
            "job_key": "c",
        }
    ],
    "failure_reasons": [
        {"cause": "exit:3", "message": "the process ended", "host_name": "", "count": 1, "job_key": "b/1"}
    ],
    "cancelled_count": 0,
    "left_out": {},
}
"""What the collector's reply to `reasons` has in place of the lists of SUMMARY."""


def explain(selector: str, **summary: Any) -> Explanation:
    return why.explain(FakeHost(**summary), selector)  # type: ignore[arg-type]


def test_a_groups_jobs_are_counted_by_reason() -> None:
    found = explain("g")
    assert found.code == 3
    assert found.reasons == (
        JobsReason(count=2, state="PLACING", host="home", text="never: tag 'gpu' is on no host", such_as="c"),
        JobsReason(count=1, state="FAILED", host="", text="exit:3: the process ended", such_as="b/1"),
    )
    assert "add a host with `paglets host --bind-public auto --peer URL`" in str(found.fields["hint"])


def test_a_group_shows_failed_hooks_with_the_next_command() -> None:
    host = FakeHost(pending_reasons=[], pending_count=0, failure_reasons=[], failed_count=0)
    host.failed_hooks = (failed_hook("a b", "x" * 3000), failed_hook("c", "ValueError: no column"))
    found = why.explain(host, "g")  # type: ignore[arg-type]
    text = str(found.fields["hooks"])
    assert text.startswith("2 hooks of finished jobs failed, such as g/a b: on_arrival failed on w1: xxx")
    assert len(text) < 700
    assert found.fields["next"] == "paglets jobs why 'g/a b'"
    assert [hook["hook"] for hook in found.data["hooks"]] == ["on_arrival", "on_arrival"]
    host.failed_hooks = ()
    assert "hooks" not in why.explain(host, "g").data  # type: ignore[arg-type]


def failed_hook(job_key: str, error: str) -> FailedHook:
    return FailedHook(
        agent_id=f"p-{job_key}",
        group_id="g",
        job_key=job_key,
        entry="arrival",
        host=member("w1").ref,
        error=error,
        traceback="",
        failed_at=0.0,
        kept_until=86400.0 * 30,
    )


def test_a_reason_is_whole_below_its_count() -> None:
    pipe = io.StringIO()
    text = "never: no member can ever run it " * 10
    print_reason(JobsReason(count=2, state="PLACING", host="home", text=text, such_as="c"), out=pipe)
    print_reason(JobsReason(count=1, state="CANCELLED", host="", text="", such_as="d"), out=pipe)
    assert pipe.getvalue() == f"2 PLACING on home: such as c\n  {text}\n1 CANCELLED: d\n"


def test_of_a_group_with_failures_the_next_commands_name_the_first() -> None:
    found = explain("g", pending_reasons=[], failure_reasons=[REASONS["failure_reasons"][0] | {"job_key": "a b"}])
    assert (found.code, found.fields["next"]) == (1, "paglets jobs why 'g/a b'")


def test_reasons_that_the_collector_left_out_are_counted_and_prove_nothing_about_all_jobs() -> None:
    found = explain("g", left_out={"pending_reasons": 1200, "failure_reasons": 34}, pending_count=1202)
    assert found.code == 0
    assert found.fields["not shown"] == "1,234 jobs with other reasons; paglets jobs list g lists them"


def test_cancelled_jobs_are_told_apart_from_failed_ones() -> None:
    cancelled = {"cause": "cancelled", "message": "cancelled: by me"}
    reasons = {"failure_reasons": [cancelled | {"host_name": "", "count": 2, "job_key": "c"}], "cancelled_count": 2}
    found = explain("g", pending_reasons=[], pending_count=0, failed_count=2, **reasons)
    assert found.reasons == (JobsReason(count=2, state="CANCELLED", host="", text="by me", such_as="c"),)
    assert (found.code, found.fields["jobs"], found.fields["next"]) == (
        7,
        "1 done, 2 failed (2 cancelled), 0 pending of 4",
        "",
    )
    assert explain("g/c", failures={"c": cancelled}).fields["message"] == "by me"
    assert failure_row("c", cancelled)[-1] == "by me"
    assert failure_row("c", {"cause": "cancelled", "message": "cancelled"})[-1] == ""


def test_a_running_job_says_since_when_and_how_to_see_or_end_it() -> None:
    found = explain("g/c", pending_jobs=[{"job_key": "c", "status": "RUNNING", "since": 1.0, "host_name": "w1"}])
    assert str(found.fields["since"]).endswith(" ago")
    assert found.fields["next"] == "paglets jobs logs -f g/c; paglets jobs cancel g/c"


def test_a_failed_job_shows_cause_and_last_words() -> None:
    found = explain("g/b/1")
    assert (found.code, found.fields["cause"], found.tails[-1]) == (1, "exit:3", "x\nboom")


@pytest.mark.parametrize(
    ("stderr", "tails"),
    [
        ("paglets: no such class", ()),
        ("a line\npaglets: no such class", ("a line",)),
        ("no such class", ("no such class",)),
    ],
)
def test_a_message_that_is_shown_is_not_shown_again_as_last_words(stderr: str, tails: tuple[str, ...]) -> None:
    failure = {"cause": "import_failed", "message": "no such class", "stderr_tail": stderr, "traceback": ""}
    assert explain("g/b", failures={"b": failure}).tails == tails


def test_of_a_job_that_was_begun_anew_its_end_says_so_too() -> None:
    first = {"result": {}, "host_name": "w1", "generation": 1, "attempt": 2}
    again = first | {"generation": 2, "attempt": 1}
    assert explain("g/a", results={"a": first}).fields["attempt"] == "2"
    assert explain("g/a", results={"a": again}).fields["attempt"] == "2.1 (the first copy was lost with its host)"


def test_a_cancelled_job_has_exit_code_7() -> None:
    found = explain("g/b/1", failures={"b/1": {"cause": "cancelled", "message": "by me"}})
    assert (found.code, found.fields["status"], found.fields["message"]) == (7, "CANCELLED", "by me")


def test_a_done_job_is_done() -> None:
    found = explain("g/a")
    assert (found.code, found.fields["status"], found.fields["runtime"]) == (0, "COMPLETED", "3.0 s")


def test_a_job_that_can_never_be_placed_has_exit_code_3() -> None:
    assert explain("g/c").code == 3


def test_a_job_that_waits_is_no_failure() -> None:
    waiting = [{"job_key": "c", "status": "WAITING_FOR_SLOT", "reason_text": "2 cores wanted, 1 free", "never": False}]
    found = explain("g/c", pending_jobs=waiting)
    assert (found.code, found.fields["why"]) == (0, "2 cores wanted, 1 free")


@pytest.mark.parametrize("selector", ["nothing", "g/nothing", "not a name"])
def test_what_names_nothing_is_unknown(selector: str) -> None:
    with pytest.raises(Unknown):
        explain(selector)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_who_closes_an_output_gets_nothing_of_it(closed: str) -> None:
    for command, code in (("version", 0), ("nonsense", 2)):
        done = subprocess.run(
            ["sh", "-c", f'"$0" -m paglets {command} {closed}', sys.executable], capture_output=True, text=True
        )
        assert (done.returncode, "Error" in done.stderr) == (code, False)
        assert "nonsense" not in done.stdout
