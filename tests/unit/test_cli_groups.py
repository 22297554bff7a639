"""What is said of groups and jobs whose host is away, is another one by now, or was forgotten."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_cli import FakeHost

from paglets.api.groups import GroupLine
from paglets.api.hosts import MemberView
from paglets.cli.away import away_text, by_name, silence_text
from paglets.cli.groups import collector_of, pending_row, print_groups
from paglets.cli.mesh import host_row
from paglets.cli.why import held_on
from paglets.core.errors import Unreachable
from paglets.core.refs import HostRef, ProxyRef
from paglets.testing.mesh import member

W1 = HostRef(store_id="store-w1", name="w1")
LAPTOP = MemberView(member=member("laptop"), online=True, silent_seconds=0.0)
AWAY = MemberView(member=member("w1"), online=False, silent_seconds=180.0)
HEIR = MemberView(member=member("w1", store_id="new", url="http://new:1"), online=True, silent_seconds=0.0)
INTRUDER = replace(HEIR, online=False, silent_seconds=38.0, problem="not joined: the name w1 belongs to another")

LOST = "the results that lay there are lost unless its old folder comes back; submit again under another group_id"


class Mesh(FakeHost):
    """Group `g`, whose collector was last known on w1; `views` are the hosts listed."""

    timeout = 30.0

    def __init__(self, *views: MemberView, found: bool = False) -> None:
        super().__init__()
        self._views, self._found = views, found

    def hosts(self) -> tuple[MemberView, ...]:
        return self._views

    def paglet(self, agent_id: Any) -> Any:
        return object() if self._found else super().paglet(agent_id)


@pytest.mark.parametrize(
    ("views", "text"),
    [
        ((LAPTOP, AWAY), "is on w1, which was last heard of 3 min ago: nothing is lost; start that host again"),
        ((LAPTOP, AWAY, INTRUDER), "nothing is lost; start that host again"),
        ((LAPTOP, AWAY, HEIR), f"w1, which began anew with an empty data directory at http://new:1 .*: {LOST}"),
        ((LAPTOP, HEIR), f"was on w1, which was forgotten, or is no host of this mesh: {LOST}"),
    ],
)
def test_of_a_collector_that_cannot_be_asked_it_is_said_whether_waiting_helps(
    views: tuple[MemberView, ...], text: str
) -> None:
    with pytest.raises(Unreachable, match=text):
        collector_of(Mesh(*views), "g")  # type: ignore[arg-type]


def test_a_collector_that_moved_on_before_its_host_was_forgotten_is_asked() -> None:
    assert collector_of(Mesh(LAPTOP, found=True), "g").host.name == "w1"  # type: ignore[arg-type]


def test_in_the_list_a_collector_whose_host_is_away_is_told_with_the_age_of_its_counts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = GroupLine(
        group_id="g",
        status="DETACHED",
        created_at=0.0,
        home=LAPTOP.member.ref,
        collector=ProxyRef(agent_id="c", host=W1),
        expected_count=3,
        completed_count=2,
        failed_count=1,
        counted_at=1_000.0,
    )
    print_groups((line, replace(line, group_id="h", here=True)), (LAPTOP, AWAY), 1_200.0)
    _, away, below, here = capsys.readouterr().out.splitlines()
    assert away.split() == ["g", "DETACHED", "2", "1", "3", "w1", "laptop", "20", "min", "3", "min", "20", "s", "ago"]
    assert below == "  collector on w1, not seen for 3 min"
    assert here.endswith("now")


def test_the_host_of_a_name_is_the_one_that_is_online_before_one_that_was_refused() -> None:
    online = replace(AWAY, online=True)
    for views in ((online, INTRUDER), (INTRUDER, online), (AWAY, INTRUDER), (INTRUDER, AWAY)):
        assert by_name(views)["w1"].member.store_id == "store-w1"
    later = replace(INTRUDER, member=replace(INTRUDER.member, joined=7), problem="")
    senior = replace(AWAY, member=replace(AWAY.member, joined=2))
    assert by_name([senior, later]) == by_name([later, senior]) == {"w1": senior}
    assert held_on(Mesh(LAPTOP, online, INTRUDER), [("w1", "")]) == {}  # type: ignore[arg-type]


def test_in_a_group_a_job_on_a_host_that_is_away_says_so_and_not_what_was_so_before() -> None:
    job = {"job_key": "a", "status": "WAITING_FOR_SLOT", "host_name": "w1", "reason_text": "0 free", "since": 1.0}
    assert pending_row(job, 2.0, by_name([AWAY]))[-1] == away_text(AWAY)
    assert pending_row(job, 2.0, by_name([LAPTOP]))[-1] == "0 free"


def test_of_a_collector_that_is_online_nothing_is_said() -> None:
    assert silence_text(W1, [LAPTOP, replace(AWAY, online=True)]) == ""


def test_a_host_that_was_refused_and_all_as_one_that_was_refused_sees_them_are_not_joined() -> None:
    assert host_row(INTRUDER)[1] == "not joined (see below)"
    assert host_row(replace(AWAY, silent_seconds=0.0), is_alone=True)[1] == "not joined"
    assert host_row(AWAY)[1] == "silent for 3 min"
