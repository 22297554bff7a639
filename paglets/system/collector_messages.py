"""What a collector is told and asked: the arguments of its messages, parsed strictly.

`job_result` and `job_failure` are `groups.records.ResultReport` and `FailureReport`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from paglets.core.errors import Invalid
from paglets.core.record import from_json
from paglets.core.refs import HostRef, check_job_key
from paglets.groups.records import FailureReport
from paglets.groups.summary import MAX_PAGE_ENTRIES

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """`begin`: sent once, in the transaction that stores the group. `failures`: jobs that could not be made.

    `job_class`: the name of the jobs' class. `submitter_id`: the paglet that submitted the group, where one did.
    `first_generation`: the generation of the first copies, over 1 where the group's id was cleared before.
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
    """`counts`, `return_home`: no arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """`summary`. `job_key`: only this key in the lists, whatever its size. `limit`: so many entries of each list."""

    job_key: str = ""
    limit: int | None = None


LISTS = ("pending_jobs", "duplicate_reports", "unexpected_reports", "jobs")
"""Lists of a summary that `listed` gives in pages; `results` gives the other two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """`listed`: a page of the list `name` of a summary, beyond the row `after`."""

    name: str
    after: str = ""
    limit: int = MAX_PAGE_ENTRIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """`drain`: null waits as long as it takes."""

    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """`results`: a page of records in the order of their keys, beyond the key `after`."""

    after: str = ""
    limit: int = MAX_PAGE_ENTRIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """`ended`: a page of records in the order in which keys ended, beyond the `after`th.

    `wait_seconds` over 0: where there is none yet and keys are pending, wait that long for one. `brief`: leave out the
    values of results, and the traceback and stderr of failures.
    """

    after: int = 0
    limit: int = MAX_PAGE_ENTRIES
    wait_seconds: float = 0.0
    brief: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """`register_jobs`: each job is an object with `job_key`, perhaps `generation`, and any other fields."""

    jobs: tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """`cancel`: these keys, or all that are pending where null. `reason` is for people."""

    job_keys: tuple[str, ...] | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiesGone:
    """`copies_gone`: no host has a copy of these cancelled keys any more (null: of all)."""

    job_keys: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """One job of `register_jobs` or `begin`, parsed."""

    job_key: str
    generation: int
    metadata: dict[str, Any]


def parse(cls: type[T], kind: str, args: Mapping[str, Any]) -> T:
    """The arguments of a message of that kind. Raises Invalid naming the field."""
    return from_json(cls, {name: _untagged(value) for name, value in args.items()}, kind)


def _untagged(value: Any) -> Any:
    """A list where the value is a tuple, in the tagged form too in which the host's own collector sees it."""
    if isinstance(value, dict) and len(value) == 1 and isinstance(value.get("$tuple"), list):
        return value["$tuple"]
    return value


def new_keys(jobs: tuple[Any, ...], kind: str) -> list[NewKey]:
    """Raises Invalid naming the entry that is wrong, or a key that is there twice."""
    keys = [_new_key(job, f"{kind}.jobs[{index}]") for index, job in enumerate(jobs)]
    seen: dict[str, None] = {}
    for key in keys:
        if key.job_key in seen:
            raise Invalid(f"{kind}.jobs: {key.job_key!r} is there twice")
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
