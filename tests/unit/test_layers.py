"""The rules of imports, file lengths and forbidden modules."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "paglets"
MODULES = sorted(PACKAGE.rglob("*.py"))

LEVELS = (
    ("core",),
    ("codec", "slots", "groups"),
    ("api",),
    ("store", "wire"),
    ("client",),
    ("artifacts", "mesh", "worker"),
    ("host",),
)
"""A package may import those of earlier levels; those of one level do not import each other."""

VALUES = {"config", "settings", "program", "program_copy", "native"}
"""Top level modules of values and files; packages that deal with the machine may read them."""

MAY_IMPORT: dict[str, set[str]] = {
    name: {name, *(VALUES if depth > 4 else ()), *(below for level in LEVELS[:depth] for below in level)}
    for depth, names in enumerate(LEVELS)
    for name in names
} | {
    "program": {"core"},
    "program_copy": {"core", "program"},
    "native": {"core", "program", "wire"},
    "settings": {"core", "slots"},
    "config": {"core", "slots", "program", "settings"},
    "web": {"core"},
    "system": {"system", "core", "codec", "slots", "groups", "api", "wire", "client"},
    "examples": {"examples", "system", "remote", "artifacts", "core"},
    "__init__": {"artifacts", "core", "program", "remote", "system"},
    "remote": {"client"},
    "__main__": {"cli", "worker"},
}
AUTHORS_AND_TOOLS = {"cli", "testing"}
"""The packages that may import all others. No other package imports them."""

WORKER_PARTS: dict[str, set[str]] = {"": {""}, "host": {"", "host"}, "child": {"", "child"}}
WORKER_PARTS["zygote"] = {"", "child", "zygote"}
"""The parts that each part of `worker` may import. A zygote forks children; the host sends frames to both."""

HOST_PACKAGES = ("runtime", "datadir", "records", "network", "blobs", "handoff", "messaging", "jobs", "groups")
"""The packages of `host` in order: each may import itself and earlier ones. The root and `http` may import all."""

SQL = re.compile(
    r"""["'\s](SELECT\s|INSERT\s+(OR|INTO)\b|UPDATE\s+\w+\s+SET\b|DELETE\s+FROM\b|WITH\s+\w+\s*(\(|AS\b))"""
)
SQL_ALLOWED = ("store/", "host/records/", "core/databases.py", "examples/")
"""The modules with SQL statements. `core/databases.py` copies databases of users; the examples have their own."""

THIRD_PARTY = {"psutil", "tomli_w"}
FOR_CHECKERS = {"typing_extensions"}
"""Type checkers know these without an installation; no process loads them (`tests/unit/test_public_imports.py`)."""

FORBIDDEN = {"pickle", "marshal", "shelve"}
WORLD = {"time", "random", "uuid", "secrets", "threading", "_thread", "concurrent"}
WORLD_ALLOWED = (
    "core/clock.py",
    "core/unpacking.py",
    "codec/uuids.py",
    "store/db.py",
    *(f"wire/{name}.py" for name in ("pooled_client", "transport")),
    *(f"client/{name}.py" for name in ("fan_out", "download")),
    *(f"worker/host/{name}.py" for name in ("launcher", "supervisor", "sampler")),
    *(f"worker/zygote/{name}.py" for name in ("main", "template", "import_watch", "warm_worker")),
    *(f"worker/child/{name}.py" for name in ("main", "context", "zero_copy")),
    "worker/processes.py",
    "worker/observation.py",
    "artifacts/folder.py",
    "host/runtime/threads.py",
    "host/app.py",
    "host/http/server.py",
    "cli/",
    "testing/",
    "examples/",
)
"""The modules that may use time, randomness and threads. Others get them by the constructor, for the simulator."""

MOST_LINES = 400


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def package_of(path: Path) -> str:
    """Return the first part of the module's name below `paglets`."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache  # six tests ask for each module, and parsing it takes most of their time
def imports(path: Path) -> tuple[tuple[int, str], ...]:
    """Return line and full module name of each import, including those in functions and for type checkers."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            yield node.lineno, node.module or ""
            if node.module == "paglets":
                yield from ((node.lineno, f"paglets.{alias.name}") for alias in node.names)


def is_allowed(importer: str, imported: str) -> bool:
    if importer in AUTHORS_AND_TOOLS:
        return True
    return imported in MAY_IMPORT.get(importer, set())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    wrong = [
        f"{name_of(path)}:{line}: {package_of(path)} must not import {module}"
        for line, module in imports(path)
        if module.startswith("paglets.") and not is_allowed(package_of(path), module.split(".")[1])
    ]
    assert wrong == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_imports_nothing_of_others_but_psutil_and_tomli_w(path: Path) -> None:
    known = sys.stdlib_module_names | THIRD_PARTY | FOR_CHECKERS | {"paglets"}
    assert [f"{line}: {module}" for line, module in imports(path) if module.split(".")[0] not in known] == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_never_pickles(path: Path) -> None:
    assert [f"{line}: {module}" for line, module in imports(path) if module.split(".")[0] in FORBIDDEN] == []


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_no_longer_than_one_can_keep_in_mind(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", [path for path in MODULES if not name_of(path).startswith(WORLD_ALLOWED)], ids=name_of)
def test_time_chance_and_threads_come_in_by_the_constructor(path: Path) -> None:
    assert [f"{line}: {module}" for line, module in imports(path) if module.split(".")[0] in WORLD] == []


@pytest.mark.parametrize("path", [*MODULES, *sorted(PACKAGE.rglob("*.sql"))], ids=name_of)
def test_no_statement_asks_the_database_for_time_or_chance(path: Path) -> None:
    asks = re.compile(r"\bcurrent_(timestamp|time|date)\b|(?<![\w.])random\(\)", re.IGNORECASE)
    assert [line for line in path.read_text("utf-8").splitlines() if asks.search(line)] == []


COMMANDS = "paglets.cli.commands"
OUTSIDE_COMMANDS = [path for path in MODULES if name_of(path).startswith("cli/") and "commands/" not in name_of(path)]


@pytest.mark.parametrize("path", OUTSIDE_COMMANDS, ids=name_of)
def test_only_commands_import_commands(path: Path) -> None:
    assert [f"{line}: {module}" for line, module in imports(path) if module.startswith(COMMANDS)] == []


def part_of(parts: Sequence[str]) -> str:
    """Return the folder below `worker` of a module's path; "" for the root."""
    return parts[1] if parts[1] in WORKER_PARTS else ""


@pytest.mark.parametrize("path", [path for path in MODULES if package_of(path) == "worker"], ids=name_of)
def test_the_host_the_zygote_and_the_child_share_only_what_they_must(path: Path) -> None:
    allowed = WORKER_PARTS[part_of(path.relative_to(PACKAGE).parts)]
    imported = [module for _, module in imports(path) if module.startswith("paglets.worker.")]
    assert [module for module in imported if part_of(module.split(".")[1:]) not in allowed] == []


def host_rank(parts: Sequence[str]) -> int:
    """Return the place in HOST_PACKAGES of a module's path below `host`; the root and `http` come last."""
    return HOST_PACKAGES.index(parts[1]) if len(parts) > 1 and parts[1] in HOST_PACKAGES else len(HOST_PACKAGES)


@pytest.mark.parametrize("path", [path for path in MODULES if package_of(path) == "host"], ids=name_of)
def test_a_package_of_the_host_imports_only_earlier_ones(path: Path) -> None:
    rank = host_rank(path.relative_to(PACKAGE).parts)
    imported = [module for _, module in imports(path) if module.split(".")[:2] == ["paglets", "host"]]
    assert [module for module in imported if host_rank(module.split(".")[1:]) > rank] == []


@pytest.mark.parametrize("path", [path for path in MODULES if not name_of(path).startswith(SQL_ALLOWED)], ids=name_of)
def test_statements_are_in_the_store_and_the_records_of_a_host(path: Path) -> None:
    assert [line for line in path.read_text("utf-8").splitlines() if SQL.search(line)] == []


def test_every_package_has_its_place_in_the_layers() -> None:
    known = MAY_IMPORT.keys() | AUTHORS_AND_TOOLS
    assert {package_of(path) for path in MODULES} <= known


@pytest.mark.parametrize(
    ("importer", "imported"), [("core", "store"), ("store", "wire"), ("host", "system"), ("worker", "host")]
)
def test_a_wrong_edge_would_be_seen(importer: str, imported: str) -> None:
    assert not is_allowed(importer, imported)
