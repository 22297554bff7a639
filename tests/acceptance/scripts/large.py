"""One job that reports a large file as its artifact to a collector on another host. Print the group's id.

usage: large.py BYTES COLLECTOR-HOST
"""

import hashlib
import sys
from dataclasses import dataclass

from paglets.remote.client import HostClient
from paglets.system.compute_slots import (
    CollectingComputeJobPaglet,
    CollectingComputeJobState,
    submit_compute_job_group,
)

PIECE = 1 << 20


@dataclass
class LargeState(CollectingComputeJobState):
    size_bytes: int = 0


class Large(CollectingComputeJobPaglet[LargeState]):
    State = LargeState

    def run_compute_job(self) -> None:
        digest = hashlib.sha256()
        path = self.work_dir() / "large.bin"
        with path.open("wb") as file:
            for number in range(self.state.size_bytes // PIECE):
                piece = hashlib.sha256(str(number).encode()).digest() * (PIECE // 32)
                digest.update(piece)
                file.write(piece)
        self.report_compute_artifact(path, result={"sha256": digest.hexdigest()}, move=True)


if __name__ == "__main__":
    state = LargeState(job_key="large", size_bytes=int(sys.argv[1]), required_host_tags=("linux",))
    with HostClient() as client:
        print(submit_compute_job_group(client, Large, [state], collector_host=sys.argv[2]).group_id)
