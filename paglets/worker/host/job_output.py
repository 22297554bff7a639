"""The pipes for the output of a job in a warm worker."""

from __future__ import annotations

import os

from paglets.worker.launch import LaunchSpec
from paglets.worker.zygote_protocol import CopyOutput


def job_output(worker: str, spec: LaunchSpec) -> tuple[tuple[CopyOutput, int, int], tuple[int, int]]:
    """Open pipes for stdout and stderr of a job. Raises OSError.

    Return two tuples. The first has the frame for the zygote and the reading ends, which go with the frame. The second
    has the writing ends, which are for the worker.
    """
    stdout = os.pipe()
    try:
        stderr = os.pipe()
    except OSError:
        for descriptor in stdout:
            os.close(descriptor)
        raise
    request = CopyOutput(worker=worker, token=spec.token, stdout_path=spec.stdout_path, stderr_path=spec.stderr_path)
    return (request, stdout[0], stderr[0]), (stdout[1], stderr[1])
