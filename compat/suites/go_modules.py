"""Clients' own tests in Go: their modules, which go/go.sum pins, and what `go test` says of a run."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from compat.harness import require_tool
from compat.suites.logged import run_logged

PINNED = Path(__file__).parent / "go"
BUILD_TIMEOUT_S = 1_200.0
# A newer Go than the one that is installed comes through the module proxy, with a checksum.
GO_ENVIRONMENT: Mapping[str, str] = {"GOTOOLCHAIN": "auto", "GOFLAGS": "-mod=readonly"}
TEST = re.compile(r"^func (Test\w+)\(", re.MULTILINE)


def go(*arguments: str) -> str:
    """What a command of Go says, run among the pinned modules."""
    command = [require_tool("go"), *arguments]
    environment = os.environ | GO_ENVIRONMENT
    result = subprocess.run(
        command, cwd=PINNED, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S, check=True
    )
    return result.stdout


def copy_of(module: str, build_dir: Path) -> Path:
    """The source of a pinned module, anew, where it may be changed; its own go.sum says what it depends on."""
    pinned = Path(json.loads(go("mod", "download", "-json", module))["Dir"])
    source = build_dir / pinned.name
    shutil.rmtree(source, ignore_errors=True)
    # Files of the module cache are read-only.
    shutil.copytree(pinned, source, copy_function=shutil.copyfile)
    return source


def tests_in(files: Iterable[Path]) -> list[str]:
    return [name for path in sorted(files) for name in TEST.findall(path.read_text())]


def build_tests(source: Path, *options: str) -> Path:
    """The tests of the package at `source`, as a program."""
    program = source / "tests"
    # kafka-go was published with a go.mod that is not tidy, which is mended in the copy.
    environment = {**GO_ENVIRONMENT, "GOFLAGS": "-mod=mod"}
    command = [require_tool("go"), "test", "-c", *options, "-o", str(program), "."]
    log = source / "build.log"
    assert run_logged(command, log, source, environment, BUILD_TIMEOUT_S) == 0, log.read_text()
    return program
