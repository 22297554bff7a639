"""Check that the hosts of a quiet run hold exactly the bytes that are needed, in the right places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from paglets.codec.strict_json import loads
from paglets.store.db import Tx
from tests.invariants import Hosts
from tests.simulator.filescripts import COURIER_CLASS
from tests.simulator.machine import Machine
from tests.simulator.seen import Seen
from tests.simulator.witness import Given, Source, Witness

CANCELLED = "cancelled"


def judge_bytes(machines: Sequence[Machine], witness: Witness, lost: Hosts | None = None) -> list[str]:
    """Return a description of every broken guarantee about bytes. `lost` are the stores of hosts that are gone for
    good."""
    hosts = {machine.name: machine.rows for machine in machines}
    return [
        *_artifacts(hosts, witness),
        *_given(machines, witness),
        *_sources(machines, witness),
        *_left(hosts, lost or {}, witness),
    ]


def to_fetch(machines: Sequence[Machine], witness: Witness) -> dict[str, str]:
    """Return the hash of each artifact that every host of the mesh must be able to fetch."""
    hosts = {machine.name: machine.rows for machine in machines}
    named = {artifact_id for artifact_id in (*witness.carried, *witness.kept) if artifact_id not in witness.deleted}
    named |= _of_records(hosts).keys() | _of_couriers(hosts).keys() | _of_jobs(hosts).keys()
    return {artifact_id: places[0][2] for artifact_id, places in sorted(_places(hosts).items()) if artifact_id in named}


# Artifacts.


def _artifacts(hosts: Hosts, witness: Witness) -> Iterator[str]:
    where = _places(hosts)
    for artifact_id, places in where.items():
        if len(places) > 1:
            yield f"artifact {artifact_id} is there more than once: {places}"
    for artifact_id, (owner, sha256) in {**_of_records(hosts), **_of_couriers(hosts)}.items():
        if artifact_id not in witness.deleted and [each[1:] for each in where.get(artifact_id, [])] != [
            (owner, sha256)
        ]:
            yield f"artifact {artifact_id} is at {where.get(artifact_id)}, not with {owner}"
    for artifact_id, owner in witness.carried.items():
        if artifact_id not in witness.deleted and [each[1] for each in where.get(artifact_id, [])] != [owner]:
            yield f"artifact {artifact_id} came with a post for {owner}, and is at {where.get(artifact_id)}"
    for artifact_id, host in witness.kept.items():
        if artifact_id not in witness.deleted and [each[0] for each in where.get(artifact_id, [])] != [host]:
            yield f"artifact {artifact_id} was to stay on {host}, and is at {where.get(artifact_id)}"
    yield from _unasked(hosts, where)


def _places(hosts: Hosts) -> dict[str, list[tuple[str, str, str]]]:
    """Return the host, owner and hash of each artifact."""
    where: dict[str, list[tuple[str, str, str]]] = {}
    for name, tx in hosts.items():
        for row in tx.all("SELECT artifact_id, owner, sha256 FROM artifacts ORDER BY artifact_id"):
            where.setdefault(row["artifact_id"], []).append((name, row["owner"], row["sha256"]))
    return where


def _collectors(hosts: Hosts) -> Iterator[tuple[Tx, str]]:
    for tx in hosts.values():
        for row in tx.all("SELECT agent_id FROM paglets WHERE kind = 'collector' ORDER BY agent_id"):
            yield tx, row["agent_id"]


def _of_records(hosts: Hosts) -> dict[str, tuple[str, str]]:
    """Return the owner and hash of each artifact that an accepted result names."""
    found: dict[str, tuple[str, str]] = {}
    for tx, agent_id in _collectors(hosts):
        for row in tx.all("SELECT key, value FROM storage WHERE agent_id = ? AND key LIKE 'result/%'", agent_id):
            artifact: dict[str, Any] | None = loads(row["value"])["result"].get("artifact")
            if artifact is not None:
                found[artifact["artifact_id"]] = (agent_id, artifact["blob"]["sha256"])
    return found


def _of_couriers(hosts: Hosts) -> dict[str, tuple[str, str]]:
    """Return the owner and hash of each artifact that a courier's state lists."""
    found: dict[str, tuple[str, str]] = {}
    for tx in hosts.values():
        for row in tx.all(
            "SELECT agent_id, state FROM paglets JOIN paglet_states USING (agent_id) WHERE class_name = ?",
            COURIER_CLASS,
        ):
            artifacts: dict[str, str] = loads(row["state"]).get("artifacts", {})
            found |= {artifact_id: (row["agent_id"], sha256) for artifact_id, sha256 in artifacts.items()}
    return found


_ENDED_THERE = "SELECT 1 FROM residence WHERE agent_id = ? AND status IN ('here', 'leaving', 'disposed')"


def _of_jobs(hosts: Hosts) -> dict[str, tuple[str, str]]:
    """Return the job key and hash of each artifact that a finished job left."""
    sql = "SELECT artifact_id, job_key, sha256 FROM artifacts WHERE group_id IS NOT NULL ORDER BY artifact_id"
    return {row["artifact_id"]: (row["job_key"], row["sha256"]) for tx in hosts.values() for row in tx.all(sql)}


def _left(hosts: Hosts, lost: Hosts, witness: Witness) -> Iterator[str]:
    """Report files of finished jobs that are lost.

    A file must travel with its job, be an artifact of its group, or have been taken by a hook that returned.
    """
    kept = set(_of_jobs(hosts).values())
    for agent_id, left in witness.left.items():
        if (left.job_key, left.sha256) in kept:
            witness.saw(Seen.LEFT)
        elif agent_id not in witness.taken and not any(tx.value(_ENDED_THERE, agent_id) for tx in lost.values()):
            travels = "SELECT 1 FROM files WHERE agent_id = ? AND sha256 = ?"
            if not any(tx.value(travels, agent_id, left.sha256) for tx in hosts.values()):
                yield f"the file with which {agent_id} ({left.job_key}) was to move is nowhere, and no hook took it"


def _given(machines: Sequence[Machine], witness: Witness) -> Iterator[str]:
    """Report files that were moved into a result and are not with the collector.

    The exceptions are jobs that were cancelled, and jobs of which another copy reported first.
    """
    records = {agent_id: tx for tx, agent_id in _collectors({machine.name: machine.rows for machine in machines})}
    for path, given in witness.given.items():
        tx = records.get(given.collector)
        names = () if tx is None else (_named(tx, given),)
        if given.artifact_id not in names and CANCELLED not in names:
            yield f"{path} was moved away for {given.job_key} of {given.collector}, whose record names {names}"


def _named(tx: Tx, given: Given) -> str:
    """Return the artifact that a job's record names.

    Return CANCELLED if the job was cancelled or the record is of another copy.
    """
    value = "SELECT value FROM storage WHERE agent_id = ? AND key = ?"
    result, failure = (tx.value(value, given.collector, f"{kind}/{given.job_key}") for kind in ("result", "failure"))
    if result is not None:
        if loads(result)["generation"] != given.generation:
            return CANCELLED
        return str((loads(result)["result"].get("artifact") or {}).get("artifact_id", ""))
    return CANCELLED if failure is not None and loads(failure)["cause"] == CANCELLED else ""


def _unasked(hosts: Hosts, where: dict[str, list[tuple[str, str, str]]]) -> Iterator[str]:
    """Report artifacts of a collector that no accepted result names."""
    wanted = _of_records(hosts)
    collectors = {agent_id for _, agent_id in _collectors(hosts)}
    for artifact_id, places in where.items():
        if artifact_id not in wanted and any(owner in collectors for _, owner, _ in places):
            yield f"artifact {artifact_id} of a report that was not taken is at {places}"


# Sources of files.


def _sources(machines: Sequence[Machine], witness: Witness) -> Iterator[str]:
    for path, source in witness.sources.items():
        there = any(path in machine.sources.there for machine in machines)
        if (source.file.mode == "copy" or source.changed) and not there:
            yield f"{path} was not to be removed"
        elif source.file.mode == "move" and not source.changed and source.arrived and there:
            yield f"{path} has moved with {source.agent_id}, and is still on {source.host}"


def may_remove(machines: Sequence[Machine], host: str, source: Source | None) -> bool:
    """Return True if a source may be removed: another host has the registered file, or has passed it on."""
    if source is None or source.file.mode != "move" or source.changed:
        return False
    return source.arrived or any(_has_it(machine, source) for machine in machines if machine.name != host)


def _has_it(machine: Machine, source: Source) -> bool:
    row = machine.rows.one("SELECT epoch, status FROM residence WHERE agent_id = ?", source.agent_id)
    if row is None or row["epoch"] <= source.epoch or row["status"] == "refused":
        return False
    if row["epoch"] > source.epoch + 1 or row["status"] in ("gone", "disposed"):
        return True
    file = machine.rows.one(
        "SELECT 1 FROM files WHERE agent_id = ? AND sha256 = ?", source.agent_id, source.file.sha256
    )
    return file is not None and source.file.sha256 in machine.bytes.whole


# Leftovers.


def left_over(machine: Machine) -> list[str]:
    """Return leftover bytes of a machine that nothing needs. There must be none once all pins have expired."""
    disk, rows = machine.bytes, machine.rows
    known = {row["sha256"] for row in rows.all("SELECT sha256 FROM blobs")}
    needed = {row["sha256"] for row in rows.all("SELECT sha256 FROM blob_refs")}
    scratch = {row["agent_id"] for row in rows.all("SELECT agent_id FROM paglets")}
    now = machine.around.clock.wall() + machine.wall_error_seconds
    ended = rows.all("SELECT artifact_id FROM artifacts WHERE expires_at <= ?", now)
    found = {
        "artifacts after their end": {row["artifact_id"] for row in ended},
        "blobs that nothing needs": known - needed,
        "files without a row": disk.whole.keys() - known,
        "parts of blobs": disk.partial.keys(),
        "staged files": disk.staged.keys(),
        "code without its bundle": disk.code.keys() - known,
        "scratch directories": machine.scratch.keys() - scratch,
        "sources to be removed": {row["path"] for row in rows.all("SELECT path FROM removals")},
    }
    return [f"{machine.name}: {what} are left: {sorted(each)[:3]}" for what, each in found.items() if each]
