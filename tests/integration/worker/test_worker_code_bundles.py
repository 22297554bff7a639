"""Code that came with a paglet, in processes of a host that does not have this code."""

from __future__ import annotations

import io
import platform
import sys
import zipfile
from dataclasses import replace
from typing import Any

from fake_host import HOST, FakeHost, Told

from paglets.codec.bundle import zipped
from paglets.core.record import to_json
from paglets.core.refs import ProxyRef
from paglets.worker.protocol import GoCode

SUBMIT = b"""
from dataclasses import dataclass, field

from helper import double
from paglets.core.agent import Paglet, PagletState

@dataclass(kw_only=True)
class Config:
    number: int = 0

@dataclass(kw_only=True)
class JobState(PagletState):
    config: Config = field(default_factory=Config)
    number: int = 0

class Job(Paglet[JobState]):
    State = JobState

    def compute_attempt(self):
        self.state.number = double(self.state.config.number)

    def on_creation(self):
        with open("input.txt", "w") as file:
            file.write("to be")
        self.context.create(Job, name="child", inputs={"in.txt": "input.txt"})

if __name__ == "__main__":
    raise AssertionError("the main part is not for hosts")
"""
HELPER = b"def double(number):\n    return 2 * number\n"


def code_of(host: FakeHost, files: dict[str, bytes]) -> GoCode:
    """Return a bundle with these files, as a blob of the host."""
    file = host.file("code.zip", zipped(files))
    return GoCode(bundle=file.file.blob, path=file.path, folder=str(host.folder / "code"))


def job(host: FakeHost, files: dict[str, bytes], entry: str = "attempt", **state: Any) -> Told:
    """Run a paglet of class `Job` in submit.py to its end."""
    told = host.start("submit:Job", entry, code=code_of(host, files), **state)
    assert host.wait(told).exit_code == 0
    return told


def test_a_class_of_a_script_runs_on_a_host_that_has_nothing_of_it(host: FakeHost) -> None:
    config = {"$object": {"class": "submit:Config", "fields": {"number": 21}}}
    for _ in range(2):
        told = job(host, {"submit.py": SUBMIT, "helper.py": HELPER}, config=config)
        assert told.done.fault is None, told.done.fault
        assert told.done.changes.state["number"] == 42


def test_a_paglet_that_creates_one_of_its_own_code_names_the_same_bundle(host: FakeHost) -> None:
    host.answers["create"] = lambda args: to_json(ProxyRef(agent_id="made-1", host=HOST))
    told = job(host, {"submit.py": SUBMIT, "helper.py": HELPER}, "creation")

    assert told.done.fault is None, told.done.fault
    (create,) = told.all("create")
    assert told.go.code is not None
    assert create.bundle == told.go.code.bundle
    (file,) = create.files
    assert (file.name, host.bytes_of(file.blob)) == ("in.txt", b"to be")
    assert len(told.all("publish")) == 1


def test_a_paglet_that_creates_one_of_other_code_sends_that(host: FakeHost) -> None:
    host.answers |= {
        "create": lambda args: to_json(ProxyRef(agent_id="made-1", host=HOST)),
        "resolve_paglet": lambda args: to_json(ProxyRef(agent_id="friend", host=HOST)),
        "call": lambda args: None,
        "hosts": lambda args: {"hosts": []},
    }
    told = host.start("worker_paglets:Calls", "creation")
    host.wait(told)

    (create,) = told.all("create")
    with zipfile.ZipFile(io.BytesIO(host.bytes_of(create.bundle))) as archive:
        assert archive.namelist() == ["worker_paglets.py"]


GUARD = b"""
from paglets.core.agent import Paglet, PagletState
from paglets.client.host_client import HostClient
from paglets.system.compute_slots import submit_compute_job_group

class Job(Paglet[PagletState]):
    State = PagletState

"""
REFUSED = 'put the submission under `if __name__ == "__main__":` in module submit: a host imports it to run Job'


def test_a_submission_without_a_main_guard_fails_the_job_with_the_way_out(host: FakeHost) -> None:
    for end in (
        b"HostClient()",
        b"HostClient('http://127.0.0.1:1', key='x')",
        b"submit_compute_job_group(None, Job, [])",
        b"try:\n    HostClient()\nexcept Exception as error:\n    raise SystemExit(f'no host: {error}')",
    ):
        fault = job(host, {"submit.py": GUARD + end}).done.fault
        assert (fault.cause, fault.message) == ("import_failed", REFUSED)


def test_a_refusal_in_a_module_that_it_imports_names_the_class_too(host: FakeHost) -> None:
    fault = job(host, {"submit.py": GUARD + b"import other", "other.py": GUARD + b"HostClient()"}).done.fault
    assert (fault.cause, fault.message) == ("import_failed", REFUSED)


def test_a_library_that_the_host_lacks_is_named_with_host_and_interpreter(host: FakeHost) -> None:
    fault = job(host, {"submit.py": b"import numpy_of_mars.linalg\n" + SUBMIT, "helper.py": HELPER}).done.fault
    assert fault.cause == "import_failed"
    for words in ("No module named 'numpy_of_mars'", f"on {HOST.name} by {sys.executable}", platform.python_version()):
        assert words in fault.message
    assert "install it there" in fault.message


def test_code_that_the_hosts_python_does_not_understand_says_which_python_that_is(host: FakeHost) -> None:
    fault = job(host, {"submit.py": b"x = 1\nmatch = = 2\n"}).done.fault
    assert fault.cause == "import_failed"
    assert f"(Python {platform.python_version()}): SyntaxError" in fault.message
    assert "submit.py, line 2" in fault.message


def test_code_that_is_damaged_fails_the_job_and_nothing_of_it_is_run(host: FakeHost) -> None:
    code = code_of(host, {"submit.py": SUBMIT, "helper.py": HELPER})
    damaged = replace(code.bundle, size_bytes=code.bundle.size_bytes - 1)
    told = host.start("submit:Job", code=replace(code, bundle=damaged))
    host.wait(told)
    assert told.done.fault.cause == "import_failed"
    assert "do not match its hash" in told.done.fault.message
