"""Jobs that the tests submit. Each does the work that its state names."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

from paglets.system.compute_slots import CollectingComputeJobPaglet, CollectingComputeJobState

DAEMON = """\
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        with open(sys.argv[1] + ".new", "w") as file:
            file.write(str(os.getpid()))
        os.rename(sys.argv[1] + ".new", sys.argv[1])
        time.sleep(600)
"""


@dataclass(kw_only=True)
class TaskState(CollectingComputeJobState):
    how: str = "works"
    seconds: float = 0.0
    path: str = ""
    done: int = 0
    padding_bytes: int = 0


class Task(CollectingComputeJobPaglet[TaskState]):
    """A job that works for `seconds`, then does `how`. Its result has its start, end and attempt."""

    State = TaskState

    def run_compute_job(self) -> None:
        self.began = time.time()
        getattr(self, self.state.how)()

    def build_result_payload(self) -> dict:
        return {
            "pid": os.getpid(),
            "began": self.began,
            "ended": time.time(),
            "attempt": self.state.attempt,
            "generation": self.state.generation,
            "done": self.state.done,
            "padding": "x" * self.state.padding_bytes,
            "usable_cores": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [],
        }

    # The methods that `how` names.

    def works(self) -> None:
        time.sleep(self.state.seconds)

    def opens_a_file(self) -> None:
        """Create a file with the permissions that the umask leaves."""
        with open(self.state.path, "x") as file:
            file.write(str(self.work_dir()))

    def raises(self) -> None:
        print("about to raise", file=sys.stderr)
        raise ValueError("the data are wrong")

    def exits(self) -> None:
        print("about to exit", file=sys.stderr, flush=True)
        os._exit(3)

    def segfaults(self) -> None:
        print("about to crash", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)

    def writes(self) -> None:
        """Write to the scratch directory, which must be removed with the job."""
        for nth in range(20):
            (self.work_dir() / f"part-{nth}").write_bytes(b"x" * 1000)
        time.sleep(self.state.seconds)

    def puts_a_link_in_the_place_of_its_scratch(self) -> None:
        scratch = self.work_dir()
        scratch.rmdir()
        scratch.symlink_to(self.state.path)

    def puts_a_link_to_nowhere_in_the_place_of_its_scratch(self) -> None:
        scratch = self.work_dir()
        scratch.rmdir()
        scratch.symlink_to("/nowhere")

    def puts_a_link_to_nowhere_in_the_place_of_its_scratch_and_fails_twice(self) -> None:
        self.puts_a_link_to_nowhere_in_the_place_of_its_scratch()
        self.fails_twice()

    def puts_a_file_in_the_place_of_its_scratch_and_fails_twice(self) -> None:
        self.puts_a_file_in_the_place_of_its_scratch()
        self.fails_twice()

    def puts_a_file_in_the_place_of_its_scratch(self) -> None:
        scratch = self.work_dir()
        scratch.rmdir()
        scratch.touch()

    def leaves_a_daemon(self) -> None:
        """Start a grandchild in a session of its own, as daemons do. It outlives any process that does not look for it.

        It runs when the job ends, and its pid is in the file `path`.daemon.
        """
        subprocess.run([sys.executable, "-c", DAEMON, f"{self.state.path}.daemon"], check=True)
        self._wait_for("daemon")

    def ignores_the_end(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        self._say_running()
        time.sleep(600)

    def counts(self) -> None:
        """Count to 5 with a checkpoint at each step. Wait at 3 for the file `path`."""
        while self.state.done < 5:
            self.state.done += 1
            self.checkpoint()
            if self.state.done == 3:
                self._say_running()
                self._wait_for("go")

    def waits(self) -> None:
        """Wait until the file `path`.go exists, then work."""
        self._say_running()
        self._wait_for("go")
        self.works()

    def writes_three_mebibytes(self) -> None:
        (self.work_dir() / "data").write_bytes(bytes(3 << 20))

    def reports_and_stays(self) -> None:
        self.report_compute_success(self.build_result_payload())
        time.sleep(600)

    def kills_its_parent(self) -> None:
        """Kill the parent process once the file `path`.kill exists."""
        self._say_running()
        self._wait_for("kill")
        os.kill(os.getppid(), signal.SIGKILL)
        time.sleep(600)

    def makes_a_file(self) -> None:
        """Report a file once the file `path`.go exists. The file moves to the collector."""
        self.waits()
        file = self.work_dir() / "made.bin"
        file.write_bytes(b"made" * 1000)
        self.report_compute_artifact(file, move=True)

    def fails_twice(self) -> None:
        if self.state.attempt < 3:
            raise ValueError(f"attempt {self.state.attempt} fails")

    def _say_running(self) -> None:
        with open(f"{self.state.path}.running", "a") as file:
            file.write(f"{self.state.generation}.{self.state.attempt} {os.getpid()} {self.context.name}\n")

    def _wait_for(self, ending: str) -> None:
        while not os.path.exists(f"{self.state.path}.{ending}"):
            time.sleep(0.01)
