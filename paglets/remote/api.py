"""Moved to `paglets.api`."""

from paglets.api import *  # noqa: F403
