"""The resources that simulated jobs request, and the isolation of their attempts."""

from __future__ import annotations

from paglets.core.clock import Entropy
from paglets.slots.model import Isolation, Resources

EQUAL_SHARE = 0.9
"""The share of jobs for warm workers that request the same resources."""


def some_resources(entropy: Entropy, offered: Resources, workers: float) -> tuple[Isolation, Resources]:
    """Return the isolation and the resources of a job. A share `workers` of jobs is for warm workers.

    `offered`: those of the machine that is to have room for the job.
    """
    for_worker = bool(workers) and entropy.uniform(0, 1) < workers
    if for_worker and entropy.uniform(0, 1) < EQUAL_SHARE:
        return "worker", Resources(cpu_cores=1)
    resources = Resources(
        cpu_cores=1 + entropy.pick(min(2, offered.cpu_cores)),
        memory_bytes=entropy.pick(3) * (offered.memory_bytes // 4),
    )
    return "worker" if for_worker else "process", resources
