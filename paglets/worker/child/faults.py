"""Conversion of exceptions in user code to Fault records, which a child sends to its host."""

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
"""Maximum length of a traceback. A longer one loses its middle: the start shows the calls, the end shows the error."""

NOT_SENT = "not in the job's folder: send it as an input (docs/howto/send-files.md)"

_OWN_FOLDER = os.path.dirname(os.path.dirname(os.path.dirname((lambda: None).__code__.co_filename))) + os.sep
"""The folder of the package `paglets`, as it appears in traceback frames. In an archive it differs from `__file__`."""

_MACHINERY = (_OWN_FOLDER, "<frozen importlib.", os.path.dirname(importlib.__file__) + os.sep)


def fault_of(error: BaseException, cause: str = "exception") -> Fault:
    """Return the Fault for `error`. If an import failed, the cause is always `import_failed`, else it is `cause`."""
    return Fault(
        cause="import_failed" if isinstance(error, ImportFailed | ImportError) else cause,
        message=_text(_message(error), MAX_MESSAGE_CHARACTERS),
        traceback=_text(trace_of(error), MAX_TRACEBACK_CHARACTERS),
        code=error.code if isinstance(error, PagletsError) else "",
    )


def entry_fault_of(error: BaseException, work_dir: str) -> Fault:
    """Return the Fault for an error that ended an entry. Its cause may also be HOST_FILES_MISSING or DISK_FULL."""
    fault = fault_of(error)
    if _lacks_host_files(error, work_dir):
        return replace(fault, cause=HOST_FILES_MISSING)
    if met_full_disk(_chain(error), work_dir):
        return replace(fault, cause=DISK_FULL, scratch_bytes=scratch_bytes(work_dir))
    return fault


def _lacks_host_files(error: BaseException, work_dir: str) -> bool:
    """Return True if files of the host, not user code, caused the error.

    This is the case if the program file of paglets can no longer be read, if a disk error prevents unpacking the
    paglet's bundle, or if the folder above the scratch directory is missing, read-only or inaccessible.
    """
    program = str(this_program().path)
    for each in _chain(error):
        if isinstance(each, ImportFailed) and each.details.get("passes"):
            return True
        path = each.filename if isinstance(each, OSError) else None
        if isinstance(path, str) and (path == program or _is_in_closed_folder(path, work_dir)):
            return True
    return False


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and its causes. Each is yielded once, because an error can be its own cause."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_in_closed_folder(path: str, work_dir: str) -> bool:
    with suppress(OSError):
        return bool(work_dir) and path.startswith(work_dir) and bool(closed(Path(work_dir).parent))
    return True


def trace_of(error: BaseException) -> str:
    """Return the traceback as Python prints it, without the frames of paglets before the first frame of user code.

    Returns "" for a PagletsError without frames of user code, because its message is sufficient.
    """
    is_import = isinstance(error, ImportFailed)
    # Show the original error in the user's module: the message of the fault already says that the import failed.
    shown = error.__cause__ or error if is_import else error
    report = traceback.TracebackException.from_exception(shown)
    users = [frame for frame in report.stack if not _is_machinery(frame)]
    if users:
        frames = users if is_import else dropwhile(_is_machinery, report.stack)
        report.stack = traceback.StackSummary.from_list(frames)
    elif isinstance(shown, SyntaxError):
        report.stack.clear()
    elif isinstance(error, PagletsError):
        return ""
    return "".join(report.format())


def _is_machinery(frame: traceback.FrameSummary) -> bool:
    """Return True if the frame belongs to paglets or to Python's import system."""
    return frame.filename.startswith(_MACHINERY)


def show(error: BaseException) -> None:
    """Write an error and its traceback to stderr, which is the paglet's log."""
    trace, message = trace_of(error), _message(error)
    if isinstance(error, PagletsError) and message not in trace:
        say(message)
    sys.stderr.write(trace)


def say(text: str) -> None:
    """Write a line with the prefix `paglets:` to stderr, which is the paglet's log."""
    sys.stderr.write(f"paglets: {text}\n")


def _message(error: BaseException) -> str:
    return error.message if isinstance(error, ImportFailed) else f"{type(error).__qualname__}: {_words(error)}"


def _words(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as second:
        return f"<its text cannot be read: {type(second).__qualname__}>"
    if isinstance(error, ModuleNotFoundError):
        return f"{text}: {this_python()} lacks it; {LACKS_LIBRARY}"
    return f"{text}; {NOT_SENT}" if _lacks_file_beside_script(error) else text


def _lacks_file_beside_script(error: BaseException) -> bool:
    """Return True if a file with a relative path was not found, unless `subprocess` was looking for a program."""
    if not isinstance(error, FileNotFoundError) or not isinstance(error.filename, str):
        return False
    frames = traceback.extract_tb(error.__traceback__)
    is_program = bool(frames) and os.path.basename(frames[-1].filename) == "subprocess.py"
    return not os.path.isabs(error.filename) and not is_program


def _text(text: str, most: int) -> str:
    """Return `text` in a form that JSON can encode, cut to about `most` characters."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    if len(plain) <= most:
        return plain
    return "".join(_ends(plain, most))


def _ends(text: str, most: int) -> Iterable[str]:
    head, tail = most // 4, most - most // 4
    yield text[:head]
    yield f"\n... {len(text) - most:,} characters left out ...\n"
    yield text[-tail:]
