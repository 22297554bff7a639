"""Tests of faults: processes killed at the worst time, in a mesh of real hosts."""

from tests.acceptance.rig import (  # noqa: F401  pytest finds fixtures and hooks here
    archive,
    make_mesh,
    mesh,
    nothing_left,
    pytest_runtest_makereport,
    python,
    three,
)
