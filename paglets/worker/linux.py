"""Linux functions that keep track of process trees and limit them. They have no effect on other systems."""

from __future__ import annotations

import ctypes
import os
import sys
from contextlib import suppress
from pathlib import Path
from signal import SIGCONT, SIGKILL

RUN_VARIABLE = "PAGLETS_RUN"
"""Environment variable with the token of a run. It marks all processes of the run."""

MARKER_CHARACTERS = 64
"""Size of the placeholder for a token in the environment of a zygote. Longer tokens cannot be written there."""

OOM_SCORE = b"500"
"""Value of oom_score_adj for the process of a paglet. When memory runs out, the kernel kills that process before its
host and zygote, but after any process that uses more than half of the machine's memory."""

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def _library() -> ctypes.CDLL | None:
    if sys.platform != "linux":
        return None
    try:
        library = ctypes.CDLL(None, use_errno=True)
    except OSError:
        return None
    library.getenv.restype = ctypes.c_void_p
    return library


_LIBC = _library()


def _prctl(option: int, value: int) -> bool:
    return _LIBC is not None and _LIBC.prctl(option, value, 0, 0, 0) == 0


def become_subreaper() -> bool:
    """Make this process the parent of descendants whose own parent ends. Return False if that is not supported."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_with_parent() -> bool:
    """Have the kernel kill this process when the thread that forked it ends. Return False if that is not supported.

    If the parent ended before the call, the kernel does nothing. The caller must check `os.getppid()` afterwards.
    """
    return _prctl(_PR_SET_PDEATHSIG, int(SIGKILL))


def resume_when_parent_ends() -> bool:
    """Have the kernel send SIGCONT to this process when the thread that started it ends."""
    return _prctl(_PR_SET_PDEATHSIG, int(SIGCONT))


def has_children() -> bool:
    """Return True if this process has a child, which may have ended."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def zygote_mark(store_id: str) -> str:
    """Return the marker for the zygotes of a host, padded to MARKER_CHARACTERS."""
    return f"zygote-{store_id}"[:MARKER_CHARACTERS].ljust(MARKER_CHARACTERS, "-")


def template_mark(token: str) -> str:
    """Return the token of a template that was requested for the run `token`, padded to MARKER_CHARACTERS."""
    return f"template-{token}"[:MARKER_CHARACTERS].ljust(MARKER_CHARACTERS, "-")


def worker_mark(token: str) -> str:
    """Return the token of a warm worker whose first run has `token`."""
    return f"worker-{token}"[:MARKER_CHARACTERS].ljust(MARKER_CHARACTERS, "-")


def marker_placeholder(store_id: str) -> dict[str, str]:
    """Return the environment variable that a zygote needs so that `write_marker` works in its children."""
    return {RUN_VARIABLE: zygote_mark(store_id)}


def write_marker(token: str) -> bool:
    """Write `token` into the /proc/PID/environ of this process and its later forks. Return False if not possible.

    That file shows the memory that held the environment when the program started, not variables that were set later.
    The token is therefore written over the placeholder from `marker_placeholder`. Call this before RUN_VARIABLE is set
    in `os.environ`, because that moves the variable to other memory.
    """
    if _LIBC is None:
        return False
    text = token.encode()
    place = _LIBC.getenv(RUN_VARIABLE.encode())
    if not place or len(text) > MARKER_CHARACTERS or len(ctypes.string_at(place)) != MARKER_CHARACTERS:
        return False
    ctypes.memmove(place, text.ljust(MARKER_CHARACTERS, b"\0"), MARKER_CHARACTERS)
    return True


def raise_oom_score() -> None:
    """Make the kernel's OOM killer prefer this process to its host and zygote. Errors are ignored."""
    try:
        descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return
    with suppress(OSError):
        os.write(descriptor, OOM_SCORE)
    os.close(descriptor)


def oom_kills() -> int:
    """Return how many processes the kernel killed since boot because memory ran out; 0 if that is unknown."""
    try:
        text = Path("/proc/vmstat").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)


def killed_for_memory(status: int, kills_before: int) -> bool:
    """Return True if a process was probably killed by the kernel, because memory ran out.

    This is the case if SIGKILL ended the process, and `oom_kills` now exceeds `kills_before`. `status`: the status of
    the process, as from `os.waitpid`.
    """
    return status == SIGKILL and oom_kills() > kills_before


def use_cores(cores: tuple[int, ...]) -> None:
    """Bind this process to `cores`. Do nothing if the tuple is empty. Raises OSError.

    Cores that the machine lacks, or that its container does not allow, are ignored.
    """
    if cores and sys.platform == "linux":
        usable = os.sched_getaffinity(0).intersection(cores)
        if usable:
            os.sched_setaffinity(0, usable)


def own_memory() -> int:
    """Return the bytes of memory that this process uses, in RAM and swap, without the pages of mapped files."""
    with open("/proc/self/status", "rb") as file:
        return 1024 * sum(int(line.split()[1]) for line in file if line.startswith(_NOT_OF_FILES))


_NOT_OF_FILES = (b"RssAnon:", b"RssShmem:", b"VmSwap:")
