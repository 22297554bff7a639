"""The mesh key is in no help text, default argument, repr or traceback."""

from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path

import pytest

import paglets
from paglets.client.host_client import HostClient
from paglets.core.clock import SystemClock, SystemEntropy
from paglets.wire.auth import Signer, Verifier
from paglets.wire.keys import MeshKey, parse_key
from paglets.wire.pooled_client import PooledClient
from paglets.worker.launch import LaunchSpec

CANARY = "C4nary-" + "x" * 36

READ_EVERYTHING = """
import importlib, pkgutil, pydoc, sys, paglets
for found in pkgutil.walk_packages(paglets.__path__, "paglets."):
    if not found.name.endswith("__main__"):
        print(pydoc.plaintext.document(importlib.import_module(found.name)))
"""
"""Output of `help` for every module: signatures with defaults, docstrings, and module values."""


def test_help_of_no_module_shows_the_key_of_the_environment() -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ_EVERYTHING],
        env={"PAGLETS_API_KEY": CANARY, "PYTHONPATH": str(Path(paglets.__path__[0]).parent)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "class HostClient" in done.stdout
    assert CANARY not in done.stdout + done.stderr


def test_no_repr_shows_the_key() -> None:
    key = parse_key(CANARY, "a test")
    clock, entropy = SystemClock(), SystemEntropy()
    spec = LaunchSpec(
        token="t",
        agent_id="a",
        attempt=1,
        work_dir="",
        stdout_path="",
        stderr_path="",
        environment={"TOKEN": CANARY},
    )
    holders = (
        key,
        Signer(key, clock=clock, entropy=entropy),
        Verifier(key, store_id="s", boot_id="b", clock=clock),
        PooledClient(key, clock=clock, entropy=entropy),
        HostClient("http://127.0.0.1:1", key=CANARY),
        spec,
    )
    assert CANARY not in " ".join(f"{each!r} {each!s} {vars_of(each)}" for each in holders)


def vars_of(holder: object) -> str:
    """Return the attributes of an object, as a debugger lists them."""
    return repr(vars(holder)) if hasattr(holder, "__dict__") else ""


class BrokenEntropy(SystemEntropy):
    """A key that raises when a request is signed."""

    def token(self, size: int = 16) -> str:
        raise OSError("no randomness")


def test_the_traceback_of_an_error_in_signing_shows_no_key() -> None:
    key = MeshKey(text=CANARY, source="a test")
    signer = Signer(key, clock=SystemClock(), entropy=BrokenEntropy())
    with pytest.raises(OSError, match="no randomness") as caught:
        signer.proof(b"", receiver="*")
    report = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    assert CANARY not in "".join(report.format())


def test_the_key_that_is_wrong_is_not_shown_either() -> None:
    with pytest.raises(Exception, match="has no mesh key") as caught:
        HostClient("http://127.0.0.1:1", key=CANARY + "!")
    assert CANARY not in "".join(traceback.format_exception(caught.value))
