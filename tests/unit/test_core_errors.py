"""The tree of errors and its wire form."""

from __future__ import annotations

import traceback

import pytest

from paglets.codec.strict_json import dumps, loads
from paglets.core import errors
from paglets.core.errors import Invalid, PagletsError, error_classes, error_from_wire, trim_traceback


def _all_classes() -> list[type[PagletsError]]:
    found = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, PagletsError)]
    assert len(found) > 30
    return found


@pytest.mark.parametrize("cls", _all_classes(), ids=lambda cls: cls.__name__)
def test_every_error_comes_back_as_itself(cls: type[PagletsError]) -> None:
    error = cls("what happened: ü", now=1.5, host={"name": "w1"})

    back = error_from_wire(loads(dumps(error.to_wire())))

    assert type(back) is cls
    assert (back.message, str(back), back.details) == (error.message, "what happened: ü", error.details)
    assert back.to_wire() == error.to_wire()
    assert cls("without details").to_wire()["details"] == {}


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [cls.code for cls in _all_classes()]

    assert sorted(codes) == sorted(set(codes))
    assert set(error_classes()) >= set(codes)


@pytest.mark.parametrize("cls", _all_classes(), ids=lambda cls: cls.__name__)
def test_every_error_has_a_status_and_an_exit_code_that_say_failure(cls: type[PagletsError]) -> None:
    assert 400 <= cls.status <= 599
    assert 1 <= cls.exit_code <= 9


@pytest.mark.parametrize(
    "tree",
    [
        None,
        [],
        "text",
        {},
        {"code": 7},
        {"code": "from_the_future", "message": "m"},
        {"code": "unknown", "message": None, "details": [1]},
        {"code": ["unknown"], "message": {"a": 1}, "details": None},
    ],
)
def test_a_strange_error_is_still_an_error(tree: object) -> None:
    back = error_from_wire(tree)

    assert isinstance(back, PagletsError)
    assert isinstance(back.message, str)
    assert isinstance(back.details, dict)


@pytest.mark.parametrize(
    ("cls", "builtin"),
    [(errors.Invalid, ValueError), (errors.Unknown, LookupError), (errors.TimedOut, TimeoutError)],
)
def test_errors_that_have_a_builtin_kin_can_be_caught_as_that(
    cls: type[PagletsError], builtin: type[Exception]
) -> None:
    with pytest.raises(builtin, match="as it was said"):
        raise cls("as it was said")


def test_a_mistake_of_the_caller_is_shown_at_the_callers_line_only() -> None:
    def below(fault: Exception) -> None:
        try:
            raise OSError("no such file")
        except OSError as error:
            raise fault from error

    call = trim_traceback(below)
    with pytest.raises(Invalid, match="mend it") as ours:
        call(Invalid("mend it"))
    shown = "".join(traceback.format_exception(ours.value))
    assert "in below" not in shown
    assert "no such file" not in shown
    assert "test_a_mistake_of_the_caller" in shown

    with pytest.raises(RuntimeError) as fault:
        call(RuntimeError("a fault of ours"))
    assert "in below" in "".join(traceback.format_exception(fault.value))
