"""Words that people know from other tools, and the command that does here what they expect.

A word that is no command gets its hint from `HINTS`; another one the command whose name is near, or all that there are.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Collection, Sequence

from paglets.core.errors import Invalid

MOST_CHARACTERS = 40
"""Of a word in a message."""

MOST_HINT_CHARACTERS = 100

START = "paglets host --background starts a host on this computer"
STOP = "paglets stop ends the host of this computer"
RUN = "paglets SCRIPT.py runs a script that submits jobs"
CANCEL = "paglets jobs cancel GROUP[/JOB] ends jobs"
HOSTS = "paglets mesh hosts lists the hosts"
JOIN = "paglets host --bind-public auto --peer URL starts a host that joins the mesh of that one"
FORGET = "paglets mesh forget HOST gives up a host that is gone for good"
LIST = "paglets jobs list lists the jobs that wait or run; with GROUP those of a group"
COUNTS = "paglets jobs status GROUP counts the jobs of a group"
GROUPS = "paglets jobs groups lists the groups"
RESULTS = "paglets jobs groups GROUP shows the results and failures of a group"
SHOW = "paglets jobs show GROUP/JOB shows all about a job"
WHY = "paglets jobs why GROUP[/JOB] says why jobs wait or failed"
LOGS = "paglets logs GROUP/JOB shows what a job printed; -f follows it"
AGAIN = "paglets jobs why GROUP says why jobs failed; submit these again in a new group"
GET = "paglets artifacts get GROUP/JOB fetches the file of a job; --group GROUP those of a group"
PUT = "paglets artifacts put FILE stores a file on a host"
REMOVE = "paglets artifacts rm ID deletes a file"
FILES = "paglets artifacts list lists the files that hosts keep"
FILE = "paglets artifacts info ID describes a file"
TOP = "paglets jobs top --watch shows the load of all hosts"
DOCTOR = "paglets doctor looks for what stands in the way"

_TABLE: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    # Below, the words, what helps.
    ("", "hosts nodes node members workers machines cluster", (HOSTS,)),
    ("", "start serve server up daemon worker agent", (START,)),
    ("", "down shutdown quit exit", (STOP,)),
    ("", "restart", (STOP, START)),
    ("", "join connect add", (JOIN,)),
    ("", "forget leave", (FORGET, STOP)),
    ("", "run submit exec map batch sbatch qsub python script", (RUN,)),
    ("", "status state", (COUNTS, GROUPS)),
    ("", "groups group", (GROUPS,)),
    ("", "ls ps queue squeue qstat tasks", (LIST,)),
    ("", "top stats load usage dashboard ui monitor", (TOP,)),
    ("", "kill cancel abort terminate scancel qdel", (CANCEL,)),
    ("", "rm delete remove del", (CANCEL, REMOVE)),
    ("", "tail log output cat attach", (LOGS,)),
    ("", "wait", ("paglets jobs wait GROUP waits until all jobs of a group have ended",)),
    ("", "watch progress follow", ("paglets jobs watch GROUP shows how far a group is",)),
    ("", "why explain", (WHY,)),
    ("", "show info describe inspect", (SHOW, FILE)),
    ("", "history", ("paglets jobs history GROUP lists the jobs that have ended",)),
    ("", "results result", (RESULTS, GET)),
    ("", "fetch get download pull", (GET,)),
    ("", "put send upload push", (PUT,)),
    ("", "files", (FILES,)),
    ("", "retry rerun resubmit requeue", (AGAIN,)),
    ("", "check diagnose test", (DOCTOR,)),
    ("host", "start run up serve add new", (START,)),
    ("host", "stop kill end down shutdown", (STOP,)),
    ("host", "restart", (STOP, START)),
    ("host", "list ls ps hosts status info show", (HOSTS,)),
    ("host", "join connect", (JOIN,)),
    ("host", "rm remove delete forget", (STOP, FORGET)),
    ("mesh", "list ls show status info nodes members", (HOSTS,)),
    ("mesh", "join add connect", (JOIN,)),
    ("mesh", "rm remove delete leave kick", (FORGET, STOP)),
    ("jobs", "ls all", (LIST,)),
    ("jobs", "running", ("paglets jobs ps lists the jobs that run",)),
    ("jobs", "failed failures", ("paglets jobs list GROUP --status failed lists the failed jobs", WHY)),
    ("jobs", "kill stop abort end terminate", (CANCEL,)),
    ("jobs", "rm delete remove forget", (CANCEL,)),
    ("jobs", "tail log output cat", (LOGS,)),
    ("jobs", "info describe inspect", (SHOW,)),
    ("jobs", "results result", (RESULTS,)),
    ("jobs", "fetch get download", (GET,)),
    ("jobs", "submit run start new create", (RUN,)),
    ("jobs", "retry rerun resubmit requeue restart", (AGAIN,)),
    ("artifacts", "ls", (FILES,)),
    ("artifacts", "delete remove del", (REMOVE,)),
    ("artifacts", "fetch download pull", (GET,)),
    ("artifacts", "upload push send store add", (PUT,)),
    ("artifacts", "show describe", (FILE,)),
    ("key", "create gen generate init", ("paglets key new makes a new key, for a new mesh",)),
    ("config", "init new create", ("paglets init writes a configuration file",)),
    ("config", "validate lint test", ("paglets config check checks a configuration file",)),
    ("config", "list ls get", ("paglets config show shows each setting of a host",)),
    *(
        (above, "help", (f"paglets {above} --help",))
        for above in ("host", "mesh", "jobs", "artifacts", "key", "config")
    ),
)

HINTS = {f"{above} {word}".strip(): lines for above, words, lines in _TABLE for word in words.split()}
"""Command line without `paglets`, such as `kill` or `jobs kill` -> the lines that help."""

INSTEAD = {
    "host": "paglets host --name {} starts a host of that name",
    "jobs ps": "paglets jobs list {} lists the jobs of that group",
    "jobs queue": "paglets jobs list {} lists the jobs of that group",
    "mesh hosts": "paglets jobs queue --at {} shows that host",
    "list": "paglets jobs list {} lists the jobs of that group",
}
"""Commands that take no name -> what somebody who gives one may mean."""


def unknown_command(above: str, word: str, known: Collection[str]) -> Invalid:
    """Return the error for a word that is no command below `above` ("": at the top)."""
    name = f"{above} {word[:MOST_CHARACTERS]}".strip()
    return Invalid(f"no command {name!r}", hint=list(HINTS.get(name) or [_near(above, word, known)]))


def _near(above: str, word: str, known: Collection[str]) -> str:
    if near := difflib.get_close_matches(word, known, 1):
        return f"did you mean {f'{above} {near[0]}'.strip()!r}?"
    listed = f"there are {', '.join(known)}"
    return listed if len(listed) <= MOST_HINT_CHARACTERS else f"{f'paglets help {above}'.rstrip()} lists the commands"


def unexpected_word_hints(above: str, word: str) -> list[str]:
    """Return the hints for a word that the command `above` does not take."""
    found = HINTS.get(f"{above} {word}")
    if found:
        return list(found)
    return [INSTEAD[above].format(shlex.quote(word[:MOST_CHARACTERS]))] if above in INSTEAD else []


def flag_before_command(above: str, arguments: Sequence[str], commands: Collection[str]) -> Invalid:
    """Return the error for words that begin with an option, where one of the commands below `above` must stand."""
    flag = arguments[0].partition("=")[0][:MOST_CHARACTERS]
    place = next((place for place, word in enumerate(arguments) if word in commands), None)
    if place is None:
        return Invalid(f"a command is missing before {flag}", hint=[f"{f'paglets help {above}'.rstrip()} lists them"])
    words = [*arguments[place:], *arguments[:place]]
    line = f"paglets {f'{above} {shlex.join(words)}'.strip()}"
    hint = line if len(line) <= MOST_HINT_CHARACTERS else f"paglets {f'{above} {words[0]}'.strip()} ... {flag} ..."
    return Invalid(f"{flag} comes after the command {words[0]!r}", hint=[hint])
