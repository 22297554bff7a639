"""The example of the specification, unchanged, and a paglet that submits it."""

from dataclasses import dataclass

from paglets.core.agent import Paglet, PagletState
from paglets.core.messages import Message
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


def states() -> list[MyJobState]:
    return [
        MyJobState(job_key="bundle-a", dataset="alpha", required_host_tags=("linux",)),
        MyJobState(job_key="bundle-b", dataset="beta", preferred_host_tags=("gpu",)),
    ]


@dataclass(kw_only=True)
class SubmitterState(PagletState):
    group_id: str = ""


class Submitter(Paglet[SubmitterState]):
    """A paglet that submits the example on request."""

    State = SubmitterState

    def handle_message(self, message: Message) -> object:
        if message.kind != "submit":
            return self.not_handled(message)
        submission = submit_compute_job_group(
            self.context,
            MyJob,
            states(),
            return_home_when_complete=True,
        )
        self.state.group_id = submission.group_id
        return {"group_id": submission.group_id, "jobs": submission.jobs, "errors": len(submission.creation_errors)}
