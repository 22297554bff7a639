"""Signals, waiting and the folder of `paglets demo`."""

from __future__ import annotations

import signal

import pytest

from paglets.cli.demo_mesh import DemoMesh, Interrupted, SignalGuard, wait_for
from paglets.cli.main import main
from paglets.core.errors import EXIT_USAGE, StartFailed, TimedOut, Unreachable


def test_a_signal_is_raised_with_the_shells_exit_code_and_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted) as caught, SignalGuard():
        signal.raise_signal(signal.SIGTERM)
    assert caught.value.exit_code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_held_signal_waits_for_what_must_not_be_left_half_done() -> None:
    done: list[str] = []

    def work(signals: SignalGuard) -> None:
        with signals.held():
            with signals.held():
                signal.raise_signal(signal.SIGINT)
            done.append("all of it")

    with SignalGuard() as signals, pytest.raises(Interrupted):
        work(signals)
    assert done == ["all of it"]


def test_a_second_signal_right_after_the_first_does_not_disturb_what_that_began() -> None:
    with SignalGuard():
        with pytest.raises(Interrupted):
            signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("keep", [False, True])
def test_the_folder_goes_when_the_mesh_is_left_unless_it_is_kept(keep: bool) -> None:
    with SignalGuard() as signals, DemoMesh(signals, keep=keep) as mesh:
        folder = mesh.folder
        (folder / "file").touch()
    assert folder.exists() == keep
    assert (str(folder) in mesh.end_text()) == keep
    if keep:
        (folder / "file").unlink()
        folder.rmdir()


def test_troubles_that_pass_are_waited_out_and_a_host_that_ended_is_not() -> None:
    answers = iter([Unreachable("not yet"), None, "there"])

    def look() -> str | None:
        answer = next(answers)
        if isinstance(answer, Unreachable):
            raise answer
        return answer

    def ended() -> bool:
        raise StartFailed("ended with exit code 1")

    assert wait_for(look, "it") == "there"
    with pytest.raises(StartFailed, match="exit code 1"):
        wait_for(ended, "it")
    with pytest.raises(TimedOut, match="waited 0 s for it"):
        wait_for(lambda: False, "it", 0)


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_wrong_number_of_files_is_told_before_anything_starts(count: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", f"--files={count}"]) == EXIT_USAGE
    assert "is not a positive number of files" in capsys.readouterr().err
