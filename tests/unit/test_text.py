"""The rules for docstrings and names that no linter knows."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "paglets").rglob("*.py"))
RELATIVE = re.compile(
    "(What|Whether|Where|Which|Who|Whom|Whose|That|Those|When|While|As|How|Why|If|Of|None|Once|Ever|Else|Nobody)\\b"
)


def docstrings(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring: of modules, classes and functions, and below constants and fields."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        before: ast.AST | None = None
        for statement in node.body:
            match statement:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    if before is None or isinstance(before, (ast.Assign, ast.AnnAssign)):
                        yield statement.lineno, text
            before = statement


@pytest.mark.parametrize(
    "path", [*MODULES, ROOT / "build_zipapp.py"], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_no_docstring_starts_with_a_relative_clause(path: Path) -> None:
    found = [f"{path.name}:{line}: {text}" for line, text in docstrings(path.read_text()) if RELATIVE.match(text)]
    assert found == []


def test_docstrings_of_all_kinds_are_read() -> None:
    source = '''"""A module."""
LIMIT = 3
"""Bytes."""
class Thing:
    """A thing."""
    size: int = 0
    """Its size."""
    def grow(self):
        """Make it larger."""
        "not a docstring"
'''
    assert [text for _, text in sorted(docstrings(source))] == [
        "A module.",
        "Bytes.",
        "A thing.",
        "Its size.",
        "Make it larger.",
    ]


def test_each_name_of_a_class_stands_for_one_class() -> None:
    trees = [ast.parse(path.read_text("utf-8")) for path in MODULES]
    counts = Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, count in counts.items() if count > 1] == []
