"""What Linux offers to keep a process tree together; elsewhere each of these answers that it did nothing."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path
from signal import SIGCONT, SIGKILL

RUN_VARIABLE = "PAGLETS_RUN"
"""The environment variable that marks every process of a run: its token."""

MARKER_CHARACTERS = 64
"""Room for a token in the environment that a zygote starts with; longer tokens leave no marker."""

OOM_SCORE = b"500"
"""Added to the badness of a paglet's process: when memory runs out it goes before its host and zygote,
yet what makes up the larger half of the machine's memory goes before it."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _library() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        return ctypes.CDLL(None, use_errno=True)
    except OSError:
        return None


_LIBC = _library()


def _prctl(option: int, value: int) -> bool:
    return _LIBC is not None and _LIBC.prctl(option, value, 0, 0, 0) == 0


def become_subreaper() -> bool:
    """Descendants whose parent ends become children of this process, whatever session they are in."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent() -> bool:
    """This process is killed when the thread that forked it ends; False where that cannot be had.

    A parent that ended before the call goes unnoticed: compare `os.getppid()` after it.
    """
    return _prctl(_PR_SET_PDEATHSIG, int(SIGKILL))


def resume_when_parent_ends() -> bool:
    """Let the system continue this process, if it is stopped, when the thread that started it ends."""
    return _prctl(_PR_SET_PDEATHSIG, int(SIGCONT))


def zygote_mark(store_id: str) -> str:
    """The marker of the zygotes of one host, as long as the room for a marker."""
    return f"zygote-{store_id}"[:MARKER_CHARACTERS].ljust(MARKER_CHARACTERS, "-")


def marker_room(store_id: str) -> dict[str, str]:
    """Return what to add to the environment of a zygote, so that its children can write their marker there."""
    return {RUN_VARIABLE: zygote_mark(store_id)}


def write_marker(token: str) -> bool:
    """Make this process and its later forks readable as those of `token` in /proc/PID/environ.

    That file shows the environment as it was when the program was started: what a fork sets is not seen
    there. So the token is written over the room that `marker_room` left, in place. Call it before the
    variable is set anew, which moves it elsewhere in memory.
    """
    if _LIBC is None:
        return False
    text = token.encode()
    getenv = _LIBC.getenv
    getenv.restype = ctypes.c_void_p
    place = getenv(RUN_VARIABLE.encode())
    if not place or len(text) > MARKER_CHARACTERS or len(ctypes.string_at(place)) != MARKER_CHARACTERS:
        return False
    ctypes.memmove(place, text.ljust(MARKER_CHARACTERS, b"\0"), MARKER_CHARACTERS)
    return True


def be_first_when_memory_runs_out() -> None:
    """Raise this process's own score with the kernel's OOM killer; needs no right, and may fail without harm."""
    try:
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    with suppress(OSError):
        os.write(descriptor, OOM_SCORE)
    os.close(descriptor)


def oom_kills() -> int:
    """How many processes of this machine the kernel killed for want of memory since it booted; 0 where unknown."""
    try:
        text = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)


def use_cores(cores: tuple[int, ...]) -> None:
    """Run on those of these cores that this process may use; none means all. Raises OSError.

    A host may offer more cores than there are, or be held to some of them by its container.
    """
    if cores and sys.platform == "linux":
        usable = os.sched_getaffinity(0).intersection(cores)
        if usable:
            os.sched_setaffinity(0, usable)
