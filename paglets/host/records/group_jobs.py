"""Submissions of groups, checked and written as JSON: what can be done before the transaction that stores one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from paglets.api.groups import CreationError, JobSpec, SubmitGroup
from paglets.api.limits import MAX_GROUP_JOBS
from paglets.codec.strict_json import dumps
from paglets.core.errors import Invalid, PagletsError
from paglets.core.record import from_json, to_json
from paglets.core.refs import FileRef, HostRef, check_group_id
from paglets.groups.keys import complete_job_keys, group_digest, new_group_id
from paglets.groups.records import Template
from paglets.groups.rows import state_key, template_key
from paglets.slots.model import SlotRequest, check_request
from paglets.store.newjobs import NewJob

MAX_SUBMISSIONS = 1_000_000
"""Of one group id. More would be a fault of who asks; generations and epochs stay far below their bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    spec: JobSpec
    request: SlotRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedGroup:
    """A submission that was checked. `jobs`: those without errors; `requests`: how many of them ask for each."""

    group_id: str
    group: SubmitGroup
    digest: str
    keys: tuple[str, ...]
    jobs: list[NewJob]
    requests: Counter[SlotRequest]
    errors: tuple[CreationError, ...]
    spec: str


def prepare(token: str, group: SubmitGroup, home: HostRef) -> PreparedGroup:
    """Check a submission and write its JSON: most of the work for a large group, and done without the writer.

    Raises Invalid.
    """
    group_id = check_group_id(group.group_id) if group.group_id else new_group_id(token)
    if not 0 <= group.submissions <= MAX_SUBMISSIONS:
        raise Invalid(f"submissions is {group.submissions}: expected 0 to {MAX_SUBMISSIONS:,}")
    if len(group.jobs) > MAX_GROUP_JOBS:
        raise Invalid(f"a group of {len(group.jobs):,} jobs is over the limit of {MAX_GROUP_JOBS:,}")
    keys = complete_job_keys([job.job_key for job in group.jobs])
    jobs, errors = _check_jobs(group.jobs, keys)
    return PreparedGroup(
        group_id=group_id,
        group=group,
        digest=group_digest(group.class_name, ((job.job_key, job.state) for job in group.jobs)),
        keys=keys,
        jobs=[_new_job(f"{token[:16]}.{number:06d}", job, group, home) for number, job in enumerate(jobs)],
        requests=Counter(job.request for job in jobs),
        errors=errors,
        spec=dumps(to_json(group)),
    )


def _new_job(agent_id: str, job: _Job, group: SubmitGroup, home: HostRef) -> NewJob:
    template = Template(
        agent_id=agent_id,
        home=home,
        class_name=group.class_name,
        request=to_json(job.request),
        files=_inputs(group.inputs, job.spec.inputs),
    )
    return NewJob(
        agent_id=agent_id,
        job_key=job.spec.job_key,
        request=dumps(template.request),
        cpu_cores=job.request.resources.cpu_cores,
        state=dumps(job.spec.state),
        template=dumps(to_json(template)),
        files=template.files,
    )


def template_rows(jobs: Iterable[NewJob]) -> Iterator[tuple[str, str]]:
    """Yield keys and values, as JSON, under which a collector keeps what further copies of the jobs are made of."""
    for job in jobs:
        yield template_key(job.job_key), job.template
        yield state_key(job.job_key), job.state


def _check_jobs(specs: tuple[JobSpec, ...], keys: tuple[str, ...]) -> tuple[list[_Job], tuple[CreationError, ...]]:
    jobs, errors = [], []
    for spec, key in zip(specs, keys, strict=True):
        try:
            if spec.error or spec.request is None:
                raise Invalid(spec.error or "the job has no request")
            request = check_request(from_json(SlotRequest, spec.request, "request"))
            jobs.append(_Job(spec=replace(spec, job_key=key), request=request))
        except PagletsError as error:
            errors.append(CreationError(job_key=key, message=error.message))
    return jobs, tuple(errors)


def _inputs(common: tuple[FileRef, ...], own: tuple[FileRef, ...]) -> tuple[FileRef, ...]:
    """A job's own input takes the place of a common one of its name."""
    return tuple({file.name: replace(file, attempt=0, registered=False) for file in (*common, *own)}.values())
