"""The jobs of a group in their wire form, made from a job class and the states of the jobs."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import Any

from paglets.api.groups import JobSpec
from paglets.api.limits import MAX_GROUP_JOBS
from paglets.codec.dataclass_fields import to_fields
from paglets.codec.result_types import check_values
from paglets.codec.tagged_json import encode_state
from paglets.core.errors import Invalid
from paglets.core.text import type_of, with_article
from paglets.groups.keys import complete_job_keys
from paglets.system.jobs import CollectingComputeJobState, ComputeJobPaglet, ComputeJobState


def job_specs(
    job_class: type[ComputeJobPaglet[Any]],
    states: Iterable[ComputeJobState],
    *,
    allow_home: bool = False,
    isolation: str = "",
) -> tuple[JobSpec, ...]:
    """Return the jobs of a group in their wire form. `allow_home` lets all of them run at home.

    `isolation` applies to the states that set none; "": use that of the class.

    Raises TypeError and ValueError before anything is sent.
    """
    if not (isinstance(job_class, type) and issubclass(job_class, ComputeJobPaglet)):
        raise TypeError(f"job_class is {_given(job_class)}: give a subclass of paglets.Job, and after it the states")
    check_values(job_class)
    if isinstance(states, ComputeJobState | str) or not isinstance(states, Iterable):
        raise TypeError(f"states is {type_of(states)}: give a list of {_state_name(job_class)}, one for each job")
    listed = list(states)
    if len(listed) > MAX_GROUP_JOBS:
        excess = f"a group of {len(listed):,} jobs is over the limit of {MAX_GROUP_JOBS:,}"
        raise Invalid(excess, hint=["submit several groups"])
    for position, state in enumerate(listed, 1):
        if type(state) is not job_class.State:
            raise TypeError(_wrong_state(job_class, state, position))
        to_fields(state)
    keys = complete_job_keys([_key(state.job_key) for state in listed])
    return tuple(
        _job_spec(job_class, _completed(state, allow_home, isolation), key)
        for state, key in zip(listed, keys, strict=True)
    )


def _completed(state: ComputeJobState, allow_home: bool, isolation: str) -> ComputeJobState:
    """Return the state with the arguments of the submission for the fields that it does not set."""
    takes_home, takes_isolation = allow_home and state.allow_home_compute is False, isolation and state.isolation == ""
    if takes_home or takes_isolation:
        state = copy(state)
        state.allow_home_compute = True if takes_home else state.allow_home_compute
        state.isolation = isolation if takes_isolation else state.isolation
    return state


def _state_name(job_class: type[ComputeJobPaglet[Any]]) -> str:
    """Return the public name of the State class of a job class."""
    return "paglets.JobState" if job_class.State is CollectingComputeJobState else job_class.State.__qualname__


def _wrong_state(job_class: type[ComputeJobPaglet[Any]], state: object, position: int) -> str:
    name, has = job_class.__qualname__, _state_name(job_class)
    text = f"state {position} is {_given(state)}, but {name} has State = {has}"
    if isinstance(state, job_class.State):
        return f"{text}\nhint: add the line `State = {type(state).__qualname__}` to class {name}"
    return f"{text}\nhint: give {with_article(has)}(...) for each job"


def _given(value: object) -> str:
    return f"the class {value.__qualname__}" if isinstance(value, type) else type_of(value)


def _key(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"job_key {key!r} is {type_of(key)}: it must be a str")
    return key


def _job_spec(job_class: type[ComputeJobPaglet[Any]], state: ComputeJobState, key: str) -> JobSpec:
    try:
        tree = {**encode_state(state), "job_key": key}
        return JobSpec(job_key=key, state=tree, request=job_class.creation_request(state))
    except Invalid as error:
        return JobSpec(job_key=key, state=None, request=None, error=error.message)
