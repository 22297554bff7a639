"""Projects of users in a folder, each run in a process of its own: what `__main__` is can be seen only there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

CLASS = "class Job:\n    pass\n"

LOOK = """
if __name__ == "__main__":
    import io, json, zipfile
    from paglets.codec.bundle import bundle_of
    from paglets.codec.class_names import class_name, resolve_class
    from paglets.core.errors import PagletsError
    try:
        bundle = bundle_of(Job)
        name = class_name(Job)
        told = {"name": name, "is_same": resolve_class(name) is Job}
        if bundle is not None:
            told["sha256"] = bundle.blob.sha256
            told["size"] = [bundle.blob.size_bytes, len(bundle.data)]
            told["files"] = zipfile.ZipFile(io.BytesIO(bundle.data)).namelist()
    except PagletsError as error:
        told = {"error": " ".join([error.message, *error.advice()]), "code": error.code}
    print(json.dumps(told))
"""
"""The end of a script: says what the bundle of its class `Job` is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a script said of its class."""

    name: str = ""
    is_same: bool = False
    sha256: str = ""
    size: list[int] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    error: str = ""
    code: str = ""


class Project:
    """A folder of source files."""

    def __init__(self, folder: Path, files: dict[str, str]) -> None:
        self.folder = folder
        for name, text in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def run(self, *words: object, **environment: str) -> Told:
        """`python WORDS` in the folder; what it said."""
        done = run_python(*words, folder=self.folder, **environment)
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return Told(**told)


def run_python(
    *words: object, folder: Path, given: str | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`python WORDS` with paglets and the folders of PYTHONPATH to import from, `given` as its stdin."""
    paths = os.pathsep.join(filter(None, (str(ROOT), environment.pop("PYTHONPATH", ""))))
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PAGLETS"))}
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env=clean | environment | {"PYTHONPATH": paths},
        input=given or "",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
