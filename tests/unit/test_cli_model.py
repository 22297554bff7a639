"""The lines of `paglets list` and `paglets notes`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from job_views import job_view
from test_client import running

from paglets.api.notes import Note, Notes
from paglets.api.paglets import PagletView
from paglets.cli.commands.list import rows, status_of
from paglets.cli.commands.notes import follow, note_line, sender_text
from paglets.cli.main import main
from paglets.client.directory import MeshNotes
from paglets.client.host_client import HostClient
from paglets.core.errors import Overloaded, ShuttingDown
from paglets.core.messages import Message
from paglets.core.refs import HostRef, Kind
from paglets.system.compute_slots import ComputeJobPaglet, ComputeJobState
from paglets.system.services import ServiceContract, ServicePaglet
from paglets.testing.authors import FakeContext
from tests.fakes.exchange import TableExchange, TableHost

HERE = HostRef(store_id="s", name="here", url="http://here:1")


@pytest.mark.parametrize(
    ("fields", "status"),
    [({}, "active"), ({"inactive": True}, "inactive"), ({"inactive": True, "hook": "arrival"}, "arrival")],
)
def test_a_status_says_what_is_due_next_or_whether_it_rests(fields: dict[str, Any], status: str) -> None:
    view = PagletView(agent_id="p", class_name="m:C", kind="paglet", residence="here", epoch=1, host=HERE, **fields)
    assert status_of(view) == status


def view_of(agent_id: str, kind: Kind, **fields: Any) -> PagletView:
    return PagletView(
        agent_id=agent_id, class_name="m:C", kind=kind, residence="here", epoch=1, host=HERE, created_at=1.0, **fields
    )


def test_a_list_names_the_group_of_jobs_and_collectors_and_the_id_of_what_has_none() -> None:
    job = job_view("monday", group_id="words", status="WAITING_FOR_SLOT", reason_text="3 cores asked, 1 free")
    found = [
        view_of("p1", "paglet", name="bob"),
        view_of("j1", "job", job=job, group_id="words"),
        view_of("c1", "collector", group_id="words"),
    ]
    assert rows(found, now=61.0) == [
        ("words", "", "collector", "", "m:C", "here", "active", "1 min", "", ""),
        ("words", "monday", "job", "", "m:C", "here", "WAITING_FOR_SLOT", "1 min", "", "3 cores asked, 1 free"),
        ("", "", "paglet", "bob", "m:C", "here", "active", "1 min", "p1", ""),
    ]


@pytest.mark.parametrize(
    ("fields", "who"),
    [({"group_id": "g", "job_key": "k"}, "g/k"), ({"name": "bob"}, "bob"), ({}, "p1")],
)
def test_a_note_says_who_told_it(fields: dict[str, Any], who: str) -> None:
    note = Note(at=1.0, level="info", text="x", host_name="here", agent_id="p1", class_name="m:C", **fields)
    assert sender_text(note) == who


@pytest.mark.parametrize("at", [1e18, float("inf"), float("nan"), -1e12])
def test_a_time_that_no_calendar_has_is_shown_as_it_is(at: float) -> None:
    note = Note(at=at, level="info", text="x", host_name="here", agent_id="p1", class_name="m:C")
    assert note_line(note) == f"{at:g}  info  p1  here  x"


def test_who_follows_notes_waits_for_a_host_that_restarts(tmp_path: Path) -> None:
    home = TableHost(name="home")
    exchange = TableExchange(home)
    note = Note(at=1.0, level="info", text="x", host_name="home", agent_id="p1", class_name="m:C")
    home.routes["GET /v1/notes"] = lambda body: Notes(notes=(note,), next=1)
    restarting = [ShuttingDown("this host is ending"), Overloaded("too many requests")]

    def members(body: Any) -> Any:
        if restarting:
            raise restarting.pop(0)
        return exchange.members()

    home.routes["GET /v1/mesh/hosts"] = members
    client = HostClient(exchange=exchange, environ=running(tmp_path, "home"))
    found = MeshNotes(notes=(), seen={home.ref.store_id: 0}, errors=())
    assert next(follow(client, found, None, pause=lambda seconds: None)) == note
    assert restarting == []


def test_a_limit_out_of_bounds_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["notes", "--limit", "1001"]) == 2
    assert "between 1 and 1000" in capsys.readouterr().err


def test_a_job_that_tells_its_user_can_be_tested_without_a_host() -> None:
    class Telling(ComputeJobPaglet[ComputeJobState]):
        def run_compute_job(self) -> None:
            self.notify_user("half")

    context = FakeContext()
    Telling(ComputeJobState(), context).run_compute_job()  # type: ignore[arg-type]
    assert context.notes == [("info", "half")]


@pytest.mark.parametrize("priority", [11, -11, 1.0, True])
def test_a_priority_is_checked_where_the_message_is_made(priority: Any) -> None:
    with pytest.raises(ValueError, match="priority"):
        Message("kind", priority=priority)


def test_a_service_is_offered_under_the_name_of_its_contract() -> None:
    class Adder(ServicePaglet[Any]):
        contract = ServiceContract("adder")

    assert Adder.service_name == "adder"
    assert ServicePaglet.service_name == ""
