"""More seeds than `test_simulation` looks at; in a file of their own, so that another process may run them."""

from __future__ import annotations

import pytest

from tests.simulate.__main__ import good_run

AT_ONCE = 20


@pytest.mark.parametrize("first", range(101, 181, AT_ONCE))
def test_every_promise_holds_whatever_goes_wrong(first: int) -> None:
    for seed in range(first, first + AT_ONCE):
        good_run(seed)
