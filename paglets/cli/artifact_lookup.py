"""The lookup of artifacts by group and job, and file names for artifacts that are fetched into one folder."""

from __future__ import annotations

import hashlib
import re
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from paglets.api.groups import GroupLine
from paglets.api.undelivered import Undelivered
from paglets.cli.collectors import ask_for_job, collector_of, group_of
from paglets.cli.job_copies import kept_of
from paglets.cli.orphaned_groups import waiting_file, waiting_files
from paglets.cli.output import (
    notice_if_slow,
    waiting_for_all,
)
from paglets.cli.views.job_records import artifact_in
from paglets.cli.views.offline_hosts import MissingHosts, missing_hosts
from paglets.client.fan_out import ask_all
from paglets.client.host_client import HostClient
from paglets.core.errors import (
    Invalid,
    PagletsError,
    TimedOut,
    Unknown,
    Unreachable,
)
from paglets.core.messages import Message
from paglets.core.refs import ARTIFACT_ID, MAX_FILE_NAME_BYTES, ArtifactRef, ProxyRef, check_file_name, visible_name
from paglets.core.text import counted, did_you_mean

PAGE_RESULTS = 100
MOST_GROUPS = 20
MOST_NAMED_FILES = 3
MOST_NAMED_IDS = 5
SHORTEST_PREFIX = len("art-") + 1
MOST_KEY_BYTES = 80
_UNSAFE = re.compile(r"[^\w.+=@,-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class FilelessCounts:
    """Counts of a group's jobs without a file: jobs whose result has no file, failed jobs and pending jobs."""

    without_file: int
    failed: int
    pending: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupArtifacts:
    """The artifacts of a group, each with the key of its job, sorted by key.

    `undelivered`: finished jobs that keep other files. `missing`: the offline hosts, to which finished jobs may have
    moved with files; none if each result has a file. `unreachable`: the errors of hosts that may have more artifacts.
    """

    group_id: str
    artifacts: tuple[tuple[str, ArtifactRef], ...]
    counts: FilelessCounts
    undelivered: tuple[Undelivered, ...] = ()
    missing: MissingHosts = field(default_factory=MissingHosts)
    unreachable: tuple[PagletsError, ...] = ()

    def remarks(self) -> Iterator[str]:
        """Yield messages about results without a file, jobs that still keep files, failed jobs and pending jobs."""
        counts = self.counts
        if counts.without_file:
            asked = self.missing.note()
            yield f"{counted(counts.without_file, 'result has', 'results have')} no file{asked}"
        for job in self.undelivered[:MOST_NAMED_FILES]:
            yield f"{job.group_id}/{job.job_key} still keeps {counted(job.file_count, 'file')}: {job.text}"
        if len(self.undelivered) > MOST_NAMED_FILES:
            more = len(self.undelivered) - MOST_NAMED_FILES
            yield f"{counted(more, 'more job still keeps', 'more jobs still keep')} files"
        if counts.failed:
            yield f"{counted(counts.failed, 'job')} failed: `paglets jobs why {self.group_id}` explains why"
        if counts.pending:
            pending = counted(counts.pending, "job has", "jobs have")
            yield f"{pending} not ended yet: run the same command later to fetch new files"


def artifacts_of_group(client: HostClient, group_id: str) -> GroupArtifacts:
    """Return the artifacts of a group: those in the results so far, and those that finished jobs left on any host.

    If the collector is unreachable, reports that wait on other hosts replace its results, and its error comes first in
    `unreachable`. Raises this error (Unknown or Unreachable) if no host has an artifact or a report of the group.
    """
    left, unreachable = client.mesh_artifacts(group_id=group_id)
    found = {file.artifact_id: (file.job_key, file) for file in left}
    without, failed, pending = 0, 0, 0
    try:
        for page in _pages(client, collector_of(client, group_id), ""):
            for key, record in page["results"].items():
                artifact = artifact_in(record.get("result"))
                if artifact is not None:
                    found[artifact.artifact_id] = (key, artifact)
                elif all(file.job_key != key for file in left):
                    without += 1
            failed += len(page["failures"])
            pending = page["pending_count"]
    except (Unreachable, Unknown) as error:
        waiting = waiting_files(client, group_id)
        without, failed = waiting.without_file, waiting.failed
        if not left and not waiting.files and not without + failed:
            raise
        found |= {file.artifact_id: (key, file) for key, file in waiting.files}
        others = {each.message: each for each in (*unreachable, *waiting.unreachable)}
        unreachable = (error, *others.values())
    counts = FilelessCounts(without_file=without, failed=failed, pending=pending)
    owners = {file.owner for file in left}
    jobs = kept_of(client, group_id).undelivered
    undelivered = tuple(job for job in jobs if job.file_count and job.agent_id not in owners)
    artifacts = sorted(found.values(), key=lambda each: (each[0], each[1].name, each[1].artifact_id))
    return GroupArtifacts(
        group_id=group_id,
        artifacts=tuple(artifacts),
        counts=counts,
        undelivered=undelivered,
        missing=missing_hosts(client.hosts()) if without else MissingHosts(),
        unreachable=unreachable,
    )


def owner_texts(
    client: HostClient, artifacts: Iterable[ArtifactRef], lines: Iterable[GroupLine], seconds: float
) -> dict[str, str]:
    """Return a dict from the id of each artifact to a text that names its owner.

    The text is the job that reported the artifact (`GROUP/JOBKEY`), else its group, its owner's id, or `(host)`.
    `lines`: the groups of the mesh. To find the jobs, the function asks the collectors of at most MOST_GROUPS groups,
    in parallel and for at most `seconds`.
    """
    artifacts = tuple(artifacts)
    groups = {line.collector.agent_id: line for line in lines}
    named = {each.artifact_id: each.owner or "(host)" for each in artifacts}
    named |= {each.artifact_id: f"group {groups[each.owner].group_id}" for each in artifacts if each.owner in groups}
    named |= {each.artifact_id: f"{each.group_id}/{each.job_key}" for each in artifacts if each.group_id}
    owning = dict.fromkeys(each.owner for each in artifacts if each.owner in groups)
    end = time.monotonic() + seconds

    def jobs_of(line: GroupLine) -> dict[str, str]:
        return {ref.artifact_id: f"{line.group_id}/{key}" for key, ref in _reported(client, line.collector, end)}

    for jobs in ask_all(jobs_of, [groups[owner] for owner in tuple(owning)[:MOST_GROUPS]]):
        named |= {artifact_id: job for artifact_id, job in jobs.items() if artifact_id in named}
    return named


def _reported(client: HostClient, collector: ProxyRef, end: float) -> Iterator[tuple[str, ArtifactRef]]:
    """Yield the job key and artifact of each result that has one. Stop at `end` (monotonic seconds) or an error."""
    with suppress(PagletsError):
        # Check first that the host answers: on a hung host, a call fails later than this request.
        client.paglet(collector, timeout=_left(end))
        for page in _pages(client, collector, "", end):
            for key, record in page["results"].items():
                artifact = artifact_in(record.get("result"))
                if artifact is not None:
                    yield key, artifact


def artifact_of_job(client: HostClient, group_id: str, job_key: str) -> ArtifactRef:
    """Return the artifact that a job reported or its hook left.

    Raises Unknown or Unreachable if none is found, Invalid if there are several.
    """
    found = {file.artifact_id: file for file in client.undelivered(group_id, job_key).files}
    try:
        reported = _reported_by(client, group_id, job_key)
    except (Unreachable, Unknown):
        if not found:
            raise
    else:
        found[reported.artifact_id] = reported
    if len(found) > 1:
        ids = ", ".join(f"{file.artifact_id} ({file.name})" for file in list(found.values())[:MOST_NAMED_FILES])
        raise Invalid(
            f"{group_id}/{job_key} has {len(found)} files: {ids}",
            hint=["name one of them by its id"],
            next=[f"`paglets artifacts get --group {group_id} DIR` fetches all files of the group"],
        )
    return next(iter(found.values()))


def _reported_by(client: HostClient, group_id: str, job_key: str) -> ArtifactRef:
    """Return the artifact that a job reported. Raises Unknown if the job failed, reported no file or has not ended."""
    named = f"{group_id}/{job_key}"
    try:
        collector = collector_of(client, group_id)
    except (Unreachable, Unknown) as error:
        return waiting_file(client, group_id, job_key, error)
    for page in _pages(client, collector, job_key[:-1]):
        if job_key in page["failures"]:
            raise Unknown(f"{named} failed and has no file", hint=[f"paglets jobs why {named} explains why"])
        if job_key in page["results"]:
            artifact = artifact_in(page["results"][job_key].get("result"))
            if artifact is None:
                raise Unknown(f"the result of {named} has no file")
            return artifact
        if any(key > job_key for key in page["results"]):
            break
    keys = group_of(client, group_id).job_keys
    near = "" if job_key in keys else did_you_mean(job_key, keys)
    raise Unknown(
        f"{named} has no result{f': {near}' if near else ''}", hint=[f"paglets jobs why {named} explains why"]
    )


def _pages(
    client: HostClient, collector: ProxyRef, after: str | None, end: float | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the results of a collector page by page, starting with the first job key after `after`.

    Raises TimedOut at `end` (monotonic seconds). Without `end`, the client's timeout applies to each page.
    """
    while after is not None:
        message = Message("results", {"after": after, "limit": PAGE_RESULTS})
        page = client.call_tree(collector, message, None if end is None else _left(end))
        yield page
        after = page["next"]


def _left(end: float) -> float:
    """Return the seconds until `end`. Raises TimedOut if it has passed."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimedOut("timed out while asking collectors")
    return left


def file_names(files: Iterable[tuple[str, str]]) -> list[str]:
    """Return the file name `KEY-NAME` for each pair of a job key and an artifact name.

    Characters that are unsafe in file names become `_`, and leading dots and hyphens are removed. If that changes a
    name, or if two names differ only in case, digits from a hash of the key are added.
    """
    named = [(key, name, f"{_UNSAFE.sub('_', key)}-{name}") for key, name in files]
    uses = Counter(plain.casefold() for _, _, plain in named)
    seen: Counter[tuple[str, str]] = Counter()
    names = []
    for key, name, plain in named:
        # Several copies of a job, or a job and its hook, may have left files with the same name.
        before = seen[key, name]
        seen[key, name] += 1
        names.append(plain if _is_safe_name(key, plain, uses) else _name_with_digits(key, name, before))
    return names


def _is_safe_name(key: str, name: str, uses: Counter[str]) -> bool:
    try:
        check_file_name(name)
    except Invalid:
        return False
    return uses[name.casefold()] == 1 and _UNSAFE.search(key) is None and name == visible_name(name)


def _name_with_digits(key: str, name: str, before: int) -> str:
    """Return `KEY~12345678-NAME`, with KEY and NAME shortened so that the file name is not too long.

    NAME is shortened at its start, to keep the suffix. `before`: the number of earlier files with this key and name.
    """
    digits = hashlib.sha256((f"{key}\n{before}" if before else key).encode()).hexdigest()[:8]
    begin = _cut(_UNSAFE.sub("_", key).lstrip(".-") or "_", MOST_KEY_BYTES) + f"~{digits}-"
    safe = _UNSAFE.sub("_", name)
    room = MAX_FILE_NAME_BYTES - len(begin.encode())
    return check_file_name(begin + _cut(safe[::-1], room)[::-1])


def _cut(text: str, most_bytes: int) -> str:
    while len(text.encode()) > most_bytes:
        text = text[:-1]
    return text


def resolve_id(client: HostClient, text: str) -> str:
    """Return the id of the artifact that `text` names: an id, a prefix of an id, or GROUP/JOBKEY.

    Raises Unknown or Unreachable if none is found, Invalid if there are several or `text` has another form.
    """
    group_id, slash, job_key = text.partition("/")
    if slash:
        return artifact_of_job(client, group_id, job_key).artifact_id
    if ARTIFACT_ID.fullmatch(text):
        try:
            return client.artifact(text).artifact.artifact_id
        except Unknown as error:
            return _by_prefix(client, text, error)
    if not text.startswith("art-") or len(text) < SHORTEST_PREFIX:
        nothing = Invalid(f"{text[:80]!r} is neither an artifact id (art-...) nor GROUP/JOBKEY")
        raise ask_for_job(client, text, nothing, f", or --group {text}")
    return _by_prefix(
        client, text, Unknown(f"no artifact {text[:80]!r}", hint=["paglets artifacts list lists the artifacts"])
    )


def _by_prefix(client: HostClient, prefix: str, nothing: Unknown) -> str:
    with notice_if_slow(waiting_for_all(client.timeout)):
        found, errors = client.mesh_artifacts()
    ids = [artifact.artifact_id for artifact in found if artifact.artifact_id.startswith(prefix)]
    if len(ids) == 1:
        return ids[0]
    if ids:
        more = f" and {len(ids) - MOST_NAMED_IDS} more" if len(ids) > MOST_NAMED_IDS else ""
        named = f"{', '.join(ids[:MOST_NAMED_IDS])}{more}"
        raise Invalid(f"{prefix} is a prefix of {len(ids)} ids: {named}", hint=["use a longer prefix"])
    if errors:
        raise Unreachable(f"no reachable host has an artifact whose id begins with {prefix}; {errors[0].message}")
    raise Unknown(f"{nothing.message}{missing_hosts(client.hosts()).note()}", **nothing.details)
