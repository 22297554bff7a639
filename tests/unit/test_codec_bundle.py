"""The bundle of a class: its files, their names and their bytes."""

from __future__ import annotations

import io
import os
import sys
import zipfile
from pathlib import Path

import pytest
from code_rig import CLASS, LOOK, Project, Told, run_python

from paglets.codec.bundle import (
    MAX_BUNDLE_BYTES,
    bundle_of,
    first_clash,
    note_unpacked,
    publish_code,
    zipped,
)
from paglets.core.agent import PagletState
from paglets.core.errors import ImportFailed, Invalid
from paglets.core.refs import BlobRef
from paglets.testing.authors import FakeContext

SCRIPT = CLASS + LOOK


def told_of(folder: Path, script: str = "job.py", *, files: dict[str, str], head: str = "") -> Told:
    """Run a script that starts with `head`, with `files` beside it. Return what it prints about its class."""
    return Project(folder, {script: f"{head}\n{SCRIPT}", **files}).run(script)


# Files in a bundle.


@pytest.mark.parametrize(
    ("head", "found"),
    [
        ("import helper", ["helper.py"]),
        ("import helper as other", ["helper.py"]),
        ("from helper import thing", ["helper.py"]),
        ("from helper import *", ["helper.py"]),
        ("def later():\n    import helper", ["helper.py"]),
        ("class Other:\n    def method(self):\n        from helper import thing", ["helper.py"]),
        ("try:\n    import helper\nexcept ImportError:\n    import missing", ["helper.py"]),
        ("if False:\n    import helper", ["helper.py"]),
        ("import pkg", ["pkg/__init__.py"]),
        ("import pkg.leaf", ["pkg/__init__.py", "pkg/leaf.py"]),
        ("from pkg import leaf", ["pkg/__init__.py", "pkg/leaf.py"]),
        ("from pkg.leaf import thing", ["pkg/__init__.py", "pkg/leaf.py"]),
        ("from pkg import near", ["pkg/__init__.py", "pkg/leaf.py", "pkg/near.py"]),
        ("import pkg.deep.two", ["pkg/__init__.py", "pkg/deep/__init__.py", "pkg/deep/two.py", "pkg/leaf.py"]),
        ("import spread.part", ["spread/part.py"]),
        ("from spread import part", ["spread/part.py"]),
        ("import os, json, paglets, paglets.core.agent\nimport pytest", []),
        ("x = 'import helper'", []),
    ],
)
def test_what_a_script_imports_from_its_folder_goes_along(head: str, found: list[str], tmp_path: Path) -> None:
    files = {
        "helper.py": "thing = 1",
        "pkg/__init__.py": "",
        "pkg/leaf.py": "thing = 2",
        "pkg/near.py": "from . import leaf",
        "pkg/deep/__init__.py": "",
        "pkg/deep/two.py": "from ..leaf import thing",
        "spread/part.py": "",
        "unused.py": "",
        "notes.txt": "",
    }
    told = told_of(tmp_path, files=files, head=head)

    assert (told.error, told.name, told.is_same) == ("", "job:Job", True)
    assert told.files == sorted(["job.py", *found])
    assert told.size[0] == told.size[1]


def test_imports_are_followed_in_circles_and_from_file_to_file(tmp_path: Path) -> None:
    files = {"a.py": "import b", "b.py": "import c", "c.py": "import a\ndef f():\n    import d", "d.py": ""}
    assert told_of(tmp_path, files=files, head="import a").files == ["a.py", "b.py", "c.py", "d.py", "job.py"]


def test_what_was_loaded_by_other_means_goes_along_where_its_package_does(tmp_path: Path) -> None:
    files = {
        "plugins/__init__.py": "import importlib\nimportlib.import_module('plugins.one')",
        "plugins/one.py": "import helper",
        "plugins/two.py": "",
        "helper.py": "",
    }
    told = told_of(tmp_path, files=files, head="import plugins")
    assert told.files == ["helper.py", "job.py", "plugins/__init__.py", "plugins/one.py"]


def test_a_module_named_like_a_folder_is_told_from_it_as_python_does(tmp_path: Path) -> None:
    files = {"both/__init__.py": "", "both/x.py": "", "both.py": "", "flat.py": "x = 1", "flat/x.py": ""}
    told = told_of(tmp_path, files=files, head="from both import x\nfrom flat import x as y")
    assert told.files == ["both/__init__.py", "both/x.py", "flat.py", "job.py"]


def test_what_python_has_from_elsewhere_stays_where_it_is(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "first" / "shared.py").write_text("")
    head = f"import sys\nsys.path.insert(0, {str(tmp_path / 'first')!r})\nimport shared"
    assert told_of(tmp_path / "second", files={"shared.py": ""}, head=head).files == ["job.py"]


def test_folders_made_by_tools_are_not_entered(tmp_path: Path) -> None:
    files = {f"{folder}/thing.py": "" for folder in ("build", "dist", "env", "node_modules")}
    head = "def later():\n    " + "\n    ".join(f"import {name[:-9]}.thing" for name in files)
    assert told_of(tmp_path, files=files, head=head).files == ["job.py"]


def test_a_module_in_such_a_folder_that_is_in_use_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    told = told_of(tmp_path, files={"env/__init__.py": ""}, head="import env")
    assert told.code == "invalid"
    assert "module env is in" in told.error
    assert "rename it" in told.error


def test_a_file_named_like_such_a_folder_is_a_module_like_others(tmp_path: Path) -> None:
    files = {"build.py": "", "build/x.txt": ""}
    assert told_of(tmp_path, files=files, head="import build").files == ["build.py", "job.py"]


def test_a_module_that_hides_one_of_pythons_own_is_an_error_with_the_way_out(tmp_path: Path) -> None:
    told = told_of(tmp_path, files={"colorsys.py": ""}, head="import colorsys")
    assert "colorsys.py has the name of a module that every host has" in told.error


def test_a_class_of_a_package_brings_what_lies_below_the_folder_of_that_package(tmp_path: Path) -> None:
    project = Project(
        tmp_path,
        {
            "lib/pkg/__init__.py": "",
            "lib/pkg/jobs/__init__.py": "",
            "lib/pkg/jobs/one.py": f"import beside\nfrom ..tools import tool\n{CLASS}",
            "lib/pkg/tools.py": "tool = 1",
            "lib/beside.py": "",
            "scripts/go.py": f"from pkg.jobs.one import Job\n{LOOK}",
        },
    )
    told = project.run("scripts/go.py", PYTHONPATH=str(tmp_path / "lib"))
    assert (told.name, told.is_same) == ("pkg.jobs.one:Job", True)
    packages = ["pkg/__init__.py", "pkg/jobs/__init__.py", "pkg/jobs/one.py", "pkg/tools.py"]
    assert told.files == ["beside.py", *packages]


def test_nothing_travels_that_every_host_has() -> None:
    assert bundle_of(PagletState) is None
    assert bundle_of(zipfile.ZipFile, dict, pytest.Item) is None
    context = FakeContext()
    assert publish_code(context, PagletState) is None
    assert context.blobs == {}


# The module of a script.


@pytest.mark.parametrize("name", ["my-job.py", "2nd.py", "colorsys.py", "pytest.py", "both.py"])
def test_a_script_whose_name_is_not_free_goes_by_its_content(name: str, tmp_path: Path) -> None:
    told = told_of(tmp_path, name, files={"both/__init__.py": ""})
    module = told.name.partition(":")[0]
    assert module.startswith("main_")
    assert len(module) == len("main_") + 8
    assert (told.is_same, told.files) == (True, [f"{module}.py"])

    again = told_of(tmp_path / "elsewhere", name, files={"both/__init__.py": ""})
    assert (again.name, again.sha256) == (told.name, told.sha256)


def test_a_script_without_a_suffix_is_a_module_too(tmp_path: Path) -> None:
    told = told_of(tmp_path, "job", files={})
    assert (told.name, told.files) == ("job:Job", ["job.py"])


def test_a_module_that_is_started_by_its_name_keeps_it(tmp_path: Path) -> None:
    files = {"pkg/__init__.py": "", "pkg/go.py": f"from . import leaf\n{SCRIPT}", "pkg/leaf.py": ""}
    told = Project(tmp_path, files).run("-m", "pkg.go")
    assert (told.name, told.is_same) == ("pkg.go:Job", True)
    assert told.files == ["pkg/__init__.py", "pkg/go.py", "pkg/leaf.py"]


def test_a_package_that_is_started_by_its_name_is_its_main_module(tmp_path: Path) -> None:
    told = Project(tmp_path, {"pkg/__init__.py": "", "pkg/__main__.py": SCRIPT}).run("-m", "pkg")
    assert (told.name, told.files) == ("pkg.__main__:Job", ["pkg/__init__.py", "pkg/__main__.py"])


def test_of_a_link_to_a_script_the_file_it_leads_to_counts(tmp_path: Path) -> None:
    project = Project(tmp_path / "real", {"job.py": f"import helper\n{SCRIPT}", "helper.py": ""})
    link = tmp_path / "other-name"
    link.symlink_to(tmp_path / "real" / "job.py")
    told = project.run(link)
    assert (told.name, told.files) == ("job:Job", ["helper.py", "job.py"])


@pytest.mark.parametrize("how", [("-c", CLASS + LOOK), ("-",), ("-i",)])
def test_a_class_of_no_file_is_an_error_with_the_way_out(how: tuple[str, ...], tmp_path: Path) -> None:
    script = "\n".join(line for line in (CLASS + "\n" + LOOK + "\n\n").splitlines(keepends=False)) + "\n\n"
    done = run_python(*how, folder=tmp_path, given=script if how != ("-i",) else f"exec({script!r})\n")
    assert "define the class in a file" in done.stdout, done.stderr


def test_a_script_within_another_program_has_no_file_of_its_own(tmp_path: Path) -> None:
    """A profiler is `__main__` itself, and the class is not in its module."""
    told = Project(tmp_path, {"job.py": SCRIPT}).run("-m", "cProfile", "-o", tmp_path / "profile", "job.py")
    assert "define the class in a file" in told.error


def test_processes_that_multiprocessing_spawns_know_the_class_too(tmp_path: Path) -> None:
    body = f"""
from multiprocessing import get_context
from paglets.codec.class_names import class_name, resolve_class
{CLASS}
def look(queue):
    queue.put((class_name(Job), resolve_class("job:Job") is Job))

if __name__ == "__main__":
    import json
    context = get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=look, args=(queue,))
    process.start()
    name, same = queue.get()
    process.join()
    print(json.dumps({{"name": name, "is_same": same}}))
"""
    told = Project(tmp_path, {"job.py": body}).run("job.py")
    assert (told.name, told.is_same) == ("job:Job", True)


def test_a_reply_that_names_the_script_gives_its_own_class(tmp_path: Path) -> None:
    body = """
from dataclasses import dataclass
import json, sys
from paglets.codec.tagged_json import decode, encode

@dataclass
class Result:
    value: int

if __name__ == "__main__":
    tree = encode(Result(3))
    assert tree["$object"]["class"] == "job:Result", tree
    print(json.dumps({"is_same": type(decode(tree)) is Result and "job" not in sys.modules}))
"""
    assert Project(tmp_path, {"job.py": body}).run("job.py").is_same


# Bytes of a bundle.


def test_equal_sources_make_equal_bytes_wherever_and_whenever(tmp_path: Path) -> None:
    files = {"job.py": f"import pkg.a, helper\n{SCRIPT}", "helper.py": "", "pkg/__init__.py": "", "pkg/a.py": ""}
    one = Project(tmp_path / "one", files).run("job.py", TZ="Asia/Tokyo")
    other = Project(tmp_path / "two" / "deeper", dict(reversed(files.items())))
    for path in other.folder.rglob("*.py"):
        os.utime(path, (1_000_000_000, 1_000_000_000))
        path.chmod(0o755)
    assert other.run(other.folder / "job.py", TZ="America/Lima", PYTHONHASHSEED="7").sha256 == one.sha256


def test_a_bundle_is_a_plain_archive_without_times_and_users() -> None:
    with zipfile.ZipFile(io.BytesIO(zipped({"b.py": b"2", "a/__init__.py": b"1"}))) as archive:
        entries = archive.infolist()
    assert [entry.filename for entry in entries] == ["a/__init__.py", "b.py"]
    for entry in entries:
        assert (entry.date_time, entry.compress_type) == ((1980, 1, 1, 0, 0, 0), zipfile.ZIP_STORED)
        assert (entry.external_attr >> 16, entry.create_system) == (0o100600, 3)


# Code that cannot be sent.


@pytest.mark.parametrize(
    ("text", "says"),
    [("x = 1\ndef broken(:\n", "helper.py, line 2: "), ("x = '\0'", "helper.py"), ("\u00e9", "helper.py")],
)
def test_a_file_that_is_no_python_is_named_with_its_line(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_bytes(text.encode("latin-1"))
    told = told_of(tmp_path, files={}, head="def later():\n    import helper")
    assert told.code == "invalid"
    assert says in told.error


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    Project(tmp_path, {"helper.py": ""})
    (tmp_path / "helper.py").chmod(0)
    assert "cannot be read" in told_of(tmp_path, files={}, head="def later():\n    import helper").error


def test_too_much_code_is_an_error_that_names_the_five_largest_files(tmp_path: Path) -> None:
    sizes = {f"part{number}": number * 1_000_000 for number in range(1, 8)}
    files = {f"{name}.py": "#" * size for name, size in sizes.items()}
    told = told_of(tmp_path, files=files, head="def later():\n    import " + ", ".join(sizes))
    assert sum(sizes.values()) > MAX_BUNDLE_BYTES
    assert "over 20 MB" in told.error
    assert told.error.count(".py (") == 5
    assert "part7.py (7.0 MB)" in told.error
    assert "as `inputs`" in told.error


def test_files_that_differ_only_in_case_are_an_error(tmp_path: Path) -> None:
    Project(tmp_path, {"helper.py": "", "Helper.py": ""})
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system does not tell them apart")
    told = told_of(tmp_path, files={}, head="import helper, Helper")
    assert "differ only in case" in told.error


@pytest.mark.parametrize(
    ("names", "clash"),
    [
        (["a.py", "b.py", "c/a.py"], ""),
        (["a.py", "A.py"], "a.py and A.py"),
        (["pkg/a.py", "Pkg/b.py"], "pkg and Pkg"),
        (["pkg/a.py", "pkg/b.py", "pkg/sub/a.py", "PKG/sub/b.py"], "pkg and PKG"),
    ],
)
def test_paths_clash_where_a_part_differs_only_in_case(names: list[str], clash: str) -> None:
    spellings: dict[str, str] = {}
    found = [problem for name in names if (problem := first_clash(name, spellings))]
    assert (found or [""])[0] == clash


# Classes of values.


def test_a_class_that_only_a_state_holds_goes_along_from_wherever_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project(tmp_path, {"jobs/only_jobs.py": CLASS, "values/only_values.py": "import only_beside\n" + CLASS})
    (project.folder / "values" / "only_beside.py").write_text("")
    for folder in ("jobs", "values"):
        monkeypatch.syspath_prepend(tmp_path / folder)
    import only_jobs

    state = {"one": [{"$object": {"class": "only_values:Job", "fields": {}}}]}
    context = FakeContext()
    bundle = publish_code(context, only_jobs.Job, states=(state, {"two": 2}))
    assert bundle is not None
    with zipfile.ZipFile(io.BytesIO(context.blobs[bundle.sha256])) as archive:
        assert archive.namelist() == ["only_beside.py", "only_jobs.py", "only_values.py"]
    with pytest.raises(ImportFailed, match="has no class Gone"):
        publish_code(context, only_jobs.Job, states=({"one": {"$enum": ["only_values:Gone", "A"]}},))
    for name in ("only_jobs", "only_values"):
        sys.modules.pop(name)


# In the process of a paglet.


def test_a_class_that_came_in_a_bundle_goes_on_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "came_in_a_bundle.py").write_text(CLASS)
    monkeypatch.syspath_prepend(tmp_path)
    import came_in_a_bundle

    context, own = FakeContext(), BlobRef(sha256="a" * 64, size_bytes=5)
    first = publish_code(context, came_in_a_bundle.Job)
    assert first is not None
    assert list(context.blobs) == [first.sha256]

    note_unpacked(str(tmp_path), own)
    assert publish_code(context, came_in_a_bundle.Job, PagletState) == own
    assert publish_code(context, came_in_a_bundle.Job, type("Here", (), {"__module__": __name__})) != own
    sys.modules.pop("came_in_a_bundle")


def test_a_class_inside_a_function_is_refused_before_anything_is_read() -> None:
    class Local:
        pass

    with pytest.raises(Invalid, match="a class inside a function cannot be sent"):
        bundle_of(Local)
