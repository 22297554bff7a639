from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from paglets.api.groups import GroupView, Obstacle, SubmitGroup
from paglets.api.hosts import MeshHostView
from paglets.api.paglets import PagletView
from paglets.codec import tagged_json
from paglets.codec.bundle import bundle_of
from paglets.core.errors import (
    CallOutcomeUnknown,
    Conflict,
    GroupLost,
    HandlerFailed,
    Invalid,
    Overloaded,
    PagletsError,
    TimedOut,
    Unknown,
    Unreachable,
)
from paglets.core.messages import Message
from paglets.core.refs import BlobRef, FileRef, HostRef, ProxyRef
from paglets.system.compute_slots import (
    CollectingComputeJobPaglet,
    CollectingComputeJobState,
    ResultCollectorPaglet,
    submit_compute_job_group,
)
from paglets.system.follower import LONGEST_PAUSE_SECONDS, pause_between_pages
from paglets.system.submission import Submission
from paglets.system.submission_messages import remarks_on
from paglets.testing.authors import FakeContext
from tests.fakes.clock import FakeClock
from tests.fakes.mesh import member
from tests.fakes.waiting import wait_until


@dataclass
class MyJobState(CollectingComputeJobState):
    dataset: str = ""


class MyJob(CollectingComputeJobPaglet[MyJobState]):
    State = MyJobState


class OtherState(CollectingComputeJobState):
    pass


class MoreState(MyJobState):
    pass


class Forgetful(CollectingComputeJobState):
    dataset: str = ""


class ForgetfulJob(CollectingComputeJobPaglet[Forgetful]):
    State = Forgetful


class MyCollector(ResultCollectorPaglet):
    pass


class FakeClient(FakeContext):
    """As a HostClient it can be asked for a group, and for the hosts of its mesh. `at`: the host that says that it has
    the collector; or the error of one that does not answer. `mute`: the error of the collector's host. `looks`: how
    long it was waited for."""

    timeout = 30.0
    members: tuple[MeshHostView, ...] = ()
    at: HostRef | PagletsError | None = None
    mute: PagletsError | None = None

    def __init__(self, answers: Mapping[str, Callable[[Message], Any]] | None = None) -> None:
        super().__init__(answers)
        self.looks: list[float | None] = []

    def collected(self, group_id: str, *, timeout: float | None = None) -> GroupView | None:
        if isinstance(self.at, PagletsError):
            raise self.at
        if self.at is None:
            return None
        ref = ProxyRef(agent_id="collector-1", host=self.at)
        return replace(self.view(self.groups[0]), collector=ref, status="ACTIVE")

    def hosts(self) -> tuple[MeshHostView, ...]:
        return self.members

    def paglet(self, target: ProxyRef, *, timeout: float | None = None) -> PagletView:
        self.looks.append(timeout)
        if self.mute is not None:
            raise self.mute
        return PagletView(
            agent_id=target.agent_id, class_name="m:C", kind="collector", residence="here", epoch=1, host=target.host
        )

    def group(self, group_id: str) -> GroupView:
        self.groups.append(self.groups[0])
        return self.view(self.groups[0])


def submitted(context: FakeContext, *states: MyJobState, **options: Any) -> SubmitGroup:
    submit_compute_job_group(context, MyJob, states, **options)
    return context.groups[0]


def test_a_group_is_sent_in_one_request_with_states_and_requests() -> None:
    group = submitted(
        FakeContext(),
        MyJobState(job_key="a", dataset="alpha", required_host_tags=("linux",)),
        MyJobState(job_key="b", dataset="beta", cpu_cores=4),
        return_home_when_complete=True,
        collector_host="w1",
    )
    assert group.class_name.endswith("test_submission:MyJob")
    assert group.collector_class == "paglets.system.compute_slots:ResultCollectorPaglet"
    assert (group.return_home_when_complete, group.collector_host) == (True, "w1")
    first, second = group.jobs
    assert tagged_json.decode_state(MyJobState, first.state).dataset == "alpha"
    assert first.request is not None
    assert first.request["rules"]["required_tags"] == ["linux"]
    assert second.request is not None
    assert second.request["resources"]["cpu_cores"] == 4


def test_home_may_run_all_jobs_of_a_group_by_one_argument() -> None:
    states = [MyJobState(job_key="a"), MyJobState(job_key="b", allow_home_compute=True)]
    group = submitted(FakeContext(), *states, allow_home_compute=True)
    assert [job.request and job.request["rules"]["allow_home"] for job in group.jobs] == [True, True]
    assert [tagged_json.decode_state(MyJobState, job.state).allow_home_compute for job in group.jobs] == [True, True]
    assert not states[0].allow_home_compute, "the caller's state is left as it is"
    plain = submitted(FakeContext(), *states)
    assert [job.request and job.request["rules"]["allow_home"] for job in plain.jobs] == [False, True]
    with pytest.raises(TypeError, match="allow_home_compute is 'yes'"):
        submitted(FakeContext(), allow_home_compute="yes")


def test_a_group_on_the_only_host_is_not_waited_for_to_be_detached(capsys: pytest.CaptureFixture[str]) -> None:
    class Alone(FakeClient):
        def view(self, group: SubmitGroup) -> GroupView:
            reason = "this is the only host: the jobs run here"
            return replace(super().view(group), detached=False, only_host=True, detached_reason=reason)

    submission = submit_compute_job_group(Alone(), MyJob, [MyJobState()], group_id="g")
    assert capsys.readouterr().err.splitlines()[0] == "g: 1 job submitted; it runs here, on the only host"
    assert not submission.wait_detached()
    assert capsys.readouterr().err == "g: not detached; this is the only host: the jobs run here\n"


def test_an_empty_key_is_named_by_position_and_the_state_learns_it() -> None:
    state = MyJobState()
    group = submitted(FakeContext(), MyJobState(job_key="a"), state)
    assert [job.job_key for job in group.jobs] == ["a", "job-00002"]
    assert tagged_json.decode_state(MyJobState, group.jobs[1].state).job_key == "job-00002"
    assert state.job_key == ""


@pytest.mark.parametrize(
    ("states", "error", "text"),
    [
        ([MyJobState(job_key="a"), MyJobState(job_key="a")], ValueError, "'a'"),
        ([MyJobState(job_key="a\nb")], ValueError, "job key"),
        ([MyJobState(job_key=7)], TypeError, "job_key 7"),
        ([OtherState(job_key="a")], TypeError, "State = MyJobState\nhint: give a MyJobState"),
        ([MoreState(job_key="a")], TypeError, "hint: add the line `State = MoreState` to class MyJob"),
        (["a"], TypeError, "state 1 is a str"),
    ],
)
def test_what_cannot_be_a_group_is_refused_before_anything_is_sent(
    states: list[Any], error: type[Exception], text: str
) -> None:
    context = FakeContext()
    with pytest.raises(error, match=text):
        submit_compute_job_group(context, MyJob, states)
    assert context.groups == []


def test_a_state_class_without_dataclass_is_refused() -> None:
    with pytest.raises(Invalid, match="lacks @dataclass"):
        submit_compute_job_group(FakeContext(), ForgetfulJob, [])


def test_a_state_with_an_attribute_that_is_no_field_is_refused_at_once() -> None:
    context, state = FakeContext(), MyJobState()
    state.cache = {}  # type: ignore[attr-defined]

    with pytest.raises(Invalid, match="a MyJobState has attributes that cannot be sent: 'cache'; declare them as fiel"):
        submit_compute_job_group(context, MyJob, [MyJobState(), state])
    assert context.groups == []


def test_a_class_that_is_no_job_is_refused() -> None:
    with pytest.raises(TypeError, match="give a subclass of"):
        submit_compute_job_group(FakeContext(), MyJobState, [])  # type: ignore[arg-type]


def test_impossible_amounts_make_a_creation_failure_not_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    context = FakeContext()
    submission = submit_compute_job_group(
        context, MyJob, [MyJobState(job_key="a", cpu_cores=-1), MyJobState(job_key="b")]
    )
    assert [job.error != "" for job in context.groups[0].jobs] == [True, False]
    (error,) = submission.creation_errors
    assert (error.job_key, "cpu_cores is -1" in error.message) == ("a", True)
    assert ": a was not created: cpu_cores is -1" in capsys.readouterr().err


LARGE = "64 cores asked, the largest host (linux-a) offers 2"


def test_reasons_why_jobs_have_no_host_are_printed_with_a_hint_and_the_next_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    client = FakeClient()
    client.obstacles = (
        Obstacle(count=2, code="too_large", text=LARGE, never=True),
        Obstacle(count=1, code="offline", text="w1 is offline\x1b[2J"),
    )
    submission = submit_compute_job_group(client, MyJob, [MyJobState() for _ in range(3)], group_id="large")
    told = capsys.readouterr()
    assert (told.out, told.err.splitlines()) == (
        "",
        [
            "large: 3 jobs submitted",
            f"large: 2 jobs can never run: {LARGE}",
            "large: 1 job waits for a host: w1 is offline\\x1b[2J",
            "hint: ask for less, or add a larger host",
            "next: paglets jobs why large",
        ],
    )
    assert submission.warnings[0] == f"2 jobs can never run: {LARGE}"


def test_within_a_paglet_only_what_stands_in_the_way_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    context = FakeContext()
    context.obstacles = (Obstacle(count=1, code="no_place_known", text="none"),)
    submit_compute_job_group(context, MyJob, [MyJobState()], group_id="g")
    assert capsys.readouterr().err == "g: 1 job waits for a host: none\nnext: paglets jobs why g\n"


def test_many_different_reasons_are_counted_and_equal_errors_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    client = FakeClient()
    client.obstacles = tuple(Obstacle(count=1, code="offline", text=f"w{number} is offline") for number in range(7))
    submit_compute_job_group(client, MyJob, [MyJobState(job_key=key, cpu_cores=-1) for key in "abc"], group_id="g")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "g: no job was submitted"
    assert lines[1] == "g: 3 jobs, such as a, were not created: cpu_cores is -1 (int): it must be at least 1"
    assert lines[4:6] == ["g: 1 job waits for a host: w2 is offline", "g: and 4 more reasons (submission.warnings)"]
    assert len(lines) == 8


def test_the_line_about_a_submission_counts_the_created_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    states = [MyJobState(job_key="a"), MyJobState(job_key="b", isolation="thread")]
    submit_compute_job_group(FakeClient(), MyJob, states, group_id="g")
    assert capsys.readouterr().err.splitlines()[:2] == [
        "g: 1 of 2 jobs submitted",
        "g: b was not created: isolation is 'thread' (str): it must be 'process' or 'worker'",
    ]


def test_a_script_is_told_the_next_commands_and_a_paglet_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    submit_compute_job_group(FakeContext(), MyJob, [MyJobState()], group_id="g")
    assert capsys.readouterr().err == ""
    submit_compute_job_group(FakeClient(), MyJob, [MyJobState()], group_id="g")
    told = capsys.readouterr()
    assert told.err.splitlines() == ["g: 1 job submitted", "next: paglets jobs watch g"]
    assert told.out == ""


class KnownHost(FakeClient):
    """A host that stored the group two minutes ago; `differs` and the status of the collector are given."""

    def __init__(self, differs: tuple[str, ...] = (), answers: Mapping[str, Callable[[Message], Any]] | None = None):
        super().__init__(answers)
        self.differs = differs

    def view(self, group: SubmitGroup) -> GroupView:
        created_at = time.time() - 150
        return replace(super().view(group), was_there=True, differs=self.differs, created_at=created_at)


def test_a_group_that_is_there_already_is_not_said_to_be_submitted(capsys: pytest.CaptureFixture[str]) -> None:
    for done, failed, says in (
        (4, 0, ["g: 4 of 4 were done before; nothing to run", "next: paglets jobs groups g"]),
        (
            *(3, 1),
            [
                "g: 3 of 4 were done before, 1 failed before; failed jobs are not run again",
                "hint: submit the failed jobs under another group_id to run them again",
                "next: paglets jobs why g",
            ],
        ),
        (
            *(1, 1),
            [
                "g: submitted 2 min 30 s ago, 1 done, 1 failed, 2 pending of 4; nothing was submitted again",
                "next: paglets jobs watch g",
            ],
        ),
    ):
        counts = {"status": "ACTIVE", "expected_count": 4, "completed_count": done, "failed_count": failed}
        answers = {"counts": lambda message, counts=counts: counts}
        submission = submit_compute_job_group(KnownHost(answers=answers), MyJob, [MyJobState()], group_id="g")
        told = capsys.readouterr().err.splitlines()
        assert told == says
        assert submission.warnings == (told[0].removeprefix("g: "),)


def test_a_group_that_is_there_with_other_code_is_told_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    def away(message: Message) -> Any:
        raise Unreachable("w1 is away")

    for differs, says in (
        (("code",), "code"),
        (("inputs",), "inputs"),
        (("code", "inputs"), "code and inputs"),
    ):
        client = KnownHost(differs, {"counts": away})
        client.members = (MeshHostView(host=member("w1"), online=True, seconds_since_seen=0.0),)
        submission = submit_compute_job_group(client, MyJob, [MyJobState()], group_id="g")
        changed = f"{says} changed since the submission; the group keeps the old version"
        there = "submitted 2 min 30 s ago; nothing was submitted again"
        assert (submission.warnings[0], submission.warnings[-1]) == (there, changed)
        told = capsys.readouterr().err
        assert (
            f"g: {changed}\nhint: submit under another group_id to run {'it' if says == 'code' else 'them'}\n" in told
        )


GONE = "its results are lost unless its old data directory is restored"


@pytest.mark.parametrize(
    ("members", "says", "clears"),
    [
        (
            (),
            f"the collector of g was on w1, which is no longer a host of this mesh: {GONE}",
            "`paglets jobs cancel g`",
        ),
        (
            (
                MeshHostView(host=member("w1"), online=False, seconds_since_seen=60.0),
                MeshHostView(host=member("w1", store_id="s2", url="http://w1:9"), online=True, seconds_since_seen=0.1),
            ),
            "the collector of g was on w1, which restarted with an empty data directory at http://w1:9 (or another "
            f"machine has that name now): {GONE}",
            "`paglets mesh forget store-w1`, then `paglets jobs cancel g`",
        ),
    ],
)
def test_a_group_whose_collector_is_gone_for_good_is_not_taken_for_submitted(
    members: tuple[MeshHostView, ...], says: str, clears: str
) -> None:
    def away(message: Message) -> Any:
        raise Unreachable("w1 is away")

    client = KnownHost(answers={"counts": away})
    client.members = members
    with pytest.raises(GroupLost) as caught:
        submit_compute_job_group(client, MyJob, [MyJobState()], group_id="g")
    assert caught.value.message == f"group g exists already, and nothing was submitted: {says}"
    shown, cleared = caught.value.next_steps
    assert shown == "`paglets jobs groups g` shows the jobs and reports that other hosts have of g"
    assert cleared.startswith(clears)
    assert f"next: {cleared}" in "".join(traceback.format_exception(caught.value))


def test_a_paglet_that_submits_a_lost_group_again_is_told_by_its_host() -> None:
    class Knows(FakeContext):
        def view(self, group: SubmitGroup) -> GroupView:
            return replace(super().view(group), was_there=True, lost="its collector was on w1, which was forgotten")

    with pytest.raises(GroupLost, match="its collector was on w1, which was forgotten"):
        submit_compute_job_group(Knows(), MyJob, [MyJobState()], group_id="g")


def test_a_group_whose_collector_is_away_is_not_said_to_be_detached() -> None:
    class Detached(KnownHost):
        def view(self, group: SubmitGroup) -> GroupView:
            return replace(super().view(group), detached=True)

    def away(message: Message) -> Any:
        raise Unreachable("w1 is away")

    client = Detached(answers={"counts": away})
    client.members = (MeshHostView(host=member("w1"), online=False, seconds_since_seen=9.0),)
    submission = submit_compute_job_group(client, MyJob, [MyJobState()], group_id="g")
    assert not submission.detached
    assert submission.detached_reason == "its collector is on w1, not seen for 9 s"
    client.members = (MeshHostView(host=member("w1"), online=True, seconds_since_seen=0.0),)
    assert submission.detached


def test_a_collector_that_moved_before_its_host_was_forgotten_is_found() -> None:
    def away(message: Message) -> Any:
        raise Unreachable("w1 is not among the hosts of the mesh")

    client = KnownHost(answers={"counts": away})
    client.at = HostRef(store_id="store-w2", name="w2")
    submission = submit_compute_job_group(client, MyJob, [MyJobState()], group_id="g")
    assert submission.warnings == ("submitted 2 min 30 s ago; nothing was submitted again",)
    assert submission.collector.ref.host == client.at


def test_a_collector_on_a_host_that_does_not_answer_is_not_reported_as_lost() -> None:
    def away(message: Message) -> Any:
        raise Unreachable("w1 is not among the hosts of the mesh")

    client = KnownHost(answers={"counts": away})
    client.at = Unreachable("the collector of g is on no host that answered; w2: no reply")
    submission = submit_compute_job_group(client, MyJob, [MyJobState()], group_id="g")
    assert submission.warnings[1:] == (client.at.message,)


@pytest.mark.parametrize(
    "error",
    [Unknown("paglet collector-1 has ended"), HandlerFailed("ZeroDivisionError"), Overloaded("too many requests")],
)
def test_a_collector_that_answers_an_error_is_not_said_to_be_silent(error: PagletsError) -> None:
    def answers(message: Message) -> Any:
        raise error

    client = KnownHost(answers={"counts": answers})
    client.members = (MeshHostView(host=member("w1"), online=True, seconds_since_seen=0.1),)
    (_, told) = submit_compute_job_group(client, MyJob, [MyJobState()], group_id="g").warnings
    assert told == f"its collector, on w1, did not report its state: {error.message}"


def test_a_collector_whose_host_hangs_is_not_called() -> None:
    client = KnownHost()
    client.mute = CallOutcomeUnknown("no answer within 5 s")
    client.members = (MeshHostView(host=member("w1"), online=True, seconds_since_seen=4.0),)
    (_, told) = submit_compute_job_group(client, MyJob, [MyJobState()], group_id="g").warnings
    assert told == "its collector, last known on w1, is unreachable: no answer within 5 s"
    assert (client.looks, client.sent) == ([5.0], [])


def test_a_script_is_told_what_is_waited_for_where_that_takes_long(capsys: pytest.CaptureFixture[str]) -> None:
    class Slow(KnownHost):
        def submit_group(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
            wait_until(lambda: "g: waiting for the host that stores the group" in capsys.readouterr().err)
            return super().submit_group(request)

        def paglet(self, target: ProxyRef, *, timeout: float | None = None) -> PagletView:
            wait_until(lambda: "g: waiting for w1, which has its collector" in capsys.readouterr().err)
            return super().paglet(target, timeout=timeout)

    client = Slow()
    client.members = (MeshHostView(host=member("w1"), online=True, seconds_since_seen=0.0),)
    submit_compute_job_group(client, MyJob, [MyJobState()], group_id="g")


@pytest.mark.parametrize(
    ("online", "says"), [(True, "next: paglets jobs status g"), (False, "hint: start host w1 again")]
)
def test_a_collector_that_is_only_away_is_not_told_to_be_gone(
    online: bool, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(message: Message) -> Any:
        raise Unreachable("w1 is away")

    client = KnownHost(answers={"counts": away})
    client.members = (MeshHostView(host=member("w1"), online=online, seconds_since_seen=9.0),)
    submit_compute_job_group(client, MyJob, [MyJobState()], group_id="g")
    told = capsys.readouterr().err
    assert f"\n{says}" in told
    assert "lost unless" not in told


@pytest.mark.parametrize(
    ("age", "words"),
    [(-3, "0.0 s"), (1.9, "1.9 s"), (119, "1 min 59 s"), (7300, "2 h 1 min"), (86400 * 2.5, "2 d 12 h")],
)
def test_the_age_of_a_group_is_told(age: float, words: str) -> None:
    context = FakeContext()
    view = replace(context.view(submitted(context, MyJobState())), was_there=True)
    (remark,) = remarks_on(view, view.created_at + age, from_script=True)
    assert remark.text.startswith(f"submitted {words} ago;")


def test_a_paglet_that_submits_again_as_it_runs_again_hears_nothing() -> None:
    context = FakeContext()
    view = replace(context.view(submitted(context, MyJobState())), was_there=True)
    assert remarks_on(view, 0.0, from_script=False) == ()
    assert len(remarks_on(replace(view, differs=("code",)), 0.0, from_script=False)) == 1


def test_a_group_without_jobs_is_worth_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    submission = submit_compute_job_group(FakeContext(), MyJob, [], group_id="g")
    assert submission.warnings == ("the group has no jobs: there is nothing to run",)
    assert capsys.readouterr().err == "g: the group has no jobs: there is nothing to run\n"


@pytest.mark.parametrize(
    ("submitter", "job_class", "states", "more", "says"),
    [
        ("laptop", MyJob, [], {}, "not to a str"),
        (FakeContext(), [MyJobState()], MyJob, {}, "job_class is a list: give a subclass of paglets.Job"),
        (FakeContext(), MyJobState, [], {}, "job_class is the class MyJobState: give"),
        (FakeContext(), MyJob, [MyJobState], {}, "state 1 is the class MyJobState, but MyJob has"),
        (FakeContext(), MyJob, MyJobState(), {}, "states is a MyJobState: give a list of MyJobState"),
        (FakeContext(), MyJob, 3, {}, "states is an int"),
        (FakeContext(), MyJob, [], {"inputs": ["stop.txt"]}, "inputs is a list: give a dict"),
        (FakeContext(), MyJob, [], {"job_inputs": ["stop.txt"]}, "job_inputs is a list: give a dict"),
        (FakeContext(), MyJob, [MyJobState(job_key="a")], {"job_inputs": {"a": "x"}}, "'a': inputs is a str"),
    ],
)
def test_what_stands_in_the_wrong_place_is_told_in_one_line(
    submitter: Any, job_class: Any, states: Any, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(TypeError, match=re.escape(says)):
        submit_compute_job_group(submitter, job_class, states, **more)


def test_a_collector_of_the_users_own_is_named() -> None:
    group = submitted(FakeContext(), MyJobState(), collector_class=MyCollector)
    assert group.collector_class.endswith("test_submission:MyCollector")
    with pytest.raises(TypeError, match="ResultCollectorPaglet"):
        submitted(FakeContext(), MyJobState(), collector_class=MyJob)


ONLINE = MeshHostView(host=member("w1"), online=True, seconds_since_seen=0.0)
"""The host of the collector of `FakeContext`."""


def following(context: FakeContext, clock: FakeClock) -> Submission:
    """A submission whose pauses are virtual."""
    real = submit_compute_job_group(context, MyJob, [MyJobState(job_key="a"), MyJobState(job_key="b")])
    from_script = isinstance(context, FakeClient)
    if isinstance(context, FakeClient) and not context.members:
        context.members = (ONLINE,)
    return Submission(real._view, context, real._refresh, from_script=from_script, clock=clock, pause=clock.advance)


@pytest.mark.parametrize("context", [FakeContext(), FakeClient()])
def test_waiting_until_detached_asks_the_host_until_it_is_so(context: FakeContext) -> None:
    context.detached_after = 4
    submission = following(context, FakeClock())
    assert submission.wait_detached(timeout=60)
    assert submission.detached
    asked = len(context.groups)
    assert submission.detached
    assert len(context.groups) == asked == 5


def test_waiting_until_detached_ends_with_the_time_and_says_why_it_is_not() -> None:
    context = FakeContext()
    context.detached_after = 10**9
    submission = following(context, FakeClock())
    assert not submission.wait_detached(timeout=3)
    assert "has not taken it yet" in submission.detached_reason


def test_a_script_is_told_why_a_group_is_not_detached(capsys: pytest.CaptureFixture[str]) -> None:
    client = FakeClient()
    client.detached_after = 10**9
    submission = following(client, FakeClock())
    capsys.readouterr()
    assert not submission.wait_detached(timeout=3)
    group_id = submission.group_id
    assert capsys.readouterr().err == (f"{group_id}: not detached yet: the collector's host has not taken it yet\n")


def test_nothing_is_waited_for_where_no_job_is_left_to_detach(capsys: pytest.CaptureFixture[str]) -> None:
    class Done(FakeClient):
        def view(self, group: SubmitGroup) -> GroupView:
            reason = "the collector lives on this host, here"
            return replace(super().view(group), status="COMPLETE", detached=False, detached_reason=reason)

    clock = FakeClock()
    submission, start = following(Done(), clock), clock.monotonic()
    assert not submission.wait_detached(timeout=30)
    assert clock.monotonic() == start
    assert "all jobs have ended, none is left to detach: the collector lives on this host" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wait", [Submission.drain, Submission.wait_detached, lambda submission: list(submission.as_completed())]
)
def test_an_interruption_of_waiting_says_that_the_jobs_go_on(
    wait: Callable[[Submission], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(message: Message) -> Any:
        raise KeyboardInterrupt

    client = FakeClient({"drain": interrupted, "ended": interrupted})
    submission = following(client, FakeClock())
    client.detached_after = 10**9
    submission._pause = interrupted  # type: ignore[assignment]
    submission._view = replace(submission._view, detached=False)
    capsys.readouterr()
    with pytest.raises(KeyboardInterrupt):
        wait(submission)
    told = capsys.readouterr().err
    group_id = submission.group_id
    assert told == (
        f"{group_id}: stopped waiting; the jobs continue\n"
        f"hint: paglets jobs cancel {group_id} ends them\n"
        f"next: paglets jobs watch {group_id}\n"
    )


def test_an_interrupted_submission_says_what_was_sent(capsys: pytest.CaptureFixture[str]) -> None:
    class Early(FakeClient):
        def publish_bytes(self, data: bytes) -> BlobRef:
            raise KeyboardInterrupt

    class Late(FakeClient):
        def submit_group(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
            raise KeyboardInterrupt

    stored = "interrupted while the host stored the group, which may be submitted"
    for client, group_id, says in (
        (Early(), "g", ["g: interrupted; nothing was submitted"]),
        (Late(), "g", [f"g: {stored}", "hint: submit again under the same group_id; no job runs twice"]),
        (Late(), None, [f"paglets: {stored}", "next: paglets jobs groups"]),
    ):
        with pytest.raises(KeyboardInterrupt):
            submit_compute_job_group(client, MyJob, [MyJobState()], group_id=group_id)
        assert capsys.readouterr().err.splitlines() == says


def test_the_end_of_a_group_is_noticed_within_the_time_of_one_job() -> None:
    def late(jobs: int) -> float:
        """Return how late a script notices the end of jobs of 0.1 s on four slots, if a request takes 10 ms."""
        elapsed = 0.2
        while (ended := min(jobs, int(elapsed / 0.1) * 4)) < jobs:
            elapsed += max(0.01, pause_between_pages(elapsed, ended, jobs - ended))
        return elapsed - jobs / 40

    assert max(late(jobs) for jobs in range(100, 1_000, 4)) < 0.1


def test_records_of_a_long_group_are_fetched_every_two_seconds() -> None:
    assert pause_between_pages(3600.0, 1_000, 1_000) == LONGEST_PAUSE_SECONDS
    assert pause_between_pages(0.0, 0, 5) == 0.0


def page(pending: int, *ended: tuple[str, dict[str, Any]], after: int = 0, expected: int = 2) -> dict[str, Any]:
    """A reply to `ended`: the keys that ended after the `after`th, with their records."""
    entries = [
        {"number": number, "job_key": key, "failure" if "cause" in record else "result": record}
        for number, (key, record) in enumerate(ended, after + 1)
    ]
    return {
        "ended": entries,
        "next": after + len(entries),
        "pending_count": pending,
        "expected_count": expected,
        "created_at": 5.0,
        "completed_at": None if pending else 46.0,
    }


DONE = {"result": 1, "host_name": "w1"}
FAILED = {"cause": "exception", "message": "ValueError: bad", "host_name": "w2"}
SUMMARY = {"group_id": "g", "pending_count": 0, "results": {}, "failures": {}}


def test_a_drain_that_is_late_is_one_error_with_the_next_command() -> None:
    pending = FakeContext({"ended": lambda message: page(2)})
    with pytest.raises(TimedOut, match=r"jobs continue: 2 jobs are pending\nnext: paglets jobs why group-") as caught:
        following(pending, FakeClock()).drain(timeout=-1)
    assert (caught.value.__cause__, caught.value.__context__) == (None, None)


def each(*answers: Any) -> Callable[[Message], Any]:
    """A sender that returns answers one after the other, and repeats the last one."""
    left = list(answers)

    def answer(message: Message) -> Any:
        found = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(found, Exception):
            raise found
        return found

    return answer


def test_draining_waits_through_time_outs_and_hosts_that_are_away() -> None:
    ended = each(TimedOut("60 s"), Unreachable("w1 is away"), page(2), page(0, ("a", DONE), ("b", DONE)))
    context = FakeContext({"ended": ended, "drain": each(Unreachable("w1 is away"), SUMMARY)})
    assert following(context, FakeClock()).drain() == SUMMARY


def test_a_last_page_with_the_summary_is_all_that_draining_asks_for() -> None:
    # A second request would fail, because the collector has no answer to `drain`.
    last = {**page(0, ("a", DONE), expected=1), "summary": SUMMARY}
    context = FakeContext({"ended": each(page(1, expected=1), last)})
    assert following(context, FakeClock()).drain() == SUMMARY


def test_draining_ends_with_the_time_and_the_last_trouble() -> None:
    context = FakeContext({"ended": each(Unreachable("w1 is away"))})
    clock = FakeClock()
    start = clock.monotonic()
    with pytest.raises(TimedOut, match=r"the collector of .* did not answer in 30 s: w1 is away"):
        following(context, clock).drain(timeout=30)
    assert clock.monotonic() - start == pytest.approx(30)


def drained(client: FakeClient, **options: Any) -> Any:
    client.answers.setdefault("drain", lambda message: SUMMARY)
    return following(client, FakeClock()).drain(**options)


def test_a_waiting_script_prints_the_first_failure_at_once_and_the_end_of_the_group(
    capsys: pytest.CaptureFixture[str],
) -> None:
    ends = [page(2, ("a", FAILED), expected=3), page(1, ("b", FAILED), after=1, expected=3)]
    client = FakeClient({"ended": each(*ends, page(0, ("c", DONE), after=2, expected=3))})
    drained(client)
    lines = capsys.readouterr().err.splitlines()[-3:]
    group_id = lines[0].partition(":")[0]
    assert lines == [
        f"{group_id}: a failed on w2: ValueError: bad; 2 jobs continue",
        f"{group_id}: 1 done, 2 failed of 3 in 41 s",
        f"next: paglets jobs why {group_id}",
    ]


def test_without_progress_and_within_a_paglet_a_wait_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    ended = lambda message: page(0, ("a", FAILED), ("b", DONE))  # noqa: E731
    drained(FakeClient({"ended": ended}), progress=False)
    submitted_lines = 2
    assert len(capsys.readouterr().err.splitlines()) == submitted_lines
    context = FakeContext({"ended": ended, "drain": lambda message: SUMMARY})
    following(context, FakeClock()).drain()
    assert capsys.readouterr().err == ""


def lost(store_id: str = "other") -> Callable[[Message], Any]:
    def away(message: Message) -> Any:
        raise Unreachable("here is away")

    return away


@pytest.mark.parametrize(
    "wait", [Submission.drain, Submission.wait_detached, lambda submission: list(submission.as_completed())]
)
def test_waiting_for_a_collector_on_a_forgotten_host_ends_at_once_with_a_hint(
    wait: Callable[[Submission], Any],
) -> None:
    client = FakeClient({"ended": lost()})
    client.members = (MeshHostView(host=member("other"), online=True, seconds_since_seen=0.0),)
    client.detached_after = 10**9
    clock = FakeClock()
    submission, start = following(client, clock), clock.monotonic()
    with pytest.raises(Unreachable, match=r"the collector of group-\S+ was on w1, which is no longer a host"):
        wait(submission)
    assert clock.monotonic() - start < 10


def test_waiting_for_a_collector_whose_host_is_away_says_so_once_and_goes_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    away = Unreachable("here is away")
    client = FakeClient({"ended": each(away, page(0, ("a", DONE), ("b", DONE)))})
    views = [MeshHostView(host=member("w1"), online=False, seconds_since_seen=24.0 + n) for n in range(3)]
    client.hosts = lambda: (views.pop(0) if views else ONLINE,)  # type: ignore[method-assign]
    drained(client)
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "waiting for it" in line]
    assert "on w1, last seen 24 s ago" in told


def test_waiting_for_a_collector_that_has_ended_is_an_error() -> None:
    def ended(message: Message) -> Any:
        raise Unknown("paglet collector-1 has ended")

    for context in (FakeClient({"ended": ended}), FakeContext({"ended": ended})):
        with pytest.raises(Unknown, match=r"the collector of group-\S+ has ended, and its results are gone\nnext: "):
            following(context, FakeClock()).drain()


def test_a_wait_does_not_ask_for_each_of_many_short_jobs() -> None:
    clock = FakeClock()

    def ended(message: Message) -> Any:
        clock.advance(0.01)  # by then another job has ended
        after = message["after"]
        now = min(6000, int((clock.monotonic() - start) * 100))
        return page(6000 - now, *((f"k{n}", DONE) for n in range(after, now)), after=after, expected=6000)

    context = FakeContext({"ended": ended, "drain": lambda message: SUMMARY})
    submission, start = following(context, clock), clock.monotonic()
    submission.drain()
    assert len(context.sent) < 150
    assert clock.monotonic() - start < 63


def test_results_come_in_pages() -> None:
    pages = {
        "": {"results": {"a": {"result": 1}}, "failures": {}, "next": "a"},
        "a": {"results": {"b": {"result": 2}}, "failures": {}, "next": None},
    }
    context = FakeContext({"results": lambda message: pages[message["after"]]})
    assert following(context, FakeClock()).results() == {"a": {"result": 1}, "b": {"result": 2}}


def test_jobs_come_as_they_end_each_once() -> None:
    context = FakeContext(
        {
            "ended": each(
                page(2),
                page(1, ("b", {"result": 2})),
                Unreachable("w1 is away"),
                TimedOut("nothing ended"),
                page(0, ("a", {"cause": "oom"}), after=1),
            )
        }
    )
    found = list(following(context, FakeClock()).as_completed())
    assert found == [("b", {"result": 2}), ("a", {"cause": "oom"})]
    assert [message["after"] for _, message, _ in context.sent] == [0, 0, 1, 1, 1]


def test_waiting_for_jobs_as_they_end_has_an_end_too() -> None:
    context = FakeContext({"ended": each(page(2))})
    with pytest.raises(TimedOut) as late:
        list(following(context, FakeClock()).as_completed(timeout=5))
    assert [frame.name for frame in late.traceback][1:] == ["as_completed"], "no frame of what it calls"


# Code and files.


def test_the_code_of_job_and_collector_goes_along_in_one_bundle() -> None:
    context = FakeContext()
    group = submitted(context, MyJobState(), collector_class=MyCollector)
    bundle = bundle_of(MyJob)
    assert bundle is not None
    assert group.bundle == bundle.blob
    assert context.blobs == {bundle.blob.sha256: bundle.data}


def test_a_class_that_every_host_has_needs_no_bundle() -> None:
    context = FakeContext()
    submit_compute_job_group(context, CollectingComputeJobPaglet, [CollectingComputeJobState()])
    assert (context.groups[0].bundle, context.blobs) == (None, {})


def test_files_for_all_jobs_and_for_single_ones_are_published_and_named(tmp_path: Path) -> None:
    for name in ("common", "first", "second"):
        (tmp_path / name).write_text(name)
    context = FakeContext()

    group = submitted(
        context,
        MyJobState(job_key="a"),
        MyJobState(),
        inputs={"all.txt": tmp_path / "common"},
        job_inputs={
            "a": {"own.txt": tmp_path / "first"},
            "job-00002": {"own.txt": str(tmp_path / "second"), "more.txt": tmp_path / "first"},
        },
    )

    def told(files: tuple[FileRef, ...]) -> dict[str, bytes]:
        return {file.name: context.blobs[file.sha256] for file in files}

    assert told(group.inputs) == {"all.txt": b"common"}
    assert [told(job.inputs) for job in group.jobs] == [
        {"own.txt": b"first"},
        {"own.txt": b"second", "more.txt": b"first"},
    ]


@pytest.mark.parametrize(
    ("key", "name", "file", "says"),
    [
        ("b", "x", "good", "job_inputs names a job 'b'"),
        ("a", "x", "missing", "job 'a': input 'x': "),
        ("a", "x", ".", "job 'a': input 'x': "),
        ("a", "../x", "good", "cannot name a file"),
        ("a", "common", "good", "job 'a': input 'common' is given twice"),
        ("a", "COMMON", "good", "only in case"),
    ],
)
def test_files_that_cannot_be_sent_stop_the_submission_before_anything_is_sent(
    key: str, name: str, file: str, says: str, tmp_path: Path
) -> None:
    (tmp_path / "good").write_text("")
    context = FakeContext()
    with pytest.raises(ValueError, match=re.escape(says)):
        submitted(
            context,
            MyJobState(job_key="a"),
            inputs={"common": tmp_path / "good"},
            job_inputs={key: {name: tmp_path / file}},
        )
    assert (context.groups, context.blobs) == ([], {})


def test_code_and_files_that_the_host_has_no_more_are_sent_again(tmp_path: Path) -> None:
    class LosingContext(FakeContext):
        """A fake whose host loses all blobs at its first request."""

        def submit_group(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
            if not self.lost:
                self.lost, self.blobs = self.blobs, {}
                raise Conflict("send them first", missing=sorted(self.lost))
            return super().submit_group(request)

        lost: dict[str, bytes] = {}

    (tmp_path / "in").write_bytes(b"input")
    context = LosingContext()
    submitted(context, MyJobState(), inputs={"in.txt": tmp_path / "in"})
    assert context.blobs == context.lost
    assert len(context.blobs) == 2


def test_an_interruption_is_told_at_the_line_of_the_script() -> None:
    def interrupted(message: Message) -> Any:
        raise KeyboardInterrupt

    submission = following(FakeClient({"drain": interrupted, "ended": interrupted}), FakeClock())
    for wait in (submission.drain, lambda: list(submission.as_completed())):
        with pytest.raises(KeyboardInterrupt) as caught:
            wait()
        frames = [frame.name for frame in caught.traceback]
        assert len(frames) <= 4, frames


def test_a_class_whose_body_could_never_run_is_refused_before_anything_is_sent() -> None:
    class Never(MyJob):
        async def run_compute_job(self) -> None:  # type: ignore[override]
            raise AssertionError

    context = FakeContext()
    with pytest.raises(Invalid, match=r"Never\.run_compute_job is `async def`"):
        submit_compute_job_group(context, Never, [MyJobState(job_key="a")])
    assert (context.groups, context.blobs) == ([], {})


def test_a_collector_class_with_such_a_hook_is_refused_too() -> None:
    class Odd(ResultCollectorPaglet):
        def on_arrival(self, event: Any, more: Any) -> None:  # type: ignore[override]
            raise AssertionError

    with pytest.raises(Invalid, match=r"Odd\.on_arrival has the parameters"):
        submit_compute_job_group(FakeContext(), MyJob, [MyJobState(job_key="a")], collector_class=Odd)
