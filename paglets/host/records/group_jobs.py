"""The jobs of a group: check and encode a submission before its transaction, and create copies of jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from paglets.api.groups import CreationError, JobSpec, SubmitGroup
from paglets.api.limits import MAX_GROUP_JOBS
from paglets.codec.envelope import Envelope, JobPart
from paglets.codec.strict_json import dumps
from paglets.core.errors import Invalid, PagletsError
from paglets.core.record import from_json, to_json
from paglets.core.refs import BlobRef, FileRef, HostRef, ProxyRef, check_group_id
from paglets.groups.keys import complete_job_keys, group_digest, new_group_id
from paglets.groups.records import JobDescription
from paglets.groups.rows import description_key, state_key
from paglets.slots.model import SlotRequest, check_request
from paglets.store.newjobs import NewJob

MAX_SUBMISSIONS = 1_000_000
"""The maximum number of submissions with one group id. It keeps generations and epochs far below their limits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    spec: JobSpec
    request: SlotRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedGroup:
    """A checked submission. `keys`: of all jobs. `jobs`: the valid jobs. `requests`: their number for each request."""

    group_id: str
    group: SubmitGroup
    digest: str
    keys: tuple[str, ...]
    jobs: list[NewJob]
    requests: Counter[SlotRequest]
    errors: tuple[CreationError, ...]
    spec: str


def prepare(token: str, group: SubmitGroup, home: HostRef) -> PreparedGroup:
    """Check a submission, and encode its jobs as JSON. Raises Invalid.

    For a large group, this is most of the work. It is done before the transaction, which would block other writers.
    """
    group_id = check_group_id(group.group_id) if group.group_id else new_group_id(token)
    if not 0 <= group.submissions <= MAX_SUBMISSIONS:
        raise Invalid(f"submissions is {group.submissions}: expected 0 to {MAX_SUBMISSIONS:,}")
    if len(group.jobs) > MAX_GROUP_JOBS:
        excess = f"a group of {len(group.jobs):,} jobs is over the limit of {MAX_GROUP_JOBS:,}"
        raise Invalid(excess, hint=["submit several groups"])
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
    description = JobDescription(
        agent_id=agent_id,
        home=home,
        class_name=group.class_name,
        request=to_json(job.request),
        files=_inputs(group.inputs, job.spec.inputs),
    )
    return NewJob(
        agent_id=agent_id,
        job_key=job.spec.job_key,
        request=dumps(description.request),
        cpu_cores=job.request.resources.cpu_cores,
        state=dumps(job.spec.state),
        description=dumps(to_json(description)),
        files=description.files,
    )


def description_rows(jobs: Iterable[NewJob]) -> Iterator[tuple[str, str]]:
    """Yield rows for the storage of a collector, each as (storage key, JSON).

    The collector's host creates further copies of the jobs from these rows.
    """
    for job in jobs:
        yield description_key(job.job_key), job.description
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
    """Return the input files of a job: `common` of the group and `own`.

    An own file replaces a common one of the same name.
    """
    return tuple({file.name: replace(file, attempt=0, registered=False) for file in (*common, *own)}.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class JobGroup:
    """The values that all jobs of a group share. `bundle` is the blob with the code of the jobs, if any."""

    group_id: str
    collector: ProxyRef
    bundle: BlobRef | None


def job_copy(
    agent_id: str,
    job_key: str,
    description: JobDescription,
    state: Any,
    group: JobGroup,
    now: float,
    *,
    generation: int = 1,
    losses: int = 0,
) -> Envelope:
    """Return the envelope of a new copy of a job, which this host will place.

    `losses` is the number of earlier copies of the job that were lost.
    """
    return Envelope(
        agent_id=agent_id,
        epoch=1,
        class_name=description.class_name,
        kind="job",
        state=state,
        home=description.home,
        created_at=now,
        storage={},
        job=JobPart(
            group_id=group.group_id,
            job_key=job_key,
            collector=group.collector,
            generation=generation,
            attempt=0,
            status="PLACING",
            request=description.request,
            submitted_state=state,
            losses=losses,
        ),
        bundle=group.bundle,
        files=description.files,
    )
