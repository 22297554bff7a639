"""Bytes of the mesh that are wanted here, an artifact's or an input's: looked for, and brought to this host piece by
piece."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar
from urllib.parse import urlencode

from paglets.api.blobs import ArtifactView, AskBlobs, BlobState, BlobStates
from paglets.api.paglets import Done
from paglets.core.errors import Conflict, FileChanged, Moving, PagletsError, Unknown, tellable
from paglets.core.refs import ArtifactRef, BlobRef, HostRef
from paglets.host.blobs.blob_store import BlobStore
from paglets.host.runtime.services import HostServices
from paglets.mesh.gossip import Gossiper
from paglets.store import artifacts
from paglets.store.db import Tx
from paglets.wire.request import Request, Response, dump_json, parsed

T = TypeVar("T")

LOOK_SECONDS = 5.0
PIECE_SECONDS = 60.0
MOST_FAILURES = 20
BAD_TRIES = 3
"""So often the bytes may be wrong ones; after the first time the host that has them is asked to look at them."""

PAUSE_SECONDS = 1.0
MOST_ERRORS = 1_000
"""Blobs of which the last error is remembered, for people."""

Fetched = Callable[[ArtifactRef | PagletsError], None]
Found = Callable[[ArtifactView | PagletsError], None]


Arrived = Callable[[], None]
HostFound = Callable[[HostRef | PagletsError], None]


@dataclass(slots=True, kw_only=True)
class _Fetch:
    """`look` finds the host that has the bytes now."""

    blob: BlobRef
    host: HostRef
    look: Callable[[HostFound], None]
    done: Callable[[PagletsError | None], None]
    offset: int = 0
    failures: int = 0
    bad_tries: int = 0
    due: float = 0.0


class BlobFetcher:
    """Part `blob_fetcher`: goes on with fetches that wait after a failure. Belongs to the runner."""

    name = "blob_fetcher"

    def __init__(self, services: HostServices, gossip: Gossiper, blob_store: BlobStore) -> None:
        self._services = services
        self._gossip = gossip
        self._blob_store = blob_store
        self._paused: list[_Fetch] = []
        self._wanted: dict[str, list[Arrived]] = {}
        self._errors: OrderedDict[str, PagletsError] = OrderedDict()

    def tick(self, now: float) -> float | None:
        due = [fetch for fetch in self._paused if fetch.due <= now]
        self._paused = [fetch for fetch in self._paused if fetch.due > now]
        for fetch in due:
            self._begin(fetch)
        return min((fetch.due for fetch in self._paused), default=None)

    # Looking.

    def find(self, artifact_id: str, found: Found) -> None:
        """Where an artifact is: here, or on one of the online hosts; Unknown where on none."""
        own = self._services.own
        ref = self._services.store.read(lambda tx: artifacts.find_any(tx, artifact_id, own.name))
        if ref is not None:
            found(ArtifactView(artifact=ref, host=own))
            return
        unknown = Unknown(f"no host of the mesh that is online has an artifact {artifact_id}")
        hosts = self._gossip.online()
        asking: _Asking[ArtifactView] = _Asking(left=len(hosts), error=unknown, found=found)
        request = Request(method="GET", target=f"/v1/artifacts/{artifact_id}?here=1")
        for member in hosts:
            self._services.transport.send(
                member.ref, request, partial(asking.answered, _view), timeout_seconds=LOOK_SECONDS
            )
        if not hosts:
            found(unknown)

    # Bytes.

    def fetch(self, artifact_id: str, done: Fetched) -> None:
        """Give the artifact to `done` once its bytes are here, for a while at least."""

        def found(result: ArtifactView | PagletsError) -> None:
            if isinstance(result, PagletsError):
                done(result)
            else:
                self._begin(
                    _Fetch(
                        blob=result.artifact.blob,
                        host=result.host,
                        look=lambda told: self.find(artifact_id, lambda view: told(_host_of(view))),
                        done=lambda error: done(error or result.artifact),
                    )
                )

        self.find(artifact_id, found)

    def fetch_blob(self, blob: BlobRef, arrived: Arrived) -> None:
        """Bring these bytes here if a host that is online has them; `arrived` is called once they are here.

        Where they do not come, who wants them asks again.
        """
        waiting = self._wanted.setdefault(blob.sha256, [])
        waiting.append(arrived)
        if len(waiting) > 1:
            return

        def done(error: PagletsError | None) -> None:
            self._note(blob, error)
            for each in self._wanted.pop(blob.sha256):
                if error is None:
                    each()

        def found(host: HostRef | PagletsError) -> None:
            if isinstance(host, PagletsError):
                done(host)
            else:
                self._begin(_Fetch(blob=blob, host=host, look=look, done=done))

        look = partial(self._find_blob, blob)
        look(found)

    def says(self, blob: BlobRef) -> str:
        """What keeps these bytes from being here, in words that follow what they are."""
        error = self._errors.get(blob.sha256)
        if error is None:
            return "is being fetched" if blob.sha256 in self._wanted else "is not here, and is looked for"
        return "is on no host that is online" if isinstance(error, Unknown) else f"cannot be had: {error.message}"

    def _note(self, blob: BlobRef, error: PagletsError | None) -> None:
        """The last error that these bytes had; None: they come."""
        self._errors.pop(blob.sha256, None)
        if error is not None:
            self._errors[blob.sha256] = error
        if len(self._errors) > MOST_ERRORS:
            self._errors.popitem(last=False)

    def _find_blob(self, blob: BlobRef, found: HostFound) -> None:
        hosts = self._gossip.online()
        nowhere = Unknown(f"no host of the mesh that is online has the bytes {blob.sha256}")
        asking: _Asking[HostRef] = _Asking(left=len(hosts), error=nowhere, found=found)
        body = dump_json(AskBlobs(sha256s=(blob.sha256,)))
        request = Request(method="POST", target="/v1/blobs/state", body=body, repeatable=True)
        for member in hosts:

            def read(result: Response | PagletsError, host: HostRef = member.ref) -> HostRef:
                states = parsed(result, BlobStates).blobs
                if not any(state.sha256 == blob.sha256 and state.complete for state in states):
                    raise nowhere
                return host

            self._services.transport.send(
                member.ref, request, partial(asking.answered, read), timeout_seconds=LOOK_SECONDS
            )
        if not hosts:
            found(nowhere)

    def _begin(self, fetch: _Fetch) -> None:
        sha256 = fetch.blob.sha256
        self._blob_store.run_in_background(
            lambda: self._blob_store.state(sha256), lambda state: self._go_on(fetch, state)
        )

    def _go_on(self, fetch: _Fetch, state: BlobState | BaseException) -> None:
        if isinstance(state, BaseException):
            fetch.done(tellable(state))
        elif state.complete:
            fetch.done(None)
        elif fetch.host.store_id == self._services.own.store_id:
            own = fetch.host.name
            fetch.done(FileChanged(f"the bytes of {state.sha256} on {own} are damaged: its disk may be failing"))
        else:
            fetch.offset = state.offset
            self._piece(fetch)

    def _piece(self, fetch: _Fetch) -> None:
        blob, offset = fetch.blob, fetch.offset
        length = min(self._services.settings.piece_bytes, blob.size_bytes - offset)

        def keep(piece: bytes) -> None:
            if len(piece) != length:
                raise FileChanged(f"{fetch.host.name} gave {len(piece)} of {length} bytes")
            self._blob_store.take(blob, offset, piece)

        request = Request(
            method="GET",
            target=f"/v1/blobs/{blob.sha256}?{urlencode({'offset': offset, 'length': length})}",
            keep=keep,
            by_name=True,
        )

        def answered(result: Response | PagletsError) -> None:
            if isinstance(result, Response) and result.status < 400:
                fetch.failures = 0
                self._note(blob, None)
                self._begin(fetch)
            else:
                self._failed(fetch, _error(result))

        host = self._gossip.address(fetch.host)
        self._services.transport.send(host, request, answered, timeout_seconds=PIECE_SECONDS)

    def _failed(self, fetch: _Fetch, error: PagletsError) -> None:
        self._note(fetch.blob, error)
        fetch.failures += 1
        fetch.bad_tries += isinstance(error, FileChanged)
        if fetch.failures >= MOST_FAILURES or fetch.bad_tries >= BAD_TRIES:
            fetch.done(error)
            return
        if isinstance(error, FileChanged):
            self._doubt(fetch)
        fetch.due = self._services.clock.monotonic() + PAUSE_SECONDS
        # It may have moved with its owner, or have been deleted.
        fetch.look(lambda found: self._found_again(fetch, found))

    def _doubt(self, fetch: _Fetch) -> None:
        """Have the host look at the bytes that it gives: then it says itself that they are damaged."""
        body = dump_json(AskBlobs(sha256s=(fetch.blob.sha256,), check=True))
        request = Request(method="POST", target="/v1/blobs/state", body=body, repeatable=True)
        host = self._gossip.address(fetch.host)
        self._services.transport.send(host, request, lambda result: None, timeout_seconds=PIECE_SECONDS)

    def _found_again(self, fetch: _Fetch, found: HostRef | PagletsError) -> None:
        if isinstance(found, HostRef):
            fetch.host = found
        self._paused.append(fetch)
        self._services.runner.wake(self.name)

    # Deleting.

    def delete(self, artifact_id: str, done: Callable[[Done | PagletsError | BaseException], None]) -> None:
        """Delete it where it is."""

        def found(result: ArtifactView | PagletsError) -> None:
            if isinstance(result, PagletsError):
                done(result)
            elif result.host.store_id == self._services.own.store_id:
                self._services.runner.change(lambda tx: delete_here(tx, artifact_id), done)
            else:
                self._delete_at(result.host, artifact_id, done)

        self.find(artifact_id, found)

    def _delete_at(self, host: HostRef, artifact_id: str, done: Callable[[Done | PagletsError], None]) -> None:
        def answered(result: Response | PagletsError) -> None:
            try:
                done(parsed(result, Done))
            except Unknown:
                # It was there a moment ago: deleted by this request, perhaps, whose first reply was lost.
                done(Done())
            except PagletsError as error:
                done(error)

        request = Request(method="DELETE", target=f"/v1/artifacts/{artifact_id}?here=1", repeatable=True)
        self._services.transport.send(self._gossip.address(host), request, answered, timeout_seconds=LOOK_SECONDS)


@dataclass(slots=True, kw_only=True)
class _Asking(Generic[T]):
    """A question to several hosts, of which the first good answer counts; told the answers on the runner."""

    left: int
    error: PagletsError
    found: Callable[[T | PagletsError], None]
    ended: bool = False

    def answered(self, read: Callable[[Response | PagletsError], T], result: Response | PagletsError) -> None:
        """`read` raises what it was that was answered where it is no good answer."""
        self.left -= 1
        if self.ended:
            return
        try:
            value: T | PagletsError = read(result)
        except PagletsError:  # it has none, or says nothing that can be read
            value = self.error
        if not isinstance(value, PagletsError) or not self.left:
            self.ended = True
            self.found(value)


def _view(result: Response | PagletsError) -> ArtifactView:
    return parsed(result, ArtifactView)


def _host_of(view: ArtifactView | PagletsError) -> HostRef | PagletsError:
    return view if isinstance(view, PagletsError) else view.host


def delete_here(tx: Tx, artifact_id: str) -> Done:
    """Raises Unknown, and Moving where its owner is leaving with it."""
    if not artifacts.delete(tx, artifact_id):
        if artifacts.is_leaving(tx, artifact_id):
            raise Moving(f"artifact {artifact_id} is on its way to another host with its owner; ask again in a moment")
        if artifacts.find_in_outbox(tx, artifact_id, "") is not None:
            raise Conflict(
                f"artifact {artifact_id} belongs to a report that waits here for its collector; "
                "`paglets jobs cancel GROUP/JOBKEY` removes both"
            )
        raise Unknown(f"there is no artifact {artifact_id} here")
    tx.wake("garbage")
    return Done()


def _error(result: Response | PagletsError) -> PagletsError:
    if isinstance(result, PagletsError):
        return result
    try:
        result.json()
    except PagletsError as error:
        return error
    return PagletsError("the bytes of an artifact could not be had")
