"""Check that a script submits jobs only when it runs as the main program.

Job processes import the script for its classes. Each would run a submission at the top level of the script again.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from types import FrameType

from paglets.core.errors import Invalid

EXITS = ("exit", "quit", "_exit")
"""The names of the functions that end a program: `sys.exit`, `exit`, `quit`, `os._exit`."""


def check_guarded(classes: Iterable[type]) -> None:
    """Check that the script of these classes submits jobs only inside its main guard. Raises Invalid."""
    if all(cls.__module__ != "__main__" for cls in classes):
        return
    top = _top_frame()
    path = Path(top.f_code.co_filename) if top is not None else None
    if top is None or path is None or not path.is_file():
        return
    if not _is_line_guarded(path, top.f_lineno):
        raise Invalid(
            f"line {top.f_lineno} of {path.name} submits outside of the main guard; nothing was submitted",
            hint=[f'put it below `if __name__ == "__main__":`, since job processes import {path.name}'],
        )


@lru_cache(maxsize=16)
def _is_line_guarded(path: Path, line: int) -> bool:
    """Return `is_guarded` for the file, or True if the file cannot be read or parsed.

    The first answer for a line is cached, because a running script keeps the code that it had at its start.
    """
    try:
        return is_guarded(ast.parse(path.read_bytes()).body, line)
    except (OSError, SyntaxError, ValueError):
        return True


def _top_frame() -> FrameType | None:
    """Return the top-level frame of `__main__` in the call stack, or None if there is none."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            return frame
        frame = frame.f_back
    return None


def is_guarded(body: list[ast.stmt], line: int) -> bool:
    """Return True if the top-level statement at `line` submits only when the script is the main program.

    That is assumed if the statement uses `__name__`, or if one before it stops each import (`_ends_import`).
    """
    before = [statement for statement in body if statement.lineno <= line]
    return any(map(_has_name, before[-1:])) or any(map(_ends_import, before))


def _has_name(tree: ast.AST) -> bool:
    return any(isinstance(node, ast.Name) and node.id == "__name__" for node in ast.walk(tree))


def _ends_import(statement: ast.stmt) -> bool:
    """Return True for an `if __name__ != "__main__":` whose body ends with `raise` or a call such as `sys.exit()`."""
    if not isinstance(statement, ast.If) or not _is_true_in_imports(statement.test):
        return False
    last = statement.body[-1]
    if isinstance(last, ast.Expr) and isinstance(last.value, ast.Call):
        return ast.unparse(last.value.func).rpartition(".")[2] in EXITS
    return isinstance(last, ast.Raise)


def _is_true_in_imports(test: ast.expr) -> bool:
    """Return True for `__name__ != "__main__"` and for `not` before `__name__ == "__main__"`."""
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        return _compares_name(test.operand, ast.Eq)
    return _compares_name(test, ast.NotEq)


def _compares_name(test: ast.expr, operator: type[ast.cmpop]) -> bool:
    return isinstance(test, ast.Compare) and [type(op) for op in test.ops] == [operator] and _has_name(test)
