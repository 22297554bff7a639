"""The package `paglets` at the root of paglets.pyz, which imports the real package in its place.

The real package is imported from an unpacked copy of this archive in `PAGLETS_HOME/cache/app/CONTENT/`, which the first
start makes (`paglets/core/unpacking.py`). If no copy can be made or trusted, it is imported from the archive.
Everything works from there, but each start takes some 0.4 seconds longer.

`python paglets.pyz` and `PYTHONPATH=paglets.pyz python script.py` both import this file. Every Python since 2.7 can
read it, only to report that a newer version is needed.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    raise ImportError("paglets needs Python 3.11 or newer; this is Python " + sys.version.split()[0])

import importlib
import importlib.util
import os
import zipimport

CONTENT = ""
"""The hash of the files of the program. `build_zipapp.py` writes it here."""

_archive = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def _become(folder):
    """Import the package in this folder, or at this path in the archive, under the name `paglets`."""
    package = os.path.join(folder, "paglets")
    if folder.startswith(_archive + os.sep):
        spec = zipimport.zipimporter(folder).find_spec("paglets")
    else:
        spec = importlib.util.spec_from_file_location(
            "paglets", os.path.join(package, "__init__.py"), submodule_search_locations=[package]
        )
    module = importlib.util.module_from_spec(spec)
    module.__archive__ = (_archive, CONTENT)
    sys.modules["paglets"] = module
    spec.loader.exec_module(module)


def _alone(name):
    """Return a module of the archive's package that imports no other module of it."""
    spec = zipimport.zipimporter(os.path.join(_archive, "src", "paglets", "core")).find_spec(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _made(copies):
    """Make a whole, compiled copy with modules of the archive, and return it. Remove these modules afterwards."""
    _become(os.path.join(_archive, "src"))
    copy = importlib.import_module("paglets.core.unpacking").unpack(_archive, CONTENT, copies)
    for name in [name for name in sys.modules if name.partition(".")[0] == "paglets"]:
        del sys.modules[name]
    return copy


def _start():
    unpacked = _alone("unpacked")
    try:
        copies = unpacked.copies_folder(os.environ)
        copy = unpacked.find(CONTENT, copies)
        _become(copy if copy and unpacked.is_compiled(copy) else _made(copies))
    except Exception:  # no home, no space, not trusted or a damaged copy: `paglets.program` finds the reason again
        _become(os.path.join(_archive, "src"))


_start()
