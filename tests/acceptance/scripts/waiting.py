"""Submit jobs at the host WHERE, one for each argument HOW, and wait for all. The last one waits for a file."""

import sys

from mesh_jobs import Task, TaskState

from paglets.remote.client import HostClient
from paglets.system.compute_slots import submit_compute_job_group

if __name__ == "__main__":
    where, group_id, collector, path, *hows = sys.argv[1:]
    states = [
        TaskState(
            job_key=f"j{nth}-{how}", how=how, path=path, required_host_tags=("linux",), excluded_host_tags=("gpu",)
        )
        for nth, how in enumerate(hows)
    ]
    submission = submit_compute_job_group(
        HostClient(where), Task, states, group_id=group_id, collector_host=collector or None
    )
    print("drained", submission.drain()["completed_count"])
