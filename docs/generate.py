"""Generator of parts of the documents: `python -m docs.generate`, in the root of the repository.

A part is the text between `<!-- generated: NAME -->` and `<!-- end: NAME -->`. The rest of a document is written by
hand. `--check` writes nothing, and fails if a document is out of date. A command that has no part yet gets one at the
end of `commands.md`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from docs.generator import commands, errors, records, schema, settings

DOCS = Path(__file__).resolve().parent
PART = re.compile(r"(<!-- generated: (?P<name>[^>]+?) -->\n).*?(<!-- end: (?P=name) -->\n)", re.DOTALL)


def parts() -> dict[str, str]:
    """Return the Markdown of each part by its name. It ends with a line break."""
    return {**records.parts(), **errors.parts(), **schema.parts(), **settings.parts(), **commands.parts()}


def unused() -> set[str]:
    """Return the names of parts that no document contains."""
    there = {found["name"] for path in DOCS.rglob("*.md") for found in PART.finditer(path.read_text("utf-8"))}
    return parts().keys() - there


def updated(text: str, made: dict[str, str]) -> str:
    """Return the document `text` with the parts `made`. Raises KeyError for a part that nothing generates."""
    return PART.sub(lambda found: f"{found[1]}\n{made[found['name']]}\n{found[3]}", text)


def with_all_commands(text: str, made: dict[str, str]) -> str:
    """Return `text` (`commands.md`) with a heading and an empty part added for each command that has none."""
    for name in sorted(name for name in made if name.startswith(commands.PREFIX)):
        if f"<!-- generated: {name} -->" not in text:
            title = name.removeprefix(commands.PREFIX)
            text += f"\n## {title}\n\n<!-- generated: {name} -->\n<!-- end: {name} -->\n"
    return text


def documents() -> dict[Path, str]:
    """Return the text that each document should have, by its path."""
    made = parts()
    found = {}
    for path in sorted(DOCS.rglob("*.md")):
        text = path.read_text("utf-8")
        text = with_all_commands(text, made) if path.name == "commands.md" else text
        found[path] = updated(text, made)
    return found


def outdated() -> list[str]:
    """Return the file names of documents that are out of date."""
    return [path.name for path, text in documents().items() if path.read_text("utf-8") != text]


def main(arguments: list[str]) -> int:
    if arguments not in ([], ["--check"]):
        print("usage: python -m docs.generate [--check]", file=sys.stderr)
        return 2
    late = outdated()
    if arguments and late:
        print(f"not up to date: {', '.join(late)}; run `python -m docs.generate`", file=sys.stderr)
        return 1
    for path, text in documents().items():
        if path.name in late:
            path.write_text(text, "utf-8")
            print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
