"""Large results, which are stored as artifacts: download them and put them into the records of a group."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from paglets.client.group_records import MOST_BYTES, ONE_BY_ONE
from paglets.codec.tagged_json import decode, encode, loads
from paglets.codec.unreadable import Unreadable
from paglets.core.errors import Conflict, TooLarge, Unknown
from paglets.core.refs import StoredValue
from paglets.slots.amounts import bytes_text


class Downloader(Protocol):
    """A downloader of artifacts: a HostClient, or the context of a paglet."""

    def download_artifact(self, artifact: str, target: str | Path) -> Path: ...


def load(source: Downloader, record: dict[str, Any]) -> dict[str, Any]:
    """Return the record of a job after replacing references in its result by the large values themselves.

    A value whose artifact was deleted raises an error when it is used. Raises the errors of a download.
    """
    result = record.get("result")
    if isinstance(result, StoredValue):
        return {**record, "result": _value(source, result)}
    if type(result) is dict and any(isinstance(part, StoredValue) for part in result.values()):
        loaded = {
            name: _value(source, part) if isinstance(part, StoredValue) else part for name, part in result.items()
        }
        return {**record, "result": loaded}
    return record


def load_all(source: Downloader, records: dict[str, dict[str, Any]], group_id: str) -> dict[str, dict[str, Any]]:
    """Return all records with their large values. Raises TooLarge if several large values exceed 1 GiB in all."""
    stored = list(_stored_in(records.values()))
    total = sum(each.size_bytes for each in stored)
    if total > MOST_BYTES and len(stored) > 1:
        text = f"the results of {group_id} take {bytes_text(total)} in all, which is too much for one dict"
        raise TooLarge(text, next=[ONE_BY_ONE])
    return {key: load(source, record) for key, record in records.items()}


def load_summary(source: Downloader, summary: dict[str, Any], group_id: str) -> dict[str, Any]:
    """Return the summary of a group with the large values of its results. Raises like `load_all`."""
    results = summary.get("results")
    return {**summary, "results": load_all(source, results, group_id)} if results else summary


def _stored_in(records: Iterable[dict[str, Any]]) -> Iterator[StoredValue]:
    for record in records:
        result = record.get("result")
        parts = result.values() if type(result) is dict else (result,)
        yield from (part for part in parts if isinstance(part, StoredValue))


def _value(source: Downloader, stored: StoredValue) -> Any:
    with TemporaryDirectory(prefix="paglets-") as folder:
        try:
            path = source.download_artifact(stored.artifact_id, Path(folder) / "value")
        except Unknown as error:
            return Unreadable(encode(stored), Unknown(f"the result was deleted: {error.message}", **error.details))
        if path.stat().st_size != stored.size_bytes:
            sizes = f"{path.stat().st_size:,} bytes instead of {stored.size_bytes:,}"
            raise Conflict(f"artifact {stored.artifact_id}, which holds a result, has {sizes}")
        return decode(loads(path.read_bytes()), "result", keep_missing=True)
