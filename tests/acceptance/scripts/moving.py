"""A job that registers its result to move, and goes home with it. Print the group's id.

usage: moving.py BYTES KEPT-PATH [RELEASE-PATH]
The job starts to work once RELEASE-PATH exists. At home `on_arrival` copies the file to KEPT-PATH.
"""

import os
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from paglets.remote.client import HostClient
from paglets.system.compute_slots import (
    CollectingComputeJobPaglet,
    CollectingComputeJobState,
    submit_compute_job_group,
)


@dataclass
class MovingState(CollectingComputeJobState):
    size_bytes: int = 0
    kept: str = ""
    release: str = ""


class Moving(CollectingComputeJobPaglet[MovingState]):
    State = MovingState

    def run_compute_job(self) -> None:
        while self.state.release and not Path(self.state.release).exists():
            time.sleep(0.05)
        result_path = self.work_dir() / "result.bin"
        with result_path.open("wb") as file:
            for _ in range(self.state.size_bytes // 1000):
                file.write(os.urandom(1000))
        self.register_file(result_path, name="result.bin", mode="move")
        self.dispatch_to(self.state.home_host_name)

    def on_arrival(self) -> None:
        draft = Path(self.state.kept + ".new")
        shutil.copyfile(self.file_path("result.bin"), draft)
        draft.rename(self.state.kept)


if __name__ == "__main__":
    state = MovingState(
        job_key="moving",
        size_bytes=int(sys.argv[1]),
        kept=sys.argv[2],
        release="".join(sys.argv[3:]),
        required_host_tags=("linux",),
    )
    with HostClient() as client:
        submission = submit_compute_job_group(client, Moving, [state])
        submission.wait_detached(60)
        print(submission.group_id)
