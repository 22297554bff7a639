"""Code of authors, seen from outside: hooks, returned values, second reports, files."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from authors_jobs import ROWS, Asks, Changed, Written, WrittenState, add_rows, rows_of

from paglets.artifacts import ArtifactRef
from paglets.core.errors import Invalid
from paglets.system.compute_slots import CollectingComputeJobPaglet, Submission, submit_compute_job_group
from tests.acceptance.rig import PATIENCE_SECONDS, Mesh, wait_until


def submit(mesh: Mesh, how: str, path: Path | str = "", cls: Any = Written, **more: Any) -> Submission:
    states = [WrittenState(job_key=how, how=how, path=str(path))]
    return submit_compute_job_group(mesh["laptop"].client, cls, states, **more)


def record(submission: Submission, how: str) -> dict[str, Any]:
    summary = submission.drain(timeout=PATIENCE_SECONDS)
    found: dict[str, Any] = (summary["results"] | summary["failures"])[how]
    return found


def warning_of(submission: Submission, how: str) -> str:
    """Return the one warning in the record, which may arrive after the result."""
    (warning,) = wait_until(lambda: submission.results()[how].get("warnings"), what="the warning")
    return str(warning)


def test_a_returned_value_is_the_result(three: Mesh) -> None:
    assert record(submit(three, "returns"), "returns")["result"] == {"rows": 3, "raw": b"\x00"}


def test_a_value_beside_a_report_is_a_warning_and_the_report_counts(three: Mesh) -> None:
    submission = submit(three, "reports_and_returns")
    assert record(submission, "reports_and_returns")["result"] == "the report"
    assert "of type list that is not used" in (warning := warning_of(submission, "reports_and_returns"))
    shown = three.paglets("jobs", "show", f"{submission.group_id}/reports_and_returns", "--at", "laptop")
    assert warning in shown.out


@pytest.mark.parametrize(("how", "cls"), [("returns_a_coroutine", Written), ("changed", Changed)])
def test_a_body_that_never_ran_is_a_failure(three: Mesh, how: str, cls: Any) -> None:
    failure = record(submit(three, how, cls=cls), how)
    assert failure["cause"] == "exception"
    assert "run_compute_job returned a coroutine, whose body did not run" in failure["message"]


def test_a_class_that_could_never_run_is_refused_by_a_client(three: Mesh) -> None:
    class Never(CollectingComputeJobPaglet[WrittenState]):
        State = WrittenState

        def run_compute_job(self) -> Any:
            yield

    with pytest.raises(Invalid, match=r"Never\.run_compute_job has a `yield`"):
        three["laptop"].client.create(Never, WrittenState())


def test_a_second_file_stays_and_is_a_warning(three: Mesh, tmp_path: Path) -> None:
    submission = submit(three, "reports_two_files", tmp_path)
    ref = ArtifactRef.from_wire(record(submission, "reports_two_files")["result"]["artifact"])
    warning = warning_of(submission, "reports_two_files")
    assert ref.name == "first.txt"
    assert warning.startswith("error: a second report was not sent, the file")
    assert [path.name for path in tmp_path.iterdir()] == ["second.txt"]


def test_a_hook_gets_the_previous_host_and_its_open_database_has_all_rows(three: Mesh, tmp_path: Path) -> None:
    place = tmp_path / "arrived"
    submission = submit(three, "travels", place)
    host_name = record(submission, "travels")["host_name"]
    wait_until(place.exists, what="the arrival")
    assert place.read_text() == f"arrival from {host_name}: {2 * ROWS}"


def test_code_for_the_original_speaks_with_its_own_names(three: Mesh) -> None:
    known, refused = record(submit(three, "asks", cls=Asks), "asks")["result"]
    assert known == "known"
    assert "no handler for messages of kind 'unknown'" in refused


def test_a_database_that_nobody_closed_arrives_with_all_rows(three: Mesh, tmp_path: Path) -> None:
    with closing(add_rows(tmp_path / "open.db")):
        submission = submit(three, "leaves_a_database_open", inputs={"input.db": tmp_path / "open.db"})
        put = three["laptop"].client.upload_artifact(tmp_path / "open.db")
        ended = record(submission, "leaves_a_database_open")["result"]
        client = three["gpu-a"].client
        assert ended["input"] == ROWS
        assert rows_of(client.download_artifact(ArtifactRef.from_wire(ended["artifact"]), tmp_path / "a.db")) == ROWS
        assert rows_of(client.download_artifact(put, tmp_path / "b.db")) == ROWS
        assert sorted(path.name for path in tmp_path.glob("*open*")) == ["open.db", "open.db-shm", "open.db-wal"]


def test_a_file_that_is_still_open_is_named_in_the_log(three: Mesh) -> None:
    submission = submit(three, "leaves_a_file_open")
    assert record(submission, "leaves_a_file_open")["result"]["artifact"]["size_bytes"] == 0
    log = three.paglets("jobs", "logs", f"{submission.group_id}/leaves_a_file_open", "--at", "laptop")
    assert "result.csv is still open for writing: close it before paglets reads it" in log.out + log.err


def test_what_was_registered_beside_a_key_is_shown(three: Mesh) -> None:
    submission = submit(three, "returns")
    submission.collector.call("register_jobs", jobs=[{"job_key": "by hand", "dataset": "alpha"}])
    assert submission.summary()["jobs"] == {"by hand": {"dataset": "alpha"}}
    shown = three.paglets("jobs", "show", f"{submission.group_id}/by hand", "--at", "laptop")
    assert 'metadata  {"dataset": "alpha"}' in shown.out


def test_a_database_that_cannot_be_copied_fails_the_job_and_its_files_are_kept(three: Mesh) -> None:
    failure = record(submit(three, "leaves_a_broken_database"), "leaves_a_broken_database")
    text, _, place = failure["message"].partition("; files kept for 7 days on ")
    assert failure["cause"] == "bad_result"
    assert text.endswith("some of its rows are only in result.db-wal: close its connection first")
    assert sorted(path.name for path in Path(place.partition(": ")[2]).iterdir()) == ["result.db", "result.db-wal"]
