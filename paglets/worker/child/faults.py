"""What user code raised, as the record that travels."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import dropwhile
from pathlib import Path

from paglets.codec.class_names import LACKS_LIBRARY, this_python
from paglets.core.content import closed
from paglets.core.errors import ImportFailed, PagletsError
from paglets.program import this_program
from paglets.worker.child.disk_full import met_full_disk
from paglets.worker.launch import DISK_FULL, HOST_FILES_MISSING
from paglets.worker.protocol import Fault
from paglets.worker.scratch import scratch_bytes

MAX_MESSAGE_CHARACTERS = 4000
MAX_TRACEBACK_CHARACTERS = 30_000
"""The beginning shows how it was called, the end what happened: the middle of a longer one is left out."""

NOT_SENT = "not in the job's folder: send it as an input (docs/howto/send-files.md)"

_OWN_FOLDER = os.path.dirname(os.path.dirname(os.path.dirname((lambda: None).__code__.co_filename))) + os.sep
"""As it stands in frames: of code from an archive that is another path than `__file__`."""

_MACHINERY = (_OWN_FOLDER, "<frozen importlib.", os.path.dirname(importlib.__file__) + os.sep)


def fault_of(error: BaseException, cause: str = "exception") -> Fault:
    """The fault of `error`. What could not be imported has a cause of its own, whatever `cause` says: a class with
    its module, or, within the user's code, a library that this host lacks or cannot load."""
    return Fault(
        cause="import_failed" if isinstance(error, ImportFailed | ImportError) else cause,
        message=_text(_message(error), MAX_MESSAGE_CHARACTERS),
        traceback=_text(trace_of(error), MAX_TRACEBACK_CHARACTERS),
        code=error.code if isinstance(error, PagletsError) else "",
    )


def entry_fault_of(error: BaseException, work_dir: str) -> Fault:
    """The same for `done`, which also knows what is no doing of the paglet's."""
    fault = fault_of(error)
    if _lacks_files_of_its_host(error, work_dir):
        return replace(fault, cause=HOST_FILES_MISSING)
    if met_full_disk(_chain(error), work_dir):
        return replace(fault, cause=DISK_FULL, scratch_bytes=scratch_bytes(work_dir))
    return fault


def _lacks_files_of_its_host(error: BaseException, work_dir: str) -> bool:
    """Whether it came of this: the program cannot be read any more from where its host runs it, the code of the paglet
    could not be unpacked, or its scratch directory be used, as a folder of the host above it is closed."""
    program = str(this_program().path)
    for each in _chain(error):
        if isinstance(each, ImportFailed) and each.details.get("passes"):
            return True
        path = each.filename if isinstance(each, OSError) else None
        if isinstance(path, str) and (path == program or _is_shut_in(path, work_dir)):
            return True
    return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what led to it, each once: `raise error from error` makes it its own cause."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_shut_in(path: str, work_dir: str) -> bool:
    with suppress(OSError):
        return bool(work_dir) and path.startswith(work_dir) and bool(closed(Path(work_dir).parent))
    return True


def trace_of(error: BaseException) -> str:
    """The traceback as Python prints it, without the frames that lead from here to the user's code.

    "" for an error of ours that came from no user's line: its message says all.
    """
    is_import = isinstance(error, ImportFailed)
    # What the user's module raised says more than that it could not be imported, which is the fault's message.
    shown = error.__cause__ or error if is_import else error
    told = traceback.TracebackException.from_exception(shown)
    users = [frame for frame in told.stack if not _is_machinery(frame)]
    if users:
        frames = users if is_import else dropwhile(_is_machinery, told.stack)
        told.stack = traceback.StackSummary.from_list(frames)
    elif isinstance(shown, SyntaxError):
        told.stack.clear()
    elif isinstance(error, PagletsError):
        return ""
    return "".join(told.format())


def _is_machinery(frame: traceback.FrameSummary) -> bool:
    """Whether it is of paglets, or of Python's import system."""
    return frame.filename.startswith(_MACHINERY)


def show(error: BaseException) -> None:
    """Into the log of the paglet, too, where people look first."""
    trace, message = trace_of(error), _message(error)
    if isinstance(error, PagletsError) and message not in trace:
        say(message)
    sys.stderr.write(trace)


def say(text: str) -> None:
    """A line of ours in the log of the paglet."""
    sys.stderr.write(f"paglets: {text}\n")


def _message(error: BaseException) -> str:
    return error.message if isinstance(error, ImportFailed) else f"{type(error).__qualname__}: {_words(error)}"


def _words(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as second:
        return f"<its text cannot be had: {type(second).__qualname__}>"
    if isinstance(error, ModuleNotFoundError):
        return f"{text}: {this_python()} lacks it; {LACKS_LIBRARY}"
    return f"{text}; {NOT_SENT}" if _lacks_file_beside_script(error) else text


def _lacks_file_beside_script(error: BaseException) -> bool:
    """Return True for a relative path that was not found. A program that `subprocess` did not find is none."""
    if not isinstance(error, FileNotFoundError) or not isinstance(error.filename, str):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    is_program = bool(frames) and os.path.basename(frames[-1].filename) == "subprocess.py"
    return not os.path.isabs(error.filename) and not is_program


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
