"""Jobs with one artifact each. Its bytes follow from the job's key, so that any reader can verify them."""

import hashlib
import time
from dataclasses import dataclass

from paglets.system.compute_slots import CollectingComputeJobPaglet, CollectingComputeJobState


def content(job_key: str, size_bytes: int) -> bytes:
    return hashlib.shake_128(job_key.encode()).digest(size_bytes)


@dataclass(kw_only=True)
class BytesState(CollectingComputeJobState):
    seconds: float = 0.0
    size_bytes: int = 1000


class Bytes(CollectingComputeJobPaglet[BytesState]):
    """A job that works for `seconds`, then reports its bytes as the artifact `data.bin`. Without bytes it only reports
    the result."""

    State = BytesState

    def run_compute_job(self) -> None:
        time.sleep(self.state.seconds)
        data = content(self.state.job_key, self.state.size_bytes)
        result = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
        if not data:
            self.report_compute_success(result)
            return
        path = self.work_dir() / "data.bin"
        path.write_bytes(data)
        self.report_compute_artifact(path, result=result, move=True)
