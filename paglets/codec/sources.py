"""Search for the source files that a module needs. It follows import statements, without running code."""

from __future__ import annotations

import ast
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from paglets.codec.script import OWN_PACKAGE, is_host_module
from paglets.core.errors import Invalid

EXCLUDED_FOLDERS = frozenset(
    (
        *(".git", ".hg", ".venv", "venv", "env", "node_modules", "__pycache__", ".tox", ".mypy_cache"),
        *("build", "dist", "site-packages", "dist-packages"),
    )
)
"""Folders that are never searched, because tools create them."""

REMEMBERED_FILES = 512
"""Maximum number of files whose imports are cached, so that several submissions parse each file only once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The source file of a module. `data`: the content of the file."""

    module: str
    path: Path
    data: bytes
    is_package: bool = False

    @property
    def entry(self) -> str:
        """Return the path of the file in a bundle, at which Python on a host looks for the module."""
        return self.module.replace(".", "/") + ("/__init__.py" if self.is_package else ".py")


def sources_below(root: Path, module: str, path: Path) -> Iterator[Source]:
    """Yield the source of `module`, whose file is `path`, and of all modules that it needs below the folder `root`.

    Needed modules are those in import statements, transitively; the packages that contain them; and other modules of
    the same top-level packages that this process has loaded. Raises Invalid for a file that cannot be read or parsed.
    """
    yield from _Search(root).run(module, path)


class _Search:
    """A search for modules below one folder. `_waiting`: modules that were found and not yet read."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._found: dict[str, Path] = {}
        self._waiting: list[str] = []

    def run(self, module: str, path: Path) -> Iterator[Source]:
        self._look_for(module)
        # The file may have another name than the module, as for a script.
        self._add(module, path)
        while self._waiting:
            while self._waiting:
                source = self._read(self._waiting.pop())
                yield source
                for name in imported(source):
                    self._look_for(name)
            self._look_for_loaded()

    def _add(self, module: str, path: Path) -> None:
        if module not in self._found:
            self._waiting.append(module)
        self._found[module] = path

    def _look_for(self, module: str) -> None:
        """Add `module` and the packages that contain it, as far as they are below the root."""
        if is_host_module(module):
            _refuse_shadow(self._root, module.partition(".")[0])
            return
        folder, name = self._root, ""
        for part in module.split("."):
            name = f"{name}.{part}" if name else part
            place, file = folder / part, _file_of(folder, part)
            is_folder = os.path.isdir(place) if file is None else _is_package(file)
            if not (file or is_folder) or not _is_loaded_from(name, file or place):
                return
            if is_folder and part in EXCLUDED_FOLDERS:
                _refuse_excluded(name, place)
                return
            if file is not None:
                self._add(name, file)
            if not is_folder:
                return
            folder = place

    def _look_for_loaded(self) -> None:
        tops = {name.partition(".")[0] for name in self._found}
        for name in sorted(sys.modules):
            if (
                name not in self._found
                and name.partition(".")[0] in tops
                and getattr(sys.modules[name], "__file__", None)
            ):
                self._look_for(name)

    def _read(self, module: str) -> Source:
        path = self._found[module]
        try:
            data = path.read_bytes()
        except OSError as error:
            raise Invalid(f"the code of module {module} cannot be read: {path}: {error.strerror}") from error
        return Source(module=module, path=path, data=data, is_package=_is_package(path))


def _file_of(folder: Path, name: str) -> Path | None:
    """Return the source file of a module in `folder`; None for a namespace package or a missing module."""
    for path in (folder / name / "__init__.py", folder / f"{name}.py"):
        if os.path.isfile(path):
            return path
    return None


def _is_package(file: Path) -> bool:
    return file.name == "__init__.py"


def _loaded_file(name: str) -> str | None:
    return getattr(sys.modules.get(name), "__file__", None)


def _is_loaded_from(name: str, place: Path) -> bool:
    """Return True unless this process has loaded the module `name` from another file than `place`."""
    loaded = _loaded_file(name)
    return loaded is None or os.path.realpath(loaded) == os.path.realpath(place)


def _refuse_shadow(root: Path, name: str) -> None:
    """Raise Invalid if this process has loaded a user's module with the name of a module that every host has."""
    file = _file_of(root, name)
    if file is not None and _loaded_file(name) and _is_loaded_from(name, file) and name != OWN_PACKAGE:
        raise Invalid(f"{file} has the name of a module that every host has", hint=["rename it"])


def _refuse_excluded(name: str, folder: Path) -> None:
    """Raise Invalid if this process has loaded a module from a folder that is never sent."""
    if name in sys.modules:
        raise Invalid(
            f"module {name} is in {folder}, and folders of that name are never sent",
            hint=[f"rename it; folders that are never sent: {', '.join(sorted(EXCLUDED_FOLDERS))}"],
        )


@lru_cache(maxsize=REMEMBERED_FILES)
def imported(source: Source) -> tuple[str, ...]:
    """Return the full names of all modules that the imports in `source` may refer to.

    Raises Invalid if the source cannot be parsed.
    """
    return tuple(_imported(source))


def _imported(source: Source) -> Iterator[str]:
    package = source.module if source.is_package else source.module.rpartition(".")[0]
    for node in ast.walk(_tree(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _base(package, node)
            if base:
                yield base
                # Each imported name may be a module of the package, or an attribute of the package.
                yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")


def _base(package: str, node: ast.ImportFrom) -> str:
    """Return the module that `node` imports from; "" for a relative import beyond its top-level package."""
    if not node.level:
        return node.module or ""
    parts = package.split(".")
    above = parts[: len(parts) - node.level + 1]
    return ".".join((*above, *([node.module] if node.module else []))) if package and above else ""


def _tree(source: Source) -> ast.AST:
    try:
        with warnings.catch_warnings():
            # Hide the warnings, because Python shows them when the module runs.
            warnings.simplefilter("ignore")
            return ast.parse(source.data, str(source.path))
    except SyntaxError as error:
        # Python reports no line number for a file with null bytes.
        place = str(source.path) if error.lineno is None else f"{source.path}, line {error.lineno}"
        raise Invalid(f"{place}: {error.msg}", hint=["fix it, or do not import it"]) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise Invalid(f"{source.path} cannot be parsed as Python: {error or type(error).__name__}") from error
