"""Import psutil and tomli_w, either installed or from the archive.

An extension module cannot be imported from a zip file. So the psutil of this platform is unpacked once from the archive
into a folder named by the hash of its wheel. paglets also works without psutil, but measures less; `psutil_problem`
returns the reason.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

from paglets.core.errors import StartFailed
from paglets.core.files import private_folder, rename_unless_there
from paglets.core.unpacked import MANIFEST, refuse_foreign
from paglets.program import Program, this_program
from paglets.wire.keys import paglets_home

DEFLATED = ".deflate"
"""The suffix of files in the archive that contain raw deflate data."""

OLDEST_PSUTIL = (5, 9)
"""The oldest psutil with wheels for the stable ABI. pyproject.toml requires the same version."""


def load_psutil() -> ModuleType | None:
    """Return psutil, or None if it cannot be imported. `psutil_problem` then returns the reason."""
    return _load()[0]


def psutil_problem() -> str:
    """Return the reason why psutil cannot be imported, or "" if it can."""
    return _load()[1]


@functools.cache
def _load() -> tuple[ModuleType | None, str]:
    installed, problem = _installed()
    if installed is not None:
        return installed, ""
    bundled, bundled_problem = _bundled(this_program(), os.environ)
    return bundled, "" if bundled is not None else f"{problem}; {bundled_problem}"


def _installed() -> tuple[ModuleType | None, str]:
    try:
        module = importlib.import_module("psutil")
    except ImportError as error:
        _forget()
        missing = isinstance(error, ModuleNotFoundError) and error.name == "psutil"
        return None, "psutil is not installed" if missing else f"the installed psutil is broken: {error}"
    if module.version_info < OLDEST_PSUTIL:
        _forget()
        return None, f"the installed psutil {module.__version__} is older than 5.9"
    return module, ""


def _forget() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "psutil"]:
        del sys.modules[name]


# Functions that unpack psutil from the archive and import it.


def platform_key() -> str:
    """Return the name of this platform in `archive.json`, such as linux-x86_64-glibc."""
    if sys.platform == "win32":
        machine = {"AMD64": "amd64", "ARM64": "arm64"}.get(os.environ.get("PROCESSOR_ARCHITECTURE", ""), "unknown")
        return f"win32-{machine}"
    machine = os.uname().machine
    return f"linux-{machine}-{_libc()}" if sys.platform == "linux" else f"{sys.platform}-{machine}"


def _libc() -> str:
    try:
        return "glibc" if os.confstr("CS_GNU_LIBC_VERSION") else "musl"
    except (ValueError, OSError):
        return "musl"


def _bundled(program: Program, environment: Mapping[str, str]) -> tuple[ModuleType | None, str]:
    if not program.archive:
        return None, "only paglets.pyz brings its own"
    brought = json.loads(program.read(MANIFEST))["psutil"]
    platform = platform_key()
    if platform not in brought["platforms"]:
        return None, f"paglets.pyz has none for {platform}"
    wheel = brought["platforms"][platform]
    files = {name: f"native/all/{name}" for name in brought["all"]}
    files[wheel["extension"]] = f"native/{platform}/{wheel['extension']}"
    problems: list[str] = []
    for cache in cache_folders(environment):
        try:
            return _import_from(unpacked(program, files, cache / str(wheel["sha256"]))), ""
        except (OSError, ImportError) as error:
            # The folder may be full, foreign, read-only or mounted noexec, or Python may lack zlib. Try the next one.
            _forget()
            problems.append(f"{cache}: {error}")
    return None, "the bundled one cannot be used: " + ("; ".join(problems) or "there is no folder to unpack it to")


def cache_folders(environment: Mapping[str, str]) -> Iterator[Path]:
    """Yield the folders where psutil may be unpacked, in order of preference."""
    # A missing home folder is no error, because the user may still have XDG_RUNTIME_DIR.
    with contextlib.suppress(StartFailed):
        yield paglets_home(environment) / "cache" / "native"
    runtime = environment.get("XDG_RUNTIME_DIR")
    if runtime:
        yield Path(runtime) / "paglets" / "native"


def unpacked(program: Program, files: Mapping[str, str], target: Path) -> Path:
    """Unpack `files` into the folder `target`, unless it exists, and return `target`. Raises OSError, ImportError.

    `files` maps names in `target` to names of compressed files in the archive. Several processes may call this at once:
    each fills a temporary folder, the first one renames it to `target`, and the others use `target`.
    """
    refuse_foreign(str(target))  # check before creating folders: root must not leave any in the home of another user
    private_folder(target.parent)
    if not target.is_dir():
        temporary = tempfile.mkdtemp(dir=target.parent)
        try:
            for name, compressed in files.items():
                path = Path(temporary, name)
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(_inflated(program.read(f"{compressed}{DEFLATED}")))
            rename_unless_there(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    refuse_foreign(str(target))
    return target


def _inflated(data: bytes) -> bytes:
    """Decompress a file that `build_zipapp.py` copied from a wheel in its compressed form."""
    # Imported only here: a Python without zlib can run everything else.
    zlib = importlib.import_module("zlib")
    content: bytes = zlib.decompress(data, -15)  # raw deflate without a header, as in a zip file
    return content


def _import_from(folder: Path) -> ModuleType:
    """Import psutil from `folder`. Leave sys.path unchanged, since the imports of jobs use it."""
    package = folder / "psutil"
    spec = importlib.util.spec_from_file_location(
        "psutil", package / "__init__.py", submodule_search_locations=[str(package)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{package} contains no module")
    module = importlib.util.module_from_spec(spec)
    sys.modules["psutil"] = module
    spec.loader.exec_module(module)
    return module


# The function below imports tomli_w.


def load_tomli_w() -> ModuleType:
    """Return an installed tomli_w, else the one of the archive. Raises ImportError if there is neither."""
    try:
        return importlib.import_module("tomli_w")
    except ModuleNotFoundError:
        program = this_program()
        folder = program.path / ("vendor" if program.is_copy else "src/vendor")
        sys.path.append(str(folder))
        importlib.invalidate_caches()
        return importlib.import_module("tomli_w")
