"""Events that are counted over seeds. An event that never happens is not tested."""

from __future__ import annotations

from enum import StrEnum


class Seen(StrEnum):
    """An event of a run. Its value is the text in tables."""

    CODE = "a process was given code"
    INPUT = "an attempt was given inputs"
    SHARED = "a group was taken whose jobs share an input"
    RESULT = "a result with a file was reported"
    RESULT_MOVED = "its file was moved away for it"
    UPLOADED = "a paglet made an artifact of its own"
    DELETED = "a paglet deleted an artifact"
    FETCHED = "a paglet fetched an artifact"
    KEPT = "a user made an artifact"
    POSTED = "a post with a file was taken"
    COPIED = "a file arrived that was registered to be copied"
    MOVED = "a file arrived that was registered to be moved"
    REMOVED = "the source of a moved file was removed"
    SENT = "a host sent bytes to another"
    WENT_ON = "bytes went on from where a break had left them"
    LACKED = "what needed bytes was sent and they were not there"
    WRONG = "wrong bytes were refused"
    FULL = "there was no room for bytes"
    CRASHED = "a machine lost its power at a step of its disk"
    CUT_OFF = "a power cut took bytes that were not synced"
    GONE = "a machine was lost for good"
    WIPED = "a machine began anew with an empty data directory"
    FORGOTTEN = "a host was forgotten, and what was to go there came back"
    SWALLOWED = "a request was taken and never answered"
    ALONE = "a job ran at home, on the only host"
    MANY = "nine hosts or more were a mesh"
    ANEW = "a job was begun anew"
    LATE = "a job that was begun anew was reported by an older copy"
    HOOK_FAILED = "a hook of a finished job failed"
    RERUN = "a hook that had failed was run again"
    LEFT = "a finished job left a file that no hook took"
    COLLECTED = "bytes that nothing needed were removed"
