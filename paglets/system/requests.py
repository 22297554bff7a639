"""Strict conversion of the fields of a job's state to its slot request."""

from __future__ import annotations

import math
from typing import Any

from paglets.core.errors import Invalid
from paglets.core.refs import check_host_name
from paglets.slots.addresses import addresses_of
from paglets.slots.model import (
    FIELDS,
    ISOLATIONS,
    MAX_TAG_CHARACTERS,
    MAX_TAGS,
    Isolation,
    PlacementRules,
    Resources,
    SlotRequest,
)

MOST = 1 << 62
"""The maximum of each number in a request. Sums of larger ones could overflow the 64-bit integers of SQLite."""

_RULES = {
    "required_tags": "required_host_tags",
    "excluded_tags": "excluded_host_tags",
    "preferred_tags": "preferred_host_tags",
    "excluded_names": "excluded_host_names",
    "excluded_urls": "excluded_host_urls",
}
"""A map from fields of PlacementRules to the fields of the state that they come from."""

_COUNTS = {"cpu_cores": 1, "max_attempts": 1}
"""A map from integer fields to their minimum. The minimum of all other fields is 0."""


def slot_request_of(state: Any) -> SlotRequest:
    """Return the slot request of a ComputeJobState. Raises Invalid, which names the first wrong field."""
    resources = Resources(**{name: _count(state, name) for name in FIELDS})
    lists = {rule: _texts(state, name) for rule, name in _RULES.items()}
    for name in lists["excluded_names"]:
        _host_name(name)
    for url in lists["excluded_urls"]:
        if not addresses_of(url):
            raise Invalid(f"excluded_host_urls: {url[:80]!r} is not the URL of a host, such as http://laptop:8765")
    if type(state.allow_home_compute) is not bool:
        raise Invalid(f"allow_home_compute is {_shown(state.allow_home_compute)}: it must be True or False")
    return SlotRequest(
        resources=resources,
        rules=PlacementRules(**lists, allow_home=state.allow_home_compute),
        max_attempts=_count(state, "max_attempts"),
        max_losses=_count(state, "max_losses"),
        estimated_runtime_seconds=_seconds(state, "estimated_runtime_seconds"),
        placement_timeout_seconds=_seconds(state, "placement_timeout_seconds"),
        timeout_seconds=_seconds(state, "timeout_seconds"),
    )


def isolation_of(value: object, name: str) -> Isolation:
    """Return `value` if it is one of ISOLATIONS. Raises Invalid, whose message calls the value `name`."""
    found = next((each for each in ISOLATIONS if each == value), None)
    if found is None:
        raise Invalid(f"{name} is {_shown(value)}: it must be {' or '.join(map(repr, ISOLATIONS))}")
    return found


def _shown(value: object) -> str:
    return f"{repr(value)[:60]} ({type(value).__name__})"


def _count(state: Any, name: str) -> int:
    value = getattr(state, name)
    if type(value) is not int:
        raise Invalid(f"{name} is {_shown(value)}: it must be a whole number of type int")
    least = _COUNTS.get(name, 0)
    if not least <= value <= MOST:
        wrong = f"at least {least}" if value < least else f"at most {MOST:,}"
        raise Invalid(f"{name} is {_shown(value)}: it must be {wrong}")
    return value


def _seconds(state: Any, name: str) -> float:
    value = getattr(state, name)
    if type(value) not in (int, float):
        raise Invalid(f"{name} is {_shown(value)}: it must be a number of seconds")
    if not 0 <= value <= MOST or not math.isfinite(value):
        raise Invalid(f"{name} is {_shown(value)}: it must be a finite number of seconds, 0 or more")
    return float(value)


def _texts(state: Any, name: str) -> tuple[str, ...]:
    """Return the strings of the field `name` in order, without duplicates. Raises Invalid."""
    values = getattr(state, name)
    if isinstance(values, str):
        raise Invalid(f"{name} is {_shown(values)}: write ({values[:60]!r},), a tuple with a comma")
    if not isinstance(values, (tuple, list)):
        raise Invalid(f"{name} is {_shown(values)}: it must be a tuple or list of str")
    if len(values) > MAX_TAGS:
        raise Invalid(f"{name} has {len(values)} entries: at most {MAX_TAGS} are allowed")
    for value in values:
        if not isinstance(value, str) or not value.strip() or not value.isprintable():
            raise Invalid(f"{name} holds {_shown(value)}: each entry must be a printable str that is not empty")
        if len(value) > MAX_TAG_CHARACTERS:
            raise Invalid(f"{name} holds {_shown(value)}: at most {MAX_TAG_CHARACTERS} characters are allowed")
    return tuple(dict.fromkeys(values))


def _host_name(name: str) -> None:
    try:
        check_host_name(name)
    except Invalid as error:
        raise Invalid(f"excluded_host_names: {error.message}") from error
