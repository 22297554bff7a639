"""Descriptions of the ends of processes: the cause of the failure of a job, and a text for users."""

from __future__ import annotations

from signal import Signals

from paglets.worker.launch import EXIT_HOST_GONE, ProcessExit

LOST = "host_lost"
LAUNCHER_LOST = "launcher_lost"
KILLED_LAUNCHER = "killed_launcher"


def cause_of(how: ProcessExit) -> str:
    """Return the cause, such as "oom" or "exit:1", of the end of a process that stored no outcome."""
    if how.is_culprit:
        return KILLED_LAUNCHER
    if how.launcher_lost:
        return LAUNCHER_LOST if how.launcher_died else LOST
    if how.error:
        return "spawn_failed"
    if how.oom:
        return "oom"
    if how.signal is not None:
        return f"signal:{signal_name(how.signal)}"
    if how.exit_code:
        return f"exit:{how.exit_code}"
    return "no_result"


def signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return str(number)


def describe(how: ProcessExit, expected: str = "") -> str:
    """Return a text about the end of a process.

    `expected`: the event that did not happen before the end, such as "the hook returned"; "": a report of the job.
    """
    if how.error:
        return f"the process could not be started: {how.error}"
    if how.is_culprit:
        return "the job killed or stopped the process that starts jobs, which served no other job"
    if how.launcher_lost:
        what = "the process that starts jobs" if how.launcher_died else "its host"
        return f"the process was lost with {what}"
    if how.signal is not None:
        return f"the process was ended by {signal_name(how.signal)}"
    if how.exit_code == EXIT_HOST_GONE:
        return f"the process ended with exit code {how.exit_code}: usually, the job closed its connection to the host"
    if how.exit_code:
        return f"the process ended with exit code {how.exit_code} before {expected or 'it reported a result'}"
    return f"the process ended before {expected}" if expected else "the process ended without a report"
