"""The example that `paglets demo` runs: its input, its bundles, its databases and the comparison."""

from __future__ import annotations

from pathlib import Path

import pytest

from paglets.examples.identifiers import (
    SourceFile,
    Uses,
    Word,
    bundles,
    differences,
    merge,
    most_used,
    source_files,
    uses_in,
    write_database,
)

TEXTS = {
    "b.py": "import os\nprint(os.name, os.sep)  # os\n",
    "a.py": "x = x_2 = 'x'\n",
    "inner/c.py": "def f(x): return x\n",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Modules, and beside them what is no input."""
    others = ("readme.txt", "test/t.py", "inner/tests/t.py", "site-packages/s.py", "setup-old.py", "d.c.py")
    for name, text in {**TEXTS, **dict.fromkeys(others, "y = 1\n")}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def file(name: str, size_bytes: int) -> SourceFile:
    return SourceFile(name=name, path=Path(name), size_bytes=size_bytes)


def names(files: list[SourceFile]) -> list[str]:
    return [each.name for each in files]


def test_modules_are_input_under_names_without_folders_and_tests_are_not(folder: Path) -> None:
    found = source_files(folder, most_files=10, most_bytes=1000)
    assert names(found) == ["a.py", "b.py", "inner.c.py"]
    assert [each.size_bytes for each in found] == [len(TEXTS[name]) for name in ("a.py", "b.py", "inner/c.py")]


@pytest.mark.parametrize(
    ("most_files", "most_bytes", "expected"),
    [(2, 1000, ["a.py", "b.py"]), (10, 20, ["a.py"]), (10, 0, []), (0, 1000, [])],
)
def test_the_input_is_bounded_in_files_and_in_bytes(
    folder: Path, most_files: int, most_bytes: int, expected: list[str]
) -> None:
    assert names(source_files(folder, most_files=most_files, most_bytes=most_bytes)) == expected


def test_bundles_are_about_equal_and_hold_each_file_once() -> None:
    files = [file(f"f{size}", size) for size in (9, 1, 5, 4, 8, 3)]
    made = bundles(files, 3)
    assert {key: [each.size_bytes for each in bundle] for key, bundle in made.items()} == {
        "bundle-01": [9, 1],
        "bundle-02": [8, 3],
        "bundle-03": [5, 4],
    }
    assert bundles(files[::-1], 3) == made


@pytest.mark.parametrize(("count", "expected"), [(0, 0), (1, 1), (2, 2)])
def test_there_is_no_empty_bundle(count: int, expected: int) -> None:
    assert len(bundles([file(f"f{nth}", 0) for nth in range(count)], 2)) == expected


def test_identifiers_are_counted_and_neither_keywords_nor_comments_nor_strings(folder: Path) -> None:
    assert uses_in((name, folder / name) for name in ("a.py", "b.py")) == {
        ("a.py", "x"): 1,
        ("a.py", "x_2"): 1,
        ("b.py", "os"): 3,
        ("b.py", "print"): 1,
        ("b.py", "name"): 1,
        ("b.py", "sep"): 1,
    }


def test_merged_databases_hold_what_one_count_of_all_files_gives(tmp_path: Path, folder: Path) -> None:
    parts = []
    for number, name in enumerate(TEXTS):
        parts.append(tmp_path / f"{number}.db")
        write_database(parts[-1], uses_in([(name, folder / name)]))
    merged = merge(parts, tmp_path / "merged.db")
    assert differences(merged, uses_in((name, folder / name) for name in TEXTS)) == []


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ({("a.py", "x"): 1}, "b.py: y: 0 instead of 2"),
        ({("a.py", "x"): 1, ("b.py", "y"): 3}, "b.py: y: 3 instead of 2"),
        ({("a.py", "x"): 1, ("b.py", "y"): 2, ("c.py", "z"): 4}, "c.py: z: 4 instead of 0"),
    ],
)
def test_each_count_that_is_not_the_same_is_told(found: Uses, line: str) -> None:
    assert differences(found, {("a.py", "x"): 1, ("b.py", "y"): 2}) == [line]


def test_the_most_used_are_those_of_all_files_together() -> None:
    uses = {("a", "x"): 2, ("b", "x"): 3, ("a", "y"): 4, ("a", "z"): 5}
    expected = [Word(identifier="x", uses=5, files=2), Word(identifier="z", uses=5, files=1)]
    assert most_used(uses, 2) == expected
