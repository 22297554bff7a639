"""The choice of waiting jobs that start here, and of those that another host steals."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from slots_values import GIB, candidate, request, resources, waiting

from paglets.slots.model import Resources
from paglets.slots.policy import (
    LOOK_AHEAD_JOBS,
    FreeUnits,
    Grants,
    WaitingJob,
    choose_stolen,
    grant,
    queue_window,
)


def free(cores: int, *, gpus: int = 0, memory: int = 16 * GIB, disk: int = 100 * GIB) -> FreeUnits:
    return FreeUnits(cores=tuple(range(cores)), gpus=tuple(range(gpus)), memory_bytes=memory, temp_storage_bytes=disk)


def granted(queue: Any, units: FreeUnits, *, leased: Resources | None = None, reserve_after: float = 300.0) -> Grants:
    leased = leased or resources(0)
    return grant(queue, units, offered=units.amounts() + leased, leased=leased, reserve_after_seconds=reserve_after)


def names(grants: Grants) -> list[str]:
    return [each.agent_id for each in grants.grants]


def test_the_oldest_that_fit_start_and_each_core_is_given_once() -> None:
    queue = [waiting("a", resources(2)), waiting("b"), waiting("c", resources(2)), waiting("d")]
    grants = granted(queue, FreeUnits(cores=(1, 3, 4, 7), gpus=()))
    assert [(each.agent_id, each.cores) for each in grants.grants] == [("a", (1, 3)), ("b", (4,)), ("d", (7,))]
    assert grants.reasons["c"].code == "slots_busy"
    assert grants.reasons["c"].text == "2 cores asked, 1 free"


def test_gpus_are_given_by_id() -> None:
    queue = [waiting("a", resources(1, gpus=1)), waiting("b", resources(1, gpus=2)), waiting("c", resources(1, gpus=1))]
    grants = granted(queue, FreeUnits(cores=(0, 1, 2), gpus=(0, 2)), leased=resources(0, gpus=2))
    assert [(each.agent_id, each.gpus) for each in grants.grants] == [("a", (0,)), ("c", (2,))]
    assert grants.reasons["b"].code == "gpu_short"


def test_each_lack_has_its_reason_with_numbers() -> None:
    leased = resources(8, 64 * GIB, 500 * GIB, 4)
    queue = [
        waiting("memory", resources(1, 32 * GIB)),
        waiting("disk", resources(1, 0, 200 * GIB)),
        waiting("gpu", resources(1, gpus=1)),
    ]
    reasons = granted(queue, free(2), leased=leased).reasons
    assert {name: reason.code for name, reason in reasons.items()} == {
        "memory": "memory_short",
        "disk": "disk_short",
        "gpu": "gpu_short",
    }
    assert reasons["memory"].text == "32 GiB memory asked, 16 GiB free"
    assert not any(reason.never for reason in reasons.values())


def test_a_job_that_can_never_run_here_says_so_and_holds_up_nobody() -> None:
    grants = granted([waiting("huge", resources(64), waited=9999), waiting("a")], free(4))
    assert names(grants) == ["a"]
    assert grants.reasons["huge"].never
    assert grants.reserved_for is None


def test_without_a_free_core_nothing_is_read_from_the_queue() -> None:
    def untouched() -> Iterator[WaitingJob]:
        raise AssertionError("the queue was read")
        yield waiting("a")

    grants = granted(untouched(), free(0), leased=resources(8))
    assert grants.grants == ()
    assert grants.others.text == "0 of 8 cores are free, and older jobs come first"
    assert queue_window(0) == 0


def test_the_pass_ends_with_the_last_core() -> None:
    seen: list[str] = []

    def queue() -> Iterator[WaitingJob]:
        for n in range(1_000_000):
            seen.append(f"job-{n}")
            yield waiting(f"job-{n}")

    assert len(granted(queue(), free(4)).grants) == 4
    assert len(seen) == 4


def test_a_long_clump_that_does_not_fit_is_judged_once() -> None:
    clump = [waiting(f"gpu-{n}", resources(1, gpus=1)) for n in range(queue_window(4) - 1)]
    begun = time.process_time()
    grants = granted([*clump, waiting("small")], free(4), leased=resources(0, gpus=1))
    assert time.process_time() - begun < 0.5
    assert names(grants) == ["small"]
    assert len(grants.reasons) == len(clump) >= LOOK_AHEAD_JOBS


def test_a_large_job_that_waited_long_keeps_younger_ones_off() -> None:
    queue = [waiting("big", resources(8), waited=301), waiting("small", waited=1)]
    grants = granted(queue, free(4), leased=resources(4))
    assert names(grants) == []
    assert grants.reserved_for == "big"
    assert grants.reasons["big"].code == "slots_busy"
    assert grants.others.code == "reserved_for"
    assert "big" in grants.others.text
    assert "8 cores" in grants.others.text
    assert "301 s" in grants.others.text


def test_a_large_job_that_waited_little_lets_younger_ones_pass() -> None:
    queue = [waiting("big", resources(8), waited=299), waiting("small", waited=1)]
    assert names(granted(queue, free(4), leased=resources(4))) == ["small"]


def test_older_small_jobs_go_before_the_reservation() -> None:
    queue = [waiting("old", waited=400), waiting("big", resources(8), waited=301), waiting("young", waited=1)]
    assert names(granted(queue, free(4), leased=resources(4))) == ["old"]


def test_what_the_reserved_job_does_not_need_is_still_given() -> None:
    queue = [
        waiting("gpu", resources(1, gpus=1), waited=400),
        waiting("a", waited=2),
        waiting("b", waited=1),
    ]
    grants = granted(queue, free(2), leased=resources(0, gpus=1))
    assert names(grants) == ["a"]
    assert "b" not in grants.reasons, "the pass ended when no core was left for it"


def test_no_reservation_where_even_the_idle_host_would_be_short() -> None:
    """Other programs hold the memory: to stop all jobs would not free it."""
    queue = [waiting("fat", resources(1, 32 * GIB), waited=9999), waiting("small")]
    grants = grant(queue, free(4), offered=resources(4, 64 * GIB), leased=resources(0), reserve_after_seconds=300.0)
    assert names(grants) == ["small"]
    assert grants.reserved_for is None


def test_the_reserved_job_starts_when_leases_have_ended() -> None:
    queue = [waiting("big", resources(8), waited=301), waiting("small")]
    assert names(granted(queue, free(8))) == ["big"]


_SIZES = st.builds(resources, st.integers(1, 4), st.integers(0, 4), st.integers(0, 4), st.integers(0, 2))


@settings(max_examples=100)
@given(st.lists(st.tuples(_SIZES, st.booleans()), max_size=15), st.builds(resources, *[st.integers(0, 6)] * 4), _SIZES)
def test_grants_never_exceed_what_is_free_and_ids_are_disjoint(
    sizes: list[tuple[Resources, bool]], there: Resources, leased: Resources
) -> None:
    queue = [waiting(f"job-{n}", size, waited=1000.0 if old else 1.0) for n, (size, old) in enumerate(sizes)]
    units = free(there.cpu_cores, gpus=there.gpus, memory=there.memory_bytes, disk=there.temp_storage_bytes)
    grants = granted(queue, units, leased=leased)
    started = {each.agent_id: each for each in grants.grants}
    total = resources(0)
    for job in queue:
        if job.agent_id in started:
            total = total + job.request.resources
            assert len(started[job.agent_id].cores) == job.request.resources.cpu_cores
            assert len(started[job.agent_id].gpus) == job.request.resources.gpus
    assert total.fits(there)
    cores = [core for each in grants.grants for core in each.cores]
    assert len(cores) == len(set(cores))
    assert not started.keys() & grants.reasons.keys()
    kept = grants.reserved_for
    if kept is not None:
        younger = queue[[job.agent_id for job in queue].index(kept) + 1 :]
        taken = [job.request.resources for job in younger if job.agent_id in started]
        need = next(job.request.resources for job in queue if job.agent_id == kept)
        left = there - total
        for name in ("cpu_cores", "memory_bytes", "temp_storage_bytes", "gpus"):
            if any(getattr(size, name) for size in taken):
                assert getattr(left, name) >= getattr(need, name)


# Stealing.


def stolen(queue: list[WaitingJob], **more: Any) -> tuple[str, ...]:
    fields: dict[str, Any] = {
        "thief": candidate("thief"),
        "victim": candidate("victim"),
        "free": resources(4, 16 * GIB, 100 * GIB),
        "would_start_next": 0,
        "most_jobs": 100,
        "mesh_version": "1",
    }
    return choose_stolen(queue, **(fields | more))


def test_the_oldest_that_fit_go_to_the_thief_but_not_what_starts_here_next() -> None:
    queue = [waiting(name, resources(2)) for name in "abcd"]
    assert stolen(queue, would_start_next=1) == ("b", "c")


def test_no_more_go_than_were_asked_for() -> None:
    assert stolen([waiting(name) for name in "abc"], most_jobs=2) == ("a", "b")


def test_what_was_stolen_rests_for_a_minute() -> None:
    queue = [
        waiting("fresh", stolen=True, here_seconds=59.0, waited=900),
        waiting("rested", stolen=True, here_seconds=60.0, waited=900),
    ]
    assert stolen(queue) == ("rested",)


def test_a_better_preferred_host_keeps_a_job_for_five_seconds() -> None:
    def job(name: str, here: float) -> WaitingJob:
        return waiting(name, request=request(preferred_tags=("gpu",)), here_seconds=here)

    victim = candidate("victim", tags=("gpu",))
    assert stolen([job("new", 4.9), job("old", 5.0)], victim=victim) == ("old",)
    thief = candidate("thief", tags=("gpu",))
    assert stolen([job("new", 0.0)], victim=victim, thief=thief) == ("new",)


def test_a_job_goes_only_where_it_may() -> None:
    queue = [
        waiting("not-home", home_store_id="store-thief"),
        waiting("tagged", request=request(required_tags=("gpu",))),
        waiting("large", resources(8)),
        waiting("fits"),
    ]
    assert stolen(queue) == ("fits",)


def test_the_thief_is_not_offered_more_than_it_has_free() -> None:
    assert stolen([waiting("a"), waiting("b")], free=resources(1)) == ("a",)
    assert stolen([waiting("a")], free=resources(0)) == ()
