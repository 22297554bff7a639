"""The choice of waiting jobs that a busy host (the victim) hands over to a host with free slots (the thief)."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from paglets.slots.eligibility import judge
from paglets.slots.granting import WaitingJob
from paglets.slots.model import Candidate, Resources
from paglets.slots.placing import preferred_matches

STOLEN_COOLDOWN_SECONDS = 60.0
"""Time for which a stolen job cannot be stolen again, so that two hosts do not steal it from each other in turns."""

BETTER_HOST_SECONDS = 5.0
"""Time that a job waits on a host with more of its preferred tags before a host with fewer may steal the job."""


def choose_stolen(
    waiting: Iterable[WaitingJob],
    *,
    thief: Candidate,
    victim: Candidate,
    free: Resources,
    would_start_next: int,
    most_jobs: int,
    mesh_version: str,
) -> tuple[str, ...]:
    """Return the agent ids of at most `most_jobs` jobs that move to `thief`, oldest first.

    `waiting`: the oldest jobs of the victim's queue, oldest first. `free`: the thief's resources that are not promised
    to other hosts. `would_start_next`: how many of the first jobs stay, because they start on the victim before they
    could arrive at the thief.
    """
    chosen: list[str] = []
    left = free
    for job in islice(waiting, would_start_next, None):
        if len(chosen) >= most_jobs or left.cpu_cores == 0:
            break
        if _may_go(job, thief, victim, mesh_version) and job.request.resources.fits(left):
            chosen.append(job.agent_id)
            left = left - job.request.resources
    return tuple(chosen)


def _may_go(job: WaitingJob, thief: Candidate, victim: Candidate, mesh_version: str) -> bool:
    if job.stolen and job.here_seconds < STOLEN_COOLDOWN_SECONDS:
        return False
    rules = job.request.rules
    is_better_here = preferred_matches(rules, victim) > preferred_matches(rules, thief)
    if is_better_here and job.here_seconds < BETTER_HOST_SECONDS:
        return False
    return judge(job.request, thief, home_store_id=job.home_store_id, mesh_version=mesh_version).eligible
