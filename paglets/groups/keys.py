"""Group ids, default job keys, generations of submissions, and the digest that identifies a group."""

from __future__ import annotations

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from paglets.core.errors import Invalid
from paglets.core.refs import check_job_key
from paglets.core.text import counted

ID_CHARACTERS = 10
ID_TOKEN_BYTES = 7
"""Number of bytes in which the 50 bits of ten base32 characters fit."""


def new_group_id(token: str) -> str:
    """Return `group-` and ten base32 characters. `token`: at least 7 random bytes in hexadecimal. Raises Invalid."""
    try:
        data = bytes.fromhex(token)
    except ValueError as error:
        raise Invalid(f"the token of a group id must be hexadecimal digits, got {token[:40]!r}") from error
    if len(data) < ID_TOKEN_BYTES:
        raise Invalid(f"a group id needs {ID_TOKEN_BYTES} random bytes, got {len(data)}")
    return "group-" + base64.b32encode(data).decode("ascii")[:ID_CHARACTERS].lower()


def default_job_key(position: int) -> str:
    """Return the default key for the job at this position, such as `job-00001` for 1."""
    return f"job-{position:05d}"


def complete_job_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """Return the keys in the same order, with the default key of its position for each empty key.

    Raises Invalid (a ValueError) if a key is malformed or if two keys are equal.
    """
    complete = tuple(
        check_job_key(key) if key else default_job_key(position) for position, key in enumerate(keys, start=1)
    )
    twice = [key for key, count in Counter(complete).items() if count > 1]
    if twice:
        raise Invalid(
            f"{counted(len(twice), 'job key occurs', 'job keys occur')} more than once, such as {twice[0]!r}: "
            "each job needs its own"
        )
    return complete


def group_digest(class_name: str, jobs: Iterable[tuple[str, Any]]) -> str:
    """Return a SHA-256 of the class, the job keys, and the states as tagged JSON. The order of jobs does not matter.

    Two submissions with the same group id are the same submission if their digests are equal.
    """
    total = hashlib.sha256()
    for part in (class_name, *sorted(_line(key, state) for key, state in jobs)):
        data = part.encode("utf-8", "surrogatepass")
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


def inputs_digest(files: Iterable[tuple[str, str, str]]) -> str:
    """Return a SHA-256 of the input files, whose order does not matter.

    Each file is given as (job key, name, SHA-256). The job key is "" for a file of all jobs.
    """
    text = json.dumps(sorted(files), ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _line(key: str, state: Any) -> str:
    text = json.dumps([key, state], ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


SUBMISSION_GENERATIONS = 1_000
"""Number of generations reserved for one submission. A cleared group id is reused with the next thousand generations,
so that the new collector does not accept copies and reports of the earlier group."""


def first_generation(submission: int) -> int:
    """Return the generation of the first copies of a group whose id was cleared `submission` times before."""
    return submission * SUBMISSION_GENERATIONS + 1


def submission_of(generation: int) -> int:
    """Return the number of the submission to which this generation belongs (see `first_generation`)."""
    return (generation - 1) // SUBMISSION_GENERATIONS


def nth_copy(generation: int) -> int:
    """Return the number of the copy with this generation within its submission, counted from 1."""
    return (generation - 1) % SUBMISSION_GENERATIONS + 1


def collector_id(group_id: str) -> str:
    """Return the agent id of a group's collector. It is a hash of the group id, so any host can compute it."""
    return "collector-" + hashlib.sha256(group_id.encode()).hexdigest()[:32]
