"""Stands at the root of paglets.pyz and puts the real package `paglets` in its own place.

An archive holds the program as bytecode for each Python that it was built for (cp311/, cp312/, ...) and as source
(src/) for any other. zipimport cannot choose among them, nor does it keep what it compiled: source alone would cost
every start of every process some 400 ms. This file takes the right tree, so that `python paglets.pyz` and
`PYTHONPATH=paglets.pyz python script.py` both import the same modules, under their one name `paglets.x`.

It is read by every Python from 2.7 on, only to say that a newer one is needed.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    raise ImportError("paglets needs Python 3.11 or newer; this is Python " + sys.version.split()[0])

import importlib.util
import os
import zipimport

_root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
_compiled = "cp" + "".join(map(str, sys.version_info[:2]))
for _name in (_compiled, "src") if sys.implementation.name == "cpython" else ("src",):
    _tree = os.path.join(_root, _name)
    _spec = zipimport.zipimporter(_tree).find_spec("paglets")
    if _spec is None or _spec.loader is None:
        continue
    _module = importlib.util.module_from_spec(_spec)
    sys.modules["paglets"] = _module
    try:
        _spec.loader.exec_module(_module)
    except zipimport.ZipImportError:
        # Bytecode of an early build of this Python version; the source works everywhere.
        continue
    # At the end, so that an installed tomli_w wins over the one in the archive.
    sys.path.append(_tree)
    break
else:
    raise ImportError("this paglets archive is damaged: it holds no program (" + _root + ")")
