"""Runs that are forked from a template, in real processes."""

from __future__ import annotations

import os
import signal
import textwrap
import time
from pathlib import Path

import psutil
import pytest
from fake_host import FakeHost, Told
from test_worker_code_bundles import code_of

from tests.fakes.waiting import wait_until

COMMON = """
    from dataclasses import dataclass
    from paglets.core.agent import Paglet, PagletState

    @dataclass(kw_only=True)
    class JobState(PagletState):
        value: str = ""
        seconds: float = 0.0

    class Job(Paglet[JobState]):
        State = JobState

        def compute_attempt(self):
            import time
            time.sleep(self.state.seconds)
            self.state.value = str(value())

    with open({imports!r}, "a") as file:
        file.write("x")
"""


def start(host: FakeHost, body: str, *, from_template: bool = True, **state: object) -> Told:
    """Start an attempt whose module has `body`, which must define a function `value`. Each import appends an x."""
    text = textwrap.dedent(COMMON.format(imports=str(host.folder / "imports"))) + textwrap.dedent(body)
    code = code_of(host, {"heavy.py": text.encode()})
    return host.start("heavy:Job", code=code, from_template=from_template, **state)  # type: ignore[arg-type]


def value(host: FakeHost, told: Told) -> str:
    """Wait for the end of an attempt. Return the value that it stored."""
    how = host.wait(told)
    assert how.exit_code == 0, how
    assert told.done.fault is None, told.done.fault
    return str(told.done.changes.state["value"])


def imports(host: FakeHost) -> int:
    return len((host.folder / "imports").read_text())


PLAIN = "def value(): return 1"


def test_six_attempts_share_one_import(host: FakeHost) -> None:
    runs = [start(host, PLAIN) for _ in range(6)]
    assert [value(host, told) for told in runs] == ["1"] * 6
    assert imports(host) == 1
    assert {host.wait(told).no_template for told in runs} == {""}


def test_a_state_without_readable_fields_beside_the_class_of_the_attempt_refuses_no_template(host: FakeHost) -> None:
    body = """
        class Forgotten(JobState):
            added: int = 1  # the decorator @dataclass is missing

        class Other(Job):
            State = Forgotten

        def value(): return 1
    """
    told = start(host, body)
    assert value(host, told) == "1"
    assert host.wait(told).no_template == ""


def test_the_code_of_an_attempt_sees_no_thread_of_paglets(host: FakeHost) -> None:
    body = """
        import threading
        def value(): return [thread.name for thread in threading.enumerate()]
    """
    assert value(host, start(host, body)) == "['MainThread']"


def test_an_attempt_that_wants_no_template_imports_itself(host: FakeHost) -> None:
    for _ in range(2):
        assert value(host, start(host, PLAIN, from_template=False)) == "1"
    assert imports(host) == 2
    assert host.templates.pids == {}


def test_an_attempt_from_a_template_has_its_own_folder_environment_and_globals(host: FakeHost) -> None:
    body = """
        import os
        seen = []
        def value():
            seen.append(1)
            names = ("PAGLETS_JOB_ID", "PAGLETS_RUN", "X")
            return [os.getcwd(), len(seen), *(os.environ[name] for name in names)]
    """
    for _ in range(2):
        told = start(host, body)
        spec = told.spec
        assert value(host, told) == str([spec.work_dir, 1, spec.agent_id, spec.token, "set"])
    assert imports(host) == 1


def test_output_of_the_import_is_in_the_log_of_each_attempt(host: FakeHost) -> None:
    body = """
        import sys
        print("imported")
        print("with a warning", file=sys.stderr)
        def value():
            print("ran")
    """
    for _ in range(2):
        told = start(host, body)
        value(host, told)
        assert Path(told.spec.stdout_path).read_text() == "imported\nran\n"
        assert Path(told.spec.stderr_path).read_text() == "with a warning\n"
    assert imports(host) == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import threading, time; threading.Thread(target=time.sleep, args=(60,), daemon=True).start()", "a thread"),
        ("import socket; kept = socket.socket()", "open file or socket"),
        ("import os; os.environ['NEW'] = '1'", "environment variables: NEW"),
        ("import os; os.chdir('/')", "working directory"),
        ("import subprocess; kept = subprocess.Popen(['sleep', '60'])", "child process"),
        ("import signal; signal.signal(signal.SIGUSR1, print)", "signal handler"),
        ("import uuid; name = uuid.uuid4()", "random numbers"),
        ("import random; own = random.Random()", "random numbers"),
        ("import random; chosen = random.random()", "drew from random"),
        ("import secrets; key = secrets.token_hex()", "random numbers"),
        ("import os; job = os.environ.get('PAGLETS_JOB_ID')", "PAGLETS_JOB_ID"),
        ("import tempfile; folder = tempfile.mkdtemp()", "random numbers"),
        ("import uuid; name = uuid.uuid1()", "random numbers"),
        ("import os; name = f'x-{os.getpid()}'", "process id"),
        ("import os; here = os.getcwd()", "FileNotFoundError"),
        ("print('x' * 100_000)", "printed more than 65,536 bytes"),
    ],
)
def test_an_import_that_cannot_be_shared_is_made_by_each_attempt(host: FakeHost, body: str, reason: str) -> None:
    body += "\ndef value(): return 5"
    for _ in range(2):
        told = start(host, body)
        assert value(host, told) == "5"
        assert reason in host.wait(told).no_template
    assert imports(host) == 3
    wait_until(lambda: len(host.templates.ended_tokens) == 1, what="the end of the template")
    (pid,) = host.templates.pids.values()
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize("draw", ["random.random()", "np.random.rand()"])
def test_attempts_from_a_template_have_their_own_global_generators(host: FakeHost, draw: str) -> None:
    if "np." in draw:
        pytest.importorskip("numpy")
    modules = "import numpy as np" if "np." in draw else "import random"
    body = f"{modules}\ndef value(): return {draw}"
    assert len({value(host, start(host, body)) for _ in range(4)}) == 4
    assert imports(host) == 1


@pytest.mark.parametrize(
    ("seed", "draw"), [("random.seed(7)", "random.random()"), ("np.random.seed(7)", "np.random.rand()")]
)
def test_a_seed_that_the_module_sets_holds_in_each_attempt(host: FakeHost, seed: str, draw: str) -> None:
    if "np." in draw:
        pytest.importorskip("numpy")
    modules = "import numpy as np" if "np." in draw else "import random"
    body = f"{modules}\n{seed}\ndef value(): return {draw}"
    alone = value(host, start(host, body, from_template=False))
    assert {value(host, start(host, body)) for _ in range(3)} == {alone}
    assert imports(host) == 2


def test_a_generator_of_numpy_at_module_level_gives_each_attempt_its_own_stream(host: FakeHost) -> None:
    pytest.importorskip("numpy")
    body = "import numpy as np\nrng = np.random.default_rng()\ndef value(): return rng.random()"
    runs = [start(host, body) for _ in range(3)]
    assert len({value(host, told) for told in runs}) == 3
    assert "random numbers" in host.wait(runs[0]).no_template


def test_numpy_is_imported_once(host: FakeHost) -> None:
    pytest.importorskip("numpy")
    body = "import numpy as np\na = np.ones((300, 300)); b = a @ a\ndef value(): return (a @ b).sum()"
    runs = [start(host, body) for _ in range(4)]
    assert {value(host, told) for told in runs} == {"8100000000.0"}
    assert {host.wait(told).no_template for told in runs} == {""}
    assert imports(host) == 1


def test_an_import_error_fails_the_attempt_with_its_own_traceback(host: FakeHost) -> None:
    told = start(host, "raise RuntimeError('no')")
    host.wait(told)
    assert told.done.fault.cause == "import_failed"
    assert host.wait(told).no_template == (
        "its import outside an attempt raised RuntimeError: no; a retry follows after 5 s"
    )
    assert "heavy.py" in Path(told.spec.stderr_path).read_text()


def test_a_killed_template_loses_its_runs_and_is_not_made_again_at_once(host: FakeHost) -> None:
    runs = [start(host, PLAIN, seconds=60.0) for _ in range(2)]
    wait_until(lambda: all(told.pid for told in runs), what="the attempts")
    (pid,) = host.templates.pids.values()

    os.kill(pid, signal.SIGKILL)

    for told in runs:
        how = host.wait(told)
        assert (how.launcher_lost, how.launcher_died, how.is_culprit) == (True, True, False)
        assert told.pid is not None
        assert not psutil.pid_exists(told.pid)
    wait_until(lambda: host.templates.ended_tokens, what="the end of the template")
    told = start(host, PLAIN)
    assert value(host, told) == "1"
    assert "killed" in host.wait(told).no_template


def test_no_code_of_the_user_runs_before_the_process_of_the_template_is_stored(host: FakeHost) -> None:
    host.templates.is_slow = True
    told = start(host, PLAIN)
    token = wait_until(lambda: next(iter(host.templates.pids), ""), what="the template")
    time.sleep(0.2)
    assert not (host.folder / "imports").exists()

    host.launcher.allow_import(token)

    assert value(host, told) == "1"


def test_a_run_that_waits_for_a_template_can_be_ended(host: FakeHost) -> None:
    host.templates.is_slow = True
    told = start(host, PLAIN)
    wait_until(lambda: host.templates.pids, what="the template")
    host.launcher.end(told.spec.token)
    assert "ended before it started" in host.wait(told).error


def test_a_host_that_closes_leaves_no_template(tmp_path: Path) -> None:
    host = FakeHost(tmp_path)
    assert value(host, start(host, PLAIN)) == "1"
    (pid,) = host.templates.pids.values()
    host.close()
    assert not psutil.pid_exists(pid)


def test_an_attempt_has_as_many_threads_as_cores(host: FakeHost) -> None:
    body = "import os\nat_import = os.environ.get('OMP_NUM_THREADS')\ndef value(): return at_import"
    for from_template in (True, False):
        assert value(host, start(host, body, from_template=from_template)) == "2"
