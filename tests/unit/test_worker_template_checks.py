"""The reasons why attempts cannot share the import of a module, as pure functions."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from paglets.worker.observation import Observation
from paglets.worker.zygote.template_checks import (
    MAX_OUTPUT_BYTES,
    failure_refusal,
    output_refusal,
    process_refusal,
    source_refusal,
)

BEFORE = Observation(
    children=0,
    threads=1,
    native_threads=1,
    descriptors={0: "/dev/null", 3: "socket:[7]"},
    directory=(1, 2),
    environment={"A": "1"},
    handlers={10: 1},
    settings={"the timers": False},
)


def test_a_process_that_is_as_before_can_be_forked() -> None:
    assert process_refusal(BEFORE, BEFORE) == ""


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"children": 1}, "child process"),
        ({"threads": 2}, "thread"),
        ({"native_threads": 2}, "thread of a library"),
        ({"descriptors": {**BEFORE.descriptors, 4: "/data/file"}}, "/data/file"),
        ({"descriptors": {0: "/dev/null", 3: "socket:[8]"}}, "socket:[8]"),
        ({"descriptors": {0: "/dev/null"}}, "closed"),
        ({"directory": (1, 3)}, "directory"),
        ({"environment": {"A": "2"}}, "variables: A"),
        ({"environment": {}}, "variables: A"),
        ({"handlers": {10: 0}}, "signal handler"),
        ({"settings": {"the timers": True}}, "changed the timers"),
    ],
)
def test_each_change_of_the_process_is_a_reason(change: dict[str, Any], word: str) -> None:
    assert word in process_refusal(BEFORE, replace(BEFORE, **change))


def test_a_reason_names_at_most_three_changes() -> None:
    after = replace(BEFORE, environment=dict.fromkeys("ABCDE", ""))
    assert process_refusal(BEFORE, after).endswith("A, B, C and 2 more")


def test_modules_of_a_code_path_may_change_and_others_not() -> None:
    files = {"a": "/code/a.py", "b": "/codes/b.py", "sys": ""}
    assert source_refusal(files, ()) == ""
    assert source_refusal(files, ("/other",)) == ""
    assert source_refusal(files, ("/code",)).endswith(": a")


def test_a_long_output_and_an_error_are_reasons() -> None:
    assert output_refusal(MAX_OUTPUT_BYTES) == ""
    assert "printed" in output_refusal(MAX_OUTPUT_BYTES + 1)
    assert failure_refusal(KeyError("x\n")).endswith("raised KeyError: 'x\\n'")
    assert failure_refusal(SystemExit()).endswith("raised SystemExit")
