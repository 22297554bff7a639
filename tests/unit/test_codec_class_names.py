"""Names of classes and their import."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import pytest

from paglets.codec.class_names import check_class_name, class_name, refuse_while_importing, resolve_class
from paglets.core.agent import Paglet, PagletState
from paglets.core.errors import ImportFailed, Invalid


class Outer:
    class Inner:
        pass

    number = 3


def test_a_class_is_found_under_its_own_name() -> None:
    for cls in (Outer, Outer.Inner, PagletState, dict):
        assert resolve_class(class_name(cls)) is cls


def test_a_class_whose_module_is_its_public_path_goes_by_that_path() -> None:
    public = type("Public", (), {"__module__": "paglets.core.agent"})

    assert class_name(public) == "paglets.core.agent:Public"


def test_a_class_inside_a_function_is_refused_with_the_way_out() -> None:
    class Local:
        pass

    with pytest.raises(Invalid, match="a class inside a function cannot be sent; move it to the top level"):
        class_name(Local)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ":",
        "os",
        "os:",
        ":X",
        "os:X:Y",
        "os path:X",
        "../os:X",
        "os:X()",
        "os:X.",
        ".os:X",
        "os..path:X",
        "a" * 500,
        "os:X\n",
        "os:\x1b[31mX",
        "m:f.<locals>.X",
        "1m:X",
        "m:X[0]",
        "m:__import__('os')",
        "a:" + "b" * 400,
    ],
)
def test_a_malformed_name_is_refused_before_anything_is_imported(name: str) -> None:
    with pytest.raises(Invalid) as failure:
        resolve_class(name)
    assert failure.value.message.isprintable()
    with pytest.raises(Invalid):
        check_class_name(name)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_such_module_anywhere:X", "No module named 'no_such_module_anywhere'"),
        ("paglets.core.agent:Nothing", "paglets.core.agent has no class Nothing"),
        ("paglets.core.agent:Paglet.run", "has no class Paglet.run"),
        ("paglets.core.agent:Paglet.State.x", "has no class"),
        ("os:system", "os has no class system"),
        (f"{__name__}:Outer.number", "has no class Outer.number"),
    ],
)
def test_a_missing_class_names_interpreter_and_reason(name: str, reason: str) -> None:
    with pytest.raises(ImportFailed, match=reason) as failure:
        resolve_class(name)
    assert sys.executable in failure.value.message
    assert failure.value.details == {
        "class_name": name,
        "module": name.partition(":")[0],
        "interpreter": sys.executable,
    }


def test_a_failure_names_the_host_where_it_is_known_and_the_python() -> None:
    with pytest.raises(ImportFailed, match=rf"on linux-a by {sys.executable} \(Python {platform.python_version()}\): "):
        resolve_class("no_such_module_anywhere:X", host_name="linux-a")


def test_a_class_of_another_kind_is_refused() -> None:
    assert resolve_class("paglets.core.agent:Paglet", Paglet) is Paglet
    with pytest.raises(ImportFailed, match="it is not a Paglet"):
        resolve_class("paglets.core.agent:PagletState", Paglet)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("import numpy_of_another_planet", "No module named 'numpy_of_another_planet'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def broken(:", "SyntaxError"),
        ("raise SystemExit(3)", "SystemExit: 3"),
    ],
)
def test_a_module_that_fails_says_how(body: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "users_broken_module.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(ImportFailed, match=reason) as failure:
        resolve_class("users_broken_module:Job")
    assert failure.value.__cause__ is not None


SUBMITS = "from paglets.codec.class_names import refuse_while_importing\nclass Job:\n    pass\n"
REFUSAL = 'put the submission under `if __name__ == "__main__":` in module users_script: a host imports it to run Job'


@pytest.mark.parametrize(
    "end",
    [
        "refuse_while_importing()",
        "try:\n    refuse_while_importing()\nexcept Exception:\n    raise SystemExit(1)",
        "try:\n    refuse_while_importing()\nexcept Exception as error:\n    raise ValueError('no host') from error",
    ],
)
def test_a_refused_submission_is_the_reason_even_if_the_module_catches_it(
    end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "users_script.py").write_text(f"{SUBMITS}{end}\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportFailed) as failure:
        resolve_class("users_script:Job")
    assert failure.value.message == REFUSAL


def test_elsewhere_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_while_importing()
    text = f"{SUBMITS}if __name__ == '__main__':\n    refuse_while_importing()\n"
    (tmp_path / "users_good_script.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve_class("users_good_script:Job").__name__ == "Job"
    refuse_while_importing()
