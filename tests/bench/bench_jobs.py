"""Jobs of the benchmarks. The hosts import them from this folder."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from paglets.system.compute_slots import CollectingComputeJobPaglet, CollectingComputeJobState


@dataclass
class StampedState(CollectingComputeJobState):
    began: float = 0.0
    ended: float = 0.0


class Stamped(CollectingComputeJobPaglet[StampedState]):
    """A job that only reports the time of the machine's clock, which all hosts of the benchmark share."""

    State = StampedState

    def run_compute_job(self) -> None:
        self.state.began = time.time()
        self.state.ended = time.time()

    def build_result_payload(self) -> dict[str, Any]:
        return {"began": self.state.began, "ended": self.state.ended}


@dataclass
class LargeState(CollectingComputeJobState):
    size_bytes: int = 0


class Large(CollectingComputeJobPaglet[LargeState]):
    """A job that writes a unique file, reports the time, and reports the file as an artifact."""

    State = LargeState

    def run_compute_job(self) -> None:
        path = self.work_dir() / "large.bin"
        with path.open("wb") as file:
            block = os.urandom(1 << 20)
            for _ in range(self.state.size_bytes >> 20):
                file.write(block)
        self.report_compute_artifact(path, result={"began": time.time()}, move=True)
