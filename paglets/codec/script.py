"""The script that this process runs, as a module that another process can import.

A class of `__main__` is sent under the name of its file. In the process of the script, that name is resolved to
`__main__` itself, so that the module is never loaded twice.
"""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from functools import lru_cache
from importlib.machinery import PathFinder
from pathlib import Path

MAIN_MODULES = ("__main__", "__mp_main__")
"""Names of the main module. `__mp_main__` is its name in processes that `multiprocessing` spawns."""

OWN_PACKAGE = "paglets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A script. `name`: its module name in other processes. `root`: the folder in which its imports are looked up."""

    name: str
    path: Path
    root: Path


def this_script() -> Script | None:
    """Return the script of this process; None for an interactive session, a notebook, `-c`, stdin and archives.

    After `python -m package.module`, the name of the script is `package.module`, otherwise the name of its file. If the
    file name is no identifier, or Python finds another module under this name, the script is called `main_` and eight
    digits of the file's hash. Symbolic links are resolved, because Python imports from the folder of the link's target.
    """
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    if not isinstance(file, str):
        return None
    return _script_of(file, getattr(getattr(main, "__spec__", None), "name", ""))


@lru_cache(maxsize=16)
def _script_of(file: str, started_as: str) -> Script | None:
    if not os.path.isfile(file):
        return None
    if started_as not in ("", *MAIN_MODULES):
        path = Path(file).absolute()
        return Script(name=started_as, path=path, root=root_of(path, started_as))
    path = Path(file).resolve()
    name = path.stem if _is_free(path) else f"main_{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}"
    return Script(name=name, path=path, root=path.parent)


def root_of(path: Path, module: str) -> Path:
    """Return the folder above the top-level package of `module`, whose file is `path`.

    If the path does not end with the parts of the module's name, this is the folder of the file.
    """
    parts = [*path.parent.parts, *([] if path.name == "__init__.py" else [path.stem])]
    names = module.split(".")
    return Path(*parts[: -len(names)]) if parts[-len(names) :] == names else path.parent


def is_host_module(name: str) -> bool:
    """Return True if every host has the module `name`, because it belongs to the standard library or to paglets."""
    top = name.partition(".")[0]
    return top == OWN_PACKAGE or top in sys.stdlib_module_names


def _is_free(path: Path) -> bool:
    """Return True if Python finds no other module under the name of the file."""
    name = path.stem
    if not name.isidentifier() or name in MAIN_MODULES or is_host_module(name):
        return False
    loaded = getattr(sys.modules.get(name), "__file__", None)
    elsewhere = [entry for entry in sys.path if os.path.realpath(entry or os.curdir) != str(path.parent)]
    specs = (PathFinder.find_spec(name, [str(path.parent)]), PathFinder.find_spec(name, elsewhere))
    found = (loaded, *(spec.origin for spec in specs if spec is not None))
    return all(other is None or os.path.realpath(other) == str(path) for other in found)
