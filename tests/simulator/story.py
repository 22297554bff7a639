"""A log of a run for the reader of a failing seed. Equal runs have equal stories."""

from __future__ import annotations

import hashlib

from tests.fakes.clock import FakeClock


class Story:
    """A log of lines (virtual second, who, what) in order."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._start = clock.monotonic()
        self._lines: list[tuple[float, str, str]] = []

    def tell(self, who: str, what: str) -> None:
        self._lines.append((self._clock.monotonic() - self._start, who, what))

    def text(self, about: str = "") -> str:
        """Return the lines that contain `about`, or all lines."""
        lines = (f"{at:10.4f}  {who:<8} {what}" for at, who, what in self._lines)
        return "\n".join(line for line in lines if about in line)

    def digest(self) -> str:
        """Return a hash of the story."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._lines)
