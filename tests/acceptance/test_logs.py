"""The output of jobs, shown by a command at another host of the mesh than theirs."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from printing_jobs import Prints, PrintState

from paglets.system.compute_slots import Submission, submit_compute_job_group
from tests.acceptance.rig import PATIENCE_SECONDS, HostProcess, Mesh, wait_until


def submit(host: HostProcess, *states: PrintState) -> Submission:
    """Submit the states; the collector is not on the host with the tag `gpu`, which some tests stop."""
    return submit_compute_job_group(host.client, Prints, states, collector_host="linux-a")


def on_gpu(**wanted: object) -> PrintState:
    return PrintState(required_host_tags=("gpu",), **wanted)  # type: ignore[arg-type]


def wait_all_printed(host: HostProcess, job: str) -> None:
    """Wait until the output is complete. The report arrives before the last output is in the log."""

    def ended() -> bool:
        attempts = host.client.job_attempts(job).attempts
        return bool(attempts) and all(attempt.ended for attempt in attempts)

    wait_until(ended, what=f"{job} to have ended")


def lines(count: int, attempt: int = 1) -> str:
    return "".join(f"attempt {attempt} line {nth}\n" for nth in range(count))


def test_a_job_is_followed_from_another_host_to_its_end(three: Mesh) -> None:
    job = f"{submit(three['laptop'], on_gpu(job_key='slow', lines=30, pause_seconds=0.1)).group_id}/slow"
    shown = three.paglets("logs", job, "--follow", "--at", "linux-a")
    assert (shown.code, shown.out) == (0, lines(30))
    assert shown.err.splitlines()[-1] == "attempt 1 is through"


def test_what_a_job_printed_is_shown_after_its_end_each_stream_where_it_belongs(three: Mesh) -> None:
    submission = submit(three["laptop"], on_gpu(job_key="short"))
    submission.drain(timeout=PATIENCE_SECONDS)
    job = f"{submission.group_id}/short"
    wait_all_printed(three["laptop"], job)
    shown = three.paglets("jobs", "logs", job, "--at", "laptop")
    assert (shown.code, shown.out, shown.err) == (0, lines(3), "attempt 1 is through\n")
    shown = three.paglets("logs", job, "--stderr", "--at", "linux-a")
    assert (shown.code, shown.out, shown.err) == (0, "", "attempt 1 is through\n")
    shown = three.paglets("logs", job, "--stdout", "--tail", 2, "--at", "laptop")
    assert (shown.code, shown.out, shown.err) == (0, "attempt 1 line 1\nattempt 1 line 2\n", "")
    (attempt,) = three.paglets("logs", job, "--json", "--at", "laptop").json["attempts"]
    assert (attempt["host"]["name"], attempt["status"], attempt["ended"]) == ("gpu-a", "COMPLETED", True)
    shown = three.paglets("logs", attempt["agent_id"], "--stdout", "--at", "laptop")
    assert (shown.code, shown.out) == (0, lines(3))
    shown = three.paglets("logs", submission.group_id, "--tail", 1, "--at", "linux-a")
    assert (shown.code, shown.out, shown.err) == (0, "short: attempt 1 line 2\n", "short: attempt 1 is through\n")
    assert three.paglets("logs", submission.group_id, "-f", "--at", "laptop").code == 2


def test_all_attempts_of_a_job_that_is_tried_again_are_followed(three: Mesh, tmp_path: Path) -> None:
    go, followed = tmp_path / "go", tmp_path / "followed"
    state = on_gpu(job_key="stubborn", how="waits", path=str(go), failures=2, max_attempts=3)
    job = f"{submit(three['laptop'], state).group_id}/stubborn"
    follower = three.spawn("logs", job, "-f", "--stdout", "--at", "linux-a", output=followed)
    wait_until(lambda: "attempt 1 waits" in followed.read_text(), what="the first line of the log")
    go.touch()
    assert follower.wait(PATIENCE_SECONDS) == 0
    assert followed.read_text().endswith("attempt 3 on gpu-a:\nattempt 3 waits\n" + lines(3, attempt=3))
    shown = three.paglets("logs", job, "--attempt", 2, "--stdout", "--at", "laptop")
    assert (shown.code, shown.out) == (0, "attempt 2 waits\n" + lines(3, attempt=2))
    shown = three.paglets("logs", job, "--attempt", "1.7", "--at", "laptop")
    assert (shown.code, shown.complaint) == (
        1,
        "paglets: no online host knows that attempt of the job; known attempts: 1, 2, 3",
    )


def test_of_very_much_output_the_gap_is_told(three: Mesh) -> None:
    submission = submit(three["laptop"], on_gpu(job_key="much", how="much"))
    submission.drain(timeout=PATIENCE_SECONDS)
    wait_all_printed(three["laptop"], f"{submission.group_id}/much")
    shown = three.paglets("logs", f"{submission.group_id}/much", "--at", "laptop")
    assert shown.code == 0
    assert len(shown.out) == 10 << 20
    assert shown.out.startswith("0000000\n")
    assert shown.out.endswith("0000029\n")
    assert shown.err == f"[paglets: {20 << 20:,} bytes are missing]\n"
    shown = three.paglets("logs", f"{submission.group_id}/much", "--tail", 3, "--at", "laptop")
    assert (shown.out, shown.err) == ("0000029\n" * 3, "")


def test_a_job_that_waits_has_no_log_and_it_is_said_why(three: Mesh) -> None:
    submission = submit(three["laptop"], PrintState(job_key="never", required_host_tags=("cray",)))
    job = f"{submission.group_id}/never"
    shown = three.paglets("logs", job, "--at", "linux-a")
    assert shown.code == 0
    assert shown.complaint.startswith(f"paglets: {job} has not started: ")


def test_a_job_that_waits_is_waited_for_and_ctrl_c_ends_that(three: Mesh) -> None:
    submission = submit(three["laptop"], PrintState(job_key="never", required_host_tags=("cray",)))
    said = three.logs / "following"
    process: subprocess.Popen[bytes] = three.spawn(
        "logs", f"{submission.group_id}/never", "-f", "--at", "laptop", output=said
    )
    wait_until(lambda: "has not started" in said.read_text(), what="why it waits")
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_SECONDS) == 130
    *reasons, last = said.read_text().splitlines()
    # The first message may say that the job is being placed, and the next one why it cannot be.
    assert reasons
    assert [line for line in reasons if "has not started" not in line] == []
    assert last == f"{submission.group_id}/never: stopped following; the job continues"


def test_an_unknown_job_is_one_line_and_exit_code_1(three: Mesh) -> None:
    submission = submit(three["laptop"], on_gpu(job_key="there"))
    submission.drain(timeout=PATIENCE_SECONDS)
    for job, hint in (
        ("no-such-group/a", "no-such-group"),
        (f"{submission.group_id}/elsewhere", "lists its jobs"),
        ("no-such-id", "name a job as GROUP/JOBKEY"),
    ):
        shown = three.paglets("logs", job, "--at", "laptop")
        assert shown.code == 1
        assert hint in shown.err


def test_the_log_on_a_host_that_is_away_is_exit_code_4_until_it_is_back(three: Mesh) -> None:
    submission = submit(three["laptop"], on_gpu(job_key="away"))
    submission.drain(timeout=PATIENCE_SECONDS)
    job = f"{submission.group_id}/away"
    wait_all_printed(three["laptop"], job)
    three["gpu-a"].stop()
    shown = three.paglets("logs", job, "--at", "laptop", "--timeout", 3)
    assert shown.code == 4
    assert "gpu-a" in shown.complaint
    three["gpu-a"].restart()
    three.wait_joined()
    assert three.paglets("logs", job, "--stdout", "--at", "laptop").out == lines(3)


def test_a_host_that_is_away_for_a_moment_is_waited_for(three: Mesh, tmp_path: Path) -> None:
    go = tmp_path / "go"
    job = f"{submit(three['laptop'], on_gpu(job_key='cut', how='waits', path=str(go))).group_id}/cut"
    said = three.logs / "waiting"
    process: subprocess.Popen[bytes] = three.spawn("logs", job, "-f", "--at", "laptop", output=said)
    wait_until(lambda: "attempt 1 waits\n" in said.read_text(), what="its first line")
    three["gpu-a"].kill()
    wait_until(lambda: "waiting: " in said.read_text(), what="a word about the host that is away")
    go.touch()
    three["gpu-a"].restart()
    assert process.wait(PATIENCE_SECONDS) == 0
    assert "attempt 2 waits\n" + lines(3, attempt=2) in said.read_text()
