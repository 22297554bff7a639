"""The client for scripts and commands. It connects to one host and, through that host, to the mesh."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

from paglets.api.blobs import ArtifactView
from paglets.api.calls import PostMessage
from paglets.api.groups import SubmitGroup
from paglets.api.hosts import HostIdentity, MeshHostView
from paglets.api.logs import AttemptView
from paglets.api.paglets import CreatePaglet, Done, MovePaglet, PagletView
from paglets.api.slots import JobView, PlacementPreview, PreviewPlacement, Slots
from paglets.client.connect import connect, open_mesh_client
from paglets.client.directory import DirectoryClient
from paglets.client.fan_out import ask_all, online_hosts, returning_errors, with_host_name
from paglets.client.group_submission import submit
from paglets.client.groups import GroupClient
from paglets.client.job_logs import JobAttempts, LogBytes, ask_attempts, merged_attempts, read_log
from paglets.client.kept_blobs import KeptBlobs
from paglets.client.mesh_client import BlockingTransport, paglet_route
from paglets.client.messages import Target, call_paglet, id_of, plain, resolve, to_wire
from paglets.client.pacing import Progress, no_progress
from paglets.client.proxy import PagletProxy, as_message, message_and_timeout
from paglets.client.slots import mesh_slots, slots_of
from paglets.client.undelivered import UndeliveredClient
from paglets.codec.class_names import class_name, refuse_while_importing
from paglets.codec.tagged_json import decode, encode_state
from paglets.core.agent import Paglet, S
from paglets.core.clock import SystemEntropy
from paglets.core.errors import (
    PagletsError,
    trim_traceback,
)
from paglets.core.messages import Message
from paglets.core.record import from_json, to_json
from paglets.core.refs import ArtifactRef, BlobRef, HostRef, ProxyRef, check_agent_id
from paglets.core.signatures import check_methods
from paglets.core.text import with_article
from paglets.slots.model import SlotRequest

if TYPE_CHECKING:  # These modules are imported on use, so that commands start faster.
    from paglets.client.artifacts import ArtifactTransfers
    from paglets.client.inputs import InputPaths

T = TypeVar("T")


@runtime_checkable
class HasSlotRequest(Protocol):
    """A state that has a slot request, such as a ComputeJobState."""

    def slot_request(self) -> SlotRequest: ...


class HostClient(DirectoryClient, GroupClient, UndeliveredClient):
    """A connection to one host and, through that host, to the mesh. Use it in a `with` block, or call `close`.

    `url`: URL or name of the host; by default `PAGLETS_AT`, else a host on this machine. `key`: the mesh key as text;
    by default the key that hosts of this user have. `timeout`: default timeout of methods, in seconds. `environ`:
    environment variables; by default those of this process. `exchange`: replaces the network in tests. Threads may
    share a client. Methods raise Unreachable, NotAllowed, TimedOut, and the errors that hosts report. Submit jobs with
    `submit_compute_job_group`.

        hosts, identity, candidates             the mesh; this host; hosts that could run a job
        groups, group, summary, cancel          list groups of jobs; show one, its results; cancel its jobs
        job_attempts, read_log, notes           output of jobs; notes of jobs to the user
        download_artifact, upload_artifact      download, upload a file; also artifact, list_artifacts, delete_artifact
        create, proxy, find, lookup, paglet     create a paglet; find one by id, name or service; show it
        call, post, dispatch, dispose           send a message to a paglet; move a paglet; remove a paglet
    """

    @trim_traceback
    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        timeout: float = 30.0,
        exchange: BlockingTransport | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        refuse_while_importing()
        self.timeout = timeout
        self._entropy = SystemEntropy()
        # os.environ is not the default value of `environ`, because `help` would print it, including the mesh key.
        variables = os.environ if environ is None else environ
        self._mesh, self.note = open_mesh_client(url, exchange or connect(key, variables), variables)
        self.kept_blobs = KeptBlobs(self._mesh.clock)

    def __enter__(self) -> HostClient:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections to all hosts."""
        self._mesh.close()

    # The methods below show the host and its mesh.

    @property
    def host(self) -> HostRef:
        """Return the reference to the host of this client."""
        return self._mesh.host()

    def identity(self, host: HostRef | None = None) -> HostIdentity:
        """Return the identity and status of the client's host, or of `host`, another host of the mesh."""
        return self._ask("GET", "/v1/host", None, HostIdentity, host=host) if host else self._mesh.identity()

    def hosts(self) -> tuple[MeshHostView, ...]:
        """Return the hosts of the mesh as the client's host sees them. The client's host is first."""
        return self._mesh.hosts()

    def slots(self, *, limit: int = 100, host: str | None = None, timeout: float | None = None) -> Slots:
        """Return the offered and free resources and the jobs of a host.

        `host`: its name or URL (default: the client's host).
        `limit`: the maximum number of jobs in the result.
        """
        at = None if host is None else self._mesh.host_named(host)
        return slots_of(self._mesh, at, limit, timeout or self.timeout)

    def mesh_slots(
        self, *, limit: int = 100, timeout: float | None = None
    ) -> tuple[tuple[Slots, ...], tuple[PagletsError, ...]]:
        """Return resources and up to `limit` jobs of each online host, and the errors of hosts that did not answer."""
        return mesh_slots(self._mesh, limit, timeout or self.timeout)

    def jobs(self, *, limit: int = 1000) -> tuple[JobView, ...]:
        """Return at most `limit` jobs on the client's host, sorted by status (running first), then by age.

        A finished job is among them until the host has disposed of it.
        """
        return self.slots(limit=limit).jobs

    def candidates(self, wanted: SlotRequest | HasSlotRequest | Mapping[str, Any]) -> PlacementPreview:
        """Return which hosts could run a job, and why the others could not.

        `wanted`: the state of the job, or its slot request.
        """
        request = wanted.slot_request() if isinstance(wanted, HasSlotRequest) else wanted
        return self._ask(
            "POST", "/v1/slots/candidates", PreviewPlacement(request=dict(to_json(request))), PlacementPreview
        )

    # The methods below send messages to paglets, and create, show, move and remove them.

    def call(self, target: Target, message: Message | str, *, timeout_seconds: float | None = None, **args: Any) -> Any:
        """Send a message and return the reply. If the paglet moves, the message follows it.

        `target` may also be a paglet id, the name of a paglet on the client's host, or the name of a service that this
        host itself offers. Raises the errors of `PagletProxy.call`.
        """
        return decode(self.call_tree(target, *message_and_timeout(message, args, timeout_seconds)), keep_missing=True)

    send = call

    def call_tree(self, target: Target, message: Message, timeout_seconds: float | None = None) -> Any:
        """Send a message and return the reply as tagged JSON (`codec.tagged_json`), without importing its classes."""
        timeout = self.timeout if timeout_seconds is None else timeout_seconds
        return call_paglet(self._mesh, plain(target), to_wire(message), timeout)

    def post(self, target: Target, message: Message | str, **args: Any) -> None:
        """Send a message without waiting for a reply. Return when the client's host has stored it for delivery.

        Raises Unknown if `target` is a name that no paglet on the client's host has.
        """
        ref = resolve(self._mesh, target, self.timeout)
        wire = to_wire(as_message(message, args))
        self._ask("POST", "/v1/outbox", PostMessage(target=ref, message=wire, token=self._entropy.token()), Done)

    @trim_traceback
    def create(
        self, cls: type[Paglet[S]], state: S | None = None, *, name: str | None = None, inputs: InputPaths | None = None
    ) -> PagletProxy:
        """Create a paglet on the client's host. `state` defaults to `cls.State()`. `inputs`: file paths, by name."""
        if not (isinstance(cls, type) and issubclass(cls, Paglet)):
            raise TypeError(f"{cls!r} is not a subclass of Paglet")
        check_methods(cls)
        filled = cls.State() if state is None else state
        if not isinstance(filled, cls.State):
            raise TypeError(
                f"{cls.__qualname__} takes {with_article(cls.State.__qualname__)}, got {type(filled).__qualname__}"
            )
        from paglets.client.inputs import UploadSession, publish_inputs
        from paglets.codec.bundle import publish_code

        tree, sending = encode_state(filled), UploadSession(self, self._mesh.clock)
        request = CreatePaglet(
            agent_id=self._entropy.token(),
            class_name=class_name(cls),
            kind=cls.kind,
            state=tree,
            name=name,
            request=cls.creation_request(filled),
            job_key=getattr(filled, "job_key", ""),
            files=publish_inputs(sending, inputs),
            bundle=publish_code(sending, cls, cls.State, states=(tree,)),
            service=cls.service_name,
        )
        view = sending.submit(lambda: self._ask("POST", "/v1/paglets", request, PagletView))
        return PagletProxy(ProxyRef(agent_id=view.agent_id, host=view.host), self)

    def proxy(self, target: Target) -> PagletProxy:
        """Return a proxy of a paglet. No request is sent: an id or name is looked up when the proxy sends a message."""
        if isinstance(target, PagletProxy):
            target = target.ref
        if isinstance(target, str):
            target = ProxyRef(agent_id=target, host=self.host)
        return PagletProxy(target, self)

    def paglet(self, target: Target, *, timeout: float | None = None) -> PagletView:
        """Return the location and activity of a paglet on any host of the mesh. Raises Unknown."""
        return self._at(target, "GET", None, PagletView, timeout=timeout)

    def dispatch(self, target: Target, host: str) -> None:
        """Move a paglet to the host with the name or URL `host`. Return when its current host has accepted the move."""
        self._at(target, "POST", MovePaglet(target=host), Done, "dispatch")

    def dispose(self, target: Target) -> None:
        """Run `on_disposing` of a paglet, then remove it."""
        self._at(target, "DELETE", None, Done)

    # The methods below transfer files. An interrupted transfer is resumed, and fails after `timeout` without progress.
    # `progress` is called with the step ("reading", "sending", "receiving"), the bytes done and the total bytes.

    def publish_bytes(self, data: bytes) -> BlobRef:
        """Upload bytes. The host keeps them for an hour, and longer while a paglet, artifact or message uses them."""
        return self._files.publish_bytes(data)

    def publish_file(self, path: str | Path, progress: Progress | None = None) -> BlobRef:
        """Upload the bytes of a file, like `publish_bytes`. Raises Invalid, FileChanged, NoRoom."""
        return self._files.publish_file(path, progress or no_progress)

    def missing_blobs(self, blobs: Iterable[BlobRef]) -> tuple[BlobRef, ...]:
        """Return those of `blobs` that the host lacks. The host keeps the others for another hour."""
        return self._files.missing(blobs)

    def read_blob(self, blob: BlobRef, host: HostRef) -> bytes:
        """Return all bytes of a small blob on `host`. Raises Unknown, TooLarge, FileChanged."""
        from paglets.client.download import read_blob

        return read_blob(self._mesh, blob, host, self.timeout)

    def upload_artifact(
        self,
        path: str | Path,
        *,
        name: str | None = None,
        owner: Target | None = None,
        expires_in_seconds: float | None = None,
        move: bool = False,
        progress: Progress | None = None,
    ) -> ArtifactRef:
        """Store a file as an artifact of the client's host, or of the paglet `owner`.

        The artifact of a paglet moves with the paglet, and is deleted with it. `move` removes the file once the
        artifact is stored. Raises Invalid, FileChanged, NoRoom, Unknown.
        """
        return self._files.upload(
            path,
            name=name,
            owner=None if owner is None else plain(owner),
            expires_in_seconds=expires_in_seconds,
            move=move,
            progress=progress or no_progress,
        )

    def download_artifact(
        self,
        artifact: ArtifactRef | str,
        target: str | Path,
        *,
        move: bool = False,
        replace: bool = False,
        progress: Progress | None = None,
    ) -> Path:
        """Download an artifact to the file `target`, or into the folder `target` under its own name. Return the path.

        If `target` ends with "/", the folder is created. The bytes are checked, and the file appears in one step. The
        next call resumes an interrupted download. A file with equal bytes is kept. `replace` replaces another file.
        `move` deletes the artifact after the download. Raises Unknown, Invalid, NoRoom, and Conflict if another file
        exists.
        """
        return self._files.download(artifact, target, move=move, replace=replace, progress=progress or no_progress)

    def send_artifact(
        self, target: Target, path: str | Path, message: Message, name: str | None = None, move: bool = False
    ) -> ArtifactRef:
        """Send a file with a message, like `PagletProxy.send_artifact`."""
        return self._files.send(target, path, to_wire(message), name=name, move=move)

    def artifact(self, artifact: ArtifactRef | str) -> ArtifactView:
        """Return an artifact on any host of the mesh, and the host that has its bytes. Raises Unknown."""
        return self._files.find(artifact)

    def list_artifacts(self, owner: Target | None = None) -> tuple[ArtifactRef, ...]:
        """Return the artifacts on all online hosts, sorted by id.

        `owner`: only the artifacts of this paglet; with "", only those of hosts. Raises the error of a host that does
        not answer.
        """
        found, errors = self.mesh_artifacts(owner)
        if errors:
            raise errors[0]
        return found

    def mesh_artifacts(
        self, owner: Target | None = None, *, group_id: str = "", timeout: float | None = None
    ) -> tuple[tuple[ArtifactRef, ...], tuple[PagletsError, ...]]:
        """Return the artifacts on all online hosts, and the errors of hosts that did not answer.

        `owner`: only artifacts of this owner, as in `list_artifacts`. `group_id`: only files of the group's finished
        jobs. With both, artifacts that match one of them. `timeout`: seconds for each request, which returns a page.
        """
        from paglets.client.artifacts import ArtifactTransfers, once_each

        owned = None if owner is None else id_of(plain(owner))
        files, hosts = ArtifactTransfers(self._mesh, timeout or self.timeout), online_hosts(self._mesh)
        answers = ask_all(returning_errors(lambda host: files.listed(host, owned, group_id)), hosts)
        good = tuple(answer for answer in answers if not isinstance(answer, PagletsError))
        pairs = zip(hosts, answers, strict=True)
        return once_each(good), tuple(
            with_host_name(host, answer) for host, answer in pairs if isinstance(answer, PagletsError)
        )

    def delete_artifact(self, artifact: ArtifactRef | str) -> None:
        """Delete an artifact on any host of the mesh. Raises Unknown."""
        self._files.delete(artifact)

    @property
    def _files(self) -> ArtifactTransfers:
        from paglets.client.artifacts import ArtifactTransfers

        return ArtifactTransfers(self._mesh, self.timeout)

    # The method below submits a group. The other methods for groups are in GroupClient.

    def submit_group(self, request: Mapping[str, Any]) -> Mapping[str, Any]:
        """Submit a group of jobs. `request`: an `api.groups.SubmitGroup` as JSON. Return a `GroupView` as JSON.

        If the mesh has a group with this id and the same jobs, return that group. So a request with an id can be
        repeated if no reply came. A request without an id gets a new one. Raises GroupExists, GroupLost, and the errors
        of the home host.
        """
        view: Mapping[str, Any] = to_json(submit(self._mesh, from_json(SubmitGroup, dict(request)), self.timeout))
        return view

    # The methods below read the logs of jobs.

    def job_attempts(self, job: str, *, timeout: float | None = None) -> JobAttempts:
        """Return the attempts of a job that the online hosts know. `job`: `GROUP/KEY`, or the id of a paglet.

        All hosts are asked at once. `timeout`: seconds for each request.
        """
        ask = partial(ask_attempts, self._mesh, job=job, timeout=timeout or self.timeout)
        return merged_attempts(ask_all(ask, online_hosts(self._mesh)))

    def read_log(self, attempt: AttemptView, stream: str, offset: int = 0, limit: int = 1 << 20) -> LogBytes:
        """Return at most `limit` bytes of the output of an attempt, from byte `offset` on.

        `stream`: "out" for stdout, "err" for stderr.
        """
        return read_log(self._mesh, attempt, stream, offset, limit, self.timeout)

    def _ask(self, method: str, route: str, body: Any, kind: type[T], *, host: HostRef | None = None) -> T:
        return self._mesh.ask(method, route, body, kind, host=host, timeout=self.timeout)

    def _at(
        self, target: Target, method: str, body: Any, kind: type[T], *further: str, timeout: float | None = None
    ) -> T:
        """Send a request about a paglet to its current host."""
        wanted = plain(target)
        route = paglet_route(check_agent_id(id_of(wanted)), *further)
        return self._mesh.follow(wanted, self._mesh.performer(method, route, body, kind), timeout or self.timeout)


HostClient.__module__ = "paglets.remote.client"
"""The module from which users import HostClient, as shown in its repr and in `help`."""
