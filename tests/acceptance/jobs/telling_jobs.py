"""Jobs that read an input, print, notify a paglet on another host, and report a file."""

import os
import time
from dataclasses import dataclass

from paglets.core.messages import Message
from paglets.core.refs import ProxyRef
from paglets.system.compute_slots import CollectingComputeJobPaglet, CollectingComputeJobState


@dataclass(kw_only=True)
class TellingState(CollectingComputeJobState):
    target: ProxyRef | None = None
    path: str = ""


class Telling(CollectingComputeJobPaglet[TellingState]):
    """A job that waits for the file `path`, if given. The file that it reports is its input, twice."""

    State = TellingState

    def run_compute_job(self) -> None:
        data = self.file_path("input").read_bytes()
        print(f"{self.state.job_key} read {len(data)} bytes", flush=True)
        while self.state.path and not os.path.exists(self.state.path):
            time.sleep(0.02)
        if self.state.target is not None:
            self.post(self.state.target, Message("add", {"amount": 1}))
        print(f"{self.state.job_key} goes on", flush=True)
        path = self.work_dir() / "twice.bin"
        path.write_bytes(data + data)
        self.report_compute_artifact(path, result={"size_bytes": 2 * len(data)}, move=True)
