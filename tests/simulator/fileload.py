"""File operations of users: inputs and code of groups, artifacts, couriers, and uploads of wrong bytes."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from paglets.api.blobs import AddArtifact
from paglets.api.calls import PostMessage
from paglets.api.groups import JobSpec, SubmitGroup
from paglets.api.paglets import CreatePaglet
from paglets.core.clock import Entropy
from paglets.core.errors import PagletsError
from paglets.core.record import to_json
from paglets.core.refs import FileRef, HostRef, ProxyRef
from tests.simulator.client import Client, Then
from tests.simulator.content import PIECE_BYTES, blob_of, content, some_size
from tests.simulator.counters import post_message
from tests.simulator.filescripts import COURIER_CLASS, artifact_for
from tests.simulator.machine import Machine
from tests.simulator.seen import Seen
from tests.simulator.witness import Witness

CONTENTS = 5
"""The number of different contents in a run. It is small so that groups share them."""

MOST_HOPS = 5
TRIES = 8
SHORT_SECONDS = 6.0


@dataclass(slots=True)
class FileLoad:
    """File operations of one run. `contents` are the files on the users' disks."""

    entropy: Entropy
    machines: tuple[Machine, ...]
    client: Client
    witness: Witness
    contents: tuple[bytes, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.contents = tuple(content(f"user {n}", some_size(self.entropy, PIECE_BYTES)) for n in range(CONTENTS))

    def _any(self) -> Machine:
        return self.machines[self.entropy.pick(len(self.machines))]

    def _some(self) -> bytes:
        return self.contents[self.entropy.pick(len(self.contents))]

    def _file(self, name: str) -> FileRef:
        blob = blob_of(self._some())
        return FileRef(name=name, sha256=blob.sha256, size_bytes=blob.size_bytes)

    def _bytes(self, sha256s: set[str]) -> tuple[bytes, ...]:
        found = {blob_of(data).sha256: data for data in self.contents}
        return tuple(data for sha256, data in found.items() if sha256 in sha256s)

    # Groups.

    def with_files(self, group: SubmitGroup) -> SubmitGroup:
        """Return the group with code and inputs. The state of each job lists the files that it must find."""
        common = tuple(self._file(f"common-{number}") for number in range(self.entropy.pick(3)))
        return replace(
            group,
            bundle=blob_of(self._some()) if self.entropy.pick(3) else None,
            inputs=common,
            jobs=tuple(self._with_inputs(job, common) for job in group.jobs),
        )

    def _with_inputs(self, job: JobSpec, common: tuple[FileRef, ...]) -> JobSpec:
        own = (self._file("common-0" if self.entropy.pick(2) else "own"),) if self.entropy.pick(3) == 0 else ()
        files = {file.name: file.sha256 for file in (*common, *own)}
        return replace(job, inputs=own, state={**job.state, "files": files})

    def submit(self, home: Machine, group: SubmitGroup, then: Then, tries: int = TRIES) -> None:
        """Upload the bytes, then submit the group. Repeat both if the host has dropped bytes meanwhile."""
        files = (*group.inputs, *(file for job in group.jobs for file in job.inputs))
        sha256s = {file.sha256 for file in files} | ({group.bundle.sha256} if group.bundle else set())

        def again(error: PagletsError) -> None:
            if "missing" in error.details and tries > 1:
                self.submit(home, group, then, tries - 1)

        def taken(tree: Any) -> None:
            if group.inputs and len(group.jobs) > 1:
                self.witness.saw(Seen.SHARED)
            then(tree)

        self.client.upload(
            home,
            self._bytes(sha256s),
            lambda: self.client.ask(home, "/v1/groups", group, taken, refused=again),
        )

    # Paglets.

    def send_courier(self, agent_id: str) -> None:
        """Create a paglet that travels between hosts and registers a file on each."""
        host = self._any()
        hops = [self._any() for _ in range(1 + self.entropy.pick(MOST_HOPS))]
        files = (self._file("map"),) if self.entropy.pick(2) else ()
        bundle = self._some() if self.entropy.pick(2) else None
        state = {
            "count": 0,
            "hops": [to_json(_ref(hop)) for hop in hops],
            "files": {file.name: file.sha256 for file in files},
            "fetches": [kept_id(self.entropy.pick(4))],
        }
        body = CreatePaglet(
            agent_id=agent_id,
            class_name=COURIER_CLASS,
            kind="paglet",
            state=state,
            files=files,
            bundle=None if bundle is None else blob_of(bundle),
        )
        needed = (*self._bytes({file.sha256 for file in files}), *(() if bundle is None else (bundle,)))
        self._put_then(host, needed, "/v1/paglets", body, lambda tree: self.witness.paglet_acknowledged(agent_id))

    def post(self, target: ProxyRef, post_id: str) -> None:
        """Send a post with a file to a counter."""
        data = self._some()
        artifact = artifact_for(target, f"art-{post_id.replace('-', '')}", blob_of(data))
        message = post_message(post_id, [], (artifact,))
        body = PostMessage(target=target, message=message, token=post_id)
        self.witness.post_tried(post_id)

        def stored(tree: Any) -> None:
            self.witness.saw(Seen.POSTED)
            self.witness.post_acknowledged(post_id, 0)
            self.witness.carries(artifact.artifact_id, target.agent_id)

        self._put_then(self._any(), (data,), "/v1/outbox", body, stored)

    def look_at_hooks(self, number: int) -> None:
        """Rerun a failed hook, or dispose of its job."""
        there = self._any()
        rows = there.rows.all("SELECT agent_id FROM failed_hooks ORDER BY agent_id")
        if rows:
            path = f"/v1/paglets/{rows[self.entropy.pick(len(rows))]['agent_id']}"
            if self.entropy.pick(3):
                self.client.ask(there, f"{path}/rerun", None, lambda reply: self.witness.saw(Seen.RERUN))
            else:
                self.client.ask(there, path, None, lambda reply: None, method="DELETE")

    # Artifacts.

    def keep(self, number: int) -> None:
        """Add an artifact that belongs to a host. Half of them expire soon."""
        host, data, short = self._any(), self._some(), self.entropy.pick(2) == 0
        artifact_id, blob = kept_id(number), blob_of(data)
        body = AddArtifact(
            artifact_id=artifact_id,
            name="kept.db",
            sha256=blob.sha256,
            size_bytes=blob.size_bytes,
            expires_in_seconds=SHORT_SECONDS if short else None,
        )

        def stored(tree: Any) -> None:
            self.witness.saw(Seen.KEPT)
            if not short:
                self.witness.kept[artifact_id] = host.name

        self._put_then(host, (data,), "/v1/artifacts", body, stored)

    def delete(self, number: int) -> None:
        self.witness.deleted[kept_id(number)] = None
        self.client.ask(self._any(), f"/v1/artifacts/{kept_id(number)}", None, lambda tree: None, method="DELETE")

    def _put_then(self, host: Machine, data: tuple[bytes, ...], target: str, body: Any, then: Then) -> None:
        def attempt(left: int) -> None:
            def again(error: PagletsError) -> None:
                if "missing" in error.details and left > 1:
                    attempt(left - 1)

            self.client.upload(host, data, lambda: self.client.ask(host, target, body, then, refused=again))

        attempt(TRIES)

    def spoil(self, number: int) -> None:
        """Upload a first piece that does not match the blob's hash, as if the file changed during the upload."""
        data, host = self._some(), self._any()
        wrong = bytes(255 - each for each in data[:PIECE_BYTES])
        self.witness.spoiled[(host.store_id, blob_of(data).sha256)] = None
        self.client.put_piece(host, blob_of(data), 0, wrong, lambda tree: None, lambda error: None)


def kept_id(number: int) -> str:
    return f"art-kept{number:04d}"


def _ref(machine: Machine) -> HostRef:
    return HostRef(store_id=machine.store_id, name=machine.name, url=machine.url)
