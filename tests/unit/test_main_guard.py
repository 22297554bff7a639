"""A script that submits outside of its main guard is refused before anything is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from paglets.core.errors import Invalid
from paglets.system.main_guard import check_guarded

OF_SCRIPT = type("Fit", (), {"__module__": "__main__"})
OF_MODULE = type("Fit", (), {"__module__": "fits"})


def run(path: Path, text: str, *classes: type) -> None:
    """Run a script as the main program; `submit()` in it checks as a submission does."""
    path.write_text(text)
    exec(compile(text, str(path), "exec"), {"__name__": "__main__", "submit": lambda: check_guarded(classes)})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("submit()", 1),
        ("def main():\n    submit()\n\nmain()\n", 4),
        ("if __name__ == '__main__':\n    x = 1\nfor each in [1]:\n    submit()\n", 4),
        ("if __name__ == '__main__':\n    print()\nsubmit()\n", 3),
        ("if __name__ == '__main__':\n    pass\nelse:\n    raise ImportError\nsubmit()\n", 5),
        ("if __name__ != '__main__':\n    print()\nsubmit()\n", 3),
    ],
)
def test_a_submission_at_the_top_level_of_a_script_is_refused_with_its_line(
    tmp_path: Path, text: str, line: int
) -> None:
    with pytest.raises(Invalid) as caught:
        run(tmp_path / "fit.py", text, OF_SCRIPT)
    assert caught.value.message == f"line {line} of fit.py submits outside of the main guard; nothing was submitted"
    assert '`if __name__ == "__main__":`' in caught.value.advice()[0]


@pytest.mark.parametrize(
    "text",
    [
        "if __name__ == '__main__':\n    submit()\n",
        "def main():\n    submit()\n\nif '__main__' == __name__:\n    main()\n",
        "try:\n    if __name__ == '__main__':\n        submit()\nfinally:\n    pass\n",
        "if __name__ != '__main__':\n    raise SystemExit\nsubmit()\n",
        "import sys\nif not __name__ == '__main__':\n    sys.exit()\nsubmit()\n",
        "__name__ == '__main__' and submit()\n",
    ],
)
def test_a_guarded_submission_passes(tmp_path: Path, text: str) -> None:
    run(tmp_path / "fit.py", text, OF_SCRIPT)


def test_a_script_that_was_edited_while_it_runs_is_judged_by_the_code_that_runs(tmp_path: Path) -> None:
    path = tmp_path / "fit.py"
    text = "if __name__ == '__main__':\n    for each in [1, 2]: submit()\n"

    def submit() -> None:
        check_guarded([OF_SCRIPT])
        path.write_text("pass\n" * 3)

    path.write_text(text)
    exec(compile(text, str(path), "exec"), {"__name__": "__main__", "submit": submit})


def test_a_script_whose_classes_are_in_other_modules_needs_no_guard(tmp_path: Path) -> None:
    run(tmp_path / "fit.py", "submit()\n", OF_MODULE)


def test_a_session_without_a_file_is_not_judged(tmp_path: Path) -> None:
    text = "submit()\n"
    exec(compile(text, "<stdin>", "exec"), {"__name__": "__main__", "submit": lambda: check_guarded([OF_SCRIPT])})
    check_guarded([OF_SCRIPT])
