from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_host import FakeHost


@pytest.fixture
def host(tmp_path: Path) -> Iterator[FakeHost]:
    host = FakeHost(tmp_path, sample_seconds=0.1)
    yield host
    host.close()
