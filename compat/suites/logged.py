"""Runs the command that is a client's own tests, whose words go to a log."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


def run_logged(command: Sequence[str], log: Path, cwd: Path, environment: Mapping[str, str], timeout_s: float) -> int:
    """Append what the command says to `log`; its exit code. `environment` is added to this process's own."""
    with log.open("ab") as output:
        return subprocess.run(
            command,
            cwd=cwd,
            env=os.environ | dict(environment),
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=False,
        ).returncode
