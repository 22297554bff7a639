"""Failed hooks as a client sees them: list them page by page, and run them again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_client import running

from paglets.api.paglets import Done, PagletView
from paglets.api.undelivered import FailedHook, UndeliveredOutputs
from paglets.cli.commands.jobs.cancel import end_failed
from paglets.client.host_client import HostClient
from paglets.core.errors import Unknown
from tests.fakes.exchange import TableExchange, TableHost

PAGE = 3


class Given:
    """A host with failed hooks of group g. One answer has at most PAGE of them."""

    def __init__(self, home: Path, count: int, entry: str = "arrival") -> None:
        self.host = TableHost(name="a")
        self.left = {f"j{number}": _failed(self.host, f"j{number}", entry) for number in range(count)}
        self.host.routes["POST /v1/jobs/kept"] = self._kept
        for agent_id in self.left:
            self.host.routes[f"DELETE /v1/paglets/{agent_id}"] = lambda body, agent_id=agent_id: self._end(agent_id)
        self.client = HostClient(exchange=TableExchange(self.host), environ=running(home, "a"))

    def _kept(self, body: Any) -> UndeliveredOutputs:
        found = [hook for hook in self.left.values() if body["job_key"] in ("", hook.job_key)]
        return UndeliveredOutputs(hooks=tuple(found[:PAGE]))

    def _end(self, agent_id: str) -> Done:
        del self.left[agent_id]
        return Done()


def _failed(host: TableHost, agent_id: str, entry: str) -> FailedHook:
    texts = {"error": "ValueError: no", "traceback": ""}
    times = {"failed_at": 0.0, "kept_until": 1.0}
    return FailedHook(
        agent_id=agent_id, group_id="g", job_key=f"key-{agent_id}", entry=entry, host=host.ref, **texts, **times
    )


def test_a_cancel_of_one_job_ends_that_one_wherever_it_stands(tmp_path: Path) -> None:
    given = Given(tmp_path, 2 * PAGE)
    assert end_failed(given.client, "g", ["key-j5"]).lines == ("ended g/key-j5, whose on_arrival failed on a",)
    assert sorted(given.left) == ["j0", "j1", "j2", "j3", "j4"]


def test_a_job_that_does_not_end_is_named_once(tmp_path: Path) -> None:
    given = Given(tmp_path, 1)
    del given.host.routes["DELETE /v1/paglets/j0"]
    ended = end_failed(given.client, "g", None)
    assert ended.code == 1
    assert ["was not ended" in line for line in ended.lines] == [True]


@pytest.mark.parametrize(("entry", "shown"), [("activation", {"inactive": True}), ("arrival", {"hook": "arrival"})])
def test_a_rerun_is_waited_for_until_the_hook_has_returned(tmp_path: Path, entry: str, shown: Any) -> None:
    given = Given(tmp_path, 1, entry)
    hook = given.left.pop("j0")
    looks: list[Any] = []

    def view(body: Any) -> PagletView:
        looks.append(body)
        if len(looks) == 3:
            raise Unknown("paglet j0 has ended")
        fields = {"class_name": "m:C", "kind": "job", "residence": "here", "epoch": 1, "host": given.host.ref}
        return PagletView(agent_id="j0", **fields, **shown)

    given.host.routes |= {"POST /v1/paglets/j0/rerun": lambda body: Done(), "GET /v1/paglets/j0": view}
    assert given.client.rerun_hook(hook, timeout=60.0) is None
    assert len(looks) == 3
