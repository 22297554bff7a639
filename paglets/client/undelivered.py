"""Undelivered outputs of finished jobs: failed hooks, which can be run again, and files that no hook took."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.api.paglets import Done, PagletView
from paglets.api.undelivered import AskUndelivered, FailedHook, Undelivered, UndeliveredOutputs
from paglets.client.fan_out import ask_all, online_hosts, returning_errors, with_host_name
from paglets.client.mesh_client import MeshClient, quoted
from paglets.core.errors import Moved, Moving, PagletsError, TimedOut, Unknown
from paglets.core.refs import ArtifactRef, HostRef

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshUndelivered:
    """The undelivered outputs of a group on all hosts. `unreachable`: errors of hosts that did not answer."""

    hooks: tuple[FailedHook, ...] = ()
    files: tuple[ArtifactRef, ...] = ()
    undelivered: tuple[Undelivered, ...] = ()
    unreachable: tuple[PagletsError, ...] = ()


class UndeliveredClient:
    """The methods of `HostClient` for undelivered outputs."""

    _mesh: MeshClient
    timeout: float

    def undelivered(self, group_id: str, job_key: str = "", *, timeout: float | None = None) -> MeshUndelivered:
        """Return the undelivered outputs that online hosts have of a group's jobs, or of the job `job_key`.

        All hosts are asked at once. Each returns at most 1,000 hooks and 1,000 files. `timeout`: seconds for each
        request.
        """
        hosts = online_hosts(self._mesh)
        body, seconds = AskUndelivered(group_id=group_id, job_key=job_key), timeout or self.timeout

        def ask(host: HostRef) -> UndeliveredOutputs:
            return self._mesh.ask("POST", "/v1/jobs/kept", body, UndeliveredOutputs, host=host, timeout=seconds)

        answers = list(zip(hosts, ask_all(returning_errors(ask), hosts), strict=True))
        good = [answer for _, answer in answers if isinstance(answer, UndeliveredOutputs)]
        files = {file.artifact_id: file for answer in good for file in answer.files}
        # Two hosts may report a job that moves between them.
        undelivered = {job.agent_id: job for answer in good for job in answer.undelivered}
        return MeshUndelivered(
            hooks=tuple(hook for answer in good for hook in answer.hooks),
            files=tuple(sorted(files.values(), key=lambda file: (file.job_key, file.name, file.artifact_id))),
            undelivered=tuple(sorted(undelivered.values(), key=lambda job: (job.job_key, job.agent_id))),
            unreachable=tuple(
                with_host_name(host, answer) for host, answer in answers if isinstance(answer, PagletsError)
            ),
        )

    def rerun_hook(self, failed: FailedHook, *, timeout: float | None = None) -> FailedHook | None:
        """Run a failed hook again and wait for its end. Return None if the hook succeeded, else the new failure.

        Raises TimedOut if the hook still runs after `timeout` seconds (None: no limit), Unknown, Conflict, Unreachable.
        """
        route = f"/v1/paglets/{quoted(failed.agent_id)}/rerun"
        self._mesh.ask("POST", route, None, Done, host=failed.host, timeout=self.timeout)
        end = None if timeout is None else self._mesh.clock.monotonic() + timeout
        pause = FIRST_PAUSE_SECONDS
        while True:
            again = self._failed_again(failed)
            if again is not None or not self._runs(failed):
                # The hook may have failed between the two requests, so ask for its failure once more.
                return again or self._failed_again(failed)
            if end is not None and self._mesh.clock.monotonic() >= end:
                raise TimedOut(f"{failed.hook} of {failed.group_id}/{failed.job_key} still runs on {failed.host.name}")
            self._mesh.pause(pause)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 1.5)

    def _failed_again(self, failed: FailedHook) -> FailedHook | None:
        body = AskUndelivered(group_id=failed.group_id, job_key=failed.job_key)
        found = self._mesh.ask(
            "POST", "/v1/jobs/kept", body, UndeliveredOutputs, host=failed.host, timeout=self.timeout
        )
        return next((hook for hook in found.hooks if hook.agent_id == failed.agent_id), None)

    def _runs(self, failed: FailedHook) -> bool:
        route = f"/v1/paglets/{quoted(failed.agent_id)}"
        try:
            view = self._mesh.ask("GET", route, None, PagletView, host=failed.host, timeout=self.timeout)
        except (Unknown, Moved, Moving):
            return False
        return view.inactive if failed.entry == "activation" else view.hook == failed.entry
