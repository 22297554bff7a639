"""The tree of errors and the exit codes, as tables."""

from __future__ import annotations

import importlib
import pkgutil

import paglets
from docs.generator.markdown import code, doc_of, one_line, table
from paglets.core import errors

EXIT_MEANINGS = {
    "EXIT_DONE": "done, or the answer is yes",
    "EXIT_FAILED": "a job failed, the answer is no, or something named does not exist",
    "EXIT_USAGE": "wrong usage: the command line, a configuration file or a value",
    "EXIT_NEVER": "no host of the mesh can ever run this",
    "EXIT_UNREACHABLE": "the host that must answer cannot be reached",
    "EXIT_NOT_ALLOWED": "not allowed: no key, or another key",
    "EXIT_TIMED_OUT": "the time limit of a wait is over; what it waited for continues",
    "EXIT_CANCELLED": "cancelled",
    "EXIT_VERSIONS_DIFFER": "mesh version or protocol number differ",
    "EXIT_UNDECIDED": "the data of a host is damaged, older than before, or another host's: a person must decide",
    "EXIT_INTERRUPTED": "interrupted by Ctrl-C, which cancels nothing",
}


def parts() -> dict[str, str]:
    return {"errors": error_table(), "exit codes": exit_codes()}


def error_table() -> str:
    _import_all()
    found = _tree(errors.PagletsError)
    rows = [
        (code(each.code), str(each.status), str(each.exit_code), code(each.__name__), _about(each)) for each in found
    ]
    return table(("code", "HTTP status", "exit code", "class", "when"), rows)


def _about(cls: type) -> str:
    return one_line(doc_of(cls))


def _tree(cls: type[errors.PagletsError]) -> list[type[errors.PagletsError]]:
    """Return the class and all its subclasses that paglets defines."""
    below = [each for each in cls.__subclasses__() if each.__module__.startswith("paglets.")]
    return [cls] + [each for child in below for each in _tree(child)]


def _import_all() -> None:
    """Import every module that defines an error class."""
    for module in pkgutil.walk_packages(paglets.__path__, "paglets."):
        if not module.name.startswith(("paglets.testing", "paglets.__main__")):
            importlib.import_module(module.name)


def exit_codes() -> str:
    names = [name for name in vars(errors) if name.startswith("EXIT_")]
    return table(("code", "meaning"), [(str(getattr(errors, name)), EXIT_MEANINGS[name]) for name in names])
