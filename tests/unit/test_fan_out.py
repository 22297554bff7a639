"""Requests to several hosts at once: an unresponsive host does not delay the others."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

import paglets
from paglets.client.fan_out import MOST_PARALLEL_ASKS, ask_all

ROOT = Path(paglets.__file__).parent.parent

INTERRUPTED = """
import sys
from paglets.client.fan_out import ask_all

def ask(thing):
    if thing == "silent":
        sys.stdin.read()  # until the test closes it
    raise KeyboardInterrupt

try:
    ask_all(ask, ["interrupted", "silent"])
except KeyboardInterrupt:
    print("interrupted")
"""


def test_answers_are_in_the_order_of_what_was_asked_about() -> None:
    assert ask_all(lambda number: number * 2, range(3 * MOST_PARALLEL_ASKS)) == list(
        range(0, 6 * MOST_PARALLEL_ASKS, 2)
    )


def test_an_error_does_not_wait_for_what_is_silent_and_nothing_more_is_asked() -> None:
    release, asked = threading.Event(), []

    def ask(thing: int) -> None:
        if thing == 0:
            raise KeyboardInterrupt
        asked.append(thing)
        assert release.wait(60)

    with pytest.raises(KeyboardInterrupt):
        ask_all(ask, range(10 * MOST_PARALLEL_ASKS))
    release.set()
    for thread in threading.enumerate():
        if thread.name == "ask":
            thread.join(60)
    assert len(asked) <= MOST_PARALLEL_ASKS


def test_an_interrupted_process_ends_while_a_host_is_silent() -> None:
    command = [sys.executable, "-c", INTERRUPTED]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == b"interrupted\n"
