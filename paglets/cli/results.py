"""The artifacts in the results of a group's jobs, and how their files are named side by side."""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from paglets.api.groups import GroupLine
from paglets.cli.collectors import collector_of, group_of
from paglets.cli.groups import artifact_in
from paglets.core.errors import Invalid, PagletsError, TimedOut, Unknown
from paglets.core.messages import Message
from paglets.core.refs import MAX_FILE_NAME_BYTES, ArtifactRef, ProxyRef, check_file_name, visible_name
from paglets.core.text import counted, meant
from paglets.remote.asking import ask_each
from paglets.remote.client import HostClient

PAGE_RESULTS = 100
MOST_GROUPS = 20
MOST_KEY_BYTES = 80
_UNSAFE = re.compile(r"[^\w.+=@,-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Jobs of a group: without a file in their result, failed, not yet ended."""

    without_file: int
    failed: int
    pending: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupArtifacts:
    """`artifacts` by job key, in the order of the keys."""

    group_id: str
    artifacts: dict[str, ArtifactRef]
    counts: Counts

    def remarks(self) -> Iterator[str]:
        """In words, which jobs have no file."""
        counts = self.counts
        if counts.without_file:
            yield f"{counted(counts.without_file, 'result has', 'results have')} no file"
        if counts.failed:
            yield f"{counted(counts.failed, 'job')} failed: `paglets jobs why {self.group_id}` says why"
        if counts.pending:
            pending = counted(counts.pending, "job has", "jobs have")
            yield f"{pending} not ended yet: the same command later gets what is new"


def artifacts_of_group(client: HostClient, group_id: str) -> GroupArtifacts:
    """Of all results so far. Raises Unknown, Unreachable."""
    found: dict[str, ArtifactRef] = {}
    without, failed, pending = 0, 0, 0
    for page in _pages(client, collector_of(client, group_id), ""):
        for key, record in page["results"].items():
            artifact = artifact_in(record.get("result"))
            if artifact is None:
                without += 1
            else:
                found[key] = artifact
        failed += len(page["failures"])
        pending = page["pending_count"]
    counts = Counts(without_file=without, failed=failed, pending=pending)
    return GroupArtifacts(group_id=group_id, artifacts=found, counts=counts)


def owners_in_words(
    client: HostClient, artifacts: Iterable[ArtifactRef], lines: Iterable[GroupLine], seconds: float
) -> dict[str, str]:
    """Artifact id -> the job that reported it, `GROUP/JOBKEY`; else its group, its owner's id, or that it is a host's.

    `lines`: the groups of the mesh. Their collectors are asked for jobs at once, for so many seconds in all; those of
    more than MOST_GROUPS groups are not.
    """
    artifacts = tuple(artifacts)
    groups = {line.collector.agent_id: line for line in lines}
    named = {each.artifact_id: each.owner or "(host)" for each in artifacts}
    named |= {each.artifact_id: f"group {groups[each.owner].group_id}" for each in artifacts if each.owner in groups}
    owning = dict.fromkeys(each.owner for each in artifacts if each.owner in groups)
    end = time.monotonic() + seconds

    def jobs_of(line: GroupLine) -> dict[str, str]:
        return {ref.artifact_id: f"{line.group_id}/{key}" for key, ref in _reported(client, line.collector, end)}

    for jobs in ask_each(jobs_of, [groups[owner] for owner in tuple(owning)[:MOST_GROUPS]]):
        named |= {artifact_id: job for artifact_id, job in jobs.items() if artifact_id in named}
    return named


def _reported(client: HostClient, collector: ProxyRef, end: float) -> Iterator[tuple[str, ArtifactRef]]:
    """The artifacts in results by job key, as far as the collector tells them until `end` (monotonic seconds)."""
    with suppress(PagletsError):
        client.paglet(collector, timeout=_left(end))  # a host that hangs holds up a call for longer than it may wait
        for page in _pages(client, collector, "", end):
            for key, record in page["results"].items():
                artifact = artifact_in(record.get("result"))
                if artifact is not None:
                    yield key, artifact


def artifact_of_job(client: HostClient, group_id: str, job_key: str) -> ArtifactRef:
    """The artifact that a job reported. Raises Unknown, which says what there is instead."""
    named = f"{group_id}/{job_key}"
    for page in _pages(client, collector_of(client, group_id), job_key[:-1]):
        if job_key in page["failures"]:
            raise Unknown(f"{named} failed and has no file: `paglets jobs why {named}` says why")
        if job_key in page["results"]:
            artifact = artifact_in(page["results"][job_key].get("result"))
            if artifact is None:
                raise Unknown(f"the result of {named} has no file")
            return artifact
        if any(key > job_key for key in page["results"]):
            break
    keys = group_of(client, group_id).job_keys
    hint = "" if job_key in keys else meant(job_key, keys)
    raise Unknown(f"{named} has no result: {hint}`paglets jobs why {named}` says why")


def _pages(
    client: HostClient, collector: ProxyRef, after: str | None, end: float | None = None
) -> Iterator[dict[str, Any]]:
    """`end`: raise TimedOut then (monotonic seconds), and not after the client's timeout for a page."""
    while after is not None:
        message = Message("results", {"after": after, "limit": PAGE_RESULTS})
        page = client.call_tree(collector, message, None if end is None else _left(end))
        yield page
        after = page["next"]


def _left(end: float) -> float:
    """Raises TimedOut."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimedOut("the time for asking is over")
    return left


def file_names(artifact_names: Mapping[str, str]) -> dict[str, str]:
    """Job key -> name of its file, `KEY-NAME`, given the names of the jobs' artifacts.

    A job key is any text. Characters that cannot be in a file name become `_`, and leading dots and hyphens are left
    out. Where a name was changed, or two names would be equal on any file system, digits made of the key are added.
    """
    plain = {key: f"{_UNSAFE.sub('_', key)}-{name}" for key, name in artifact_names.items()}
    uses = Counter(name.casefold() for name in plain.values())
    return {
        key: plain[key] if _is_good(key, plain[key], uses) else _marked(key, name)
        for key, name in artifact_names.items()
    }


def _is_good(key: str, name: str, uses: Counter[str]) -> bool:
    try:
        check_file_name(name)
    except Invalid:
        return False
    return uses[name.casefold()] == 1 and _UNSAFE.search(key) is None and name == visible_name(name)


def _marked(key: str, name: str) -> str:
    """`KEY~12345678-NAME`, each part cut to what fits, the name at its beginning: its end says what it is."""
    digits = hashlib.sha256(key.encode()).hexdigest()[:8]
    begin = _cut(_UNSAFE.sub("_", key).lstrip(".-") or "_", MOST_KEY_BYTES) + f"~{digits}-"
    safe = _UNSAFE.sub("_", name)
    room = MAX_FILE_NAME_BYTES - len(begin.encode())
    return check_file_name(begin + _cut(safe[::-1], room)[::-1])


def _cut(text: str, most_bytes: int) -> str:
    while len(text.encode()) > most_bytes:
        text = text[:-1]
    return text
