"""Placement and grants on a real host: who starts when, who waits and why, and what is handed to others."""

from __future__ import annotations

from typing import Any

import pytest
from host_rig import OFFERED, Rig, envelope, group, host_ref, job, slot_request

from paglets.api.groups import GroupView
from paglets.api.slots import PlacementPreview, PreviewPlacement, Slots, Steal, Stolen
from paglets.core.record import to_json
from paglets.host.handoff.placer import JOBS_A_TURN, LOOK_AGAIN_SECONDS
from paglets.host.jobs.scheduler import MEMORY_FREED_SECONDS
from paglets.host.records.group_views import ONLY_HOST
from paglets.slots.eligibility import Reason
from paglets.slots.model import Resources, SlotRequest
from paglets.store import residence
from tests.fakes.processes import HandProcess
from tests.invariants import sanity_check

TOKEN = "ab" * 16


@pytest.fixture
def rig() -> Rig:
    return Rig()


def add(rig: Rig, *agent_ids: str, **fields: Any) -> None:
    for agent_id in agent_ids:
        each = job(agent_id, agent_id, **fields)
        rig.write(lambda tx, each=each: residence.create(tx, each, rig.now()))
    rig.run()


def submit(rig: Rig, *keys: str, token: str = TOKEN, **fields: Any) -> None:
    rig.write(lambda tx: rig.host.submission.submit(tx, token, group(*keys, **fields)))
    rig.run()


def statuses(rig: Rig) -> dict[str, str]:
    return dict(rig.all("SELECT job_key, status FROM requests"))


def reasons(rig: Rig) -> dict[str, tuple[str, int]]:
    return {key: (reason, never) for key, reason, never in rig.all("SELECT job_key, reason, never FROM requests")}


def sane(rig: Rig) -> None:
    assert rig.store.read(lambda tx: sanity_check({"home": tx}, {"home": OFFERED})) == []


# Grants.


def test_as_many_start_as_there_are_cores_and_the_next_when_one_ends(rig: Rig) -> None:
    add(rig, "a", "b", "c", "d", "e")
    assert sorted(statuses(rig).values()) == ["RUNNING"] * 4 + ["WAITING_FOR_SLOT"]
    assert reasons(rig)["e"][0] == "slots_busy"
    sane(rig)
    process = rig.process("b")
    rig.report(process)
    assert statuses(rig)["e"] == "WAITING_FOR_SLOT", "the slot is held until the process has ended"
    rig.finish(process)
    assert statuses(rig)["e"] == "RUNNING"
    sane(rig)


def test_the_commit_that_releases_a_slot_grants_it_to_the_next_job(rig: Rig) -> None:
    add(rig, "a", "b", "c", "d", "e", "f")
    wake, seen = rig.store.on_commit, list[int]()

    def committed(wakes: tuple[str, ...], touched: tuple[str, ...]) -> None:
        seen.append(sorted(statuses(rig).values()).count("RUNNING"))
        wake(wakes, touched)

    rig.store.on_commit = committed
    for agent_id in ("a", "b"):
        process = rig.process(agent_id)
        rig.report(process)
        rig.finish(process)
    assert set(seen) == {4}
    sane(rig)


def test_a_host_whose_slots_are_all_leased_writes_nothing_when_further_jobs_arrive(rig: Rig) -> None:
    add(rig, "a", "b", "c", "d", "e")
    commits: list[tuple[str, ...]] = []
    wake = rig.store.on_commit
    rig.store.on_commit = lambda wakes, touched: (commits.append(wakes), wake(wakes, touched))[-1]
    rig.host.runner.wake("scheduler")
    rig.run(0)
    assert commits == []
    assert reasons(rig)["e"][0] == "slots_busy"


def test_a_job_starts_at_the_moment_at_which_it_fits(rig: Rig) -> None:
    add(rig, "a", request=slot_request(memory_bytes=6 << 30))
    add(rig, "b", request=slot_request(memory_bytes=4 << 30))
    add(rig, "c", request=slot_request(memory_bytes=1 << 30))
    assert statuses(rig) == {"a": "RUNNING", "b": "WAITING_FOR_SLOT", "c": "RUNNING"}
    assert reasons(rig)["b"][0] == "memory_short"
    started = rig.clock.monotonic()
    rig.process("a").exit(1)
    rig.run()
    assert statuses(rig)["b"] == "RUNNING"
    assert rig.clock.monotonic() == started


def idle_resident(rig: Rig) -> HandProcess:
    """Return the process of a paglet that waits for its next message."""
    rig.write(lambda tx: residence.create(tx, envelope("p1"), rig.now()))
    rig.call("p1", "hi")
    rig.run()
    process = rig.process("p1")
    rig.handle(process)
    return process


def test_a_job_that_lacks_memory_waits_for_no_idle_process(rig: Rig) -> None:
    resident = idle_resident(rig)
    rig.host.services.meter.offered = Resources(memory_bytes=3 << 30)
    add(rig, "a", request=slot_request(memory_bytes=4 << 30))
    assert reasons(rig)["a"][0] == "memory_short"
    assert resident.is_to_finish
    assert rig.launcher.ends_of_idle_processes > 0
    rig.finish(resident)
    rig.host.services.meter.offered = OFFERED
    rig.run(MEMORY_FREED_SECONDS)
    assert statuses(rig)["a"] == "RUNNING"


def test_idle_processes_stay_while_jobs_wait_for_leased_memory_or_for_cores(rig: Rig) -> None:
    resident = idle_resident(rig)
    add(rig, "a", request=slot_request(memory_bytes=6 << 30))
    add(rig, "b", request=slot_request(memory_bytes=4 << 30))
    add(rig, "c", request=slot_request(cpu_cores=4))
    assert reasons(rig)["b"][0] == "memory_short"
    assert not resident.is_to_finish
    assert rig.launcher.ends_of_idle_processes == 0


def test_a_gpu_goes_to_one_job_and_the_process_is_told_which(rig: Rig) -> None:
    add(rig, "a", "b", request=slot_request(gpus=1))
    add(rig, "c")
    assert statuses(rig) == {"a": "RUNNING", "b": "WAITING_FOR_SLOT", "c": "RUNNING"}
    environments = {process.spec.agent_id: process.spec.environment for process in rig.launcher.processes}
    assert environments == {"a": {"CUDA_VISIBLE_DEVICES": "0"}, "c": {"CUDA_VISIBLE_DEVICES": ""}}


def test_what_is_running_is_shown_with_its_lease_and_what_waits_with_its_reason(rig: Rig) -> None:
    add(rig, "a", "b", request=slot_request(cpu_cores=3))
    slots: Slots = rig.get(Slots, "GET", "/v1/slots")
    assert (slots.running_jobs, slots.queued_jobs, slots.free.cpu_cores) == (1, 1, 1)
    running, waiting = slots.jobs
    assert running.lease is not None
    assert running.lease.cpu_cores == (0, 1, 2)
    assert (waiting.lease, waiting.reason) == (None, "slots_busy")
    first: Slots = rig.get(Slots, "GET", "/v1/slots?limit=1")
    assert (slots.all_jobs, first.all_jobs, first.jobs) == (2, 2, (running,))


def test_an_idle_host_does_next_to_nothing(rig: Rig) -> None:
    rig.run(60)
    steps = rig.steps
    rig.run(600)
    assert rig.steps - steps < 600 * 1.5


# Placement.


NOT_AT_HOME = SlotRequest(resources=Resources(cpu_cores=1))


def eligible(rig: Rig) -> list[str]:
    found = rig.get(PlacementPreview, "POST", "/v1/slots/candidates", PreviewPlacement(request=to_json(NOT_AT_HOME)))
    return [each.host.name for each in found.verdicts if each.eligible]


def test_jobs_of_the_only_host_run_at_home_until_another_one_is_known(rig: Rig) -> None:
    view = rig.write(lambda tx: rig.host.submission.submit(tx, TOKEN, group(*"abcde", request=NOT_AT_HOME)))
    assert (view.obstacles, view.only_host, view.detached_reason) == ((), True, ONLY_HOST)
    assert eligible(rig) == ["home"]
    rig.run(3)
    assert sorted(statuses(rig).values()) == ["RUNNING"] * 4 + ["WAITING_FOR_SLOT"]

    rig.peer("w1", capacity=Resources())  # a host that offers nothing
    assert eligible(rig) == []
    submit(rig, "late", token="cd" * 16, group_id="g2", collector_host="home", request=NOT_AT_HOME)
    rig.run(3)
    assert statuses(rig)["late"] == "PLACING"
    assert statuses(rig)["e"] == "WAITING_FOR_SLOT", "what is queued stays"
    rig.finish(rig.process(rig.value("SELECT agent_id FROM requests WHERE job_key = 'a'")))
    rig.run(1)
    assert statuses(rig)["e"] == "RUNNING"
    told = rig.get(GroupView, "GET", "/v1/groups/g1")
    assert (told.only_host, told.detached_reason) == (False, "the collector lives on this host, home")

    rig.run(20)  # w1 answers nothing any more
    assert statuses(rig)["late"] == "PLACING", "a host that is offline is known"
    rig.host.gossip.forget("store-w1")
    rig.run(LOOK_AGAIN_SECONDS + 1)
    assert statuses(rig)["late"] in ("RUNNING", "WAITING_FOR_SLOT")
    sane(rig)


def test_jobs_that_are_queued_on_the_only_host_may_be_stolen_by_one_that_comes(rig: Rig) -> None:
    submit(rig, *"abcdef", request=NOT_AT_HOME)
    rig.run(1)
    rig.peer("w1", free=Resources(cpu_cores=8, memory_bytes=1 << 40))
    assert len(steal(rig, 8)) == 2
    rig.run(1)
    assert sorted(statuses(rig).values()) == ["RUNNING"] * 4
    sane(rig)


def test_jobs_go_to_a_host_that_comes_once_their_collector_is_there(rig: Rig) -> None:
    submit(rig, "a", "b", request=slot_request(rules={"required_tags": ("fast",)}))
    assert set(statuses(rig).values()) == {"PLACING"}
    rig.peer("w1", tags=("fast",))
    rig.run(1)
    assert rig.all("SELECT status, count(*) FROM residence WHERE agent_id NOT LIKE 'coll%' GROUP BY 1") == [
        ("leaving", 2)
    ]
    assert statuses(rig) == {}
    sane(rig)


def test_jobs_that_no_host_can_take_do_not_hide_those_behind_them(rig: Rig) -> None:
    keys = tuple(f"k{number}" for number in range(JOBS_A_TURN + 10))
    submit(rig, *keys, request=slot_request(rules={"required_tags": ("fast",)}))
    rig.run(1)
    submit(rig, "good", token="cd" * 16, group_id="g2")
    rig.run(2)
    assert statuses(rig)["good"] == "RUNNING"
    steps = rig.steps
    rig.run(15)
    assert rig.steps - steps < 150


def test_a_job_that_finds_no_host_in_its_time_fails(rig: Rig) -> None:
    wish = slot_request(rules={"required_tags": ("fast",)}, placement_timeout_seconds=60.0)
    submit(rig, "a", request=wish)
    rig.run(59)
    assert statuses(rig) == {"a": "PLACING"}
    rig.run(2 + LOOK_AGAIN_SECONDS)
    found = rig.call(rig.value("SELECT agent_id FROM paglets WHERE kind = 'collector'"), "summary").value
    assert found["failures"]["a"]["cause"] == "placement_timeout"
    assert "fast" in found["failures"]["a"]["message"]


def test_placement_may_be_previewed(rig: Rig) -> None:
    rig.peer("w1", tags=("fast",))
    wish = slot_request(rules={"preferred_tags": ("fast",)})
    verdicts: PlacementPreview = rig.get(
        PlacementPreview, "POST", "/v1/slots/candidates", PreviewPlacement(request=to_json(wish))
    )
    assert [(each.host.name, each.eligible, each.rank) for each in verdicts.verdicts] == [
        ("w1", True, 1),
        ("home", True, 2),
    ]
    never = slot_request(cpu_cores=99)
    verdicts = rig.get(PlacementPreview, "POST", "/v1/slots/candidates", PreviewPlacement(request=to_json(never)))
    assert all(each.never and not each.eligible for each in verdicts.verdicts)


def test_once_an_obstacle_is_gone_no_job_names_it_any_more(rig: Rig) -> None:
    add(rig, *"abcd")  # all cores are taken
    rig.disk.held = Reason(code="disk_closed", text="read-only")
    add(rig, *"efghij")
    rig.run(3.0)
    assert {reasons(rig)[key][0] for key in "efghij"} == {"disk_closed"}
    rig.disk.held = None
    rig.run(3.0)
    assert {reasons(rig)[key][0] for key in "efghij"} == {"slots_busy"}


# Stealing.


def steal(rig: Rig, cores: int, most: int = 10) -> tuple[str, ...]:
    body = Steal(thief=host_ref("w1"), free=Resources(cpu_cores=cores, memory_bytes=1 << 40), most_jobs=most)
    stolen: Stolen = rig.get(Stolen, "POST", "/v1/slots/steal", body)
    return stolen.agent_ids


def test_an_idle_host_is_given_what_waits_and_what_it_has_room_for(rig: Rig) -> None:
    rig.peer("w1")
    add(rig, *"abcdefgh")
    rig.run(6)
    assert set(steal(rig, 2)) < {"e", "f", "g", "h"}
    assert sorted(statuses(rig).values()).count("WAITING_FOR_SLOT") == 2
    assert rig.value("SELECT count(*) FROM handoffs WHERE target_store = 'store-w1'") == 2
    sane(rig)


def test_a_thief_that_is_not_known_gets_nothing(rig: Rig) -> None:
    add(rig, *"abcdefgh")
    assert steal(rig, 2) == ()


def test_nobody_asks_for_work_while_jobs_of_its_own_wait(rig: Rig) -> None:
    add(rig, *"abcdefgh")
    asked = rig.peer("w1", {"POST /v1/slots/steal": lambda body: Stolen(agent_ids=())}, queued_jobs=5)
    rig.run(20)
    assert asked.bodies("POST /v1/slots/steal") == []


def test_an_idle_host_asks_the_one_with_the_longest_queue_and_not_at_every_moment(rig: Rig) -> None:
    answer = {"POST /v1/slots/steal": lambda body: Stolen(agent_ids=())}
    busier = rig.peer("w1", answer, queued_jobs=50)
    busy = rig.peer("w2", answer, queued_jobs=5)
    rig.run(1)
    assert len(busier.bodies("POST /v1/slots/steal")) == 1
    rig.run(9)
    assert 2 <= len(busier.bodies("POST /v1/slots/steal")) <= 6
    assert busy.bodies("POST /v1/slots/steal")[0]["free"]["cpu_cores"] == 4


def test_a_job_that_can_never_start_here_is_refused(rig: Rig) -> None:
    def refusal(**fields: Any) -> str | None:
        each = job("x", request=slot_request(**fields))
        return rig.store.read(lambda tx: rig.host.refuse(tx, each))

    assert refusal(cpu_cores=4) is None
    add(rig, *"abcd")
    assert refusal(cpu_cores=4) is None
    assert refusal(cpu_cores=5)
    assert refusal(rules={"required_tags": ("fast",)})
