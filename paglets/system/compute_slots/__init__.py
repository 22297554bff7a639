"""The public names for authors of compute jobs.

Messages and databases contain the path of this module in the names of classes, so this path never changes.
"""

from __future__ import annotations

from paglets.core.agent import HookEvent
from paglets.system.collector import ResultCollectorPaglet, ResultCollectorState
from paglets.system.jobs import (
    CollectingComputeJobPaglet,
    CollectingComputeJobState,
    ComputeJobPaglet,
    ComputeJobState,
)
from paglets.system.submission import Submission, submit_compute_job_group

__all__ = [  # noqa: RUF022  grouped by use
    # Jobs
    "ComputeJobPaglet",
    "ComputeJobState",
    "CollectingComputeJobPaglet",
    "CollectingComputeJobState",
    "HookEvent",
    # The collector of jobs
    "ResultCollectorPaglet",
    "ResultCollectorState",
    # Submission of jobs
    "Submission",
    "submit_compute_job_group",
]  # fmt: skip

for _public in (
    ComputeJobPaglet,
    ComputeJobState,
    CollectingComputeJobPaglet,
    CollectingComputeJobState,
    ResultCollectorPaglet,
    ResultCollectorState,
    Submission,
    submit_compute_job_group,
):
    _public.__module__ = __name__
