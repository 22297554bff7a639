"""A copy of a group's job, as it is made: the first with the group, further ones in place of those that are lost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paglets.codec.envelope import Envelope, JobPart
from paglets.core.refs import BlobRef, ProxyRef
from paglets.groups.records import Template


@dataclass(frozen=True, slots=True, kw_only=True)
class JobGroup:
    """What all jobs of a group have in common. `bundle`: their code."""

    group_id: str
    collector: ProxyRef
    bundle: BlobRef | None


def job_copy(
    agent_id: str,
    job_key: str,
    template: Template,
    state: Any,
    group: JobGroup,
    now: float,
    *,
    generation: int = 1,
    losses: int = 0,
) -> Envelope:
    """One that looks for a host from here. `losses`: how many copies were lost before it."""
    return Envelope(
        agent_id=agent_id,
        epoch=1,
        class_name=template.class_name,
        kind="job",
        state=state,
        home=template.home,
        created_at=now,
        storage={},
        job=JobPart(
            group_id=group.group_id,
            job_key=job_key,
            collector=group.collector,
            generation=generation,
            attempt=0,
            status="PLACING",
            request=template.request,
            submitted_state=state,
            losses=losses,
        ),
        bundle=group.bundle,
        files=template.files,
    )
