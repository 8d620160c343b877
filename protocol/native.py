"""Compiles the accelerator of the codecs, the record reader, compaction and sending: `python -m protocol.native`.

It needs a C compiler ($CC, the one that CPython was compiled with, or cc) and the headers of CPython. kpy works
without. With it, kpy/native.py finds kpy/_native.<abi>.so beside itself, and messages and records are read several
times as fast. `--remove` goes back to Python.

Installing kpy compiles it by KPY_NATIVE in the environment: 0 never, 1 or it is an error, and otherwise where that
works.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = tuple(
    HERE / f"native_{name}.c" for name in ("messages", "records", "offset_map", "batch_runs", "sender", "lone_reader")
)
TARGET = HERE.parent / "kpy" / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
WARNINGS = ("-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers")
"""CPython's own interfaces take parameters that are not used, and tables that end in a row of nothing."""
LOAD = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("kpy._native", sys.argv[1])
spec.loader.exec_module(importlib.util.module_from_spec(spec))
"""


class NativeError(Exception):
    """Something cannot be compiled or loaded. The first line says why, the rest is the compiler's."""


def compile_only(target: Path, *options: str) -> None:
    """Compiles the module into this file. Raises NativeError."""
    platform_flags = ("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ()
    include = f"-I{sysconfig.get_path('include')}"
    flags = ["-std=c11", "-O2", "-fPIC", "-shared", "-pthread", *WARNINGS, *platform_flags, include, *options]
    run([*compiler(), *flags, *map(str, SOURCES), "-o", str(target)])


def compile_to(target: Path, *options: str) -> None:
    """The same, and loads it in a process of its own. Who has an older one open keeps it."""
    fresh = target.with_name(f"fresh-{target.name}")
    try:
        compile_only(fresh, *options)
        run([sys.executable, "-c", LOAD, str(fresh)])
        fresh.replace(target)
    finally:
        fresh.unlink(missing_ok=True)


def compile_as_asked(target: Path) -> bool:
    """The same, as KPY_NATIVE asks; whether there is an accelerator now.

    Where nothing is asked, and it does not work, a line says why.
    """
    # One of other sources would be worse than none.
    target.unlink(missing_ok=True)
    return done_as_asked("its accelerator", partial(compile_to, target))


def done_as_asked(what: str, compile_it: Callable[[], object]) -> bool:
    """Compiles `what`, if KPY_NATIVE does not forbid it; whether it is there now. Raises NativeError if it must be."""
    asked = os.environ.get("KPY_NATIVE")
    if asked == "0":
        return False
    try:
        compile_it()
    except NativeError as error:
        if asked == "1":
            raise
        print(f"kpy is built without {what}: {str(error).splitlines()[0]}", file=sys.stderr)
        return False
    return True


def compiler() -> list[str]:
    """The first one that is there, with the options that it is always called with. Raises NativeError without one."""
    named = [os.environ.get("CC"), sysconfig.get_config_var("CC"), "cc"]
    commands = [shlex.split(name) for name in named if name]
    found = next((command for command in commands if shutil.which(command[0])), None)
    if found is None:
        raise NativeError("there is no C compiler")
    return found


def run(command: list[str], directory: str | None = None) -> None:
    """Runs it there, or here. Raises NativeError with what it has said."""
    done = subprocess.run(command, cwd=directory, check=False, capture_output=True, text=True)
    if done.returncode:
        lines = (done.stderr + done.stdout).splitlines()
        reason = next((line for line in lines if "error" in line.lower()), f"exit code {done.returncode}")
        raise NativeError("\n".join([f"{command[0]} ended with: {reason}", *lines]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m protocol.native", description="Compiles kpy's accelerator.")
    parser.add_argument("--remove", action="store_true", help="remove what was compiled before")
    parser.add_argument("--as-asked", action="store_true", help="by KPY_NATIVE, as installing kpy does")
    options = parser.parse_args()
    if options.remove:
        TARGET.unlink(missing_ok=True)
        return
    try:
        if options.as_asked:
            compile_as_asked(TARGET)
        else:
            compile_to(TARGET, "-Werror")
            print(TARGET)
    except NativeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
