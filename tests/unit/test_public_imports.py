"""The paths that authors import from, which also name classes on the wire and in stores: for ever."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from paglets.artifacts import ArtifactRef
from paglets.codec.names import class_name, resolve_class
from paglets.core.errors import Invalid

PUBLIC = {
    "paglets.system.compute_slots": [
        "ComputeJobPaglet",
        "ComputeJobState",
        "CollectingComputeJobPaglet",
        "CollectingComputeJobState",
        "ResultCollectorPaglet",
        "ResultCollectorState",
        "submit_compute_job_group",
    ],
    "paglets.artifacts": ["ArtifactRef"],
    "paglets.remote.client": ["HostClient"],
    "paglets.remote.proxy": ["PagletProxy"],
    "paglets.core.agent": ["HookEvent", "Paglet", "PagletState"],
    "paglets.core.messages": ["Message"],
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in PUBLIC.items() for name in names])
def test_a_public_name_is_where_it_must_be_and_knows_it(module: str, name: str) -> None:
    found = getattr(importlib.import_module(module), name)
    assert found.__module__ == module
    if isinstance(found, type):
        assert class_name(found) == f"{module}:{name}"
        assert resolve_class(class_name(found)) is found


def test_the_facade_names_all_that_it_offers() -> None:
    facade = importlib.import_module("paglets.system.compute_slots")
    assert set(PUBLIC["paglets.system.compute_slots"]) <= set(facade.__all__)


def test_the_facade_opens_no_door_to_the_net() -> None:
    """It is loaded before every job: no sockets, no threads, no store, no host."""
    heavy = "{'sqlite3', 'http.client', 'ssl', 'asyncio', 'socket', 'subprocess', 'argparse'}"
    code = f"import sys, paglets.system.compute_slots; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


ARTIFACT = ArtifactRef(
    artifact_id="a1", name="result.db", size_bytes=10, sha256="ab" * 32, host_name="w1", owner="c1", created_at=1.5
)


def test_an_artifact_ref_comes_back_from_the_wire() -> None:
    assert ArtifactRef.from_wire(ARTIFACT.to_wire()) == ARTIFACT
    assert ArtifactRef.from_wire(ARTIFACT) is ARTIFACT
    assert set(ARTIFACT.to_wire()) == {
        "artifact_id",
        "name",
        "size_bytes",
        "sha256",
        "host_name",
        "owner",
        "created_at",
        "expires_at",
    }


def test_a_wrong_artifact_ref_names_the_field() -> None:
    with pytest.raises(Invalid, match="size_bytes"):
        ArtifactRef.from_wire(ARTIFACT.to_wire() | {"size_bytes": "10"})
