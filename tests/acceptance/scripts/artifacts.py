"""Jobs that build an SQLite file each and report it as an artifact, moved or copied. Print the outcome as JSON.

usage: artifacts.py COUNT ROWS [copy]
"""

import json
import sqlite3
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from paglets.remote.client import HostClient
from paglets.system.compute_slots import (
    CollectingComputeJobPaglet,
    CollectingComputeJobState,
    submit_compute_job_group,
)


def build_sqlite_result(path: Path, rows: int) -> None:
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("CREATE TABLE numbers (n INTEGER, text TEXT)")
        base.executemany("INSERT INTO numbers VALUES (?, ?)", ((n, "x" * 100) for n in range(rows)))


@dataclass
class MyJobState(CollectingComputeJobState):
    rows: int = 0
    move: bool = True


class MyJob(CollectingComputeJobPaglet[MyJobState]):
    State = MyJobState

    def run_compute_job(self) -> None:
        result_path = self.work_dir() / "result.db"
        build_sqlite_result(result_path, self.state.rows)
        first = self.report_compute_artifact(result_path, result={"bundle": self.state.job_key}, move=self.state.move)
        second = self.report_compute_success({"bundle": "a second report"})
        print("reports", first, second, "left", result_path.exists())


if __name__ == "__main__":
    count, rows, move = int(sys.argv[1]), int(sys.argv[2]), "copy" not in sys.argv[3:]
    states = [
        MyJobState(job_key=f"bundle-{number}", rows=rows, move=move, required_host_tags=("linux",))
        for number in range(count)
    ]
    with HostClient() as client:
        submission = submit_compute_job_group(client, MyJob, states)
        summary = submission.drain(100)
    json.dump({"group_id": submission.group_id, **summary}, sys.stdout)
