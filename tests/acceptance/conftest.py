"""Acceptance tests of the built archive with real processes, as a user runs it."""

from tests.acceptance.rig import (  # noqa: F401  pytest finds fixtures and hooks here
    archive,
    make_mesh,
    mesh,
    nothing_left,
    pytest_runtest_makereport,
    python,
    three,
)
