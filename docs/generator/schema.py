"""The tables of a host's store, read from `store/schema.sql` with its comments."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from docs.generator.markdown import code, table

SCHEMA = Path(__file__).parents[2] / "paglets" / "store" / "schema.sql"
CREATED = re.compile(r"CREATE (TABLE|VIEW) (\w+)")
OF_TABLE = ("PRIMARY KEY", "UNIQUE", "CHECK", "FOREIGN KEY")


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A statement of the file with the comment above it."""

    comment: tuple[str, ...]
    sql: str


def parts() -> dict[str, str]:
    known = statements(SCHEMA.read_text("utf-8"))
    return {"tables": "\n".join(shown(each) for each in known if CREATED.match(each.sql))}


def statements(text: str) -> list[Statement]:
    found: list[Statement] = []
    comment: list[str] = []
    lines: list[str] = []
    for line in text.splitlines():
        if not line.strip() and not lines:
            comment = []  # A comment above an empty line is about the whole file.
        elif line.startswith("--"):
            comment.append(line[2:].removeprefix(" "))
        elif line.strip():
            lines.append(line)
            if line.rstrip().endswith(";"):
                found.append(Statement(comment=tuple(comment), sql="\n".join(lines).rstrip(";")))
                comment, lines = [], []
    return found


def shown(statement: Statement) -> str:
    found = CREATED.match(statement.sql)
    assert found is not None
    about = "\n".join(statement.comment)
    text = f"#### {found[1].lower()} {found[2]}\n\n" + (f"```text\n{about}\n```\n\n" if about else "")
    return text + (_columns(statement.sql) if found[1] == "TABLE" else f"```sql\n{statement.sql}\n```\n")


def _columns(sql: str) -> str:
    inside = sql[sql.index("(") + 1 : sql.rindex(")")]
    entries = [re.sub(r"\s+", " ", entry).strip() for entry in _split(inside)]
    columns = [entry.split(" ", 2) for entry in entries if not entry.startswith(OF_TABLE)]
    rows = [(code(name), kind, code("".join(further))) for name, kind, *further in columns]
    rules = [entry for entry in entries if entry.startswith(OF_TABLE)]
    also = f"\nAlso: {', '.join(map(code, rules))}.\n" if rules else ""
    return table(("column", "type", "must be"), rows) + also


def _split(text: str) -> list[str]:
    """Split a text at commas outside parentheses."""
    found, depth, begin = [], 0, 0
    for place, letter in enumerate(text):
        depth += {"(": 1, ")": -1}.get(letter, 0)
        if letter == "," and depth == 0:
            found.append(text[begin:place])
            begin = place + 1
    return [*found, text[begin:]]
