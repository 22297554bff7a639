"""What finished jobs left on the hosts of the mesh: hooks that failed, which can be run again, and files."""

from __future__ import annotations

from dataclasses import dataclass

from paglets.api.kept import AskKept, FailedHook, Kept, Undelivered
from paglets.api.paglets import Done, PagletView
from paglets.core.errors import Moved, Moving, PagletsError, TimedOut, Unknown
from paglets.core.refs import ArtifactRef, HostRef
from paglets.remote.asking import ask_each, attempt, of_host, online_hosts
from paglets.remote.link import Link, quoted

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.2, 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshKept:
    """What the hosts that answered have of a group's finished jobs; `silent`: errors of those that did not."""

    hooks: tuple[FailedHook, ...] = ()
    files: tuple[ArtifactRef, ...] = ()
    undelivered: tuple[Undelivered, ...] = ()
    silent: tuple[PagletsError, ...] = ()


class KeptSide:
    """The part of a `HostClient` for what finished jobs left."""

    _link: Link
    timeout: float

    def kept(self, group_id: str, job_key: str = "", *, timeout: float | None = None) -> MeshKept:
        """Return the failed hooks and files that online hosts have of a group's jobs, or of one job.

        All hosts are asked at once; `timeout` bounds each answer, of 1,000 hooks and files at most.
        """
        hosts = online_hosts(self._link)
        body, seconds = AskKept(group_id=group_id, job_key=job_key), timeout or self.timeout

        def ask(host: HostRef) -> Kept:
            return self._link.ask("POST", "/v1/jobs/kept", body, Kept, host=host, timeout=seconds)

        answers = list(zip(hosts, ask_each(attempt(ask), hosts), strict=True))
        good = [answer for _, answer in answers if isinstance(answer, Kept)]
        files = {file.artifact_id: file for answer in good for file in answer.files}
        # One that moves may be told of by both hosts.
        undelivered = {job.agent_id: job for answer in good for job in answer.undelivered}
        return MeshKept(
            hooks=tuple(hook for answer in good for hook in answer.hooks),
            files=tuple(sorted(files.values(), key=lambda file: (file.job_key, file.name, file.artifact_id))),
            undelivered=tuple(sorted(undelivered.values(), key=lambda job: (job.job_key, job.agent_id))),
            silent=tuple(of_host(host, answer) for host, answer in answers if isinstance(answer, PagletsError)),
        )

    def rerun_hook(self, failed: FailedHook, *, timeout: float | None = None) -> FailedHook | None:
        """Run a hook again that failed, and wait for its end: None where it returned, else the new failure.

        Raises TimedOut while it still runs (no `timeout`: waits as long as it runs), Unknown, Conflict, Unreachable.
        """
        route = f"/v1/paglets/{quoted(failed.agent_id)}/rerun"
        self._link.ask("POST", route, None, Done, host=failed.host, timeout=self.timeout)
        end = None if timeout is None else self._link.clock.monotonic() + timeout
        pause = FIRST_PAUSE_SECONDS
        while True:
            again = self._failed_again(failed)
            if again is not None or not self._runs(failed):
                # Between the two questions it may have ended.
                return again or self._failed_again(failed)
            if end is not None and self._link.clock.monotonic() >= end:
                raise TimedOut(f"{failed.hook} of {failed.group_id}/{failed.job_key} still runs on {failed.host.name}")
            self._link.pause(pause)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 1.5)

    def _failed_again(self, failed: FailedHook) -> FailedHook | None:
        body = AskKept(group_id=failed.group_id, job_key=failed.job_key)
        found = self._link.ask("POST", "/v1/jobs/kept", body, Kept, host=failed.host, timeout=self.timeout)
        return next((hook for hook in found.hooks if hook.agent_id == failed.agent_id), None)

    def _runs(self, failed: FailedHook) -> bool:
        route = f"/v1/paglets/{quoted(failed.agent_id)}"
        try:
            view = self._link.ask("GET", route, None, PagletView, host=failed.host, timeout=self.timeout)
        except (Unknown, Moved, Moving):
            return False
        return view.inactive if failed.entry == "activation" else view.hook == failed.entry
