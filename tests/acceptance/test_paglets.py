"""Paglets: their life, moves and messages."""

from __future__ import annotations

from pathlib import Path

import pytest
from mesh_paglets import (
    ADDER,
    Adder,
    AddReply,
    AddRequest,
    Inner,
    Notes,
    NotesState,
    Outer,
    Ticker,
    Traveller,
    TravellerState,
)

from paglets.core.errors import HandlerFailed, Invalid, NotHandled, Unknown
from paglets.core.record import to_json
from paglets.remote.proxy import PagletProxy
from paglets.slots.service import CandidatesRequest, SlotsStatusRequest
from paglets.system.compute_slots import ComputeJobState, submit_compute_job_group
from paglets.system.services import COMPUTE_SLOTS
from tests.acceptance.rig import PATIENCE_SECONDS, Mesh, wait_until


def create(mesh: Mesh, host: str = "laptop", **state: object) -> PagletProxy:
    return mesh[host].client.create(Notes, NotesState(**state))


def where(paglet: PagletProxy) -> str:
    return paglet.info().host.name


def test_a_paglet_is_called_posted_to_and_keeps_its_state(three: Mesh) -> None:
    notes = create(three)
    assert notes.send("add", amount=2) == 2
    notes.post("add", amount=3)
    wait_until(lambda: notes.send("add", amount=0) == 5, what="the post to be taken")
    assert notes.send("log") == ["creation at laptop"]
    assert notes.info().state["total"] == 5
    notes.dispose()


def test_storage_keeps_values_of_every_kind_and_travels(three: Mesh) -> None:
    notes = create(three)
    kept = {"bytes": b"\x00\xff", "tuple": (1, "two"), "nested": {"set": {1, 2}}}
    for key, value in kept.items():
        notes.send("keep", key=key, value=value)
    notes.send("go", host="gpu-a")
    wait_until(lambda: where(notes) == "gpu-a")
    assert notes.send("kept") == kept
    notes.dispose()


def test_values_in_messages_come_back_as_they_were(three: Mesh) -> None:
    notes = create(three)
    inner = Inner(raw=bytes(range(256)), pair=(7, "é"))
    value = Outer(name="outer", parts=[inner], by_name={"one": inner}, tags=frozenset({"a", "b"}))
    assert notes.send("echo", value=value) == value
    back = notes.send("echo", value=bytearray(b"\x00changeable"))
    assert (type(back), back) == (bytearray, bytearray(b"\x00changeable"))
    notes.dispose()


def test_a_paglet_that_moves_runs_its_hooks_and_is_found_from_everywhere(three: Mesh) -> None:
    notes = create(three)
    notes.send("go", host="linux-a")
    wait_until(lambda: where(notes) == "linux-a")
    # From inside and outside; its old address is followed.
    notes.dispatch_to("gpu-a")
    wait_until(lambda: where(notes) == "gpu-a")
    told = notes.send("log")
    assert told == [
        "creation at laptop",
        "dispatching at laptop",
        "arrival at linux-a",
        "dispatching at linux-a",
        "arrival at gpu-a",
    ]
    for host in three.running():
        assert host.client.call(notes.ref, "log") == told
        assert host.client.paglet(notes.agent_id).host.name == "gpu-a"
    assert notes.info().epoch == 3
    notes.dispose()


def test_a_paglet_ends_itself_or_is_ended_and_runs_on_disposing(three: Mesh, tmp_path: Path) -> None:
    one, other = (create(three, path=str(tmp_path / name)) for name in ("one", "other"))
    one.send("end")
    other.dispose()
    for paglet, name in ((one, "one"), (other, "other")):
        wait_until((tmp_path / name).exists)
        assert (tmp_path / name).read_text() == "creation at laptop\ndisposing at laptop"
        with pytest.raises(Unknown, match="ended"):
            three["laptop"].client.call(paglet.agent_id, "log")


def test_scratch_goes_with_the_paglet(three: Mesh) -> None:
    notes = create(three)
    scratch = Path(notes.send("scratch"))
    assert (scratch / "note").read_text() == "here"
    notes.dispose()
    wait_until(lambda: not scratch.exists(), what=f"{scratch} to go")


def test_handlers_run_beside_run_and_neither_loses_what_the_other_wrote(three: Mesh) -> None:
    ticker = three["laptop"].client.create(Ticker)
    wait_until(lambda: ticker.send("look")["steps"] > 3, what="some steps")
    for _ in range(10):
        ticker.send("add", amount=1000)
    ticker.send("stop")

    def at_rest() -> bool:
        return bool(ticker.info().state["stopped"])

    wait_until(at_rest)
    told = ticker.send("look")
    assert told["ticks"] == told["steps"] + 10_000
    assert told["runs"] == 1
    ticker.dispose()


def test_run_runs_once_and_again_where_the_paglet_arrives(three: Mesh) -> None:
    ticker = three["laptop"].client.create(Ticker)
    ticker.send("stop")
    wait_until(lambda: ticker.info().hook is None, what="run to have returned")
    ticker.send("go", host="linux-a")
    wait_until(lambda: where(ticker) == "linux-a")
    wait_until(lambda: ticker.info().hook is None, what="run to have returned there")
    three.check_quiet()
    assert ticker.send("look")["runs"] == 2
    ticker.dispose()


def test_a_handler_that_waits_for_the_state_answers_when_it_is_so(three: Mesh) -> None:
    notes = create(three)
    helper = create(three, "gpu-a")
    helper.send("tell", target=notes.ref, amount=4)
    assert notes.send("wait", least=4) == 4
    for host in (notes, helper):
        host.dispose()


def test_paglets_call_one_another_over_hosts(three: Mesh) -> None:
    left, right = create(three, "linux-a"), create(three, "gpu-a")
    assert left.send("ask", target=right.ref, amount=5) == 5
    right.send("go", host="laptop")
    wait_until(lambda: where(right) == "laptop")
    assert left.send("ask", target=right.ref, amount=5) == 10
    for paglet in (left, right):
        paglet.dispose()


def test_a_handler_that_raises_or_dies_is_seen_by_the_caller_and_changes_nothing(three: Mesh) -> None:
    notes = create(three)
    with pytest.raises(HandlerFailed, match="this handler raises") as raised:
        notes.send("raise")
    with pytest.raises(HandlerFailed, match="exit code 4") as died:
        notes.send("crash")
    with pytest.raises(NotHandled, match="no_such_kind"):
        notes.send("no_such_kind")
    assert "do_raise" in raised.value.details["traceback"]
    assert died.value.details["cause"] == "exit:4"
    assert notes.send("add", amount=0) == 0
    notes.dispose()


def test_an_unknown_host_is_refused_in_a_paglet_and_through_a_client(three: Mesh) -> None:
    notes = create(three)
    with pytest.raises(HandlerFailed, match="mars") as within:
        notes.send("go", host="mars")
    with pytest.raises(Unknown, match="mars") as without:
        notes.dispatch_to("mars")
    assert within.value.details["code"] == "unknown"
    for error in (within, without):
        assert all(name in error.value.message for name in ("laptop", "linux-a", "gpu-a"))
    assert notes.send("log") == ["creation at laptop"]
    notes.dispose()


def test_a_named_paglet_offers_a_typed_service(three: Mesh) -> None:
    client = three["linux-a"].client
    adder = client.create(Adder, name="adder")
    service = ADDER.bind(client.proxy("adder"))
    assert service.call("add", AddRequest(2, 3)) == AddReply(5)
    with pytest.raises(Invalid, match="right"):
        service.call("add", AddRequest(2, "three"))  # type: ignore[arg-type]
    adder.dispose()


def test_the_scheduler_is_a_service_of_each_host(three: Mesh) -> None:
    service = COMPUTE_SLOTS.bind(three["gpu-a"].client.proxy("compute-slots"))
    status = service.call("status", SlotsStatusRequest())
    assert status.host_name == "gpu-a"
    assert status.capacity["cpu_cores"] == 4
    wanted = to_json(ComputeJobState(required_host_tags=("gpu",), allow_home_compute=True).slot_request())
    verdicts = service.call("candidates", CandidatesRequest(request=wanted)).verdicts
    assert [verdict["host"]["name"] for verdict in verdicts if verdict["eligible"]] == ["gpu-a"]


def test_a_job_that_goes_home_arrives_completed_and_never_runs_again(three: Mesh, tmp_path: Path) -> None:
    path = tmp_path / "said"
    state = TravellerState(job_key="trip", path=str(path), required_host_tags=("gpu",))
    submission = submit_compute_job_group(three["laptop"].client, Traveller, [state])
    assert submission.drain(timeout=PATIENCE_SECONDS)["completed_count"] == 1
    wait_until(lambda: path.read_text().count("\n") == 2, what="its arrival")
    three.check_quiet()
    assert path.read_text() == "ran at gpu-a\narrived at laptop COMPLETED\n"
    # Its work is done, and no row of it is left anywhere.
    for host in three.running():
        wait_until(lambda host=host: not host.rows("SELECT 1 FROM requests"), what=f"no job on {host.name}")
