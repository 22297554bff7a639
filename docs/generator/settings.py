"""The settings of a host: their names in `hosts.toml`, their flags, and the help texts of `paglets host`."""

from __future__ import annotations

import argparse

from docs.generator.markdown import code, one_line, table
from paglets.cli.commands.host import add_settings
from paglets.config import flag_name
from paglets.settings import SETTINGS


def parts() -> dict[str, str]:
    """Return the table of all settings, in the order of `SETTINGS`."""
    parser = argparse.ArgumentParser(add_help=False)
    add_settings(parser)
    by_flag = {flag: action for action in parser._actions for flag in action.option_strings}
    rows = [(code(name), code(flag_name(name)), one_line(by_flag[flag_name(name)].help or "")) for name in SETTINGS]
    return {"settings": table(("in `hosts.toml`", "flag", "meaning"), rows)}
