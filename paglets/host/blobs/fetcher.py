"""Find artifacts and blobs in the mesh, fetch them to this host in pieces, and delete artifacts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar
from urllib.parse import urlencode

from paglets.api.blobs import ArtifactView, AskBlobs, BlobState, BlobStates
from paglets.api.paglets import Done
from paglets.core.errors import Conflict, FileChanged, Moving, PagletsError, Unknown, to_wire_error
from paglets.core.refs import ArtifactRef, BlobRef, HostRef
from paglets.host.blobs.blob_store import BlobStore
from paglets.host.runtime.services import HostServices
from paglets.mesh.ask_all import ask_all
from paglets.mesh.gossip import Gossiper
from paglets.store import artifacts
from paglets.store.db import Tx
from paglets.wire.request import Request, Response, dump_json, parsed

T = TypeVar("T")

LOOK_SECONDS = 5.0
PIECE_SECONDS = 60.0
MOST_FAILURES = 20
BAD_TRIES = 3
"""A fetch fails after it has received wrong bytes this many times. Until then, the source checks its file each time."""

PAUSE_SECONDS = 1.0
MOST_ERRORS = 1_000
"""The maximum number of blobs whose last error is kept in memory, to show it to users."""

Fetched = Callable[[ArtifactRef | PagletsError], None]
Found = Callable[[ArtifactView | PagletsError], None]


Arrived = Callable[[], None]
HostFound = Callable[[HostRef | PagletsError], None]


@dataclass(slots=True, kw_only=True)
class _Fetch:
    """A fetch in progress. `look` searches for the host that has the blob, and passes that host to its callback."""

    blob: BlobRef
    host: HostRef
    look: Callable[[HostFound], None]
    done: Callable[[PagletsError | None], None]
    offset: int = 0
    failures: int = 0
    bad_tries: int = 0
    due: float = 0.0


class BlobFetcher:
    """The runner part `blob_fetcher`, which fetches blobs and retries failed fetches. Used only on the runner."""

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

    # Methods that find artifacts.

    def find(self, artifact_id: str, found: Found) -> None:
        """Search this host and all online hosts for the artifact. Call `found` with its view, or with Unknown."""
        own = self._services.own
        ref = self._services.store.read(lambda tx: artifacts.find_any(tx, artifact_id, own.name))
        if ref is not None:
            found(ArtifactView(artifact=ref, host=own))
            return
        self._first(
            Request(method="GET", target=f"/v1/artifacts/{artifact_id}?here=1"),
            lambda host, response: response.parse(ArtifactView),
            Unknown(f"no online host of the mesh has an artifact {artifact_id}"),
            found,
        )

    def _first(
        self,
        request: Request,
        read: Callable[[HostRef, Response], T],
        nowhere: Unknown,
        found: Callable[[T | PagletsError], None],
    ) -> None:
        """Ask all online hosts, and pass the first answer that `read` accepts to `found`, or `nowhere` if none."""
        ask_all(
            self._services.transport,
            [mesh_host.ref for mesh_host in self._gossip.online()],
            request,
            read,
            lambda answers: found(answers[0] if answers else nowhere),
            timeout_seconds=LOOK_SECONDS,
            enough=lambda answer: True,
        )

    # Methods that fetch artifacts and blobs.

    def fetch(self, artifact_id: str, done: Fetched) -> None:
        """Fetch the artifact. Call `done` with it once its bytes are stored and pinned, or with an error."""

        def found(result: ArtifactView | PagletsError) -> None:
            if isinstance(result, PagletsError):
                done(result)
            else:
                self._begin(
                    _Fetch(
                        blob=result.artifact.blob,
                        host=result.host,
                        look=lambda found: self.find(artifact_id, lambda view: found(_host_of(view))),
                        done=lambda error: done(error or result.artifact),
                    )
                )

        self.find(artifact_id, found)

    def fetch_blob(self, blob: BlobRef, arrived: Arrived) -> None:
        """Fetch the blob from an online host that has it. Call `arrived` once this host has all its bytes.

        If the fetch fails, `arrived` is not called, and the caller must call `fetch_blob` again.
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

    def status_text(self, blob: BlobRef) -> str:
        """Return why this host lacks the blob, as a phrase to append to the name of a file."""
        error = self._errors.get(blob.sha256)
        if error is None:
            return "is being fetched" if blob.sha256 in self._wanted else "is missing and is being searched for"
        return "is on no online host" if isinstance(error, Unknown) else f"cannot be fetched: {error.message}"

    def _note(self, blob: BlobRef, error: PagletsError | None) -> None:
        """Remember `error` as the last error of the blob, or forget the last error if it is None."""
        self._errors.pop(blob.sha256, None)
        if error is not None:
            self._errors[blob.sha256] = error
        if len(self._errors) > MOST_ERRORS:
            self._errors.popitem(last=False)

    def _find_blob(self, blob: BlobRef, found: HostFound) -> None:
        nowhere = Unknown(f"no online host of the mesh has the blob {blob.sha256}")
        body = dump_json(AskBlobs(sha256s=(blob.sha256,)))

        def read(host: HostRef, response: Response) -> HostRef:
            states = response.parse(BlobStates).blobs
            if not any(state.sha256 == blob.sha256 and state.complete for state in states):
                raise nowhere
            return host

        self._first(Request(method="POST", target="/v1/blobs/state", body=body, repeatable=True), read, nowhere, found)

    def _begin(self, fetch: _Fetch) -> None:
        sha256 = fetch.blob.sha256
        self._blob_store.run_in_background(
            lambda: self._blob_store.state(sha256), lambda state: self._go_on(fetch, state)
        )

    def _go_on(self, fetch: _Fetch, state: BlobState | BaseException) -> None:
        if isinstance(state, BaseException):
            fetch.done(to_wire_error(state))
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
                raise FileChanged(f"{fetch.host.name} sent {len(piece)} of {length} requested bytes of a blob")
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
        # Search for the blob again, because its file may have moved with its owner, or may have been deleted.
        fetch.look(lambda found: self._found_again(fetch, found))

    def _doubt(self, fetch: _Fetch) -> None:
        """Ask the source to check the hash of its file. If the hash is wrong, the source sends no more of it."""
        body = dump_json(AskBlobs(sha256s=(fetch.blob.sha256,), check=True))
        request = Request(method="POST", target="/v1/blobs/state", body=body, repeatable=True)
        host = self._gossip.address(fetch.host)
        self._services.transport.send(host, request, lambda result: None, timeout_seconds=PIECE_SECONDS)

    def _found_again(self, fetch: _Fetch, found: HostRef | PagletsError) -> None:
        if isinstance(found, HostRef):
            fetch.host = found
        self._paused.append(fetch)
        self._services.runner.wake(self.name)

    # Methods that delete artifacts.

    def delete(self, artifact_id: str, done: Callable[[Done | PagletsError | BaseException], None]) -> None:
        """Find the host that has the artifact, and delete the artifact there."""

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
                # Count this as success, because the search found the artifact on `host`. An earlier try, whose reply
                # was lost, may have deleted the artifact.
                done(Done())
            except PagletsError as error:
                done(error)

        request = Request(method="DELETE", target=f"/v1/artifacts/{artifact_id}?here=1", repeatable=True)
        self._services.transport.send(self._gossip.address(host), request, answered, timeout_seconds=LOOK_SECONDS)


def _host_of(view: ArtifactView | PagletsError) -> HostRef | PagletsError:
    return view if isinstance(view, PagletsError) else view.host


def delete_here(tx: Tx, artifact_id: str) -> Done:
    """Delete an artifact of this host. Raises Unknown, Conflict, or Moving if the artifact moves with its owner."""
    if not artifacts.delete(tx, artifact_id):
        if artifacts.is_leaving(tx, artifact_id):
            raise Moving(f"artifact {artifact_id} is moving to another host with its owner")
        if artifacts.find_in_outbox(tx, artifact_id, "") is not None:
            raise Conflict(
                f"artifact {artifact_id} belongs to a report that waits for its collector",
                hint=["`paglets jobs cancel GROUP/JOBKEY` removes both"],
            )
        raise Unknown(f"there is no artifact {artifact_id} on this host")
    tx.wake("garbage")
    return Done()


def _error(result: Response | PagletsError) -> PagletsError:
    if isinstance(result, PagletsError):
        return result
    try:
        result.json()
    except PagletsError as error:
        return error
    return PagletsError("the bytes of an artifact could not be fetched")
