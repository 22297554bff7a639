"""The placement of jobs on hosts."""

from __future__ import annotations

import time
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from slots_values import GIB, candidate, request, resources, to_place

from paglets.slots.model import Candidate
from paglets.slots.policy import Placements, UnplacedJob, judge, place, rank


def placed(jobs: list[UnplacedJob], *hosts: Candidate) -> Placements:
    return place(jobs, hosts, mesh_version="1")


def counts(placements: Placements) -> dict[str, int]:
    return dict(Counter(each.name for each in placements.hosts.values()))


def jobs(count: int, **rules: object) -> list[UnplacedJob]:
    wish = request(**rules)
    return [to_place(f"job-{n:05d}", wish) for n in range(count)]


def test_rank_looks_at_preferred_tags_then_room_then_load_then_name() -> None:
    hosts = [
        candidate("a", free=resources(1)),
        candidate("b", free=resources(4), running_jobs=4),
        candidate("d", free=resources(4)),
        candidate("c", free=resources(4)),
        candidate("e", free=resources(0), tags=("gpu",)),
        candidate("f", free=resources(0), tags=("gpu", "big")),
    ]
    ranked = rank(request(preferred_tags=("gpu", "big")), hosts)
    assert [each.host.name for each in ranked] == ["f", "e", "c", "d", "b", "a"]


def test_the_first_job_goes_where_rank_says() -> None:
    hosts = [candidate("a", free=resources(1)), candidate("b", free=resources(3)), candidate("c", free=resources(2))]
    (first,) = placed(jobs(1), *hosts).hosts.values()
    assert first.name == rank(request(), hosts)[0].host.name


def test_jobs_fill_what_is_free_in_proportion() -> None:
    hosts = [candidate("a", offered=resources(12)), candidate("b", offered=resources(4))]
    assert counts(placed(jobs(8), *hosts)) == {"a": 6, "b": 2}
    assert counts(placed(jobs(16), *hosts)) == {"a": 12, "b": 4}


def test_jobs_beyond_what_is_free_queue_in_proportion_to_what_is_offered() -> None:
    hosts = [candidate("a", offered=resources(12)), candidate("b", offered=resources(4))]
    assert counts(placed(jobs(1600), *hosts)) == {"a": 1200, "b": 400}


def test_a_host_with_a_queue_gets_fewer() -> None:
    hosts = [
        candidate("a", free=resources(0), queued_jobs=100),
        candidate("b", free=resources(0)),
    ]
    assert counts(placed(jobs(120), *hosts)) == {"a": 10, "b": 110}


def test_preferred_hosts_get_all_even_where_they_are_busy() -> None:
    hosts = [candidate("a"), candidate("b", tags=("gpu",), free=resources(0), queued_jobs=50)]
    assert counts(placed(jobs(10, preferred_tags=("gpu",)), *hosts)) == {"b": 10}


def test_a_preferred_host_that_is_too_small_is_passed_over() -> None:
    hosts = [candidate("a", offered=resources(8)), candidate("b", tags=("gpu",), offered=resources(2))]
    big = to_place("big", request(resources(4), preferred_tags=("gpu",)))
    assert placed([big], *hosts).hosts["big"].name == "a"


def test_what_one_request_took_is_not_free_for_the_next() -> None:
    hosts = [candidate("a", offered=resources(4, 8 * GIB)), candidate("b", offered=resources(4, 8 * GIB))]
    mixed = [
        to_place("one", request(resources(4, GIB))),
        to_place("two", request(resources(3, GIB))),
    ]
    assert counts(placed(mixed, *hosts)) == {"a": 1, "b": 1}


def test_each_job_has_its_own_home() -> None:
    mixed = [to_place("one", home="a"), to_place("two", home="b")]
    placements = placed(mixed, candidate("a"), candidate("b"))
    assert {agent_id: each.name for agent_id, each in placements.hosts.items()} == {"one": "b", "two": "a"}


def test_a_job_without_a_host_has_a_reason_and_the_others_are_placed() -> None:
    mixed = [to_place("huge", request(resources(1000))), to_place("small")]
    placements = placed(mixed, candidate("w1"))
    assert list(placements.hosts) == ["small"]
    assert placements.reasons["huge"].code == "too_large"
    assert placements.reasons["huge"].never


def test_a_hundred_thousand_jobs_over_fifty_hosts_take_a_moment() -> None:
    hosts = [candidate(f"w{n:02d}", offered=resources(4 + n % 7)) for n in range(50)]
    many = jobs(100_000)
    begun = time.process_time()
    placements = placed(many, *hosts)
    assert time.process_time() - begun < 15  # twenty times the usual time; a quadratic algorithm would take hours
    per_core = [counts(placements)[each.host.name] / each.offered.cpu_cores for each in hosts]
    assert max(per_core) - min(per_core) <= 1


_RULES = st.fixed_dictionaries(
    {
        "required_tags": st.sampled_from([(), ("a",)]),
        "preferred_tags": st.sampled_from([(), ("b",), ("a", "b")]),
        "allow_home": st.booleans(),
    }
)
_JOBS = st.lists(st.tuples(st.integers(1, 5), _RULES), max_size=30)
_HOSTS = st.lists(
    st.tuples(st.integers(1, 4), st.integers(0, 4), st.sampled_from([(), ("a",), ("b",), ("a", "b")]), st.booleans()),
    max_size=6,
)


@settings(max_examples=60)
@given(_JOBS, _HOSTS)
def test_every_job_gets_an_eligible_host_or_a_true_reason(
    wishes: list[tuple[int, dict[str, object]]], offers: list[tuple[int, int, tuple[str, ...], bool]]
) -> None:
    hosts = [candidate("home")] + [
        candidate(f"w{n}", offered=resources(cores), free=resources(min(free, cores)), tags=tags, online=online)
        for n, (cores, free, tags, online) in enumerate(offers)
    ]
    asked = [to_place(f"job-{n}", request(resources(cores), **rules)) for n, (cores, rules) in enumerate(wishes)]
    placements = placed(asked, *hosts)
    assert placements == placed(asked, *hosts)
    assert sorted([*placements.hosts, *placements.reasons]) == sorted(job.agent_id for job in asked)
    for job in asked:
        fit = [
            each.host
            for each in hosts
            if judge(job.request, each, home_store_id=job.home_store_id, mesh_version="1").eligible
        ]
        if job.agent_id in placements.hosts:
            assert placements.hosts[job.agent_id] in fit
        else:
            assert fit == []


def test_a_host_that_a_job_is_to_avoid_is_its_last_choice_and_no_more() -> None:
    hosts = [candidate("a", tags=("fast",)), candidate("b"), candidate("small", offered=resources(1))]
    avoids_a = frozenset({hosts[0].host.store_id})
    wish = request(preferred_tags=("fast",))
    picky = UnplacedJob(agent_id="p", request=wish, home_store_id="home", avoided=avoids_a)
    other = UnplacedJob(agent_id="o", request=wish, home_store_id="home")
    large = UnplacedJob(agent_id="l", request=request(resources(2)), home_store_id="home", avoided=avoids_a)
    found = placed([picky, other, large], *hosts).hosts
    assert (found["p"].name, found["o"].name, found["l"].name) == ("b", "a", "b")
    only_a = placed([picky], hosts[0]).hosts
    assert only_a["p"].name == "a"
