"""The interpreters of this machine that the archive is tested with."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

VERSIONS = ((3, 11), (3, 12), (3, 13), (3, 14))


def _find(version: tuple[int, int]) -> str | None:
    name = f"python{version[0]}.{version[1]}"
    managed = sorted(Path.home().glob(f".pyenv/versions/{version[0]}.{version[1]}.*/bin/{name}"))
    return sys.executable if version == sys.version_info[:2] else next(map(str, managed), shutil.which(name))


INTERPRETERS = {version: python for version in VERSIONS if (python := _find(version))}
