"""Names of classes in messages and stores (`module:qualname`), and the import of classes by these names."""

from __future__ import annotations

import importlib
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, overload

from paglets.codec.script import MAIN_MODULES, this_script
from paglets.core.errors import ImportFailed, Invalid
from paglets.core.text import with_article

T = TypeVar("T")

MAX_NAME_CHARACTERS = 400
MAX_REASON_CHARACTERS = 500

LACKS_LIBRARY = (
    "install it there for that Python. Your own modules are sent only if an import statement names them and they are "
    "in or below the folder of the script, or of the class's top-level package"
)
"""Advice for a library that is not installed on a host."""

LACKS_CLASS = (
    "it did not come with the job: install it there for that Python, or start the host with --code-path FOLDER"
)
"""Advice if the module of a class was not sent, because it is in a library or its source was not found."""


def class_name(cls: type) -> str:
    """Return the name under which another process imports `cls`. The module of a script's class is `Script.name`.

    Raises Invalid for a class inside a function, and for a class of `__main__` if that has no file.
    """
    return check_class_name(f"{_module_name(cls)}:{cls.__qualname__}")


def _module_name(cls: type) -> str:
    if cls.__module__ not in MAIN_MODULES:
        return cls.__module__
    script, top = this_script(), cls.__qualname__.partition(".")[0]
    if script is None or not hasattr(sys.modules["__main__"], top):
        raise Invalid(
            f"class {cls.__qualname__} is in no file that can be sent: it was typed in a session, or is in an archive",
            hint=["define the class in a file, then run that file, or import the class from it"],
        )
    return script.name


def check_class_name(name: str) -> str:
    """Return `name` if it is a well-formed class name. Raises Invalid otherwise. This function imports nothing."""
    if "<locals>" in name:
        raise Invalid(
            f"{name[:100]!a}: a class inside a function cannot be sent; move it to the top level of its module"
        )
    module, colon, qualname = name.partition(":")
    parts = [*module.split("."), *qualname.split(".")]
    if not colon or len(name) > MAX_NAME_CHARACTERS or not all(part.isidentifier() for part in parts):
        raise Invalid(f"{name[:100]!a} does not name a class: write module:ClassName")
    return name


@overload
def resolve_class(name: str, *, host_name: str = ...) -> type[Any]: ...
@overload
def resolve_class(name: str, base: type[T], *, host_name: str = ...) -> type[T]: ...
def resolve_class(name: str, base: type[Any] | None = None, *, host_name: str = "") -> type[Any]:
    """Import and return the class of that name, which must be a subclass of `base` if given. User code runs.

    Raises Invalid for a malformed name, and ImportFailed (details: `class_name`, `module`, `interpreter`) if the
    class cannot be imported. `host_name`: the name of this host for the message.
    """
    module_name, _, qualname = check_class_name(name).partition(":")
    try:
        place: Any = _import(name, module_name)
        for part in qualname.split("."):
            place = getattr(place, part, None)
            if not isinstance(place, type):
                raise _NoSuchClass(f"{module_name} has no class {qualname}")
        if base is not None and not issubclass(place, base):
            raise _NoSuchClass(f"it is not {with_article(base.__qualname__)}")
    except _NoSuchClass as reason:
        raise _failure(name, str(reason), host_name) from reason.__cause__
    found: type[Any] = place
    return found


def import_module_of(module_name: str) -> None:
    """Import the module of a class, as `resolve_class` does. Raises any error of the import, including SystemExit."""
    with _importing(f"{module_name}:"):
        importlib.import_module(module_name)


class _NoSuchClass(Exception):
    """The module or class of a name does not exist, or the class is not a subclass of the required base."""


def _import(name: str, module_name: str) -> Any:
    script = this_script()
    if script is not None and script.name == module_name:
        return sys.modules["__main__"]
    try:
        with _importing(name):
            return importlib.import_module(module_name)
    except ImportFailed:
        raise
    except ModuleNotFoundError as error:
        is_own = error.name == module_name.partition(".")[0]
        raise _NoSuchClass(f"{error}; {LACKS_CLASS if is_own else LACKS_LIBRARY}") from error
    except (Exception, SystemExit) as error:
        # A module that exits during its import is a script without a main guard. It must not end this process.
        raise _NoSuchClass(f"{type(error).__name__}: {str(error)[:MAX_REASON_CHARACTERS]}") from error


def this_python() -> str:
    """Return a text with the path and version of the Python interpreter of this process."""
    return f"{sys.executable} (Python {platform.python_version()})"


def _failure(name: str, reason: str, host_name: str) -> ImportFailed:
    place = f" on {host_name}" if host_name else ""
    return ImportFailed(
        f"{name} cannot be imported{place} by {this_python()}: {reason}",
        class_name=name,
        module=name.partition(":")[0],
        interpreter=sys.executable,
    )


# Submissions are refused while a module is imported to find a class.


class _ImportGuard:
    """The state during the import of a module to find a class. `first`: the error if the module tried to submit."""

    def __init__(self, class_name: str) -> None:
        self.module, _, self.qualname = class_name.partition(":")
        self.first: ImportFailed | None = None

    def refuse(self) -> ImportFailed:
        self.first = ImportFailed(
            f'put the submission under `if __name__ == "__main__":` in module {self.module}: '
            f"a host imports it to run {self.qualname}"
        )
        return self.first


_current: ContextVar[_ImportGuard | None] = ContextVar("_current", default=None)


@contextmanager
def _importing(class_name: str) -> Iterator[None]:
    guard = _ImportGuard(class_name)
    token = _current.set(guard)
    try:
        yield
    except (Exception, SystemExit) as error:
        # The module may have caught the error of `refuse` and raised another one.
        if guard.first in (None, error):
            raise
        raise guard.first from error
    finally:
        _current.reset(token)


def refuse_while_importing() -> None:
    """Raise ImportFailed if this call comes from the import of a module by `resolve_class`.

    Without this check, a script without a main guard would submit again on each host that imports it.
    """
    guard = _current.get()
    if guard is not None:
        raise guard.refuse()
