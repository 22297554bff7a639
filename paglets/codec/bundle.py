"""Bundles: the code that is sent with a paglet, as a reproducible zip of source files. A bundle is named by its hash.

A bundle contains the module of a class, and all modules that this module imports, transitively, if they are below the
root. The root is the folder of a script; for a module of a package it is the folder above the top-level package. A
bundle contains only `.py` files, and no code that hosts have: the standard library, paglets, and installed libraries.
Equal sources give equal bytes on any machine, at any time, for any user.
"""

from __future__ import annotations

import hashlib
import io
import os
import sys
import sysconfig
import unicodedata
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from paglets.codec.class_names import class_name, resolve_class
from paglets.codec.script import MAIN_MODULES, is_host_module, root_of, this_script
from paglets.codec.sources import Source, sources_below
from paglets.codec.tagged_json import class_names_in
from paglets.core.errors import Invalid
from paglets.core.refs import BlobRef

MAX_BUNDLE_BYTES = 20_000_000
"""Maximum size of a bundle, far more than the code of any project. Larger sources are probably data."""

MAX_BUNDLE_FILES = 5_000
SHOWN_FILES = 5
INSTALLED_FOLDERS = frozenset(("site-packages", "dist-packages"))

_FIRST_TIME = (1980, 1, 1, 0, 0, 0)
_REGULAR_FILE = 0o100600 << 16
_UNIX = 3
_RENAME = "rename one of them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A zip of source files (`data`), and its hash and size (`blob`)."""

    blob: BlobRef
    data: bytes


class BytesPublisher(Protocol):
    """A publisher of bytes. Its host stores the bytes, and keeps them while a paglet or artifact refers to them."""

    def publish_bytes(self, data: bytes) -> BlobRef: ...


def bundle_of(*classes: type) -> Bundle | None:
    """Return a bundle with the code of these classes; None if every host has that code.

    Raises Invalid for a class without a file, for a source that cannot be read or parsed, and for too much code.
    """
    packed = _Pack()
    for cls in classes:
        class_name(cls)
        place = _place_of(cls)
        if place is not None and not packed.has(*place[1:]):
            packed.add_all(sources_below(*place))
    return packed.bundle() if packed.sources else None


def publish_code(publisher: BytesPublisher, *classes: type, states: Iterable[Any] = ()) -> BlobRef | None:
    """Publish a bundle of these classes and of the classes named in the trees `states`. Return its blob.

    Returns None if every host has the code. The process of a paglet reuses the bundle from which it imported all these
    classes. Raises the errors of `bundle_of`, and ImportFailed for a class in `states` that cannot be imported.
    """
    classes = (*classes, *map(resolve_class, sorted(class_names_in(states))))
    own = [_bundle_around(cls) for cls in classes if _place_of(cls) is not None]
    if own and own[0] is not None and all(each == own[0] for each in own):
        return own[0]
    bundle = bundle_of(*classes)
    return None if bundle is None else publisher.publish_bytes(bundle.data)


# The code below remembers the bundles that this process imports from.

_unpacked_here: dict[str, BlobRef] = {}


def note_unpacked(folder: str, blob: BlobRef) -> None:
    """Remember that `folder`, which is in `sys.path` of this process, contains the unpacked bundle `blob`."""
    _unpacked_here[os.path.realpath(folder)] = blob


def _bundle_around(cls: type) -> BlobRef | None:
    file = os.path.realpath(getattr(sys.modules.get(cls.__module__), "__file__", None) or "")
    return next((blob for folder, blob in _unpacked_here.items() if file.startswith(folder + os.sep)), None)


# The code below selects and packs the content of a bundle.


def _place_of(cls: type) -> tuple[Path, str, Path] | None:
    """Return root, name and file of the module of `cls`; None if hosts have the module, or it has no source file."""
    if cls.__module__ in MAIN_MODULES:
        script = this_script()
        return None if script is None or _is_installed(script.path) else (script.root, script.name, script.path)
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if is_host_module(cls.__module__) or not file or not file.endswith(".py") or not os.path.isfile(file):
        return None
    path = Path(file).absolute()
    return None if _is_installed(path) else (root_of(path, cls.__module__), cls.__module__, path)


def _is_installed(path: Path) -> bool:
    return not INSTALLED_FOLDERS.isdisjoint(path.parts) or any(path.is_relative_to(each) for each in _libraries())


@lru_cache(maxsize=1)
def _libraries() -> tuple[Path, ...]:
    """Return the folders of installed libraries. They are cached, because a lookup takes half a millisecond."""
    return tuple(Path(sysconfig.get_path(name)) for name in ("purelib", "platlib"))


class _Pack:
    """The sources of a bundle, by their paths in the bundle. Each added source is checked against the limits."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}
        self._spellings: dict[str, str] = {}
        self._total_bytes = 0

    def has(self, module: str, path: Path) -> bool:
        """Return True if this module was added. All modules that it imports were then added, too."""
        return any((source.module, source.path) == (module, path) for source in self.sources.values())

    def add_all(self, sources: Iterable[Source]) -> None:
        """Add sources. Raises Invalid as soon as a limit is exceeded, so that no further files are read."""
        for source in sources:
            other = self.sources.setdefault(source.entry, source)
            if other.data != source.data:
                raise Invalid(f"{other.path} and {source.path} are both module {source.module}", hint=[_RENAME])
            if other is source:
                self._count(source)

    def _count(self, source: Source) -> None:
        clash = first_clash(source.entry, self._spellings)
        if clash:
            raise Invalid(
                f"{source.path}: {clash} differ only in case", hint=[f"{_RENAME}: some hosts cannot tell them apart"]
            )
        self._total_bytes += len(source.data)
        if self._total_bytes > MAX_BUNDLE_BYTES or len(self.sources) > MAX_BUNDLE_FILES:
            raise self._too_much()

    def _too_much(self) -> Invalid:
        largest = sorted(self.sources.values(), key=lambda source: (-len(source.data), source.entry))[:SHOWN_FILES]
        shown = ", ".join(f"{source.path} ({len(source.data) / 1e6:.1f} MB)" for source in largest)
        return Invalid(
            f"the code to send is over {MAX_BUNDLE_BYTES / 1e6:.0f} MB or {MAX_BUNDLE_FILES:,} files; largest: {shown}",
            hint=["put data into files other than .py and send them as `inputs`, or install the code on the hosts"],
        )

    def bundle(self) -> Bundle:
        data = zipped({entry: source.data for entry, source in self.sources.items()})
        return Bundle(blob=BlobRef(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)), data=data)


def first_clash(entry: str, spellings: dict[str, str]) -> str:
    """Return "a and b" if `entry` or a folder above it differs from an earlier path only in case, else "".

    `spellings`: the earlier paths. This function adds `entry` and the folders above it.
    """
    parts = entry.split("/")
    for end in range(1, len(parts) + 1):
        path = "/".join(parts[:end])
        other = spellings.setdefault(unicodedata.normalize("NFKC", path).casefold(), path)
        if other != path:
            return f"{other} and {path}"
    return ""


def zipped(files: Mapping[str, bytes]) -> bytes:
    """Return a zip that depends only on the content of these files: sorted, uncompressed, without times or users."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            info = zipfile.ZipInfo(name, _FIRST_TIME)
            info.create_system, info.external_attr = _UNIX, _REGULAR_FILE
            archive.writestr(info, files[name])
    return out.getvalue()
