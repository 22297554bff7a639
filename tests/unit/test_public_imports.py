"""The public import paths, which never change, as they also name classes on the wire and in stores."""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import pytest

import paglets
from paglets.artifacts import ArtifactRef
from paglets.codec.class_names import class_name, resolve_class
from paglets.core.errors import Invalid
from paglets.program import PROGRAM_VERSION
from paglets.system.compute_slots import CollectingComputeJobPaglet, CollectingComputeJobState, Submission

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


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_facade_opens_no_door_to_the_net() -> None:
    """Each process of a job loads it, so it imports no sockets, threads, store or host."""
    heavy = "{'sqlite3', 'http.client', 'ssl', 'asyncio', 'socket', 'subprocess', 'argparse', 'typing_extensions'}"
    code = f"import sys, paglets; paglets.Job; print(sorted({heavy} & set(sys.modules)))"
    assert python(code).stdout.strip() == "[]"


# import paglets.


def test_the_package_loads_nothing_until_a_name_is_used() -> None:
    done = python("import sys; before = set(sys.modules); import paglets; print(sorted(set(sys.modules) - before))")
    assert done.stdout.strip() == "['paglets']"


def test_the_package_lists_the_same_names_for_python_and_for_type_checkers() -> None:
    checked: dict[str, tuple[str, str]] = {}
    for node in ast.walk(ast.parse(Path(paglets.__file__).read_text())):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("paglets."):
            checked |= {alias.asname or alias.name: (str(node.module), alias.name) for alias in node.names}
    assert checked == paglets._PLACES
    assert sorted(checked) == sorted(paglets.__all__)


@pytest.mark.parametrize("name", paglets.__all__)
def test_a_name_of_the_package_is_the_object_at_the_long_path(name: str) -> None:
    module, attribute = paglets._PLACES[name]
    found = getattr(paglets, name)
    assert found is getattr(importlib.import_module(module), attribute)
    assert name in dir(paglets)
    if callable(found):
        assert inspect.getdoc(found)
        assert pickle.loads(pickle.dumps(found)) is found
        assert found.__module__ == module


def test_short_names_are_the_classes_of_the_specification() -> None:
    assert paglets.Job is CollectingComputeJobPaglet
    assert paglets.JobState is CollectingComputeJobState
    assert paglets.Group is Submission
    assert paglets.__version__ == PROGRAM_VERSION
    state = paglets.JobState(job_key="a")
    assert copy.deepcopy(state) == pickle.loads(pickle.dumps(state)) == state


def test_a_star_import_gives_all_names() -> None:
    names: dict[str, object] = {}
    exec("from paglets import *", names)
    assert set(paglets.__all__) == names.keys() - {"__builtins__"}


@pytest.mark.parametrize(("name", "near"), [("Jobs", "Job"), ("HostClent", "HostClient"), ("map", ""), ("submit", "")])
def test_an_unknown_name_suggests_a_near_one(name: str, near: str) -> None:
    last = python(f"import paglets; paglets.{name}").stderr.splitlines()[-1]
    hint = f". Did you mean: {near!r}?" if near else ""
    assert last == f"AttributeError: module 'paglets' has no attribute {name!r}{hint}"


# What help() shows.


FIELD_LINE = re.compile(r"^    (\w+)(?: = (\S+))?  +\S", re.MULTILINE)
NO_ACT = {"The", "A", "An", "All", "As", "Bytes", "Like", "One", "That", "Those", "What", "Where", "Whether", "Why"}
CLASSES = [getattr(paglets, name) for name in paglets.__all__ if isinstance(getattr(paglets, name), type)]


def default_of(field: Field[Any]) -> str | None:
    made = field.default if field.default_factory is MISSING else field.default_factory()
    return None if made is MISSING else repr(made).replace("'", '"')


@pytest.mark.parametrize("cls", [paglets.PagletState, paglets.JobState, paglets.Message, ArtifactRef])
def test_help_shows_each_field_with_its_default(cls: Any) -> None:
    shown = {name: default or None for name, default in FIELD_LINE.findall(inspect.getdoc(cls) or "")}
    assert shown == {field.name: default_of(field) for field in fields(cls)}


def methods(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the functions of the public methods and properties that a class of paglets defines."""
    for name in dir(cls):
        found = inspect.getattr_static(cls, name)
        function = getattr(found, "fget", getattr(found, "__func__", found))
        if not name.startswith("_") and str(getattr(function, "__module__", "")).startswith("paglets."):
            yield f"{cls.__name__}.{name}", found if inspect.isfunction(found) else function


@pytest.mark.parametrize("cls", CLASSES)
def test_each_public_method_says_what_it_does(cls: type) -> None:
    for name, function in methods(cls):
        text = inspect.getdoc(function)
        assert text, name
        is_noun = isinstance(inspect.getattr_static(cls, name.rpartition(".")[2]), property | type)
        assert is_noun or text.split()[0] not in NO_ACT, f"{name}: {text}"


@pytest.mark.parametrize("cls", [paglets.Job, paglets.HostClient, paglets.Group, paglets.Paglet])
def test_the_names_in_the_lists_of_a_docstring_exist(cls: type) -> None:
    lists = re.findall(r"^    ((?:\w+,? ?)+?)(?:  .*)?$", inspect.getdoc(cls) or "", re.MULTILINE)
    names = [name for line in lists for name in re.findall(r"\w+", line)]
    assert len(names) > 8
    instance_values = {"state"}
    assert [name for name in names if not hasattr(cls, name) and name not in instance_values] == []


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
