"""Names of hosts, paglets, groups and jobs: the corpus of names that broke other systems (B3)."""

from __future__ import annotations

import unicodedata

import pytest

from paglets.core.errors import Invalid
from paglets.core.refs import (
    MAX_LIFETIME_SECONDS,
    check_agent_id,
    check_group_id,
    check_host_name,
    check_job_key,
    check_lifetime,
)

NASTY = [
    "",
    ".",
    "..",
    "../x",
    "..\\x",
    "/abs",
    "C:x",
    "\\\\srv\\x",
    "a/b",
    "a%2fb",
    "a:b",
    "x ",
    " x",
    "x" * 300,
    "-x",
    "-",
    "--help",
    "a\nb",
    "a\n",
    "\na",
    "a\x00b",
    "\x1b[31mred",
    "caf\u00e9",
    unicodedata.normalize("NFD", "caf\u00e9"),
    "\u202egnp.exe",
    "a\u200bb",
    "\ud800",
    "\uff41",
    "\u0661",
    "a*",
    "$HOME",
    "`id`",
    "a'b",
    'a"b',
    "a|b",
    "a&b",
]


@pytest.mark.parametrize("name", [*NASTY, "CON", "con", "nul", "com1", "lpt9", "x.", "Upper", "a.b", "a_b", "a" * 64])
def test_a_bad_host_name_is_refused_and_shown_escaped(name: str) -> None:
    with pytest.raises(Invalid) as failure:
        check_host_name(name)
    assert failure.value.message.isprintable()
    assert len(failure.value.message) < 400


@pytest.mark.parametrize("agent_id", [*NASTY, "CON", "con", "nul.txt", "aux.1", "x.", "x..", "a" * 101, "Upper"])
def test_a_bad_paglet_id_is_refused_and_shown_escaped(agent_id: str) -> None:
    with pytest.raises(Invalid) as failure:
        check_agent_id(agent_id)
    assert failure.value.message.isprintable()


@pytest.mark.parametrize("group_id", [*NASTY, "a" * 101, ".hidden", "_x"])
def test_a_bad_group_id_is_refused_and_shown_escaped(group_id: str) -> None:
    with pytest.raises(Invalid) as failure:
        check_group_id(group_id)
    assert failure.value.message.isprintable()


@pytest.mark.parametrize(
    "job_key",
    ["", "$bytes", "x" * 201, "a\nb", "a\x00b", "\x1b[31mred", "\u202egnp.exe", "a\u200bb", "\ud800", "a\u2028b", "\t"],
)
def test_a_job_key_that_would_upset_a_listing_is_refused(job_key: str) -> None:
    with pytest.raises(Invalid) as failure:
        check_job_key(job_key)
    assert failure.value.message.isprintable()


@pytest.mark.parametrize("name", ["a", "0", "w1", "linux-a", "gpu-a-", "a" * 63, "console"])
def test_a_good_host_name_is_kept(name: str) -> None:
    assert check_host_name(name) == name


@pytest.mark.parametrize("agent_id", ["a", "0f3c", "group-abc.job-1", "a" * 100, "console.con"])
def test_a_good_paglet_id_is_kept(agent_id: str) -> None:
    assert check_agent_id(agent_id) == agent_id


@pytest.mark.parametrize("group_id", ["group-abc2345xyz", "Night.run_7", "CON", "x.", "a" * 100])
def test_a_good_group_id_is_kept(group_id: str) -> None:
    assert check_group_id(group_id) == group_id


@pytest.mark.parametrize(
    "job_key",
    ["../x", "/abs", "C:x", "a/b", "x ", "x.", "-x", "CON", "a$", "caf\u00e9", "数据", "😀", "job one", "x" * 200],
)
def test_a_job_key_is_a_label_and_kept_as_it_is(job_key: str) -> None:
    assert check_job_key(job_key) == job_key


def test_keys_that_look_alike_stay_two_keys() -> None:
    composed, apart = "caf\u00e9", unicodedata.normalize("NFD", "caf\u00e9")

    assert check_job_key(composed) != check_job_key(apart)
    assert check_job_key("Case") != check_job_key("case")


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf"), float("-inf"), MAX_LIFETIME_SECONDS * 2.1])
@pytest.mark.parametrize("is_left", [False, True])
def test_a_lifetime_that_is_none_is_refused(seconds: float, is_left: bool) -> None:
    with pytest.raises(Invalid, match="expires_in_seconds"):
        check_lifetime(seconds, is_left=is_left)


def test_only_what_is_there_already_may_have_no_time_left_or_a_little_too_much() -> None:
    for seconds in (None, 0.1, MAX_LIFETIME_SECONDS):
        assert check_lifetime(seconds) == check_lifetime(seconds, is_left=True) == seconds
    assert check_lifetime(0.0, is_left=True) == 0.0
    assert check_lifetime(MAX_LIFETIME_SECONDS + 1e-6, is_left=True)
    for seconds in (0.0, MAX_LIFETIME_SECONDS + 1e-6):
        with pytest.raises(Invalid, match="more than 0"):
            check_lifetime(seconds)
