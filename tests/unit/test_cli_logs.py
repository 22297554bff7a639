"""The output of `paglets logs`."""

from __future__ import annotations

import io
from base64 import b64encode
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_cli import FakeHost

from paglets.api.hosts import MeshHostView
from paglets.api.logs import Attempts, AttemptView, LogPiece
from paglets.cli.commands.logs.group import GroupLogs, logs_of_group, show_group
from paglets.cli.commands.logs.missing import explain_missing_log
from paglets.cli.commands.logs.reader import Reader, choose_attempt
from paglets.cli.commands.logs.tail import offset_of_last_lines
from paglets.cli.main import main
from paglets.cli.views.log_output import LogOutput
from paglets.client.job_logs import JobAttempts, LogBytes, ask_attempts, merged_attempts, read_log
from paglets.client.undelivered import MeshUndelivered
from paglets.core.errors import BadRequest, CallOutcomeUnknown, Invalid, PagletsError, Unknown, Unreachable
from paglets.core.refs import HostRef
from paglets.worker import logs
from paglets.worker.logs import LogWriter
from tests.fakes.mesh import member

W1 = HostRef(store_id="s1", name="w1", url="http://w1:8765")
W2 = HostRef(store_id="s2", name="w2", url="http://w2:8765")


def attempt(number: int, generation: int = 1, ended: bool = True, host: HostRef = W1) -> AttemptView:
    return AttemptView(
        agent_id="j1",
        group_id="g1",
        job_key="a",
        generation=generation,
        attempt=number,
        status="COMPLETED",
        ended=ended,
        kept=True,
        host=host,
    )


def found(*views: AttemptView) -> JobAttempts:
    return JobAttempts(attempts=views, unfinished=(), unreachable=())


def test_the_newest_attempt_is_shown_unless_another_is_named() -> None:
    there = found(attempt(1), attempt(2), attempt(1, generation=2))
    assert choose_attempt(there, None) == attempt(1, generation=2)
    assert choose_attempt(there, (None, 2)) == attempt(2)
    assert choose_attempt(there, (1, 1)) == attempt(1)
    assert choose_attempt(found(), (1, 1)) is None
    with pytest.raises(Unknown, match=r"1, 2, 2\.1"):
        choose_attempt(there, (None, 7))


def test_what_several_hosts_know_is_one_list_and_names_the_hosts_that_were_asked() -> None:
    liar = HostRef(store_id="s9", name="w9", url="http://elsewhere")
    answers = [
        (W1, Attempts(attempts=(attempt(2, host=liar),), unfinished=())),
        (W2, Attempts(attempts=(attempt(1),), unfinished=())),
        (liar, Unreachable("no answer")),
    ]
    merged = merged_attempts(answers)
    assert [(view.attempt, view.host) for view in merged.attempts] == [(1, W2), (2, W1)]
    assert len(merged.unreachable) == 1
    with pytest.raises(Unreachable):
        merged_attempts(answers[2:])


class OneLog:
    """A `MeshClient` and `HostClient` of a host that has one log."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read_log(self, view: AttemptView, stream: str, offset: int = 0, limit: int = 1 << 20) -> LogBytes:
        piece = logs.read(self._path, offset, limit)
        return LogBytes(offset=piece.offset, data=piece.data, next=piece.next, size_bytes=piece.size_bytes, ended=True)


def written(path: Path, data: bytes, **bounds: int) -> Any:
    log = LogWriter(str(path), **bounds)
    log.write(memoryview(data))
    log.close()
    return OneLog(str(path))


@given(data=st.text(alphabet="ab\n", max_size=60).map(str.encode), lines=st.integers(0, 12))
def test_the_last_lines_are_those_that_tail_would_show(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, lines: int
) -> None:
    client = written(tmp_path_factory.mktemp("tail") / "1.1.out", data)
    begin = offset_of_last_lines(client, attempt(1), "out", lines)
    whole = data.splitlines(keepends=True)
    assert data[begin:] == b"".join(whole[-lines:] if lines else [])


def test_the_last_lines_of_a_log_with_a_gap_begin_after_it(tmp_path: Path) -> None:
    data = b"".join(b"%07d\n" % nth for nth in range(100))
    client = written(tmp_path / "1.1.out", data, head_bytes=80, segment_bytes=80)
    assert data[offset_of_last_lines(client, attempt(1), "out", 3) :] == data[-24:]
    assert offset_of_last_lines(client, attempt(1), "out", 90) == 800 - 160


# A group.


class GroupsLogs:
    """A client of a mesh where the jobs `a` and `b` of the group g1 printed, and `c` is on a host without an answer."""

    def __init__(self, logs: dict[str, Any]) -> None:
        self._logs = logs

    def job_attempts(self, job: str, *, timeout: float | None = None) -> JobAttempts:
        key = job.removeprefix("g1/")
        if key not in self._logs:
            raise Unreachable("w2 does not answer")
        return found(replace(attempt(1), agent_id=key), replace(attempt(2), agent_id=key))

    def read_log(self, view: AttemptView, stream: str, offset: int, limit: int = 1 << 20) -> LogBytes:
        piece: LogBytes = self._logs[view.agent_id].read_log(view, stream, offset, limit)
        return piece


def test_of_a_group_the_last_lines_of_each_job_follow_its_key(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    lines = b"".join(b"line %d\n" % nth for nth in range(50))
    logs = {"a": written(tmp_path / "a" / "1.2.out", b"one\n\xfftwo"), "b": written(tmp_path / "b" / "1.2.out", lines)}
    client: Any = GroupsLogs(logs)
    shown = logs_of_group(client, "g1", ("a", "b", "c", *(f"k{nth}" for nth in range(120))), 5.0)
    assert show_group(client, shown, LogOutput(), ("out",)) == 0
    told = capfdbinary.readouterr()
    assert told.out == b"a: one\na: \xfftwo\n" + b"".join(b"b: line %d\n" % nth for nth in range(30, 50))
    assert told.err.startswith(b"paglets: there may be more output: w2 does not answer\ng1: omitted 23 jobs\nhint: ")
    assert [view.agent_id for view in shown.all_attempts().attempts] == ["a", "a", "b", "b"]
    show_group(client, shown, LogOutput(), ("out",), tail=1)
    assert capfdbinary.readouterr().out == b"a: \xfftwo\nb: line 49\n"


def test_of_a_group_the_last_lines_of_a_log_in_several_files_are_shown_whole(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    lines = [b"%07d\n" % nth for nth in range(30)]
    client: Any = GroupsLogs({"a": written(tmp_path / "1.2.out", b"".join(lines), head_bytes=80, segment_bytes=80)})
    show_group(client, logs_of_group(client, "g1", ("a",), 5.0), LogOutput(), ("out",), tail=12)
    assert capfdbinary.readouterr().out == b"".join(b"a: " + line for line in lines[-12:])


def test_of_a_group_that_printed_nothing_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert show_group(None, GroupLogs(group_id="g1", jobs=(), left_out=0), LogOutput(), ("out",)) == 0  # type: ignore[arg-type]
    assert capsys.readouterr().err == "g1: no job has any stored output\n"


# Following.


class Scripted(OneLog):
    """A `HostClient` whose lookups return or raise the items of `looks`, and then repeat the last one."""

    def __init__(self, path: str, *looks: JobAttempts | PagletsError) -> None:
        super().__init__(path)
        self._looks = list(looks)
        self.waited: list[float | None] = []

    def undelivered(self, group_id: str, job_key: str, *, timeout: float) -> MeshUndelivered:
        return MeshUndelivered()

    def job_attempts(self, job: str, *, timeout: float | None = None) -> JobAttempts:
        self.waited.append(timeout)
        look = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        if isinstance(look, PagletsError):
            raise look
        return look

    def hosts(self) -> tuple[MeshHostView, ...]:
        return (MeshHostView(host=member("w1", store_id="s1"), online=True, seconds_since_seen=0.0),)


def reader(client: Scripted) -> tuple[Reader, io.BytesIO]:
    out = io.BytesIO()
    shown = LogOutput(io.TextIOWrapper(out, write_through=True))
    given: Any = {"client": client, "job": "g1/a", "streams": ("out",), "tail": None}
    return Reader(**given, _out=shown, _sleep=lambda seconds: None), out


def test_a_host_that_is_away_is_told_once_however_long_it_is_away(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "1.1.out"
    written(path, b"all\n")
    spans = ("0.4 s", "7.6 s", "11 s", "1 min", "1 min 3 s")
    away = [Unreachable(f"w1 was last seen {span} ago") for span in spans]
    following, out = reader(Scripted(str(path), *away, found(attempt(1))))
    assert following.follow(None) == 0
    assert out.getvalue() == b"all\n"
    assert capsys.readouterr().err == "paglets: waiting: w1 was last seen 0.4 s ago\n"


def test_a_log_that_was_removed_is_told_with_exit_code_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = found(replace(attempt(1), kept=False))
    for show in (Reader.show_once, Reader.follow):
        of_gone, out = reader(Scripted(str(tmp_path / "1.1.out"), gone))
        assert show(of_gone, None) == 1
        assert out.getvalue() == b""
        assert capsys.readouterr().err == (
            "paglets: the log of attempt 1 of g1/a was removed from w1: hosts remove their oldest logs\n"
        )


def test_a_job_that_printed_nothing_has_a_log_with_nothing_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "1.1.out", b"")
    quiet, out = reader(Scripted(str(tmp_path / "1.1.out"), found(attempt(1))))
    assert quiet.show_once(None) == 0
    assert (out.getvalue(), capsys.readouterr().err) == (b"", "paglets: g1/a printed nothing\n")


def test_a_host_that_hangs_is_waited_for_as_long_as_a_look_takes_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "1.1.out", b"all\n")
    hung = ask_attempts(Mute(), W2, "g1/a", 5.0)  # type: ignore[arg-type]
    silent = merged_attempts([(W1, Attempts(attempts=(attempt(1),), unfinished=())), hung])
    client = Scripted(str(tmp_path / "1.1.out"), silent)
    once, out = reader(client)
    assert (once.show_once(None), out.getvalue(), client.waited) == (0, b"all\n", [5.0])
    assert capsys.readouterr().err == "paglets: there may be newer attempts: w2: no answer within 5 s\n"


class Mute:
    """A `MeshClient` of a host that hangs."""

    def ask(self, *args: Any, **more: Any) -> Any:
        raise CallOutcomeUnknown("no answer within 5 s")


class Ended(FakeHost):
    """A mesh whose collector knows that g/a has ended on a host; `views` are the listed hosts."""

    def __init__(self, *views: MeshHostView) -> None:
        super().__init__(results={"a": {"result": 1, "host_name": "w3", "attempt": 1}})
        self._views = views

    def hosts(self) -> tuple[MeshHostView, ...]:
        return (*super().hosts(), *self._views)


def test_a_log_on_an_offline_host_is_awaited_but_not_one_on_a_removed_host() -> None:
    away = MeshHostView(host=member("w3", store_id="s3"), online=False, seconds_since_seen=24.0)
    with pytest.raises(Unreachable, match=r"the log of g/a is on w3, last seen 24 s ago\nhint: restart that host"):
        explain_missing_log(Ended(away), "g/a", ())  # type: ignore[arg-type]
    told = explain_missing_log(Ended(), "g/a", ())  # type: ignore[arg-type]
    assert told.text == "the log of g/a was on w3, which is no longer a host of this mesh"
    assert not told.waits


def test_the_log_of_a_group_is_refused_with_the_form_of_a_jobs_name() -> None:
    host = Ended()
    host.group = lambda text: None  # type: ignore[attr-defined]
    with pytest.raises(Invalid, match="g is a group") as told:
        explain_missing_log(host, "g", ())  # type: ignore[arg-type]
    assert told.value.advice()[0] == "hint: name one of its jobs, as g/JOBKEY"


class BrokenLink:
    def __init__(self, piece: LogPiece) -> None:
        self._piece = piece

    def ask(self, *args: Any, **more: Any) -> LogPiece:
        return self._piece


def read_ten(piece: LogPiece) -> LogBytes:
    return read_log(BrokenLink(piece), attempt(1), "out", 100, 10, 1.0)  # type: ignore[arg-type]


def piece_of(data: bytes, offset: int, following: int, size: int) -> LogPiece:
    text = b64encode(data).decode()
    return LogPiece(offset=offset, data=text, next=following, size_bytes=size, ended=True)


def test_a_piece_that_is_not_base64_is_refused() -> None:
    with pytest.raises(BadRequest, match="base64"):
        read_ten(LogPiece(offset=100, data="!", next=101, size_bytes=101, ended=True))


def test_a_piece_from_where_it_was_asked_or_later_is_taken() -> None:
    assert read_ten(piece_of(b"xxx", 100, 103, 103)).data == b"xxx"
    assert read_ten(piece_of(b"xxx", 200, 203, 300)).offset == 200
    assert read_ten(piece_of(b"", 100, 100, 40)).is_last


@pytest.mark.parametrize(
    "piece",
    [
        piece_of(b"xxx", 0, 0, 1000),
        piece_of(b"xxx", 99, 102, 1000),
        piece_of(b"xxx", 100, 100, 1000),
        piece_of(b"xxx", 100, 900, 1000),
        piece_of(b"xxx", 100, 103, 102),
        piece_of(b"x" * 11, 100, 111, 1000),
    ],
)
def test_a_piece_that_would_be_shown_for_ever_is_refused_and_the_host_named(piece: LogPiece) -> None:
    with pytest.raises(BadRequest, match=r"w1 sent .* bytes of a log .*, expected at most 10 bytes from byte 100"):
        read_ten(piece)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_into_a_pipe_bytes_go_as_they_are_and_gaps_are_told_on_stderr() -> None:
    out, err = io.TextIOWrapper(io.BytesIO(), write_through=True), io.StringIO()
    output = LogOutput(out, err)
    output.write("out", bytes(range(256)))
    output.gap("out", 1234567)
    output.gap("out", 0)
    assert out.buffer.getvalue() == bytes(range(256))  # type: ignore[attr-defined]
    assert err.getvalue() == "[paglets: 1,234,567 bytes are missing]\n"


def test_on_a_terminal_nothing_can_be_played_and_characters_may_come_in_parts() -> None:
    out = Terminal()
    output = LogOutput(out, Terminal())
    text = "50 %\r100 %\té\n\x1b]0;you\x07\x9b2J\u202ekcab"
    for byte in text.encode():
        output.write("out", bytes([byte]))
    output.write("out", b"\xff")
    assert out.getvalue() == "50 %\r100 %\té\n\\x1b]0;you\\x07\\x9b2J\\u202ekcab\ufffd"


def test_who_asks_for_raw_output_gets_it_on_a_terminal_too() -> None:
    class RawTerminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    bytes_of = io.BytesIO()
    terminal = RawTerminal(bytes_of)
    LogOutput(terminal, Terminal(), raw=True).write("out", b"\x1b[1mbold\xff")
    assert bytes_of.getvalue() == b"\x1b[1mbold\xff"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["logs"], "see `paglets logs --help`"),
        (["logs", "g/a", "--attempt", "1.x"], "is not an attempt"),
        (["logs", "g/a", "--tail", "-1"], "--tail"),
        (["jobs", "logs", "g/a", "--stdout", "--stderr"], "not allowed with"),
    ],
)
def test_wrong_usage_is_one_line(arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr()
    assert (told.out, len(told.err.splitlines())) == ("", 1)
    assert text in told.err
