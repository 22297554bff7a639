"""An example that counts the identifiers in the Python files of a folder. Each job writes the counts of some files.

The script needs running hosts and a folder:

    paglets identifiers.py FOLDER

Copy the script, and replace `uses_in` and `write_database` with your own work.
"""

from __future__ import annotations

import keyword
import os
import sqlite3
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from paglets.artifacts import ArtifactRef
from paglets.remote.client import HostClient
from paglets.system.compute_slots import (
    CollectingComputeJobPaglet,
    CollectingComputeJobState,
    Submission,
    submit_compute_job_group,
)

DATABASE = "identifiers.db"
SCHEMA = "CREATE TABLE uses (file TEXT, identifier TEXT, uses INTEGER, PRIMARY KEY (file, identifier)) WITHOUT ROWID"
TEST_FOLDERS = {"test", "tests", "idle_test"}

Uses = dict[tuple[str, str], int]
"""A map from (file, identifier) to the number of occurrences."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """An input file. `name`: its path below the folder, with dots for slashes, because input names have no slashes."""

    name: str
    path: Path
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """The number of uses of an identifier in all files, and the number of files that use it."""

    identifier: str
    uses: int
    files: int


# The classes and functions below run in the process of a job.


@dataclass
class IndexState(CollectingComputeJobState):
    files: tuple[str, ...] = ()


class IndexIdentifiers(CollectingComputeJobPaglet[IndexState]):
    """A job that counts the identifiers in its input files. It reports a database and the number of its rows."""

    State = IndexState

    def run_compute_job(self) -> None:
        folder = self.work_dir()
        uses = uses_in((name, folder / name) for name in self.state.files)
        write_database(folder / DATABASE, uses)
        self.report_compute_artifact(folder / DATABASE, result={"rows": len(uses)}, move=True)


def uses_in(files: Iterable[tuple[str, Path]]) -> Uses:
    """Count the identifiers in files. Each file is given as (name, path).

    Raises SyntaxError or tokenize.TokenError for a file that is not Python.
    """
    uses: Uses = {}
    for name, path in files:
        with path.open("rb") as file:
            words = (token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.NAME)
            counts = Counter(word for word in words if not keyword.iskeyword(word))
        uses |= {(name, word): count for word, count in counts.items()}
    return uses


def write_database(path: Path, uses: Uses) -> None:
    with closing(sqlite3.connect(path)) as base, base:
        base.execute(SCHEMA)
        base.executemany("INSERT INTO uses VALUES (?, ?, ?)", ((*key, count) for key, count in uses.items()))


# The functions below find the input files and submit the jobs.


def source_files(folder: Path, *, most_files: int, most_bytes: int) -> list[SourceFile]:
    """Return the Python files below `folder` in a fixed order, without tests. Stop at either limit."""
    return list(islice(_within(most_bytes, _modules(folder)), most_files))


def _modules(folder: Path) -> Iterator[SourceFile]:
    """Yield the Python files whose path parts are identifiers, so that no two get the same module name."""
    for above, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name.isidentifier() and name not in TEST_FOLDERS)
        for path in (Path(above, name) for name in sorted(names)):
            if path.suffix == ".py" and path.stem.isidentifier() and path.is_file():
                name = ".".join(path.relative_to(folder).parts)
                yield SourceFile(name=name, path=path, size_bytes=path.stat().st_size)


def _within(most_bytes: int, files: Iterable[SourceFile]) -> Iterator[SourceFile]:
    for file in files:
        most_bytes -= file.size_bytes
        if most_bytes < 0:
            return
        yield file


def bundles(files: Sequence[SourceFile], count: int) -> dict[str, list[SourceFile]]:
    """Split files into at most `count` bundles of about equal size. Return a dict from job key to bundle.

    The same files always give the same bundles.
    """
    made: list[list[SourceFile]] = [[] for _ in range(min(count, len(files)))]
    sizes = [0] * len(made)
    for file in sorted(files, key=lambda each: (-each.size_bytes, each.name)):
        smallest = sizes.index(min(sizes))
        made[smallest].append(file)
        sizes[smallest] += file.size_bytes
    return {f"bundle-{number:02}": bundle for number, bundle in enumerate(made, 1)}


def submit(client: HostClient, made: dict[str, list[SourceFile]]) -> Submission:
    """Submit one job for each bundle of files. The collector returns to the client's host when all jobs have ended."""
    return submit_compute_job_group(
        client,
        IndexIdentifiers,
        [IndexState(job_key=key, files=tuple(file.name for file in files)) for key, files in made.items()],
        job_inputs={key: {file.name: file.path for file in files} for key, files in made.items()},
        return_home_when_complete=True,
    )


# The functions below merge the databases of all jobs.


def fetch(client: HostClient, submission: Submission, folder: Path) -> list[Path]:
    """Download the databases of all successful jobs to `folder`, as `KEY.db`."""
    return [
        client.download_artifact(ArtifactRef.from_wire(record["result"]["artifact"]), folder / f"{key}.db")
        for key, record in sorted(submission.results().items())
    ]


def merge(parts: Iterable[Path], target: Path) -> Uses:
    """Merge the rows of the databases `parts` into a new database `target`, and return the rows."""
    with closing(sqlite3.connect(target, isolation_level=None)) as base:
        base.execute(SCHEMA)
        for part in parts:
            base.execute("ATTACH ? AS part", (str(part),))
            base.execute("INSERT INTO uses SELECT * FROM part.uses")
            base.execute("DETACH part")
        return {(file, word): count for file, word, count in base.execute("SELECT file, identifier, uses FROM uses")}


def differences(found: Uses, expected: Uses) -> list[str]:
    """Return a line of text for each (file, identifier) whose counts differ."""
    return [
        f"{file}: {word}: {found.get((file, word), 0)} instead of {expected.get((file, word), 0)}"
        for file, word in sorted(found.keys() | expected.keys())
        if found.get((file, word)) != expected.get((file, word))
    ]


def most_used(uses: Uses, count: int) -> list[Word]:
    """Return the `count` identifiers with the most uses, most frequent first."""
    totals: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for (_, word), times in uses.items():
        totals[word] += times
        files[word] += 1
    ordered = sorted(totals.items(), key=lambda item: (-item[1], item[0]))
    return [Word(identifier=word, uses=times, files=files[word]) for word, times in ordered[:count]]


def main() -> int:
    if len(sys.argv) != 2 or not Path(sys.argv[1]).is_dir():
        print("usage: identifiers.py FOLDER", file=sys.stderr)
        return 2
    files = source_files(Path(sys.argv[1]), most_files=1000, most_bytes=20_000_000)
    with HostClient() as client:
        submission = submit(client, bundles(files, 40))
        for key, record in submission.as_completed():
            print(key, "failed: " + record["message"] if "cause" in record else "done", "on", record["host_name"])
        folder = Path(submission.group_id)
        folder.mkdir(exist_ok=True)
        uses = merge(fetch(client, submission, folder), folder / DATABASE)
    for word in most_used(uses, 10):
        print(f"{word.identifier:<20}{word.uses:>8,} uses in {word.files:>5,} files")
    print(f"all {len(uses):,} rows are in {folder / DATABASE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
