"""Check that a quiet run kept every guarantee."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from paglets.codec.strict_json import loads
from paglets.groups.keys import collector_id
from paglets.store.db import Tx
from tests.invariants import BUMPED, HANDLED, Hosts, keys_under
from tests.simulator.seen import Seen
from tests.simulator.witness import Witness
from tests.simulator.workload import Group

LOSS_OF = "SELECT 1 FROM events WHERE kind = 'lost' AND subject GLOB ?"


def newest_generation(tx: Tx, collector: str, key: str) -> int:
    """Return the newest generation of a job that its collector knows, if the job is here or left from here; else 0."""
    row = tx.value("SELECT value FROM storage WHERE agent_id = ? AND key = ?", collector, f"job/{key}")
    if row is not None:
        return int(loads(row)["generation"])
    envelope = tx.value("SELECT envelope FROM handoff_envelopes WHERE agent_id = ?", collector)
    return 0 if envelope is None else int(loads(envelope)["storage"][f"job/{key}"]["generation"])


def judge(hosts: Hosts, witness: Witness, groups: Mapping[str, Group]) -> list[str]:
    """Return a description of every broken guarantee."""
    return [
        *_groups(hosts, witness, groups),
        *_posts(hosts, witness),
        *_paglets(hosts, witness),
        *_dead_posts(hosts),
        *_counts(hosts),
    ]


def _groups(hosts: Hosts, witness: Witness, groups: Mapping[str, Group]) -> Iterator[str]:
    for group_id, group in groups.items():
        stored = hosts[group.home.name].one("SELECT * FROM groups WHERE group_id = ?", group_id)
        if stored is None:
            if group_id in witness.groups:
                yield f"S8 {group_id} was acknowledged and is not at its home"
            continue
        yield from _group(hosts, witness, group_id, group)


def _group(hosts: Hosts, witness: Witness, group_id: str, group: Group) -> Iterator[str]:
    agent_id = collector_id(group_id)
    where = [name for name, tx in hosts.items() if tx.value("SELECT 1 FROM paglets WHERE agent_id = ?", agent_id)]
    if len(where) != 1:
        yield f"S1 the collector of {group_id} is on {where}"
        return
    if group.submission.return_home_when_complete and where[0] != group.home.name:
        yield f"{group_id}: the collector is on {where[0]}, and was to return to {group.home.name}"
    rows = hosts[where[0]].all("SELECT key, value FROM storage WHERE agent_id = ?", agent_id)
    entries = {row["key"]: loads(row["value"]) for row in rows}
    expected = {job.job_key for job in group.submission.jobs}
    if keys_under(entries, "job/") != expected:
        yield f"I1 {group_id} expects {sorted(keys_under(entries, 'job/'))}, submitted were {sorted(expected)}"
    for key in sorted(expected):
        record = entries.get(f"result/{key}")
        if record is not None and record["generation"] < entries[f"job/{key}"]["generation"]:
            witness.saw(Seen.LATE)
        yield from _key(entries, witness, group_id, group, key)


def _key(entries: Mapping[str, Any], witness: Witness, group_id: str, group: Group, key: str) -> Iterator[str]:
    result, failure = entries.get(f"result/{key}"), entries.get(f"failure/{key}")
    cancelled = failure is not None and failure["cause"] == "cancelled"
    if (result is None) == (failure is None):
        yield f"S4 {group_id} {key}: result {result}, failure {failure}"
    elif (group_id, key) in witness.cancelled and not cancelled:
        yield f"S8 {group_id} {key}: the cancel was acknowledged, and the record is {result or failure}"
    elif failure is not None and failure["cause"] == "killed_launcher":
        if (group_id, key) not in witness.killers:
            yield f"{group_id} {key}: never ended a zygote, and failed: {failure}"
    elif failure is not None and key in group.sure and not cancelled and (group_id, key) not in witness.victims:
        yield f"I2 {group_id} {key}: was to succeed, and failed: {failure}"
    elif result is not None and (result["result"]["key"] != key or result["result"]["attempt"] != result["attempt"]):
        yield f"I2 {group_id} {key}: has the result of another: {result}"


def _posts(hosts: Hosts, witness: Witness) -> Iterator[str]:
    times: dict[str, int] = {}
    for tx in hosts.values():
        for row in tx.all("SELECT key, value FROM storage WHERE key > ? AND key < ?", HANDLED, HANDLED + "\U0010ffff"):
            post_id = row["key"][len(HANDLED) :]
            times[post_id] = times.get(post_id, 0) + int(row["value"])
    for post_id, onward in witness.posts.items():
        for each in (post_id + "+" * step for step in range(onward + 1)):
            if times.get(each, 0) != 1:
                yield f"S5 post {each} was acknowledged, and handled {times.get(each, 0)} times"
    for post_id, count in times.items():
        if count > 1 and post_id not in witness.posts:
            yield f"S5 post {post_id} was handled {count} times"


def _paglets(hosts: Hosts, witness: Witness) -> Iterator[str]:
    for agent_id in witness.paglets:
        if not any(_is_here(tx, agent_id) for tx in hosts.values()):
            yield f"S8 paglet {agent_id} was acknowledged and is nowhere"


def _is_here(tx: Tx, agent_id: str) -> bool:
    return tx.value("SELECT 1 FROM residence WHERE agent_id = ? AND status = 'here'", agent_id) is not None


def _counts(hosts: Hosts) -> Iterator[str]:
    """Compare the state of each counter with its storage, which its handlers change in the same COMMIT."""
    for name, tx in hosts.items():
        for row in tx.all(_COUNTS, HANDLED, HANDLED + "\U0010ffff", BUMPED):
            if row["count"] != (row["handled"] or 0):
                yield f"{name}: S8 {row['agent_id']} has the count {row['count']} after {row['handled']} messages"


_COUNTS = (
    "SELECT agent_id, json_extract(state, '$.count') AS count, (SELECT sum(value) FROM storage s"
    "  WHERE s.agent_id = p.agent_id AND (s.key > ? AND s.key < ? OR s.key = ?)) AS handled"
    " FROM paglet_states p WHERE json_extract(state, '$.count') IS NOT NULL ORDER BY agent_id"
)


def _dead_posts(hosts: Hosts) -> Iterator[str]:
    for name, tx in hosts.items():
        for row in tx.all("SELECT agent_id, tries, error FROM inbox WHERE status = 'dead'"):
            yield f"{name}: a post of {row['agent_id']} is dead after {row['tries']} tries: {row['error'][:200]}"
