"""Compiles the accelerator of the codecs and of the record reader: `python -m protocol.native`, or `make native`.

It needs a C compiler and the headers of CPython. kpy works without. With it, kpy/native.py finds kpy/_native.<abi>.so
beside itself, and messages and records are read several times as fast. `--remove` goes back to Python.
"""

import argparse
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = tuple(HERE / f"native_{name}.c" for name in ("messages", "records", "keys"))
TARGET = HERE.parent / "kpy" / f"_native{sysconfig.get_config_var('EXT_SUFFIX')}"
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-missing-field-initializers")
"""CPython's own interfaces take parameters that are not used, and tables that end in a row of nothing."""


def compile_to(target: Path, *options: str) -> None:
    """Compiles the module into this file. Raises CalledProcessError, after the compiler has said what is wrong."""
    compiler = shlex.split(sysconfig.get_config_var("CC") or "cc")
    platform_flags = ("-undefined", "dynamic_lookup") if sys.platform == "darwin" else ()
    include = f"-I{sysconfig.get_path('include')}"
    flags = ["-std=c11", "-O2", "-fPIC", "-shared", *WARNINGS, *platform_flags, include, *options]
    subprocess.run([*compiler, *flags, *map(str, SOURCES), "-o", str(target)], check=True)


def compile_in_place() -> None:
    """Compiles the module to where kpy looks for it: linked aside and moved, so that who has the old one keeps it."""
    fresh = TARGET.with_suffix(".new")
    compile_to(fresh)
    fresh.replace(TARGET)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m protocol.native", description="Compiles kpy's accelerator.")
    parser.add_argument("--remove", action="store_true", help="remove what was compiled before")
    if parser.parse_args().remove:
        TARGET.unlink(missing_ok=True)
    else:
        compile_in_place()
        print(TARGET)
    return 0


if __name__ == "__main__":
    sys.exit(main())
