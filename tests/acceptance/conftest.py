"""Acceptance: the built archive and real processes, as a user has them."""

from tests.acceptance.rig import (  # noqa: F401  pytest finds fixtures and hooks here
    archive,
    make_mesh,
    mesh,
    nothing_left,
    pytest_runtest_makereport,
    python,
    three,
)
