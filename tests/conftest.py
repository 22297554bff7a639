"""Configuration that all tests share."""

import importlib
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import settings

# The duration of an example depends on the load of the machine. A failure is printed so that it can be repeated.
settings.register_profile("paglets", deadline=None, print_blob=True)
settings.load_profile("paglets")

# A shell starts background jobs with Ctrl-C ignored, and every process of a test would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Keep bytecode for the length of the run, even if the environment disables it.

    Otherwise each process would compile each test file again, which takes as long as many of the tests.
    """
    if sys.dont_write_bytecode and not hasattr(config, "workerinput"):
        folder = tempfile.TemporaryDirectory(prefix="paglets-bytecode-")
        config.add_cleanup(folder.cleanup)
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = folder.name
        sys.dont_write_bytecode, sys.pycache_prefix = False, folder.name


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Import a share of the test files first, so that the processes of a whole run share the compilation."""
    config = session.config
    given = getattr(config, "workerinput", None)
    if given is None or config.args_source is not pytest.Config.ArgsSource.TESTPATHS:
        return
    first, step = int(given["workerid"].removeprefix("gw")), given["workercount"]
    for path in sorted(Path(__file__).parent.rglob("test_*.py"))[first::step]:
        sys.path.insert(0, str(path.parent))
        with suppress(Exception, pytest.skip.Exception):  # pytest imports it again, and reports the error
            importlib.import_module(path.stem)
        sys.path.remove(str(path.parent))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Measure coverage, where `--cov` asks for it, in unit tests only.

    There the tracer of Python 3.11 doubles the processor's time of 250 s. The other tests mostly wait for hosts and
    processes of jobs, which are not measured.
    """
    for item in items:
        if not item.path.is_relative_to(Path(__file__).parent / "unit"):
            item.add_marker(pytest.mark.no_cover)
