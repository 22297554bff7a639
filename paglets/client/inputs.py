"""Input files of paglets and jobs: check all files, then upload them. Files with equal bytes are uploaded once.

A host deletes uploaded bytes after an hour if no request refers to them. If the upload of the other files takes longer,
`UploadSession` uploads deleted bytes again.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from paglets.api.groups import SubmitGroup
from paglets.client.kept_blobs import KeptBlobs
from paglets.client.pacing import Progress
from paglets.codec.bundle import BytesPublisher
from paglets.core.clock import Clock, SystemClock
from paglets.core.content import hash_file, stat_of
from paglets.core.databases import database_at
from paglets.core.errors import Conflict, FileChanged, Invalid, PagletsError
from paglets.core.refs import BlobRef, FileRef, check_file_name
from paglets.core.text import printable, type_of

T = TypeVar("T")

RENEW_SECONDS = 300.0
"""Seconds between requests for the state of uploaded blobs. Each request makes the host keep them for another hour."""

SUBMIT_ATTEMPTS = 3
InputPaths = Mapping[str, str | Path]
"""Paths of input files. Each key is the name that the file gets in the scratch directory."""


class FilePublisher(BytesPublisher, Protocol):
    """A publisher of files: the context of a paglet, or a HostClient."""

    def publish_file(self, path: str | Path) -> BlobRef: ...


@runtime_checkable
class RenewingPublisher(Protocol):
    """A publisher whose host deletes unused blobs after an hour: a HostClient.

    The context of a paglet is not such a publisher, because its host keeps the blobs that a running paglet publishes.
    """

    def publish_file(self, path: str | Path, progress: Progress) -> BlobRef: ...

    def missing_blobs(self, blobs: Iterable[BlobRef]) -> tuple[BlobRef, ...]:
        """Return those of `blobs` that the host lacks. The host keeps the others for another hour."""
        ...


@runtime_checkable
class RememberingPublisher(Protocol):
    """A publisher that remembers what its host keeps: a HostClient."""

    kept_blobs: KeptBlobs


class UploadSession:
    """A publisher of the blobs for one request. `submit` makes sure that the host has all of them."""

    def __init__(self, publisher: FilePublisher, clock: Clock | None = None) -> None:
        self._publisher = publisher
        self._clock = clock or SystemClock()
        self._again: dict[BlobRef, Callable[[], BlobRef]] = {}
        self._lost: dict[BlobRef, None] = {}
        self._renew_at = float("inf")

    def publish_bytes(self, data: bytes) -> BlobRef:
        """Upload bytes, unless the host keeps them from a recent upload of this client."""
        publisher = self._publisher
        if not isinstance(publisher, RememberingPublisher):
            return self._published(lambda: self._publisher.publish_bytes(data))
        kept = publisher.kept_blobs

        def upload() -> BlobRef:
            blob = self._publisher.publish_bytes(data)
            kept.note(blob)
            return blob

        return self._published(upload, kept.find(data))

    def publish_file(self, path: str | Path) -> BlobRef:
        publisher = self._publisher
        if isinstance(publisher, RenewingPublisher):
            return self._published(lambda: publisher.publish_file(path, self._meanwhile))
        return self._published(lambda: publisher.publish_file(path))

    def _published(self, publish: Callable[[], BlobRef], known: BlobRef | None = None) -> BlobRef:
        blob = known or publish()
        if not self._again:
            self._renew_at = self._clock.monotonic() + RENEW_SECONDS
        self._again[blob] = publish
        return blob

    def _meanwhile(self, what: str, done: int, total: int) -> None:
        """Make the host keep earlier blobs during the upload of a large file. This is a progress callback."""
        try:
            self._renew()
        except PagletsError as error:
            if not error.retryable:
                raise

    def _renew(self) -> None:
        if isinstance(self._publisher, RenewingPublisher) and self._clock.monotonic() >= self._renew_at:
            self._renew_at = self._clock.monotonic() + RENEW_SECONDS
            self._lost.update(dict.fromkeys(self._publisher.missing_blobs(self._again)))

    def submit(self, send: Callable[[], T]) -> T:
        """Upload the blobs that the host has deleted, then call `send`, which sends the request. Return its result.

        Raises the errors of `send`, and FileChanged.
        """
        for _ in range(SUBMIT_ATTEMPTS):
            self._renew()
            self._send_lost()
            try:
                return send()
            except Conflict as error:
                self._lost = self._named(error.details.get("missing"))
                if not self._lost:
                    raise
        self._send_lost()
        return send()

    def _named(self, missing: Any) -> dict[BlobRef, None]:
        return {blob: None for blob in self._again if isinstance(missing, list) and blob.sha256 in missing}

    def _send_lost(self) -> None:
        for blob in tuple(self._lost):
            if self._again[blob]() != blob:
                raise FileChanged(
                    "an input file changed after its upload", hint=["finish writing it, then submit again"]
                )
            self._lost.pop(blob, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """A regular file that this process may read, and its name in the scratch directory."""

    name: str
    path: Path
    size_bytes: int


def check_inputs(paths: InputPaths | None, whose: str = "") -> tuple[InputFile, ...]:
    """Return the input files, sorted by name. `whose`: the job that they belong to, for error messages.

    Raises TypeError if `paths` is no mapping, and Invalid for the first file that is missing or has a bad name.
    """
    if paths is not None and not isinstance(paths, Mapping):
        raise TypeError(f"{_of(whose)}inputs is {type_of(paths)}: give a dict, {{'name': 'path of the file'}}")
    found = tuple(_checked(name, path, whose) for name, path in sorted((paths or {}).items()))
    check_apart((each.name for each in found), whose)
    return found


def check_apart(names: Iterable[str], whose: str) -> None:
    """Raise Invalid if two names are equal or differ only in case, because some file systems ignore case."""
    spellings: dict[str, str] = {}
    for name in names:
        folded = name.casefold()
        if folded in spellings:
            other = spellings[folded]
            wrong = "is given twice" if other == name else f"differs from {other!r} only in case"
            raise Invalid(f"{_of(whose)}input {name!r} {wrong}", hint=["give each file another name"])
        spellings[folded] = name


def _checked(name: str, path: str | Path, whose: str) -> InputFile:
    try:
        place = Path(path)
        size = stat_of(place).size_bytes
        check_file_name(name)
    except Invalid as error:
        raise Invalid(f"{_of(whose)}input {name!r}: {error.message}") from None
    if not os.access(place, os.R_OK):
        raise Invalid(f"{_of(whose)}input {name!r}: {printable(place)} cannot be read: no permission")
    return InputFile(name=name, path=place, size_bytes=size)


def _of(whose: str) -> str:
    return f"{whose}: " if whose else ""


class PublishedInputs:
    """Input files, which are uploaded when this object is created.

    Files of equal size are hashed before the upload, so that files with equal bytes are uploaded once.
    """

    def __init__(self, publisher: FilePublisher, inputs: Iterable[InputFile]) -> None:
        sizes = {each.path: each.size_bytes for each in inputs}
        alike = Counter(sizes.values())
        self._blobs: dict[Path, BlobRef] = {}
        by_hash: dict[str, BlobRef] = {}
        for path, size in sizes.items():
            known = hash_file(path) if alike[size] > 1 and database_at(path) is None else None
            if known is None or known.sha256 not in by_hash:
                blob = publisher.publish_file(path)
                if known not in (None, blob):
                    text = f"{printable(path)} changed during the upload"
                    raise FileChanged(text, hint=["finish writing it, then retry"])
                by_hash[blob.sha256] = blob
            self._blobs[path] = blob if known is None else by_hash[known.sha256]

    def files(self, inputs: Iterable[InputFile]) -> tuple[FileRef, ...]:
        """Return references to the blobs of these inputs."""
        blobs = ((each.name, self._blobs[each.path]) for each in inputs)
        return tuple(FileRef(name=name, sha256=blob.sha256, size_bytes=blob.size_bytes) for name, blob in blobs)


class GroupInputs:
    """The input files of a group of jobs. `common`: files for every job. `by_key`: files for single jobs, by job key.

    All files are checked when this object is created, before the first upload. Raises Invalid.
    """

    def __init__(
        self, request: SubmitGroup, common: InputPaths | None, by_key: Mapping[str, InputPaths] | None
    ) -> None:
        self._common = check_inputs(common)
        self._by_key: dict[str, tuple[InputFile, ...]] = {}
        if by_key is not None and not isinstance(by_key, Mapping):
            raise TypeError(
                f"job_inputs is {type_of(by_key)}: give a dict, {{'job_key': {{'name': 'path of the file'}}}}"
            )
        keys = {job.job_key for job in request.jobs}
        for key, paths in (by_key or {}).items():
            if key not in keys:
                raise Invalid(f"job_inputs names a job {key!r}, but none of the {len(keys):,} jobs has that key")
            self._by_key[key] = check_inputs(paths, f"job {key!r}")
            check_apart((each.name for each in (*self._common, *self._by_key[key])), f"job {key!r}")

    def put_into(self, request: SubmitGroup, publisher: FilePublisher) -> SubmitGroup:
        """Upload the files, and return the request with references to them."""
        each = (*self._common, *(one for inputs in self._by_key.values() for one in inputs))
        published = PublishedInputs(publisher, each)
        jobs = (replace(job, inputs=published.files(self._by_key.get(job.job_key, ()))) for job in request.jobs)
        return replace(request, inputs=published.files(self._common), jobs=tuple(jobs) if each else request.jobs)


def publish_inputs(publisher: FilePublisher, paths: InputPaths | None) -> tuple[FileRef, ...]:
    """Upload the files of one paglet and return references. Raises Invalid before any upload, FileChanged, NoRoom."""
    inputs = check_inputs(paths)
    return PublishedInputs(publisher, inputs).files(inputs)
