"""Failpoints: the syntax of the variable and the actions at a point."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from paglets.core import failpoints
from paglets.core.errors import InternalError, Invalid

PACKAGE = Path(failpoints.__file__).parents[1]
POINT = "mid-artifact"


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    failpoints.arm("")


def raised(times: int) -> list[bool]:
    """Return for each of `times` passes whether it raised."""
    return [raises() for _ in range(times)]


def raises() -> bool:
    try:
        failpoints.reach(POINT)
    except InternalError:
        return True
    return False


def test_nothing_happens_where_nothing_is_armed() -> None:
    failpoints.arm("")
    assert raised(3) == [False, False, False]


def test_a_point_acts_at_each_passing_or_at_the_nth_only() -> None:
    failpoints.arm(f"mid-return-home:raise,{POINT}:raise")
    assert raised(3) == [True, True, True]
    failpoints.arm(f"{POINT}:raise@2")
    assert raised(3) == [False, True, False]


def test_a_delay_goes_on_afterwards() -> None:
    failpoints.arm(f"{POINT}:delay:0.001")
    assert raised(2) == [False, False]


@pytest.mark.parametrize(
    "text",
    ["no-such-point:kill", POINT, f"{POINT}:die", f"{POINT}:kill@0", f"{POINT}:delay", f"{POINT}:kill,", "raise"],
)
def test_what_cannot_be_armed_is_refused_and_changes_nothing(text: str) -> None:
    failpoints.arm(f"{POINT}:raise")
    with pytest.raises(Invalid, match="PAGLETS_FAIL"):
        failpoints.arm(text)
    assert raised(1) == [True]


def test_every_point_of_the_table_is_in_the_code_and_no_other() -> None:
    source = "\n".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    assert set(re.findall(r'\breach\("([^"]+)"\)', source)) == set(failpoints.POINTS)
