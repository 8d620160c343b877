"""A kpy broker whose listeners are wherever its settings say, for tests that know one address."""

import sys
from collections.abc import Mapping
from pathlib import Path

from compat.harness import Backend


def _command(port: int, data_dir: Path, settings: Mapping[str, str]) -> list[str]:
    command = [sys.executable, "-m", "kpy", "start", "--data-dir", str(data_dir)]
    return command + [word for name, value in settings.items() for word in ("--set", f"{name}={value}")]


KPY_WHERE_SET = Backend(_command, frozenset({0}))
