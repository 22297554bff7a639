"""Routes about failed hooks and undelivered files of finished jobs."""

from __future__ import annotations

from paglets.api.paglets import Done
from paglets.api.undelivered import AskUndelivered, UndeliveredOutputs
from paglets.core.refs import check_agent_id, check_group_id, check_job_key
from paglets.host.host import Host
from paglets.host.http.router import ParsedRequest, route
from paglets.host.messaging.creation import require_here
from paglets.host.records import lifecycle
from paglets.store import jobfiles
from paglets.store.db import Tx


def of_jobs(host: Host, asked: ParsedRequest) -> UndeliveredOutputs:
    body: AskUndelivered = asked.body
    group_id = check_group_id(body.group_id)
    job_key = check_job_key(body.job_key) if body.job_key else ""
    own = host.services.own

    def look(tx: Tx) -> UndeliveredOutputs:
        return UndeliveredOutputs(
            hooks=jobfiles.failed_hooks(tx, group_id, job_key, own),
            files=jobfiles.files_of(tx, group_id, job_key, own.name),
            undelivered=jobfiles.undelivered(tx, group_id, job_key, own),
        )

    return host.services.store.read(look)


def rerun(host: Host, asked: ParsedRequest) -> Done:
    agent_id = check_agent_id(asked.path["ID"])

    def begin(tx: Tx) -> None:
        require_here(tx, agent_id)
        lifecycle.rerun(tx, agent_id)

    host.services.store.write(begin)
    return Done()


ROUTES = (
    route(
        "POST",
        "/v1/jobs/kept",
        AskUndelivered,
        UndeliveredOutputs,
        "failed hooks and undelivered files of a group's finished jobs on this host",
        of_jobs,
    ),
    route("POST", "/v1/paglets/ID/rerun", None, Done, "run a failed hook again", rerun),
)
