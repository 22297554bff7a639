"""The script that this process runs, as the module that another process imports.

A class of `__main__` travels under the name of its file. Here, in the process of the script, that name means
`__main__` itself, so that there never is a second copy of the module.
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
"""The second is what `multiprocessing` calls it in the processes that it spawns."""

OWN_PACKAGE = "paglets"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """`name` is the module it travels as, `path` its file. `root` is the folder that its imports are looked up in."""

    name: str
    path: Path
    root: Path


def this_script() -> Script | None:
    """The script of this process; None for an interactive session, a notebook, `-c`, stdin and archives.

    After `python -m package.module` it has that name, else that of its file, or `main_` and eight digits of its
    content's hash where that is not free: no identifier, or a module that Python finds elsewhere. Of a symbolic link
    the file that it leads to counts: Python itself imports what lies beside that.
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
    """The folder above the top-level package of the module of that name and file."""
    parts = [*path.parent.parts, *([] if path.name == "__init__.py" else [path.stem])]
    names = module.split(".")
    return Path(*parts[: -len(names)]) if parts[-len(names) :] == names else path.parent


def is_host_module(name: str) -> bool:
    """Whether every host's interpreter has that module, by its first part."""
    top = name.partition(".")[0]
    return top == OWN_PACKAGE or top in sys.stdlib_module_names


def _is_free(path: Path) -> bool:
    """Whether the name of that file, as a module, means it and nothing else."""
    name = path.stem
    if not name.isidentifier() or name in MAIN_MODULES or is_host_module(name):
        return False
    loaded = getattr(sys.modules.get(name), "__file__", None)
    elsewhere = [entry for entry in sys.path if os.path.realpath(entry or os.curdir) != str(path.parent)]
    specs = (PathFinder.find_spec(name, [str(path.parent)]), PathFinder.find_spec(name, elsewhere))
    found = (loaded, *(spec.origin for spec in specs if spec is not None))
    return all(other is None or os.path.realpath(other) == str(path) for other in found)
