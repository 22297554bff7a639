"""The arguments of a collector's messages, parsed strictly.

The arguments of `job_result`, `job_failure` and `job_warning` are `ResultReport`, `FailureReport` and `JobWarning` in
`groups.records`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from paglets.core.errors import Invalid
from paglets.core.record import from_json
from paglets.core.refs import HostRef, check_job_key
from paglets.groups.records import FailureReport, ReportKind
from paglets.groups.summary import MAX_PAGE_ENTRIES

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """The arguments of `begin`, which is sent once, in the transaction that stores the group.

    `failures` are the jobs that could not be created, `job_class` is the name of the class of the jobs.
    `submitter_id` is the id of the paglet that submitted the group, if any. `first_generation` is the generation of the
    first copies. It is over 1 if an earlier group with this id was cleared.
    """

    group_id: str
    home: HostRef
    created_at: float
    jobs: tuple[Any, ...]
    failures: tuple[FailureReport, ...] = ()
    return_home_when_complete: bool = False
    submitter_id: str | None = None
    job_class: str = ""
    first_generation: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """The empty arguments of `counts`, `reasons` and `return_home`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The arguments of `summary`.

    If `job_key` is given, the lists contain only that job, with its record even if the record is large. Otherwise,
    `limit` is the maximum number of entries of each list.
    """

    job_key: str = ""
    limit: int | None = None


LISTS = ("pending_jobs", "duplicate_reports", "unexpected_reports", "jobs")
"""The lists of a summary that the message `listed` returns in pages. The message `results` returns the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """The arguments of `listed`. `name`: one of LISTS. `after`: `next` of the page before; "" for the first page."""

    name: str
    after: str = ""
    limit: int = MAX_PAGE_ENTRIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """The arguments of `drain`. None means no time limit."""

    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """The arguments of `results`, which ask for a page of records sorted by key, after the key `after`.

    `kind` asks for the results or the failures alone. None asks for both.
    """

    after: str = ""
    limit: int = MAX_PAGE_ENTRIES
    kind: ReportKind | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """The arguments of `ended`, which ask for a page of records in the order in which keys ended.

    The page starts after the record with the number `after`; 0 means at the first. `wait_seconds` is the longest wait
    for such a record while keys are pending. `brief` leaves out the values of results, and the traceback and stderr of
    failures. `with_summary` adds the summary of a small group once no key is pending, which saves a request.
    """

    after: int = 0
    limit: int = MAX_PAGE_ENTRIES
    wait_seconds: float = 0.0
    brief: bool = False
    with_summary: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """The arguments of `register_jobs`: objects with `job_key`, optionally `generation`, and any metadata."""

    jobs: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """The arguments of `cancel`: the keys, or None for all keys of the group. `reason` is text for people."""

    job_keys: tuple[str, ...] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiesGone:
    """The arguments of `copies_gone`: cancelled keys without any copy left, or None for all."""

    job_keys: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A parsed job of `register_jobs` or `begin`. `metadata`: its fields other than key and generation."""

    job_key: str
    generation: int
    metadata: dict[str, Any]


def parse(cls: type[T], kind: str, args: Mapping[str, Any]) -> T:
    """Return the arguments of a message of the kind `kind`. Raises Invalid, which names the wrong field."""
    return from_json(cls, {name: _untagged(value) for name, value in args.items()}, kind)


def _untagged(value: Any) -> Any:
    """Return the items of a tagged tuple, as a collector inside the host gets it. Return other values unchanged."""
    if isinstance(value, dict) and len(value) == 1 and isinstance(value.get("$tuple"), list):
        return value["$tuple"]
    return value


def new_keys(jobs: tuple[Any, ...], kind: str) -> list[NewKey]:
    """Return the parsed jobs. Raises Invalid, which names a wrong entry or a duplicate key."""
    keys = [_new_key(job, f"{kind}.jobs[{index}]") for index, job in enumerate(jobs)]
    seen: dict[str, None] = {}
    for key in keys:
        if key.job_key in seen:
            raise Invalid(f"{kind}.jobs: {key.job_key!r} occurs twice")
        seen[key.job_key] = None
    return keys


def _new_key(job: Any, where: str) -> NewKey:
    if not isinstance(job, Mapping):
        raise Invalid(f"{where}: expected an object with a job_key")
    job_key, generation = job.get("job_key"), job.get("generation", 1)
    if not isinstance(job_key, str):
        raise Invalid(f"{where}.job_key: expected a string")
    if type(generation) is not int or generation < 1:
        raise Invalid(f"{where}.generation: expected an integer of at least 1")
    metadata = {name: value for name, value in job.items() if name not in ("job_key", "generation")}
    return NewKey(job_key=check_job_key(job_key), generation=generation, metadata=metadata)
