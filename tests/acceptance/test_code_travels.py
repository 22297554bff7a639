"""Code and files that travel: a user's script, and hosts that have only the archive."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from build_zipapp import ROOT
from tests.acceptance.rig import COMMAND_SECONDS, Finished, Mesh, wait_until

HELPER = "def words_of(text):\n    return text.split()\n"
COUNTING = "from . import limits\n\ndef count(words):\n    return min(len(words), limits.MOST)\n"

SCRIPT = """\
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import helper
from paglets.remote.client import HostClient
from paglets.system.compute_slots import (
    CollectingComputeJobPaglet,
    CollectingComputeJobState,
    submit_compute_job_group,
)


@dataclass
class Options:
    factor: int = 1


@dataclass
class Result:
    words: int
    module: str


@dataclass
class CountState(CollectingComputeJobState):
    options: Options = field(default_factory=Options)
    result: object = None


class CountWords(CollectingComputeJobPaglet[CountState]):
    State = CountState

    def run_compute_job(self):
        from counting.words import count

        text = Path("common.txt").read_text() + Path("own.txt").read_text()
        words = count(helper.words_of(text)) * self.state.options.factor
        self.state.result = Result(words, __name__)

    def build_result_payload(self):
        return {"found": self.state.result}


if __name__ == "__main__":
    here = Path(__file__).parent
    submission = submit_compute_job_group(
        HostClient(),
        CountWords,
        [CountState(job_key=key, options=Options(10), required_host_tags=("linux",)) for key in ("a", "b")],
        inputs={"common.txt": here / "common.txt"},
        job_inputs={key: {"own.txt": here / f"{key}.txt"} for key in ("a", "b")},
    )
    summary = submission.drain(60)
    found = {key: record["result"]["found"] for key, record in summary["results"].items()}
    print(json.dumps({
        "group_id": submission.group_id,
        "failures": summary["failures"],
        "words": {key: result.words for key, result in found.items()},
        "modules": sorted({result.module for result in found.values()}),
        "same": all(type(result) is Result for result in found.values()),
    }))
"""


def project(folder: Path, name: str, script: str) -> Path:
    """Write the script and its neighbours."""
    files = {
        name: script,
        "helper.py": HELPER,
        "counting/__init__.py": "",
        "counting/words.py": COUNTING,
        "counting/limits.py": "MOST = 1000\n",
        "common.txt": "to be or not to be\n",
        "a.txt": "that is",
        "b.txt": "the question",
    }
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder / name


def run(mesh: Mesh, script: Path) -> Finished:
    """Run the script like a user who has only the archive and the script."""
    return mesh.paglets(script, PAGLETS_AT="laptop", PYTHONPATH="")


def told_by(mesh: Mesh, script: Path) -> dict[str, Any]:
    done = run(mesh, script)
    assert done.code == 0, done.err
    told: dict[str, Any] = json.loads(done.out)
    return told


@pytest.mark.parametrize(("name", "module"), [("count.py", "count"), ("my-count.py", "main_")])
def test_a_job_may_be_one_script_with_what_lies_beside_it(three: Mesh, tmp_path: Path, name: str, module: str) -> None:
    told = told_by(three, project(tmp_path, name, SCRIPT))

    assert told["failures"] == {}
    assert told["words"] == {"a": 80, "b": 80}
    assert told["same"]
    (travelled_as,) = told["modules"]
    assert travelled_as.startswith(module)


def test_a_job_that_ended_is_shown_with_its_class_result_and_attempts(three: Mesh, tmp_path: Path) -> None:
    group_id = told_by(three, project(tmp_path, "count.py", SCRIPT))["group_id"]

    shown = three.paglets("jobs", "show", f"{group_id}/a", "--at", "gpu-a")
    assert shown.code == 0, shown.err
    for words in ("count:CountWords", "COMPLETED", f" jobs logs {group_id}/a"):
        assert words in shown.out

    tree = three.paglets("jobs", "show", f"{group_id}/a", "--json", "--at", "laptop").json
    assert tree["class_name"] == "count:CountWords"
    assert [attempt["attempt"] for attempt in tree["attempts"]] == [1]
    by_id = three.paglets("jobs", "show", tree["attempts"][0]["agent_id"], "--json", "--at", "laptop").json
    assert by_id["job"] == f"{group_id}/a"


WAITING = SCRIPT.replace('required_host_tags=("linux",)', 'required_host_tags=("nowhere",)').replace(
    "summary = submission.drain(60)", "print(submission.group_id)\n    sys.exit()"
)


def test_a_job_that_waits_is_shown_with_its_code_and_files(three: Mesh, tmp_path: Path) -> None:
    done = run(three, project(tmp_path, "count.py", WAITING))
    group_id = done.out.strip()

    def never() -> Finished | None:
        """Return the message that is shown once it is known that no host fits."""
        told = three.paglets("jobs", "show", f"{group_id}/b", "--at", "linux-a")
        return told if told.code == 3 else None

    shown = wait_until(never, what="exit code 3")
    for words in ("counting/words.py", "helper.py", "common.txt", "own.txt", "PLACING", "nowhere"):
        assert words in shown.out
    in_full = three.paglets("jobs", "show", f"{group_id}/b", "--json", "--at", "laptop")
    assert in_full.code == 3
    tree = json.loads(in_full.out)
    code = ["count.py", "counting/__init__.py", "counting/limits.py", "counting/words.py", "helper.py"]
    assert [file["name"] for file in tree["code"]["files"]] == code
    assert {file["name"]: file["size_bytes"] for file in tree["inputs"]} == {"common.txt": 19, "own.txt": 12}


def test_a_paglet_of_a_script_is_created_with_its_code(three: Mesh, tmp_path: Path) -> None:
    script = tmp_path / "counter.py"
    script.write_text(
        "from pathlib import Path\n"
        "from paglets.core.agent import Paglet, PagletState\n"
        "from paglets.remote.client import HostClient\n\n"
        "class Counter(Paglet[PagletState]):\n"
        "    State = PagletState\n\n"
        "    def handle_message(self, message):\n"
        "        return len(self.file_path('words.txt').read_text().split())\n\n"
        "if __name__ == '__main__':\n"
        "    Path(__file__).with_name('words.txt').write_text('to be')\n"
        "    words = Path(__file__).with_name('words.txt')\n"
        "    counter = HostClient().create(Counter, inputs={'words.txt': words})\n"
        "    print(counter.call('count'))\n"
        "    counter.dispose()\n"
    )
    done = run(three, script)
    assert (done.code, done.out) == (0, "2\n"), done.err


OWN_COLLECTOR = """\
import json
import time
from dataclasses import dataclass

import paglets
from paglets.system.compute_slots import ResultCollectorPaglet


class SlowTotals(ResultCollectorPaglet):
    def on_arrival(self):
        super().on_arrival()
        time.sleep(2)  # until calls and reports wait for this collector

    def job_result(self, message):
        reply = super().job_result(message)
        if reply["accepted"]:
            self.storage["total"] = self.storage.get("total", 0) + message["result"]
        return reply

    def handle_message(self, message):
        if message.kind == "total":
            return self.storage.get("total", 0)
        return super().handle_message(message)


@dataclass
class PartState(paglets.JobState):
    number: int = 0


class Part(paglets.Job[PartState]):
    State = PartState

    def run_compute_job(self):
        return self.state.number


if __name__ == "__main__":
    states = [PartState(job_key=str(number), number=number) for number in (1, 2, 3)]
    group = paglets.submit_compute_job_group(paglets.HostClient(), Part, states, collector_class=SlowTotals)
    status = group.status()
    summary = group.drain(60)
    found = {name: summary[name] for name in ("expected_count", "completed_count", "unexpected_reports")}
    print(json.dumps({**found, "status": status, "total": group.collector.call("total")}))
"""


def test_a_collector_of_a_script_knows_all_jobs_before_it_answers_the_first_call(three: Mesh, tmp_path: Path) -> None:
    told = told_by(three, project(tmp_path, "totals.py", OWN_COLLECTOR))

    assert (told["expected_count"], told["completed_count"], told["unexpected_reports"]) == (3, 3, [])
    assert (told["status"], told["total"]) == ("ACTIVE", 6)


def failure_of(mesh: Mesh, done: Finished) -> dict[str, Any]:
    """Return the failure of the one job of a script, which printed the group's id."""
    assert done.code == 0, done.err
    client = mesh["laptop"].client
    summary = client.call(client.group(done.out.strip()).collector, "drain")
    (failure,) = summary["failures"].values()
    return dict(failure)


JOB = """\
from paglets.remote.client import HostClient
from paglets.system.compute_slots import (
    CollectingComputeJobPaglet,
    CollectingComputeJobState,
    submit_compute_job_group,
)


class Job(CollectingComputeJobPaglet[CollectingComputeJobState]):
    State = CollectingComputeJobState

    def run_compute_job(self):
        pass


"""
SUBMIT = "submit_compute_job_group(HostClient(), Job, [CollectingComputeJobState()])"


def test_a_script_without_a_main_guard_is_told_to_have_one(three: Mesh, tmp_path: Path) -> None:
    before = groups_of(three)
    done = run(three, project(tmp_path, "bare.py", f"{JOB}print({SUBMIT}.group_id)\n"))
    assert "Invalid: line 16 of bare.py submits outside of the main guard; nothing was submitted\nhint: " in done.err
    assert (done.code, groups_of(three)) == (1, before)


def test_a_library_that_a_host_lacks_is_named_with_host_and_interpreter(three: Mesh, tmp_path: Path) -> None:
    only_here = tmp_path / "site-packages"
    only_here.mkdir()
    (only_here / "rare_library.py").write_text("")
    guard = f'if __name__ == "__main__":\n    print({SUBMIT}.group_id)\n'
    script = project(tmp_path / "user", "needs.py", f"import rare_library\n{JOB}{guard}")
    done = three.script(script, PAGLETS_AT="laptop", PYTHONPATH=f"{three.archive}{os.pathsep}{only_here}")
    failure = failure_of(three, done)

    assert failure["cause"] == "import_failed"
    for words in ("No module named 'rare_library'", f"on {failure['host_name']} by /", "install it there"):
        assert words in failure["message"]


def groups_of(mesh: Mesh) -> set[str]:
    return {line.group_id for line in mesh["laptop"].client.groups()}


LOCAL = """\
def made():
    class Local(Job):
        pass

    return Local


if __name__ == "__main__":
    submit_compute_job_group(HostClient(), made(), [CollectingComputeJobState()])
"""
NO_FILE = "class Job is in no file that can be sent"


@pytest.mark.parametrize(
    ("words", "text", "says"),
    [
        (("-c", JOB + SUBMIT), "", NO_FILE),
        (("-",), JOB + SUBMIT, NO_FILE),
        (("local.py",), JOB + LOCAL, "a class inside a function cannot be sent; move it to the top level of"),
        (
            ("broken.py",),
            f"def later():\n    import bad_file\n{JOB}if __name__ == '__main__':\n    {SUBMIT}",
            "line 1: ",
        ),
    ],
    ids=["a command", "stdin", "a function", "a file that is no Python"],
)
def test_code_that_cannot_travel_is_told_in_one_line_and_nothing_is_submitted(
    three: Mesh, tmp_path: Path, words: tuple[str, ...], text: str, says: str
) -> None:
    before = groups_of(three)
    (tmp_path / "bad_file.py").write_text("def broken(:\n")
    if words[0].endswith(".py"):
        (tmp_path / words[0]).write_text(text)
    done = subprocess.run(
        [three.python, *words],
        env=three.environment(PAGLETS_AT="laptop", PYTHONPATH=three.archive),
        cwd=tmp_path,
        input=text,
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 1
    last = [line for line in done.stderr.splitlines() if not line.startswith("hint: ")][-1]
    assert last.startswith("paglets.core.errors.Invalid: ")
    assert says in last
    assert frames_of_ours(done.stderr) == 1
    assert groups_of(three) == before


def frames_of_ours(trace: str) -> int:
    """Return how many frames of a traceback are code of this program, in its unpacked copy, archive or checkout."""
    return len(re.findall(r'^ *File "(?:[^"]*/)?paglets/[^"]*"', trace, re.MULTILINE))


def test_an_input_that_is_not_there_is_told_in_one_line_and_nothing_is_submitted(three: Mesh, tmp_path: Path) -> None:
    before = groups_of(three)
    script = project(tmp_path, "count.py", SCRIPT)
    (tmp_path / "b.txt").unlink()
    done = run(three, script)
    assert done.code == 1
    (line,) = [line for line in done.err.splitlines() if "Invalid" in line]
    assert "job 'b': input 'own.txt': " in line
    assert frames_of_ours(done.err) == 1
    assert groups_of(three) == before


def test_a_state_that_cannot_travel_is_the_failure_of_its_job_and_the_others_run(three: Mesh, tmp_path: Path) -> None:
    states = "[CountState(job_key='a', options=open(__file__)), CountState(job_key='b', required_host_tags=('linux',))]"
    head, _, tail = SCRIPT.partition("        [CountState(")
    script = project(tmp_path, "count.py", f"{head}        {states},\n{tail.partition('],')[2].lstrip()}")
    done = run(three, script)
    assert done.code == 0, done.err
    told = json.loads(done.out)
    advice = "state.options: a _io.TextIOWrapper cannot be sent; send its content; send files as inputs or artifacts"
    assert {key: (each["cause"], each["message"]) for key, each in told["failures"].items()} == {
        "a": ("invalid", advice)
    }
    assert f": a was not created: {advice}" in done.err
    assert told["words"] == {"b": 8}


def test_a_copy_of_the_example_is_a_script_that_works(three: Mesh, tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    shutil.copy(ROOT / "paglets" / "examples" / "identifiers.py", script)
    (tmp_path / "data").mkdir()
    for name, text in (("a.py", "x = x_2 = 'x'\n"), ("b.py", "import os\nprint(os.name)\n")):
        (tmp_path / "data" / name).write_text(text)
    done = three.script(script, tmp_path / "data")
    assert done.code == 0, done.err
    assert "os                         2 uses in     1 files" in done.out
    assert "all 5 rows are in group-" in done.out
