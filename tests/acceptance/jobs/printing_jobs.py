"""Jobs that print."""

import os
import sys
import time
from dataclasses import dataclass

from paglets.system.compute_slots import CollectingComputeJobPaglet, CollectingComputeJobState


@dataclass(kw_only=True)
class PrintState(CollectingComputeJobState):
    how: str = "lines"
    lines: int = 3
    pause_seconds: float = 0.0
    failures: int = 0
    path: str = ""


class Prints(CollectingComputeJobPaglet[PrintState]):
    """A job that prints as `how` says. Its first `failures` attempts fail."""

    State = PrintState

    def run_compute_job(self) -> None:
        getattr(self, self.state.how)()
        if self.state.attempt <= self.state.failures:
            raise ValueError("not yet")

    def lines(self) -> None:
        for nth in range(self.state.lines):
            print(f"attempt {self.state.attempt} line {nth}")
            time.sleep(self.state.pause_seconds)
        print(f"attempt {self.state.attempt} is through", file=sys.stderr)

    def waits(self) -> None:
        """Wait for the file `path`."""
        print(f"attempt {self.state.attempt} waits", flush=True)
        while not os.path.exists(self.state.path):
            time.sleep(0.02)
        self.lines()

    def much(self) -> None:
        """Print 30 MiB, of which only a part is kept."""
        for nth in range(30):
            sys.stdout.write(f"{nth:07d}\n" * (1 << 17))

    def raw(self) -> None:
        sys.stdout.buffer.write(bytes(range(256)))
