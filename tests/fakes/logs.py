"""Loggers that keep their lines in a list."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable

_numbers = itertools.count()


def logger_to(take: Callable[[str], object], name: str = "") -> logging.Logger:
    """Return a logger that hands each line, with its traceback, to `take`. One of the same name replaces it."""
    logger = logging.getLogger(name or f"tests-{next(_numbers)}")
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.handlers = [_Handler(take)]
    return logger


class _Handler(logging.Handler):
    def __init__(self, take: Callable[[str], object]) -> None:
        super().__init__()
        self._take = take

    def emit(self, record: logging.LogRecord) -> None:
        self._take(self.format(record))
