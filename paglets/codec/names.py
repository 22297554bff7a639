"""Classes by name: `module:qualname`, as it travels on the wire and lies in stores."""

from __future__ import annotations

import importlib
import sys
from typing import Any, TypeVar, overload

from paglets.core.errors import ImportFailed, Invalid

T = TypeVar("T")

MAX_NAME_CHARACTERS = 400


def class_name(cls: type) -> str:
    """The name under which another process imports `cls`.

    Raises Invalid for a class inside a function, and for one of a script: no other process has its `__main__`.
    """
    if cls.__module__ == "__main__":
        raise Invalid(
            f"class {cls.__qualname__} is in the script itself, where hosts cannot find it: "
            "put it into a module of its own, in a folder that the hosts import from (--code-path)"
        )
    return check_class_name(f"{cls.__module__}:{cls.__qualname__}")


def check_class_name(name: str) -> str:
    """`name` if it is well formed, else Invalid. Imports nothing."""
    if "<locals>" in name:
        raise Invalid(f"{name[:100]!a}: classes inside functions cannot travel; move it to the top level of its module")
    module, colon, qualname = name.partition(":")
    parts = [*module.split("."), *qualname.split(".")]
    if not colon or len(name) > MAX_NAME_CHARACTERS or not all(part.isidentifier() for part in parts):
        raise Invalid(f"{name[:100]!a} does not name a class: write module:ClassName")
    return name


@overload
def resolve_class(name: str) -> type[Any]: ...
@overload
def resolve_class(name: str, base: type[T]) -> type[T]: ...
def resolve_class(name: str, base: type[Any] | None = None) -> type[Any]:
    """The class of that name, a subclass of `base` where given. Imports its module: the user's code runs.

    Raises Invalid for a malformed name, ImportFailed (details: `class_name`, `module`, `interpreter`)
    where there is no such class.
    """
    module_name, _, qualname = check_class_name(name).partition(":")
    place: Any = _import(name, module_name)
    for part in qualname.split("."):
        place = getattr(place, part, None)
        if not isinstance(place, type):
            raise _failure(name, f"{module_name} has no class {qualname}")
    found: type[Any] = place
    if base is not None and not issubclass(found, base):
        raise _failure(name, f"it is not a {base.__qualname__}")
    return found


def _import(name: str, module_name: str) -> Any:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        hint = "start the host with --code-path FOLDER, or put the folder on its PYTHONPATH"
        raise _failure(name, f"{error}; {hint}" if error.name == module_name.split(".")[0] else str(error)) from error
    except (Exception, SystemExit) as error:
        # A module that exits when imported is a script without its main guard: no reason to end with it.
        raise _failure(name, f"{type(error).__name__}: {str(error)[:500]}") from error


def _failure(name: str, reason: str) -> ImportFailed:
    module_name = name.partition(":")[0]
    return ImportFailed(
        f"{name} cannot be imported by {sys.executable}: {reason}",
        class_name=name,
        module=module_name,
        interpreter=sys.executable,
    )
