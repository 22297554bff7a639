"""The rules that decide whether a host can run a job, and their texts."""

from __future__ import annotations

import math
from typing import Any

import pytest
from slots_values import GIB, candidate, request, resources

from paglets.core.errors import Invalid
from paglets.slots.addresses import addresses_of
from paglets.slots.amounts import amount_text, bytes_text
from paglets.slots.eligibility import REASONS, remedy, tags_nowhere
from paglets.slots.model import Candidate, PlacementRules, SlotRequest, check_request
from paglets.slots.policy import Judgement, judge, placement_problem


def judged(wish: SlotRequest, one: Candidate, home: str = "home") -> Judgement:
    return judge(wish, one, home_store_id=f"store-{home}", mesh_version="1")


def test_a_host_that_fits_in_all_is_eligible() -> None:
    verdict = judged(request(required_tags=("linux",)), candidate("w1", tags=("linux", "gpu")))
    assert (verdict.eligible, verdict.never, verdict.reason, verdict.text) == (True, False, "", "")


def test_a_host_that_is_busy_now_is_eligible() -> None:
    assert judged(request(), candidate("w1", free=resources(0))).eligible


CASES: list[tuple[str, bool, dict[str, Any], dict[str, Any], str]] = [
    ("versions_differ", True, {}, {"mesh_version": "2"}, "'2'"),
    ("host_excluded", True, {"excluded_names": ("w1",)}, {}, "by name"),
    ("host_excluded", True, {"excluded_urls": ("http://W1:8765/",)}, {}, "http://W1:8765/"),
    (
        "host_excluded",
        True,
        {"excluded_urls": ("http://10.0.0.7",)},
        {"addresses": ("http://10.0.0.7:8765",)},
        "10.0.0.7",
    ),
    ("tag_excluded", True, {"excluded_tags": ("laptop",)}, {"tags": ("laptop",)}, "tag 'laptop'"),
    ("tag_missing", True, {"required_tags": ("a", "b", "c")}, {"tags": ("b",)}, "tags 'a', 'c'"),
    ("offline", False, {}, {"online": False}, "offline"),
]


@pytest.mark.parametrize(("reason", "never", "rules", "traits", "words"), CASES)
def test_a_host_that_does_not_fit_says_why(
    reason: str, never: bool, rules: dict[str, Any], traits: dict[str, Any], words: str
) -> None:
    verdict = judged(request(**rules), candidate("w1", **traits))
    assert (verdict.eligible, verdict.reason, verdict.never) == (False, reason, never)
    assert words in verdict.text
    assert "w1" in verdict.text


def test_too_large_says_the_numbers_of_what_is_short() -> None:
    offered = resources(8, 16 * GIB)
    verdict = judged(request(resources(16, 24 * GIB)), candidate("w1", offered=offered))
    assert (verdict.reason, verdict.never, verdict.excess) == ("too_large", True, 2.0)
    assert verdict.text == "16 cores, 24 GiB memory asked, w1 offers 8, 16 GiB"


def test_what_a_host_has_nothing_of_is_infinitely_too_much() -> None:
    assert judged(request(resources(1, gpus=1)), candidate("w1")).excess == math.inf


def test_home_is_excluded_unless_it_is_allowed() -> None:
    assert judged(request(), candidate("home")).reason == "home_excluded"
    assert judged(request(allow_home=True), candidate("home")).eligible


def test_home_is_allowed_while_it_is_the_only_host() -> None:
    alone = candidate("home", is_only=True)
    assert judged(request(), alone).eligible
    reason = reason_for(request(resources(64)), alone)
    assert (reason.code, reason.never) == ("too_large", True)
    assert "allow_home" not in reason.text


def test_home_that_awaits_a_peer_waits_for_it_and_says_so() -> None:
    waits = candidate("home", awaited_peers=("http://w1:8765", "http://w2:8765"))
    reason = reason_for(request(), waits)
    assert (reason.code, reason.never) == ("peer_awaited", False)
    assert "no host has answered yet at http://w1:8765 and 1 more (--peer)" in reason.text
    assert judged(request(allow_home=True), waits).eligible


def test_home_is_fit_while_it_is_not_joined() -> None:
    assert judged(request(allow_home=True), candidate("home", online=False)).eligible


def test_what_waiting_cannot_mend_is_told_before_what_it_can() -> None:
    assert judged(request(required_tags=("gpu",)), candidate("w1", online=False)).reason == "tag_missing"


@pytest.mark.parametrize(
    ("excluded", "known", "same"),
    [
        ("http://laptop:8765", "http://LAPTOP:8765/v1/host", True),
        ("http://laptop:8765", "http://laptop:8766", False),
        ("http://laptop:8765", "https://laptop:8765", False),
        ("http://laptop", "http://laptop:8765", True),
        ("http://laptop", "http://laptop:80", True),
        ("http://laptop", "http://laptop:9000", False),
        ("laptop:8765", "http://laptop:8765", True),
        ("http://[::1]:8765", "http://[::1]:8765", True),
        ("http://user@laptop.:8765", "http://laptop:8765", True),
    ],
)
def test_urls_are_the_same_by_scheme_lower_case_host_and_port(excluded: str, known: str, same: bool) -> None:
    assert bool(set(addresses_of(excluded)) & set(addresses_of(known))) is same


@pytest.mark.parametrize("url", ["", "http://", "ftp://laptop:21", "http://laptop:99999", "http://[bad", "http://:80"])
def test_what_is_no_url_of_a_host_cannot_be_excluded(url: str) -> None:
    assert addresses_of(url) == ()
    with pytest.raises(Invalid, match="excluded_urls"):
        check_request(SlotRequest(resources=resources(), rules=PlacementRules(excluded_urls=(url,))))


def reason_for(wish: SlotRequest, *hosts: Candidate) -> Any:
    return placement_problem([judged(wish, each) for each in hosts])


def test_there_is_no_reason_where_one_host_is_eligible() -> None:
    assert reason_for(request(), candidate("home"), candidate("w1")) is None


def test_a_lonely_home_says_what_would_help() -> None:
    reason = reason_for(request(), candidate("home"))
    assert (reason.code, reason.never) == ("home_excluded", True)
    assert reason.text == "home is the job's home (allow_home_compute is False)"
    add = "add a host with `paglets host --bind-public auto --peer URL`"
    assert remedy(reason.code) == f"{add}, or set allow_home_compute=True"


def test_allowing_home_is_a_way_out_only_where_the_job_fits_there() -> None:
    for wish, code in ((request(resources(64)), "too_large"), (request(required_tags=("gpu",)), "tag_missing")):
        reason = reason_for(wish, candidate("home"), candidate("w1", offered=resources(2)))
        assert reason.code == code
        assert "allow_home_compute" not in reason.text + remedy(reason.code)
    reason = reason_for(request(resources(3)), candidate("home"), candidate("w1", offered=resources(2)))
    assert reason.code == "home_excluded"
    assert "allow_home_compute=True" in remedy(reason.code)


def test_a_tag_that_no_host_has_is_told_with_those_there_are() -> None:
    hosts = (candidate("home", tags=("linux",)), candidate("w1", tags=("gpu", "linux")))
    reason = reason_for(request(required_tags=("linix", "gpu")), *hosts)
    assert reason.code == "tag_missing"
    assert reason.text == "no host has the tag 'linix': did you mean 'linux'? there are: gpu, linux"
    excluded = request(required_tags=("gpu",), excluded_names=("w1",))
    assert reason_for(excluded, *hosts).text == "home lacks the required tag 'gpu'; w1 is excluded by name"
    assert reason_for(request(required_tags=("x",)), candidate("w1")).text == (
        "no host has the tag 'x'; none has any tag"
    )
    assert tags_nowhere(["x"], ["gpu", "linux"]) == "no host has the tag 'x'; there are: gpu, linux"
    many = tags_nowhere(["x"], [f"tag-{number:02}" for number in range(30)])
    assert many.endswith(" and 24 more")


def test_never_needs_that_no_host_can_ever() -> None:
    wish = request(resources(64))
    reason = reason_for(wish, candidate("w1"), candidate("w2", offered=resources(64), online=False))
    assert (reason.code, reason.never) == ("offline", False)
    assert reason.text == "w2 is offline; 64 cores asked, w1 offers 4"


def test_a_host_that_only_a_third_could_reach_is_not_told_as_off() -> None:
    no_route = "nobody can connect to n2, nor to n1, and no host is online that both can reach"
    reason = reason_for(request(), candidate("n2", online=False, no_route=no_route))
    assert (reason.code, reason.never) == ("no_route", False)
    assert reason.text == no_route
    assert remedy(reason.code) == "start a host that both can connect to"


def test_a_job_too_large_for_all_names_the_nearest_host() -> None:
    reason = reason_for(
        request(resources(16)),
        candidate("home", offered=resources(4)),
        candidate("w1", offered=resources(4)),
        candidate("w2", offered=resources(12)),
        candidate("w3", offered=resources(8)),
    )
    assert (reason.code, reason.never) == ("too_large", True)
    assert reason.text == "16 cores asked, the largest host (w2) offers 12"


def test_many_hosts_of_one_reason_are_counted() -> None:
    reason = reason_for(request(required_tags=("gpu",)), *(candidate(f"w{n}", tags=("x",)) for n in range(10)))
    assert reason.text == "no host has the tag 'gpu'; there are: x"
    away = reason_for(request(), *(candidate(f"w{n}", online=False) for n in range(10)))
    assert away.text == "w0, w1 and 8 more are offline"


def test_a_reason_is_short_whatever_there_is_to_say() -> None:
    hosts = [candidate(f"worker-of-the-lab-{n}", online=bool(n % 2), offered=resources(n)) for n in range(40)]
    reason = reason_for(request(resources(64), excluded_tags=("a",)), *hosts, candidate("home"))
    assert len(reason.text) <= 100
    assert all(remedy(code) for code in REASONS)


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (1, "1 byte"), (1023, "1023 bytes"), (1 << 20, "1 MiB"), (3 << 29, "1.5 GiB"), (5 << 40, "5 TiB")],
)
def test_bytes_in_words(count: int, text: str) -> None:
    assert bytes_text(count) == text


def test_one_is_not_many() -> None:
    assert [amount_text("cpu_cores", n) for n in (1, 2)] == ["1 core", "2 cores"]
    assert amount_text("gpus", 1) == "1 GPU"
