"""Files that a paglet or the jobs of a group begin with: all are looked at first, then published, equal ones once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from paglets.codec.bundle import Publisher
from paglets.core.content import hash_file, stat_of
from paglets.core.errors import FileChanged, Invalid
from paglets.core.refs import BlobRef, FileRef, check_file_name
from paglets.core.text import printable

InputPaths = Mapping[str, str | Path]
"""The name of a file in the scratch directory -> where it is now."""


class FilePublisher(Publisher, Protocol):
    """A paglet's context, or a HostClient."""

    def publish_file(self, path: str | Path) -> BlobRef: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A file that was found: a regular one that this process may read."""

    name: str
    path: Path
    size_bytes: int


def check_inputs(paths: InputPaths | None, whose: str = "") -> tuple[Input, ...]:
    """The files by name. Raises Invalid that names the first that cannot be one, and `whose` it is."""
    found = tuple(_checked(name, path, whose) for name, path in sorted((paths or {}).items()))
    check_apart((each.name for each in found), whose)
    return found


def check_apart(names: Iterable[str], whose: str) -> None:
    """Raises Invalid where two names are one in a scratch directory."""
    spellings: dict[str, str] = {}
    for name in names:
        folded = name.casefold()
        if folded in spellings:
            other = spellings[folded]
            wrong = "is given twice" if other == name else f"differs from {other!r} only in case"
            raise Invalid(f"{_of(whose)}input {name!r} {wrong}: give each file a name of its own")
        spellings[folded] = name


def _checked(name: str, path: str | Path, whose: str) -> Input:
    try:
        place = Path(path)
        size = stat_of(place).size_bytes
        check_file_name(name)
    except Invalid as error:
        raise Invalid(f"{_of(whose)}input {name!r}: {error.message}") from error
    if not os.access(place, os.R_OK):
        raise Invalid(f"{_of(whose)}input {name!r}: {printable(place)} cannot be read: no permission")
    return Input(name=name, path=place, size_bytes=size)


def _of(whose: str) -> str:
    return f"{whose}: " if whose else ""


class Published:
    """The files of some inputs, on the publisher's host. Those of equal size are hashed first: they may be equal."""

    def __init__(self, publisher: FilePublisher, inputs: Iterable[Input]) -> None:
        sizes = {each.path: each.size_bytes for each in inputs}
        alike = Counter(sizes.values())
        self._blobs: dict[Path, BlobRef] = {}
        by_hash: dict[str, BlobRef] = {}
        for path, size in sizes.items():
            known = hash_file(path) if alike[size] > 1 else None
            if known is None or known.sha256 not in by_hash:
                blob = publisher.publish_file(path)
                if known not in (None, blob):
                    raise FileChanged(f"{printable(path)} changed while it was sent: write it completely, then send it")
                by_hash[blob.sha256] = blob
            self._blobs[path] = blob if known is None else by_hash[known.sha256]

    def files(self, inputs: Iterable[Input]) -> tuple[FileRef, ...]:
        """The refs of these of them, as they travel."""
        blobs = ((each.name, self._blobs[each.path]) for each in inputs)
        return tuple(FileRef(name=name, sha256=blob.sha256, size_bytes=blob.size_bytes) for name, blob in blobs)


def publish_inputs(publisher: FilePublisher, paths: InputPaths | None) -> tuple[FileRef, ...]:
    """The files of one paglet, published. Raises Invalid before any is, FileChanged, NoRoom."""
    inputs = check_inputs(paths)
    return Published(publisher, inputs).files(inputs)
