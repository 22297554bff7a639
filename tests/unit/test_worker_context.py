"""The context of a paglet, without a process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from host_rig import host_ref

from paglets.core.agent import Paglet
from paglets.core.record import to_json
from paglets.core.refs import ProxyRef
from paglets.worker.child.context import ChildContext
from paglets.worker.protocol import Go, Stamp

HOST = host_ref("home")


class Child(Paglet[Any]):
    @dataclass
    class State:
        """A state that calls `looked_at` when its fields are read."""

        n: int = 0

        def __getattribute__(self, name: str) -> Any:
            if name == "n":
                Child.looked_at()
            return object.__getattribute__(self, name)

    looked_at: Callable[[], None] = staticmethod(lambda: None)


def test_paglets_that_are_created_while_another_one_is_have_ids_of_their_own(tmp_path: Path) -> None:
    numbers: list[int] = []

    def request(operation: str, args: Any) -> Any:
        if operation == "create":
            numbers.append(args.nth)
            return to_json(ProxyRef(agent_id=f"p-{args.nth}", host=HOST))
        return {"folder": str(tmp_path)}

    stamp = Stamp(agent_id="p1", epoch=1, generation=0, attempt=0, token="t" * 64)
    go = Go(
        stamp=stamp,
        class_name="m:C",
        kind="paglet",
        entry="run",
        state={},
        system={},
        host=HOST,
        work_dir=str(tmp_path),
    )
    context = ChildContext(go, request)

    def create_another() -> None:
        Child.looked_at = staticmethod(lambda: None)
        context.create(Child)

    Child.looked_at = staticmethod(create_another)
    context.create(Child)
    assert sorted(numbers) == [1, 2]
