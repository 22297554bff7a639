"""The keys of the `--json` output of each command, with a text for each. Tests compare them with real output."""

from __future__ import annotations

from dataclasses import dataclass

ARTIFACT = "as [ArtifactRef](protocol.md#artifactref)"
HOOKS = "hooks that failed of the finished job, each as [FailedHook](protocol.md#failedhook)"
JOB = "as [JobView](protocol.md#jobview)"
SLOTS = "as [Slots](protocol.md#slots)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The JSON of a command. `keys`: a text for each key, in order. `note`: when which of the keys are printed."""

    keys: dict[str, str]
    note: str = ""


ARTIFACT_KEYS = {
    "artifact_id": "its id, `art-...`",
    "name": "the name of the file",
    "size_bytes": "its size",
    "sha256": "the hash of its bytes",
    "host_name": "the host that has it",
    "owner": "the id of the paglet that it belongs to; empty: the host's own",
    "created_at": "when it was made, seconds since the epoch",
    "expires_at": "when it will be deleted; null: not by time",
}

SUMMARY_KEYS = {
    "group_id": "the group",
    "status": "`ACTIVE`, `WAITING_FOR_HOME`, `RETURNING_HOME` or `COMPLETE`",
    "collector": "where the collector is: `host_name`, `host_url`, `agent_id`",
    "home": "where the group was submitted: the same keys, `agent_id` null unless a paglet submitted it",
    "return_home_when_complete": "whether the collector goes home when all jobs have ended",
    "waiting_for_home": "whether it is about to, and home is away",
    "expected_count": "how many jobs the group has",
    "completed_count": "how many have a result",
    "failed_count": "how many ended without a result; cancelled ones count as failed",
    "pending_count": "how many have neither",
    "pending_jobs": "of each of these: `job_key`, `generation`, `attempt`, `status`, `host_name`, `reason`, "
    "`reason_text`, `never`, `since`",
    "results": "by job key: `result`, `host_name`, `generation`, `attempt`, `reported_at`, `runtime_seconds`; "
    "`warnings`, a list of texts, only where there are some",
    "failures": "by job key: `cause`, `message`, `traceback`, `stderr_tail`, `host_name`, `generation`, `attempt`, "
    "`reported_at`; `warnings` likewise",
    "duplicate_reports": "reports that came for a job that had a record, or that was cancelled; with `why`",
    "unexpected_reports": "reports for a key that the group does not have",
    "jobs": "by job key: what `register_jobs` gave beside the key; only keys with such metadata",
    "created_at": "when the group was submitted, seconds since the epoch",
    "completed_at": "when its last job ended; null: not yet",
    "last_report_at": "when the last report came; null: none yet",
    "truncated": "whether lists were cut, as in a reply of the collector itself, whose bound is 16 MiB: here never",
    "left_out": "how many entries each list lacks that was cut",
}

ENDED_COUNTS = {
    "group_id": "the group",
    "done": "jobs with a result",
    "failed": "jobs that ended without a result; cancelled ones count as failed",
    "cancelled": "how many of these were cancelled",
}

ATTEMPTS = "attempts, the newest last, each as [AttemptView](protocol.md#attemptview)"
UNREACHABLE = "a line for each host that did not answer"
UNREACHABLE_OR_OFFLINE = f"{UNREACHABLE} or is offline"

LOGS = {
    "attempts": ATTEMPTS,
    "unfinished": "copies that have not ended, each as [UnfinishedJob](protocol.md#unfinishedjob)",
    "unreachable": UNREACHABLE,
}

OUTPUTS: dict[str, Output] = {
    "artifacts list": Output(
        keys={
            "artifacts": f"each {ARTIFACT}",
            "unreachable": UNREACHABLE_OR_OFFLINE,
        }
    ),
    "artifacts info": Output(
        keys={"artifact": ARTIFACT, "host": "the host that has it, as [HostRef](protocol.md#hostref)"}
    ),
    "artifacts get": Output(
        keys={
            "path": "the file that was written (of one artifact)",
            "artifact": f"{ARTIFACT} (of one artifact)",
            "files": "with `--group`: of each file `job_key`, `path`, `artifact`",
            "errors": "with `--group`: what went wrong, as `code`, `message`, `details`",
            "without_file": "with `--group`: results that have no file",
            "failed": "with `--group`: jobs that failed",
            "pending": "with `--group`: jobs that have not ended",
        },
        note=" (the first two keys of one artifact, the others with `--group`)",
    ),
    "artifacts put": Output(keys=ARTIFACT_KEYS),
    "artifacts rm": Output(
        keys={
            "deleted": "ids of those that are deleted now",
            "errors": "what went wrong with the others, as `code`, `message`, `details`",
        }
    ),
    "config check": Output(
        keys={
            "file": "the file",
            "hosts": "names of the hosts that it describes",
            "addresses": "of each `peers` and `public_url`, as it is written: how it is read",
        }
    ),
    "config show": Output(
        keys={
            "name": "the host",
            "file": "the file that was read; null: none",
            "settings": "by name of the setting: `value`, and `source`: a flag, `[mesh]`, `[hosts.NAME]` or `default`",
        }
    ),
    "demo": Output(
        keys={
            "files": "input files",
            "bytes": "of them, together",
            "jobs": "jobs that were submitted",
            "done": "jobs with a result",
            "failed": "jobs that failed",
            "done_before_kill": "results that were there when the laptop's host was killed",
            "kills": "how often it was killed",
            "rows": "rows of the merged result",
            "differences": "rows that differ from what one process counts by itself",
            "equal": "whether there are none",
            "seconds": "how long it took",
            "folder": "the folder with the hosts' data; null: removed",
            "uses": "the words that are used most",
        }
    ),
    "doctor": Output(
        keys={
            "checks": "each with `name`, `state` (`ok`, `warning`, `bad`), `found` and `advice`: what to do, or empty",
        }
    ),
    "jobs groups": Output(
        keys={
            "groups": "each as [GroupLine](protocol.md#groupline), newest first",
            "unreachable": UNREACHABLE_OR_OFFLINE,
            **SUMMARY_KEYS,
            "problem": "without the collector: why it cannot be asked",
            "counted_at": "without the collector: when home heard the counts, epoch seconds; null: never",
            "elsewhere_count": "without the collector: jobs of which no other host has anything; null: not known",
            "finished": "without the collector: of each job whose report waits `job_key`, `kind` (`result`, "
            "`failure`), `host_name`, `generation`, `attempt`, `cause`, and `files` with `artifact_id`, `name`, "
            "`size_bytes`",
            "hosts": "without the collector: of each host that has something of the group `host`, `results`, "
            "`failures`, `files`, `file_bytes`, `running`, `queued`",
            "next": "without the collector: what to do, in words",
        },
        note=" (the first two keys for all groups; the others, the group's *summary*, for one)",
    ),
    "jobs queue": Output(
        keys={
            "host": "the host, as [HostRef](protocol.md#hostref)",
            "capacity": "what it offers, as [Resources](protocol.md#resources)",
            "free": "what of that nobody has leased or uses",
            "tags": "its tags",
            "queued_jobs": "how many wait",
            "running_jobs": "how many run",
            "jobs": f"running ones first, then the oldest, each {JOB}",
            "all_jobs": "how many jobs there are without the limit",
        }
    ),
    "jobs list": Output(
        keys={
            "group_id": "the group; only where one is named",
            "jobs": f"without a group each {JOB}, with `host`, the name of its host; of a group each with `job_key`, "
            "`status` (`running`, `waiting`, `failed`, `cancelled` or `done`), and what the summary has of it",
            "left_out": "how many jobs more there are",
            "unreachable": f"{UNREACHABLE_OR_OFFLINE}; not with a group",
        }
    ),
    "jobs ps": Output(
        keys={
            "jobs": f"each {JOB}, with `host`, the name of its host",
            "left_out": "how many jobs more there are",
            "unreachable": UNREACHABLE_OR_OFFLINE,
        }
    ),
    "jobs why": Output(
        keys={
            "group_id": "of a group: its id",
            "status": "its status; of one job `COMPLETED`, `FAILED`, `CANCELLED` or that of its queue",
            "pending_reasons": "of a group: of each reason `status`, `host_name`, `reason`, `reason_text`, `never`, "
            "and the `count` of its jobs with the first `job_key`",
            "failure_reasons": "of a group: the same with `cause`, `host_name` and `message`",
            "left_out": "of a group: how many jobs have other reasons, where there are over 200",
            "job": "of one job: GROUP/JOBKEY; beside it the keys of its entry in the summary",
            "collector": "there where the collector cannot be asked: why, in words",
            "pending_jobs": "beside `collector`, in place of the reasons: the jobs as their hosts know them",
            "hooks": f"there where hooks failed: {HOOKS}, or of a group's; `hook`, such as `on_arrival`",
        },
        note=" (of an id: [PagletView](protocol.md#pagletview))",
    ),
    "jobs status": Output(
        keys={
            **{name: SUMMARY_KEYS[name] for name in ("group_id", "status", "expected_count", "completed_count")},
            **{name: SUMMARY_KEYS[name] for name in ("failed_count", "pending_count")},
            "pending": "by status: how many",
            "failed": "by cause: how many",
        }
    ),
    "jobs history": Output(
        keys={
            "group_id": "the group",
            "ended": "newest first: `number` in the order of their ends, `job_key`, and `result` or `failure`: "
            "the record, as in the summary",
        }
    ),
    "jobs top": Output(
        keys={
            "hosts": f"each {SLOTS}",
            "jobs": f"those that use most first, each {JOB}, with `host`, the name of its host",
            "unreachable": UNREACHABLE,
        }
    ),
    "jobs wait": Output(keys=ENDED_COUNTS),
    "jobs watch": Output(keys=ENDED_COUNTS),
    "jobs cancel": Output(
        keys={
            "groups": "of each group `group_id`; `keys`: what became of each job (`cancelled`, `already_completed`, "
            "`already_failed`, `already_cancelled`, `unknown`; `ended` without its collector); `running`: by host, how "
            "many processes have not ended yet; `ended`: by host, the jobs that it ended without their collector; "
            "`cleared`: by host, the waiting reports that it removed (`results`, `failures`, `files`, `file_bytes`); "
            "`kept`: finished results that still wait; `freed`: whether the group id can be used again; "
            "`unreachable`: a line for each host that could not be asked",
        }
    ),
    "jobs show": Output(
        keys={
            "job": "GROUP/JOBKEY, or the id of one without a group",
            "class_name": "its class, `module:qualname`",
            "metadata": "what `register_jobs` gave beside its key; null: nothing",
            "is_here": "whether a copy of it is on a host, so that code and inputs are known",
            "code": "its bundle: `sha256`, `size_bytes`, `files`, `problem`; null: not known, or none",
            "inputs": "files that travel with it, each as [FileRef](protocol.md#fileref)",
            "artifact": f"its result file, {ARTIFACT}; null: none",
            "attempts": ATTEMPTS,
            "hooks": f"{HOOKS}; `hook`, such as `on_arrival`",
            "files": f"files of the finished job that no hook took, each {ARTIFACT}",
            "undelivered": "copies with a hook or a move to come, each as [Undelivered](protocol.md#undelivered)",
            "job_state": "what `jobs why` prints of it",
        }
    ),
    "jobs rerun-hook": Output(
        keys={
            "hooks": "of each hook that was run again: `job`, `hook`, `host`, `ok`, `error` and `traceback`, the last "
            "two empty where it returned",
        }
    ),
    "jobs logs": Output(keys=LOGS, note=" (the attempts, not what they printed)"),
    "jobs hosts": Output(
        keys={"verdicts": "the best first, each as [PlacementCandidate](protocol.md#placementcandidate)"}
    ),
    "key show": Output(keys={"key": "the key", "source": "where it was found"}),
    "key path": Output(keys={"path": "the file with the key"}),
    "key new": Output(keys={"path": "the file with the new key"}),
    "list": Output(
        keys={
            "paglets": "of each: `agent_id`, `name`, `class_name`, `kind`, `service`, `host`, `status`, `group_id`, "
            "`job_key`, `created_at`, `age_seconds`, `reason`",
            "unreachable": UNREACHABLE_OR_OFFLINE,
        }
    ),
    "logs": Output(keys=LOGS, note=" (the attempts, not what they printed)"),
    "mesh hosts": Output(
        keys={
            "hosts": "the answering host first, the others by name, each as [MeshHostView](protocol.md#meshhostview)",
            "peers": "peers that it was given and has not joined, each as [PeerProblem](protocol.md#peerproblem)",
            "broken_links": "online hosts that cannot connect to others, each as [BrokenLink](protocol.md#brokenlink)",
            "refused": "hosts with another mesh key that spoke to it, each as [RefusedHost](protocol.md#refusedhost)",
        }
    ),
    "mesh forget": Output(
        keys={
            "store_id": "of the host that was forgotten",
            "name": "its name, or the same where no host lists it",
            "others": "other hosts that are called so, and were not forgotten: of each `store_id`, `url` and `online`",
            "hosts": "of each host that was asked: `host`, its name; `known`, whether the other was in its mesh; "
            "`taken_back`, how many paglets on their way there came back; `moves_dropped`, how many moves there that "
            "had not begun; `files_kept`, by group how many files of finished jobs became artifacts there",
            "lost_groups": "ids of the groups whose collector was on that host",
            "unreachable": "the hosts that may still know it: name and error of each host that refused or did not "
            "answer, and the names of offline hosts",
        }
    ),
    "notes": Output(
        keys={
            "notes": "the newest last, each as [Note](protocol.md#note)",
            "unreachable": UNREACHABLE_OR_OFFLINE,
        },
        note=" (with `--follow` a note in each line)",
    ),
    "stop": Output(
        keys={"stopped": "the hosts that have ended: `name`, `pid`, `running_jobs` (how many it ran; null: unknown)"}
    ),
    "version": Output(
        keys={
            "paglets": "the version",
            "protocol": "the number of the protocol: hosts with equal numbers work together",
            "python": "the version of the interpreter",
            "program": "the file or folder that runs",
            "sha256": "the hash of that",
        }
    ),
}
