"""Benchmarks of the built archive."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path


def print_figures(figures: Callable[[Path, Path], dict[str, object]]) -> None:
    """Print figures as one JSON line. `figures` is called with an empty folder and the archive."""
    archive = os.environ.get("PAGLETS_PYZ", "dist/paglets.pyz")
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(figures(Path(folder), Path(archive).absolute())))
