from __future__ import annotations

import io
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from paglets.api.calls import CallReply
from paglets.api.groups import GroupLine, Groups, GroupView, ReportCounts, WaitingReport, WaitingReports
from paglets.api.hosts import Hosts
from paglets.api.paglets import PagletView
from paglets.api.undelivered import Undelivered, UndeliveredOutputs
from paglets.cli.artifact_lookup import artifact_of_job, artifacts_of_group, file_names, owner_texts, resolve_id
from paglets.cli.commands.artifacts import add_get, artifact_row, duration, fetch, find_artifacts, owner_text
from paglets.cli.options import Parser, run
from paglets.cli.orphaned_groups import waiting_file, waiting_files
from paglets.cli.views.job_records import artifact_in
from paglets.cli.views.transfer_progress import ProgressLine, fitted
from paglets.client.host_client import HostClient
from paglets.core.errors import CallOutcomeUnknown, Conflict, Invalid, Unknown, Unreachable
from paglets.core.refs import ArtifactRef, ProxyRef
from paglets.wire.request import Request, Response
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import TableExchange
from tests.fakes.filehost import file_mesh

DATA = b"some bytes"
MIB = 1 << 20


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Given:
    """A group whose collector is on `b`, with records by key."""

    def __init__(self) -> None:
        self.exchange, (self.a, self.b) = file_mesh("a", "b")
        self.client = HostClient("http://a:8765", timeout=5.0, exchange=self.exchange, environ={})
        self.client._mesh.base = self.a.ref
        self.results: dict[str, Any] = {}
        self.failures: dict[str, Any] = {}
        collector = ProxyRef(agent_id="c1", host=self.b.ref)
        self.view = GroupView(
            group_id="g1",
            class_name="m:C",
            created_at=0.0,
            home=self.a.ref,
            collector=collector,
            detached=True,
            detached_reason="",
        )
        self.a.routes["GET /v1/groups/g1"] = lambda body: self.view
        self.b.routes["GET /v1/paglets/c1"] = lambda body: self.collector("c1")
        self.b.routes["POST /v1/paglets/c1/call"] = self._page

    def collector(self, agent_id: str) -> PagletView:
        return PagletView(
            agent_id=agent_id, class_name="m:C", kind="collector", residence="here", epoch=1, host=self.b.ref
        )

    def line(self, group_id: str = "g1", collector: str = "c1") -> GroupLine:
        ref = ProxyRef(agent_id=collector, host=self.b.ref)
        return GroupLine(group_id=group_id, status="ACTIVE", created_at=0.0, home=self.a.ref, collector=ref)

    def _page(self, body: Any) -> CallReply:
        after = body["message"]["args"]["after"]
        keys = sorted(key for key in (*self.results, *self.failures) if key > after)[:2]
        page = {
            "results": {key: self.results[key] for key in keys if key in self.results},
            "failures": {key: self.failures[key] for key in keys if key in self.failures},
            "next": keys[-1] if len(keys) == 2 else None,
            "pending_count": 1,
        }
        return CallReply(value=page)

    def result(self, key: str, number: int) -> None:
        ref = self.b.keep(DATA, f"{key}.db", f"art-0000000{number}", owner="c1")
        self.results[key] = {"result": {"n": number, "artifact": ref.to_wire()}}


@pytest.fixture
def given() -> Given:
    return Given()


# Which artifact.


def test_an_id_or_its_beginning_names_an_artifact(given: Given) -> None:
    given.a.keep(DATA, artifact_id="art-3f2a0000")
    given.b.keep(DATA, artifact_id="art-3f2a0000ff")
    given.b.keep(DATA, artifact_id="art-77777777")
    assert resolve_id(given.client, "art-7") == "art-77777777"
    assert resolve_id(given.client, "art-3f2a0000") == "art-3f2a0000"
    with pytest.raises(Invalid, match="is a prefix of 2 ids: art-3f2a0000, art-3f2a0000ff\nhint: use a longer prefix"):
        resolve_id(given.client, "art-3f2a")
    with pytest.raises(Unknown, match="art-9"):
        resolve_id(given.client, "art-9")


def test_an_artifact_on_no_host_is_unknown_and_offline_hosts_are_named(given: Given) -> None:
    hosts = given.exchange.members().hosts
    given.a.routes["GET /v1/mesh/hosts"] = lambda body: Hosts(hosts=(hosts[0], replace(hosts[1], online=False)))
    for text in ("art-9", "art-99999999"):
        with pytest.raises(Unknown, match=r"art-9.* \(offline and not asked: b for 0\.1 s\)"):
            resolve_id(given.client, text)


def test_where_a_host_is_silent_the_artifact_may_be_there(given: Given) -> None:
    given.client.timeout = 0.2
    given.b.broken = [Unreachable("b is away")] * 100
    with pytest.raises(Unreachable, match="no reachable host has an artifact whose id begins with art-9; b: b is away"):
        resolve_id(given.client, "art-9")


@pytest.mark.parametrize("text", ["art-", "data.bin", "", "..", "art"])
def test_what_is_no_id_is_told(given: Given, text: str) -> None:
    with pytest.raises(Invalid, match="GROUP/JOBKEY"):
        resolve_id(given.client, text)


def test_a_job_names_the_artifact_in_its_result(given: Given) -> None:
    for number, key in enumerate(("a", "a/b", "b", "ba", "c")):
        given.result(key, number)
    for number, key in enumerate(("a", "a/b", "b", "ba", "c")):
        assert resolve_id(given.client, f"g1/{key}") == f"art-0000000{number}"


def test_a_job_without_a_file_says_why(given: Given) -> None:
    given.results["plain"] = {"result": {"n": 1}}
    given.failures["broken"] = {"cause": "exception"}
    for key, told in (("plain", "has no file"), ("broken", "failed"), ("later", "has no result")):
        with pytest.raises(Unknown, match=told):
            artifact_of_job(given.client, "g1", key)


def left(given: Given, key: str, artifact_id: str, name: str = "left.db") -> ArtifactRef:
    """Store a file that a finished job left on `a`."""
    made = given.a.keep(DATA, name, artifact_id, group_id="g1", job_key=key)
    given.a.routes["POST /v1/jobs/kept"] = lambda body: UndeliveredOutputs(
        files=tuple(each for each in given.a.artifacts.values() if each.job_key == body["job_key"])
    )
    given.b.routes["POST /v1/jobs/kept"] = lambda body: UndeliveredOutputs()
    return made


def test_a_job_that_reported_a_file_and_left_another_has_two(given: Given) -> None:
    given.result("a", 0)
    given.results["b"] = {"result": None}
    left(given, "a", "art-0000000a")
    left(given, "b", "art-0000000b")
    with pytest.raises(Invalid, match=r"g1/a has 2 files: art-0000000a.*art-00000000") as told:
        artifact_of_job(given.client, "g1", "a")
    assert told.value.next_steps == ["`paglets artifacts get --group g1 DIR` fetches all files of the group"]
    assert artifact_of_job(given.client, "g1", "b").artifact_id == "art-0000000b"


def test_a_file_that_is_known_from_two_places_is_fetched_once(given: Given) -> None:
    made = left(given, "a", "art-0000000a")
    given.results["a"] = {"result": {"artifact": made.to_wire()}}
    found = artifacts_of_group(given.client, "g1")
    assert [(key, each.artifact_id) for key, each in found.artifacts] == [("a", "art-0000000a")]


def test_of_a_group_all_results_are_looked_through(given: Given) -> None:
    for number, key in enumerate(("a", "b", "c")):
        given.result(key, number)
    given.results["plain"] = {"result": None}
    given.failures["broken"] = {"cause": "exception"}
    found = artifacts_of_group(given.client, "g1")
    assert [key for key, _ in found.artifacts] == ["a", "b", "c"]
    assert list(found.remarks()) == [
        "1 result has no file",
        "1 job failed: `paglets jobs why g1` explains why",
        "1 job has not ended yet: run the same command later to fetch new files",
    ]


def test_large_results_of_waiting_reports_are_fetched_as_files(
    given: Given,
) -> None:
    file, value, other = (
        given.b.keep(DATA, name, f"art-0000000{number}", owner="c1")
        for number, name in enumerate(("rows.db", "result.json", "result.json"))
    )
    report = partial(WaitingReport, agent_id="j", kind="result")
    record = {"generation": 1, "attempt": 1}
    waiting = WaitingReports(
        host=given.b.ref,
        running=0,
        queued=0,
        submissions=1,
        counts=ReportCounts(results=3, files=3, file_bytes=3 * len(DATA)),
        reports=(
            report(
                n=1,
                job_key="a",
                record={**record, "result": {"big": {"$stored": {}}, "artifact": file.to_wire()}},
                artifacts=(value, file),
            ),
            report(n=2, job_key="b", record={**record, "result": {"$stored": {}}}, artifacts=(other,)),
            report(n=3, job_key="c", record={**record, "result": 3}),
        ),
    )
    given.b.routes["GET /v1/groups/g1/waiting"] = lambda body: waiting
    given.a.routes["GET /v1/groups/g1/waiting"] = lambda body: replace(waiting, counts=ReportCounts(), reports=())
    found = waiting_files(given.client, "g1")
    assert [(key, each.name) for key, each in found.files] == [
        ("a", "rows.db"),
        ("a", "result.json"),
        ("b", "result.json"),
    ]
    assert (found.without_file, found.failed) == (1, 0)
    lost = Unreachable("its host is lost")
    assert waiting_file(given.client, "g1", "a", lost).name == "rows.db"
    assert waiting_file(given.client, "g1", "b", lost).name == "result.json"


def test_where_results_have_no_file_the_hosts_that_were_not_asked_are_named(given: Given) -> None:
    a, b = given.exchange.members().hosts
    away = replace(b, online=False, host=replace(b.host, name="laptop", store_id="store-laptop"))
    given.a.routes["GET /v1/mesh/hosts"] = lambda body: Hosts(hosts=(a, b, away))
    given.result("a", 1)
    assert not [line for line in artifacts_of_group(given.client, "g1").remarks() if "laptop" in line]
    given.results["plain"] = {"result": None}
    told = list(artifacts_of_group(given.client, "g1").remarks())
    assert told[0] == "1 result has no file (offline and not asked: laptop for 0.1 s)"


def test_files_of_finished_jobs_that_are_not_delivered_yet_are_told_of(given: Given) -> None:
    given.results["plain"] = {"result": None}
    job = partial(Undelivered, group_id="g1", host=given.b.ref, text="it moves to a once that host is online")
    jobs = [job(agent_id=f"j{number}", job_key=f"k{number}", file_count=number) for number in range(5)]
    given.b.routes["POST /v1/jobs/kept"] = lambda body: UndeliveredOutputs(undelivered=tuple(jobs))
    assert list(artifacts_of_group(given.client, "g1").remarks())[1:5] == [
        "g1/k1 still keeps 1 file: it moves to a once that host is online",
        "g1/k2 still keeps 2 files: it moves to a once that host is online",
        "g1/k3 still keeps 3 files: it moves to a once that host is online",
        "1 more job still keeps files",
    ]


@pytest.mark.parametrize("result", [None, 3, [], {}, {"artifact": "x"}, {"artifact": {"name": "x"}}])
def test_another_thing_called_artifact_is_none(result: object) -> None:
    assert artifact_in(result) is None


def test_whose_an_artifact_is_is_told_by_its_job(given: Given) -> None:
    given.result("a", 0)
    other = given.b.keep(DATA, "old.db", "art-0000000a", owner="c1")  # of no result any more
    plain = given.a.keep(DATA, "x.bin", "art-0000000b")
    foreign = given.a.keep(DATA, "y.bin", "art-0000000c", owner="p7")
    job = ArtifactRef.from_wire(given.results["a"]["result"]["artifact"])
    named = owner_texts(given.client, [job, other, plain, foreign], [given.line()], 5.0)
    assert list(named.values()) == ["g1/a", "group g1", "(host)", "p7"]


def test_the_collectors_of_several_groups_are_asked_at_once(given: Given) -> None:
    together = threading.Barrier(2)

    def at(agent_id: str) -> PagletView:
        together.wait(30)
        return given.collector(agent_id)

    found = []
    for number, name in enumerate(("c1", "c2")):
        given.b.routes[f"GET /v1/paglets/{name}"] = lambda body, name=name: at(name)
        found.append(given.b.keep(DATA, "f.db", f"art-0000000{number}", owner=name))
    named = owner_texts(given.client, found, [given.line(), given.line("g2", "c2")], 60.0)
    assert list(named.values()) == ["group g1", "group g2"]


def test_a_collector_that_does_not_answer_takes_no_longer_than_the_list_may() -> None:
    waited: list[tuple[str, float]] = []

    class Hangs(TableExchange):
        def request(self, url: str, store_id: str | None, request: Request, *, timeout_seconds: float) -> Response:
            if "/c1" in request.target:
                waited.append((request.target, timeout_seconds))
                raise CallOutcomeUnknown("no reply")
            return super().request(url, store_id, request, timeout_seconds=timeout_seconds)

    given = Given()
    given.client._mesh._transport = Hangs(given.a, given.b)
    found = given.b.keep(DATA, "f.db", "art-00000000", owner="c1")
    assert owner_texts(given.client, [found], [given.line()], 2.0) == {found.artifact_id: "group g1"}
    assert {target for target, _ in waited} == {"/v1/paglets/c1"}
    assert max(seconds for _, seconds in waited) <= 2.0


def test_only_a_list_that_says_whose_files_are_asks_for_groups(given: Given) -> None:
    given.result("a", 0)
    for host, lines in ((given.a, ()), (given.b, (given.line(),))):
        host.routes["GET /v1/groups"] = lambda body, lines=lines: Groups(groups=lines)
    found, errors, owners = find_artifacts(given.client, None, 5.0, whose=True)
    assert ([each.artifact_id for each in found], errors, owners) == (["art-00000000"], (), {"art-00000000": "g1/a"})
    for host in (given.a, given.b):
        host.asked.clear()
    assert find_artifacts(given.client, None, 5.0, whose=False) == (found, (), {})
    assert {request.target.partition("?")[0] for request in (*given.a.asked, *given.b.asked)} == {
        "/v1/mesh/hosts",
        "/v1/artifacts",
    }


def test_whose_an_artifact_is_is_told_without_a_host_that_hangs_which_is_named(
    given: Given, capsys: pytest.CaptureFixture[str]
) -> None:
    waited: list[float] = []

    class Hangs(TableExchange):
        def request(self, url: str, store_id: str | None, request: Request, *, timeout_seconds: float) -> Response:
            if url == given.a.ref.url and request.target == "/v1/groups":
                waited.append(timeout_seconds)
                raise Unreachable("no answer in time")
            return super().request(url, store_id, request, timeout_seconds=timeout_seconds)

    given.result("a", 0)
    given.b.routes["GET /v1/groups"] = lambda body: Groups(groups=(given.line(),))
    given.client._mesh._transport = Hangs(given.a, given.b)
    (artifact,) = given.client.list_artifacts()
    assert owner_text(given.client, artifact, 2.0) == {artifact.artifact_id: "g1/a"}
    assert waited
    assert max(waited) <= 2.0
    assert capsys.readouterr().err == "paglets: a: no answer in time\n"


# Where it goes.


def test_what_stands_at_the_target_stays_unless_it_may_be_replaced(given: Given, tmp_path: Path) -> None:
    ref = given.b.keep(DATA, "f.bin")
    (tmp_path / "f.bin").write_text("mine")
    with pytest.raises(Conflict, match="--force"):
        fetch(given.client, ref, tmp_path, move=True, force=False)
    assert (tmp_path / "f.bin").read_text() == "mine"
    assert fetch(given.client, ref, tmp_path, move=True, force=True) == tmp_path / "f.bin"
    assert (tmp_path / "f.bin").read_bytes() == DATA
    assert given.b.artifacts == {}


def test_the_same_file_at_the_target_is_what_was_asked_for(given: Given, tmp_path: Path) -> None:
    ref = given.b.keep(DATA, "f.bin")
    (tmp_path / "f.bin").write_bytes(DATA)
    for _ in range(2):
        fetch(given.client, ref, tmp_path, move=True, force=False)
        assert (given.b.artifacts, given.b.pieces) == ({}, [])


def test_get_with_move_reports_the_deletion_and_a_later_get_explains_it(
    given: Given, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ref = given.b.keep(DATA, "f.bin")
    fetch(given.client, ref, tmp_path, move=False, force=False)
    assert capsys.readouterr().err == ""
    fetch(given.client, ref, tmp_path, move=True, force=False)
    told = f"paglets: {tmp_path}/f.bin exists already with the same content; deleted {ref.artifact_id} on its host\n"
    assert capsys.readouterr().err == told
    with pytest.raises(Unknown, match="moved, deleted, or on an offline host"):
        fetch(given.client, ref, tmp_path / "again", move=False, force=False)


def test_of_a_mistyped_job_the_nearest_is_named(given: Given) -> None:
    given.view = replace(given.view, job_keys=("monday", "tuesday"))
    with pytest.raises(Unknown, match=r"g1/modnay has no result: did you mean 'monday'\?"):
        artifact_of_job(given.client, "g1", "modnay")


@pytest.mark.parametrize("force", [True, False])
def test_a_folder_of_the_files_name_is_not_gone_into(given: Given, tmp_path: Path, force: bool) -> None:
    ref = given.b.keep(DATA, "f.bin")
    (tmp_path / "f.bin").mkdir()
    with pytest.raises(Conflict, match="is a folder"):
        fetch(given.client, ref, tmp_path, move=True, force=force)
    assert list(tmp_path.iterdir()) == [tmp_path / "f.bin"]


def test_a_file_does_not_go_to_stdout(given: Given) -> None:
    with pytest.raises(Invalid, match="name a file"):
        fetch(given.client, given.b.keep(DATA), "-", move=False, force=False)


@pytest.mark.parametrize(
    "words",
    [["get", "art-1", "--force", "dir"], ["get", "--force", "art-1", "dir"], ["get", "art-1", "dir", "--force"]],
)
def test_options_may_stand_between_the_arguments(words: list[str]) -> None:
    seen = []
    parser = Parser(prog="paglets artifacts")
    get = parser.add_subparsers(parser_class=Parser).add_parser("get")
    add_get(get)
    get.set_defaults(handler=lambda options: seen.append((options.artifact, options.target, options.force)) or 0)
    assert run(parser, words) == 0
    assert seen == [("art-1", "dir", True)]
    with pytest.raises(Invalid, match=r"unexpected '.*more'"):
        run(parser, [*words, "more"])


# Names side by side.


def test_files_of_a_group_are_named_by_their_jobs() -> None:
    assert file_names([("monday", "words.db"), ("tuesday", "words.db")]) == ["monday-words.db", "tuesday-words.db"]


def test_files_of_one_name_that_one_job_left_are_told_apart() -> None:
    names = file_names([("a", "r.db"), ("a", "r.db"), ("b", "r.db")])
    assert len(set(names)) == 3
    assert names[2] == "b-r.db"


def test_no_key_leads_out_of_the_folder_nor_two_to_one_file() -> None:
    keys = ["a/b", "a_b", "../x", "..", ".", "x\\y", "C:", "con", "A", "a", "ä" * 200, "ä" * 199, "k" * 200, "-", "a b"]
    keys += ["-rf", "--", "-r"]
    names = file_names([(key, "r.db") for key in keys])
    assert len({name.casefold() for name in names}) == len(keys)
    assert all("/" not in name and "\\" not in name and not name.startswith((".", "-")) for name in names)
    assert all(name.endswith("r.db") and len(name.encode()) <= 200 for name in names)


def test_keys_and_names_that_run_into_one_another_are_told_apart() -> None:
    assert len(set(file_names([("a", "b-c"), ("a-b", "c")]))) == 2


def test_a_long_name_keeps_its_end() -> None:
    (name,) = file_names([("k" * 100, "n" * 190 + ".sqlite")])
    assert name.endswith(".sqlite")
    assert len(name.encode()) <= 200


# Words.


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("12h", 43200), ("7d", 604800), ("1.5h", 5400)]
)
def test_a_time_has_a_unit(text: str, seconds: float) -> None:
    assert duration(text) == seconds


def test_an_artifact_is_a_line(given: Given) -> None:
    ref = given.a.keep(b"x" * 2048, "f.bin", expires_at=3705.0)
    told = ("art-00000001", "words/monday", "f.bin", "2 KiB", "a", "1 min", "in 1 h")
    assert artifact_row(ref, 65.0, "words/monday") == told


# Progress.


def told(out: io.StringIO, *, seconds: float, steps: int, total: int = 100 * MIB) -> str:
    clock = FakeClock()
    with ProgressLine("f.bin", out=out, now=clock.monotonic) as progress:
        for step in range(steps + 1):
            progress("receiving", total * step // steps, total)
            clock.advance(seconds / steps)
    return out.getvalue()


def test_a_terminal_shows_a_bar_with_rate_and_time_left_and_clears_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = told(Terminal(), seconds=10.0, steps=100).split("\r")
    assert "receiving  50 %, 50 MiB of 100 MiB, 10 MiB/s, 5.0 s left" in lines[50]
    assert "f.bin  [######      ]  receiving" in lines[50]
    assert lines[-1] == "\x1b[K"
    assert all("\n" not in line for line in lines)


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (60, "a-long-name  [##########          ]  50 %, words"),
        (30, "a-long-name  50 %, words"),
        (20, "a-long-  50 %, words"),
        (12, "50 %, words"),
        (4, "50 %"),
    ],
)
def test_on_a_narrow_terminal_the_numbers_remain(width: int, line: str) -> None:
    assert fitted("a-long-name", "50 %, words", 0.5, width) == line


def test_a_terminal_is_not_flooded() -> None:
    assert told(Terminal(), seconds=1.0, steps=10_000).count("\r") <= 12


def test_in_a_pipe_there_is_a_line_now_and_then_of_what_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    told(io.StringIO(), seconds=4.0, steps=100)
    assert capsys.readouterr().err == ""
    told(io.StringIO(), seconds=21.0, steps=100)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4
    assert all(line.startswith("paglets: f.bin: receiving ") for line in lines)


def test_an_empty_file_has_progress_too() -> None:
    assert "100 %" in told(Terminal(), seconds=10.0, steps=10, total=0)


def test_a_name_cannot_trick_the_terminal() -> None:
    out, clock = Terminal(), FakeClock()
    with ProgressLine("a\x1b[2Jb\n", out=out, now=clock.monotonic) as progress:
        clock.advance(1.0)
        progress("receiving", 1, 2)
    assert "\x1b[2J" not in out.getvalue()
    assert "\n" not in out.getvalue()


def test_the_rate_is_that_of_the_last_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out, clock = Terminal(), FakeClock()
    with ProgressLine("f", out=out, now=clock.monotonic) as progress:
        for step in range(100):
            clock.advance(1.0)
            progress("sending", step * (10 if step < 50 else 1) * MIB, 1000 * MIB)
    assert "1 MiB/s" in out.getvalue().split("\r")[-2]
