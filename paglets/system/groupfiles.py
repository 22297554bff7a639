"""The input files of a group that is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from paglets.api.groups import SubmitGroup
from paglets.core.errors import Invalid
from paglets.core.text import type_of
from paglets.remote.inputs import FilePublisher, Input, InputPaths, Published, check_apart, check_inputs


class GroupFiles:
    """The input files of a group, all found before one is sent. Raises Invalid."""

    def __init__(
        self, request: SubmitGroup, common: InputPaths | None, by_key: Mapping[str, InputPaths] | None
    ) -> None:
        self._common = check_inputs(common)
        self._by_key: dict[str, tuple[Input, ...]] = {}
        if by_key is not None and not isinstance(by_key, Mapping):
            raise TypeError(
                f"job_inputs is {type_of(by_key)}: give a dict, {{'job_key': {{'name': 'path of the file'}}}}"
            )
        keys = {job.job_key for job in request.jobs}
        for key, paths in (by_key or {}).items():
            if key not in keys:
                raise Invalid(f"job_inputs names a job {key!r}, and none of the {len(keys):,} jobs has that key")
            self._by_key[key] = check_inputs(paths, f"job {key!r}")
            check_apart((each.name for each in (*self._common, *self._by_key[key])), f"job {key!r}")

    def put_into(self, request: SubmitGroup, publisher: FilePublisher) -> SubmitGroup:
        """The request with refs of the files, which are published now."""
        each = (*self._common, *(one for inputs in self._by_key.values() for one in inputs))
        published = Published(publisher, each)
        jobs = (replace(job, inputs=published.files(self._by_key.get(job.job_key, ()))) for job in request.jobs)
        return replace(request, inputs=published.files(self._common), jobs=tuple(jobs) if each else request.jobs)
