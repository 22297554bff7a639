"""Names within and of groups: ids, job keys by position, and the digest that tells two groups apart."""

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
"""Ten characters of base32 are 50 bits: the least number of whole bytes that holds them."""


def new_group_id(token: str) -> str:
    """`group-` and ten base32 characters, from the hexadecimal digits of at least 7 random bytes."""
    try:
        data = bytes.fromhex(token)
    except ValueError as error:
        raise Invalid(f"a group id is made of hexadecimal digits, not of {token[:40]!r}") from error
    if len(data) < ID_TOKEN_BYTES:
        raise Invalid(f"a group id needs {ID_TOKEN_BYTES} random bytes, got {len(data)}")
    return "group-" + base64.b32encode(data).decode("ascii")[:ID_CHARACTERS].lower()


def default_job_key(position: int) -> str:
    """`job-00001` for position 1."""
    return f"job-{position:05d}"


def complete_job_keys(keys: Sequence[str]) -> tuple[str, ...]:
    """The keys in order, each empty one named by its position, which counts from 1.

    Raises Invalid (a ValueError) where a key is malformed or two are equal.
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
    """SHA-256 over the class and each (job key, tagged JSON of its state), whatever their order.

    Two submissions under one group id are the same if this is equal.
    """
    total = hashlib.sha256()
    for part in (class_name, *sorted(_line(key, state) for key, state in jobs)):
        data = part.encode("utf-8", "surrogatepass")
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


def inputs_digest(files: Iterable[tuple[str, str, str]]) -> str:
    """SHA-256 over (job key, or "" for each job; name; SHA-256) of the files of a group, whatever their order."""
    text = json.dumps(sorted(files), ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _line(key: str, state: Any) -> str:
    text = json.dumps([key, state], ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


SUBMISSION_GENERATIONS = 1_000
"""Generations of one submission. A group id that was cleared is used again with the next thousand, so that copies and
reports of the group before are older than all that its new collector counts."""


def first_generation(submission: int) -> int:
    """Return the generation of the first copies of a group id that was cleared `submission` times before."""
    return submission * SUBMISSION_GENERATIONS + 1


def submission_of(generation: int) -> int:
    """Return the `submission` whose copies have this generation (see `first_generation`)."""
    return (generation - 1) // SUBMISSION_GENERATIONS


def nth_copy(generation: int) -> int:
    """Return how many copies of a job were made in its submission, up to the one of this generation."""
    return (generation - 1) % SUBMISSION_GENERATIONS + 1


def collector_id(group_id: str) -> str:
    """The collector's agent id: made of the group's, so that any host can look for it."""
    return "collector-" + hashlib.sha256(group_id.encode()).hexdigest()[:32]
