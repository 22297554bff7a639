"""A script of a user: submit groups of trivial jobs, and print their times and its own processor time as JSON.

Arguments: the home host, the collector's host, the number of groups, the number of jobs of each, and the seconds that
each job sleeps.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from typing import Any

import paglets


@dataclass(kw_only=True)
class TimedState(paglets.JobState):
    seconds: float = 0.0
    began: float = 0.0
    ended: float = 0.0


class Timed(paglets.Job[TimedState]):
    State = TimedState

    def run_compute_job(self) -> None:
        self.state.began = time.time()
        time.sleep(self.state.seconds)
        self.state.ended = time.time()

    def build_result_payload(self) -> dict[str, float]:
        return {"began": self.state.began, "ended": self.state.ended}


def main() -> None:
    home, collector, groups, jobs, seconds = sys.argv[1:]
    client = paglets.HostClient(home)
    before = sum(os.times()[:2])
    found: list[dict[str, Any]] = []
    for _ in range(int(groups)):
        states = [
            TimedState(seconds=float(seconds), memory_bytes=1 << 20, required_host_tags=("worker",))
            for _ in range(int(jobs))
        ]
        began = time.time()
        submission = paglets.submit_compute_job_group(client, Timed, states, collector_host=collector)
        submitted = time.time()
        results = submission.drain(120, progress=False)["results"]
        ended = time.time()
        times = [record["result"] for record in results.values()]
        found.append({"began": began, "submitted": submitted, "ended": ended, "jobs": times})
    print(json.dumps({"groups": found, "cpu_seconds": sum(os.times()[:2]) - before}))


if __name__ == "__main__":
    main()
