"""The program accepts the example configuration."""

from __future__ import annotations

import re
from pathlib import Path

from paglets.config import host_options, read_config
from paglets.settings import SETTINGS

EXAMPLE = Path(__file__).resolve().parents[2] / "hosts.example.toml"


def test_the_example_configuration_shows_every_key() -> None:
    shown = set(re.findall(r"^(?:# )?(\w+) = ", EXAMPLE.read_text("utf-8"), re.MULTILINE))
    assert shown == set(SETTINGS)


def test_the_example_configuration_describes_the_hosts_it_names() -> None:
    tree = read_config(EXAMPLE)
    options = {name: host_options(name, flags={}, file=tree) for name in tree["hosts"]}
    assert list(options) == ["laptop", "notebook", "linux-a", "gpu-a"]
    assert {each.mesh_version for each in options.values()} == {"analysis"}
    assert [name for name, each in options.items() if not each.reachable] == ["notebook"]
    assert options["gpu-a"].memory_bytes == 48 << 30
    assert options["linux-a"].properties == {"python": "3.12"}
