"""What is asked about groups of jobs: the list of all, one, its summary; and their ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from paglets.api.groups import GroupLine, Groups, GroupView
from paglets.core.errors import PagletsError, PeerReplaced
from paglets.core.messages import Message
from paglets.core.refs import HostRef, check_group_id
from paglets.remote.asking import ask_each, attempt, of_host, online_hosts
from paglets.remote.cancelling import CancelOutcome, EndOutcome, cancel_jobs, end_copies
from paglets.remote.grouplines import merged_groups
from paglets.remote.link import Link, quoted
from paglets.remote.proxy import PagletProxy


class GroupSide:
    """The part of a `HostClient` for groups that are there."""

    _link: Link
    timeout: float

    def proxy(self, target: Any) -> PagletProxy:
        raise NotImplementedError

    def groups(self) -> tuple[GroupLine, ...]:
        """The groups that the online hosts submitted or collect, newest first.

        The collector's host knows the counts; where that is away, they are the last that home heard, or null.
        """
        return self.mesh_groups(self.timeout)[0]

    def mesh_groups(self, timeout: float) -> tuple[tuple[GroupLine, ...], dict[HostRef, PagletsError]]:
        """The same, and the errors of the online hosts that did not answer within `timeout` seconds."""
        hosts = online_hosts(self._link)

        def ask(host: HostRef) -> tuple[GroupLine, ...]:
            return self._link.ask("GET", "/v1/groups", None, Groups, host=host, timeout=timeout).groups

        answers = ask_each(attempt(ask), hosts)
        pairs = zip(hosts, answers, strict=True)
        errors = {host: of_host(host, answer) for host, answer in pairs if isinstance(answer, PagletsError)}
        return merged_groups([answer for answer in answers if not isinstance(answer, PagletsError)]), errors

    def group(self, group_id: str) -> GroupView:
        """One group, whichever host of the mesh knows it. Raises Unknown, Invalid."""
        route = f"/v1/groups/{quoted(check_group_id(group_id))}"
        return self._link.ask("GET", route, None, GroupView, timeout=self.timeout)

    def summary(self, group_id: str) -> dict[str, Any]:
        """The collector's summary of a group (its fields: `groups.summary`)."""
        collector = self.group(group_id).collector
        try:
            return self.proxy(collector).call(Message("summary"))  # type: ignore[no-any-return]
        except PeerReplaced as error:
            raise PeerReplaced(
                f"the collector of {group_id} was on {collector.host.name}, and {error.message}: that host began anew "
                "with an empty data directory, or another one has its address",
                **error.details,
            ) from None

    def cancel(
        self, group_id: str, job_keys: Sequence[str] | None = None, *, reason: str = "", timeout: float | None = None
    ) -> CancelOutcome:
        """End these jobs of a group (None: all), queued and running ones; a record that is there already wins.

        Returns when their process trees are gone, or after `timeout` seconds (None: those of this client) with what
        is left. `reason` is kept in the jobs' failures. Raises Unreachable where the collector's host is away: then
        nothing was cancelled (see `end_copies`).
        """
        keys = None if job_keys is None else tuple(job_keys)
        call = self.proxy(self.group(group_id).collector).call
        wait = self.timeout if timeout is None else timeout
        return cancel_jobs(self._link, call, group_id, keys, reason=reason, answer_seconds=self.timeout, timeout=wait)

    def end_copies(
        self, group_id: str, job_keys: Sequence[str] | None = None, *, reason: str = "", timeout: float | None = None
    ) -> EndOutcome:
        """End these jobs of a group (None: all) on each host that answers, where its collector cannot be asked.

        A host that is in touch with the collector's refuses. The ends are reported: a collector that comes back has
        them as failures with the cause `cancelled`. Returns as `cancel` does.
        """
        keys = None if job_keys is None else tuple(job_keys)
        wait = self.timeout if timeout is None else timeout
        return end_copies(self._link, check_group_id(group_id), keys, reason=reason, timeout=wait)
