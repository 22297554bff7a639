"""What user code raised, as the record that travels."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterable

from paglets.core.errors import ImportFailed, PagletsError
from paglets.worker.protocol import Fault

MAX_MESSAGE_CHARACTERS = 4000
MAX_TRACEBACK_CHARACTERS = 30_000
"""The beginning shows how it was called, the end what happened: the middle of a longer one is left out."""

_OWN_FOLDER = os.path.dirname(__file__) + os.sep


def fault_of(error: BaseException, cause: str = "exception") -> Fault:
    """The fault of `error`; ImportFailed has a cause of its own, whatever `cause` says."""
    message = f"{type(error).__qualname__}: {_words(error)}"
    if isinstance(error, ImportFailed):
        cause, message = "import_failed", error.message
    return Fault(
        cause=cause,
        message=_text(message, MAX_MESSAGE_CHARACTERS),
        traceback=_text(trace_of(error), MAX_TRACEBACK_CHARACTERS),
        code=error.code if isinstance(error, PagletsError) else "",
    )


def trace_of(error: BaseException) -> str:
    """The traceback as Python prints it, without the frames that lead from here to the user's code."""
    told = traceback.TracebackException.from_exception(error)
    frames = list(told.stack)
    while len(frames) > 1 and frames[0].filename.startswith(_OWN_FOLDER):
        del frames[0]
    told.stack = traceback.StackSummary.from_list(frames)
    return "".join(told.format())


def show(error: BaseException) -> None:
    """Into the log of the paglet, too, where people look first."""
    sys.stderr.write(trace_of(error))


def _words(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:
        return f"<its text cannot be had: {type(second).__qualname__}>"


def _text(text: str, most: int) -> str:
    """`text` without what cannot travel as JSON, and not longer than `most`."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    if len(plain) <= most:
        return plain
    return "".join(_ends(plain, most))


def _ends(text: str, most: int) -> Iterable[str]:
    head, tail = most // 4, most - most // 4
    yield text[:head]
    yield f"\n... {len(text) - most:,} characters ...\n"
    yield text[-tail:]
