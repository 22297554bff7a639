"""Jobs that take a file home: `leaving.py GROUP CLASS FOLDER KEY...`. A key selects how the hook of its job fails.

A successful hook copies its file to FOLDER/KEY. Files in FOLDER let the others succeed: `column` for `absent`, `road`
for `dispatching`. Jobs of class `Held` wait for `release`.
"""

from __future__ import annotations

import os
import signal
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
class LeavingState(CollectingComputeJobState):
    folder: str = ""


class Plain(CollectingComputeJobPaglet[LeavingState]):
    """A job like the file sample of the specification, without a hook of its own."""

    State = LeavingState

    def run_compute_job(self) -> None:
        path = self.work_dir() / "result.db"
        path.write_text(f"rows of {self.state.job_key}")
        print("computed")
        self.register_file(path, name="result.db", mode="move")
        self.dispatch_to(self.state.home_host_name)


class Held(Plain):
    def run_compute_job(self) -> None:
        while not Path(self.state.folder, "release").exists():
            time.sleep(0.05)
        super().run_compute_job()


class Hooked(Plain):
    def on_arrival(self) -> None:
        key, folder = self.state.job_key, Path(self.state.folder)
        print(f"arrived with {key}")
        if key == "raises":
            raise ValueError("no column x")
        if key == "imports":
            import no_such_library  # noqa: F401
        if key == "exits":
            os._exit(3)
        if key == "leaves":
            sys.exit(0)
        if key == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if key == "absent":
            (folder / "column").read_text()
        (folder / key).write_text(self.file_path("result.db").read_text())

    def on_dispatching(self) -> None:
        if self.state.job_key == "dispatching" and not Path(self.state.folder, "road").exists():
            raise KeyError("no road")


if __name__ == "__main__":
    group, name, folder, *keys = sys.argv[1:]
    states = [LeavingState(job_key=key, folder=folder, required_host_tags=("linux",)) for key in keys]
    cls = {each.__name__: each for each in (Plain, Held, Hooked)}[name]
    submission = submit_compute_job_group(HostClient(), cls, states, group_id=group, collector_host="linux-a")
    if cls is not Held:
        print(submission.drain(60)["completed_count"])
