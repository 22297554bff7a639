from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from typing import Any

import pytest

from paglets.codec import tagged_json
from paglets.core.errors import Invalid
from paglets.core.messages import Message
from paglets.core.record import from_json
from paglets.core.signatures import HookEvent
from paglets.slots.model import SlotRequest, check_request
from paglets.system.compute_slots import (
    CollectingComputeJobPaglet,
    CollectingComputeJobState,
    ComputeJobPaglet,
    ComputeJobState,
)
from paglets.testing.authors import FakeContext


@dataclass
class MyJobState(CollectingComputeJobState):
    dataset: str = ""
    value: int = 0


class MyJob(CollectingComputeJobPaglet[MyJobState]):
    State = MyJobState

    def run_compute_job(self) -> None:
        self.state.value = len(self.state.dataset)

    def build_result_payload(self) -> dict:
        return {"dataset": self.state.dataset, "value": self.state.value}


class Told(MyJob):
    """A job that records which of its methods ran."""

    def __init__(self, state: MyJobState, context: FakeContext) -> None:
        super().__init__(state, context)
        self.ran: list[str] = []

    def on_creation(self) -> None:
        self.ran.append("creation")

    def run_compute_job(self) -> None:
        self.ran.append("run")


class Returning(Told):
    def run_compute_job(self) -> int:  # type: ignore[override]
        return 5


class Failing(Told):
    def run_compute_job(self) -> None:
        raise ValueError("no such file")

    def after_compute_failure(self, error: BaseException) -> None:
        self.ran.append(f"failed: {error}")


def test_a_job_reports_its_payload() -> None:
    context = FakeContext()
    MyJob(MyJobState(job_key="a", dataset="alpha"), context).compute_attempt()
    assert context.reports == [{"success": True, "result": {"dataset": "alpha", "value": 5}}]


def test_a_job_without_a_payload_reports_an_empty_one() -> None:
    class Bare(ComputeJobPaglet[ComputeJobState]):
        def run_compute_job(self) -> None:
            pass

    context = FakeContext()
    Bare(ComputeJobState(), context).compute_attempt()
    assert context.reports == [{"success": True, "result": {}}]


def test_a_job_that_reported_itself_reports_nothing_more(capsys: pytest.CaptureFixture[str]) -> None:
    class Eager(MyJob):
        def run_compute_job(self) -> None:
            self.first = self.report_compute_success({"mine": 1})
            self.second = self.report_compute_failure("changed my mind")

    context = FakeContext()
    job = Eager(MyJobState(job_key="a"), context)
    job.compute_attempt()
    assert (job.first, job.second) == (True, False)
    assert [report["success"] for report in context.reports] == [True]
    assert capsys.readouterr().err == (
        "paglets: a: error: a second report was not sent, the failure 'changed my mind': each attempt has one report\n"
    )


def test_a_failure_carries_the_exception_and_its_traceback() -> None:
    class Careful(MyJob):
        def run_compute_job(self) -> None:
            try:
                raise OSError("disk gone")
            except OSError as error:
                self.report_compute_failure(error)

    context = FakeContext()
    Careful(MyJobState(), context).compute_attempt()
    (report,) = context.reports
    assert (report["success"], report["cause"], report["message"]) == (False, "exception", "OSError: disk gone")
    assert "run_compute_job" in report["traceback"]


def test_a_result_that_cannot_travel_is_a_failure_with_that_cause() -> None:
    class Odd(MyJob):
        def build_result_payload(self) -> dict:
            return {"value": object()}

    context = FakeContext()
    with pytest.raises(Invalid):
        Odd(MyJobState(), context).compute_attempt()
    assert [(report["success"], report.get("cause")) for report in context.reports] == [(False, "bad_result")]


def test_a_file_goes_along_with_the_report_and_nothing_follows_it(capsys: pytest.CaptureFixture[str]) -> None:
    class Files(MyJob):
        def run_compute_job(self) -> None:
            self.first = self.report_compute_artifact("out.db", result={"n": 1}, move=True)
            self.second = self.report_compute_artifact("out.db")

    context = FakeContext()
    job = Files(MyJobState(job_key="a"), context)
    job.compute_attempt()
    assert (job.first, job.second) == (True, False)
    file = {"path": "out.db", "name": None, "move": True}
    assert context.reports == [{"success": True, "result": {"n": 1}, "file": file}]
    assert capsys.readouterr().err == (
        "paglets: a: error: a second report was not sent, the file out.db stays where it is: each attempt has one "
        "report, so pack several files into one\n"
    )
    assert len(context.warned) == 1


@pytest.mark.parametrize("result", [["no mapping"], "text", {"artifact": None}])
def test_a_result_without_a_place_for_the_file_is_refused_and_nothing_reported(result: object) -> None:
    context = FakeContext()
    with pytest.raises(Invalid, match="the result next to a file"):
        MyJob(MyJobState(), context).report_compute_artifact("out.db", result=result)
    assert context.reports == []


def test_on_creation_runs_where_the_attempt_begins_from_the_submitted_state() -> None:
    fresh = Told(MyJobState(compute_fresh=True), FakeContext())
    fresh.compute_attempt()
    again = Told(MyJobState(compute_fresh=False), FakeContext())
    again.compute_attempt()
    assert (fresh.ran, again.ran) == (["creation", "run"], ["run"])


def test_a_completed_job_never_runs_again() -> None:
    job = Told(MyJobState(compute_status="COMPLETED"), FakeContext())
    job.on_arrival()
    job.run()
    job.compute_attempt()
    assert (job.ran, job.context.reports) == ([], [])


def test_an_exception_reaches_the_hook_and_then_the_host() -> None:
    job = Failing(MyJobState(), FakeContext())
    with pytest.raises(ValueError, match="no such file"):
        job.compute_attempt()
    assert job.ran == ["creation", "failed: no such file"]
    assert job.context.reports == []


def test_a_hook_that_raises_hides_nothing() -> None:
    class Worse(Failing):
        def after_compute_failure(self, error: BaseException) -> None:
            raise KeyError("oops")

    with pytest.raises(ValueError, match="no such file") as caught:
        Worse(MyJobState(), FakeContext()).compute_attempt()
    assert any("KeyError" in note for note in caught.value.__notes__)


def test_a_state_asks_for_one_core_and_nothing_else_by_default() -> None:
    request = from_json(SlotRequest, MyJob.creation_request(MyJobState()))
    assert check_request(request) == MyJobState().slot_request()
    assert (request.resources.cpu_cores, request.resources.memory_bytes, request.max_losses) == (1, 0, 10)
    assert not request.rules.allow_home


def test_tags_may_be_tuples_or_lists() -> None:
    state = MyJobState(required_host_tags=["linux", "linux"], preferred_host_tags=("gpu",))
    rules = state.slot_request().rules
    assert (rules.required_tags, rules.preferred_tags) == (("linux",), ("gpu",))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(
            (field, value)
            for field in ("cpu_cores", "memory_bytes", "gpus", "max_attempts")
            for value in (-1, 1.5, True)
        ),
        ("cpu_cores", 0),
        ("max_attempts", 0),
        ("temp_storage_bytes", "4 GB"),
        ("memory_bytes", 10**30),
        ("memory_bytes", None),
        ("max_losses", math.nan),
        ("estimated_runtime_seconds", -0.5),
        ("estimated_runtime_seconds", math.nan),
        ("timeout_seconds", math.inf),
        ("placement_timeout_seconds", "1h"),
        ("timeout_seconds", False),
        ("required_host_tags", "linux"),
        ("excluded_host_tags", {"laptop"}),
        ("preferred_host_tags", (1,)),
        ("preferred_host_tags", ("",)),
        ("required_host_tags", ("x" * 101,)),
        ("required_host_tags", tuple(map(str, range(65)))),
        ("excluded_host_names", ("Not A Name",)),
        ("excluded_host_urls", ("ftp://x",)),
        ("excluded_host_urls", ("http://x:99999",)),
        ("allow_home_compute", 1),
    ],
)
def test_a_wrong_value_is_named(field: str, value: object) -> None:
    with pytest.raises(Invalid, match=field):
        MyJob.creation_request(MyJobState(**{field: value}))


def test_a_bare_str_for_tags_shows_how_to_write_it() -> None:
    with pytest.raises(Invalid, match=r"write \('linux',\)"):
        MyJobState(required_host_tags="linux").slot_request()


def test_a_state_travels_with_all_its_fields() -> None:
    state = MyJobState(job_key="a", dataset="alpha", required_host_tags=("linux",), cpu_cores=2)
    assert tagged_json.decode_state(MyJobState, tagged_json.encode_state(state)) == state


def test_the_types_of_a_state_are_known_under_its_public_path() -> None:
    assert typing.get_type_hints(MyJobState)["required_host_tags"] == tuple[str, ...]


def test_hosts_see_a_job_as_a_job() -> None:
    assert (MyJob.kind, MyJob.State) == ("job", MyJobState)


def attempt(cls: type[CollectingComputeJobPaglet[MyJobState]]) -> FakeContext:
    context = FakeContext()
    cls(MyJobState(job_key="a", dataset="x"), context).compute_attempt()
    return context


def results(context: FakeContext) -> list[Any]:
    return [report["result"] for report in context.reports]


def test_the_returned_value_is_the_result() -> None:
    class Returns(CollectingComputeJobPaglet[MyJobState]):
        def run_compute_job(self) -> int:
            return 0

    context = attempt(Returns)
    assert (results(context), context.warned) == ([0], [])


def test_a_payload_counts_and_the_returned_value_is_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    context = attempt(Returning)
    text = "run_compute_job returned a value of type int that is not used: the result is that of build_result_payload"
    assert (results(context), context.warned) == ([{"dataset": "x", "value": 0}], [text])
    assert capsys.readouterr().err == f"paglets: a: {text}\n"


def test_a_report_counts_and_the_returned_value_is_a_warning() -> None:
    class Both(CollectingComputeJobPaglet[MyJobState]):
        def run_compute_job(self) -> list[int]:
            self.report_compute_success(1)
            return [2]

    context = attempt(Both)
    assert (results(context), len(context.warned)) == ([1], 1)


def test_a_returned_value_that_no_own_hook_reports_is_a_warning() -> None:
    class Own(CollectingComputeJobPaglet[MyJobState]):
        def run_compute_job(self) -> int:
            return 1

        def after_compute_success(self) -> None:
            self.report_compute_success("mine")

    context = attempt(Own)
    assert (results(context), len(context.warned)) == (["mine"], 1)


async def coroutine(job: Any) -> int:
    return 1


@pytest.mark.parametrize("body", [coroutine, lambda job: coroutine(job), lambda job: (n for n in (1, 2))])
def test_a_body_that_did_not_run_fails_the_attempt(body: Any) -> None:
    class Odd(CollectingComputeJobPaglet[MyJobState]):
        run_compute_job = body

    context = FakeContext()
    with pytest.raises(Invalid, match=r"Odd\.run_compute_job returned a (coroutine|generator)"):
        Odd(MyJobState(), context).compute_attempt()
    assert context.reports == []


def test_details_of_a_failure_are_in_its_message() -> None:
    context = FakeContext()
    MyJob(MyJobState(), context).report_compute_failure("no rows", details={"file": "a.csv"})
    assert context.reports[0]["message"] == "no rows; details: {'file': 'a.csv'}"


def test_on_creation_of_a_job_may_take_its_event() -> None:
    class Eventful(MyJob):
        def on_creation(self, event: HookEvent) -> None:  # type: ignore[override]
            self.event = event

    job = Eventful(MyJobState(), FakeContext())
    job.compute_attempt()
    assert (job.event.kind, job.event.from_host) == ("creation", None)


@pytest.mark.parametrize(
    ("words", "named", "note"),
    [
        (("text",), {}, ("info", "text")),
        (("text", "error"), {}, ("error", "text")),
        (("warning", "title", "text"), {}, ("warning", "title: text")),
        ((), {"severity": "error", "title": "title", "message": "text"}, ("error", "title: text")),
    ],
)
def test_a_note_has_a_level_or_a_severity_and_title(words: Any, named: Any, note: tuple[str, str]) -> None:
    context = FakeContext()
    MyJob(MyJobState(), context).notify_user(*words, **named)
    context.notify_user(*words, **named)
    assert context.notes == [note, note]


def test_a_note_of_neither_form_is_refused_with_both() -> None:
    with pytest.raises(TypeError, match=r"\(text, level\) or \(severity, title, message\)"):
        MyJob(MyJobState(), FakeContext()).notify_user("a", "b", "c", "d")  # type: ignore[call-overload]


def test_a_time_out_has_two_names_beside_a_message() -> None:
    context = FakeContext({"sum": lambda message: dict(message.args)})
    job, me = MyJob(MyJobState(), context), context.proxy("paglet-1")
    message = Message("sum")
    for call in (me.call, me.send):
        call(message, timeout=5)
    job.call(context.ref, message, timeout=5)
    context.send(context.ref, message, timeout=5)
    assert [seconds for _, _, seconds in context.sent] == [5, 5, 5, 5]
    assert me.call("sum", timeout=5) == {"timeout": 5}
    with pytest.raises(TypeError, match="the same argument"):
        me.call(message, timeout=5, timeout_seconds=5)


def isolation_of_request(job_class: type[MyJob], **fields: Any) -> str:
    return from_json(SlotRequest, job_class.creation_request(MyJobState(**fields))).isolation


def test_the_state_chooses_the_isolation_before_the_class() -> None:
    class Warm(MyJob):
        isolation = "worker"

    assert isolation_of_request(MyJob) == "process"
    assert isolation_of_request(MyJob, isolation="worker") == "worker"
    assert isolation_of_request(Warm) == "worker"
    assert isolation_of_request(Warm, isolation="process") == "process"


@pytest.mark.parametrize("wrong", ["thread", "Worker", None, 1, [], ()])
def test_an_unknown_isolation_is_refused_by_name(wrong: Any) -> None:
    with pytest.raises(Invalid, match=r"isolation is .*: it must be 'process' or 'worker'"):
        isolation_of_request(MyJob, isolation=wrong)
