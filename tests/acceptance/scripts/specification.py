"""The specification's example as one script, its classes in `__main__`. Print the submission as JSON."""

import json
import sys
from dataclasses import dataclass

from paglets.remote.client import HostClient
from paglets.system.compute_slots import (
    CollectingComputeJobPaglet,
    CollectingComputeJobState,
    submit_compute_job_group,
)


@dataclass
class MyJobState(CollectingComputeJobState):
    dataset: str = ""
    value: int = 0


class MyJob(CollectingComputeJobPaglet[MyJobState]):
    State = MyJobState

    def run_compute_job(self) -> None:
        self.state.value = len(self.state.dataset)

    def build_result_payload(self) -> dict:
        return {"dataset": self.state.dataset, "value": self.state.value}


if __name__ == "__main__":
    states = [
        MyJobState(job_key="bundle-a", dataset="alpha", required_host_tags=("linux",)),
        MyJobState(job_key="bundle-b", dataset="beta", preferred_host_tags=("gpu",)),
    ]
    with HostClient() as client:
        submission = submit_compute_job_group(client, MyJob, states, return_home_when_complete=True)
        summary = submission.drain(60)
    json.dump(
        {"group_id": submission.group_id, "results": summary["results"], "failures": summary["failures"]}, sys.stdout
    )
