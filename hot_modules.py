"""Compiles the modules that requests run through, with mypyc: `python -m hot_modules DIRECTORY`.

They are Python, and stay Python: mypyc makes C extensions from their type annotations, which do the same in about two
thirds of the time. Installing kpy does so where mypyc and a C compiler work (hatch_build.py; KPY_NATIVE in the
environment: 0 never, 1 or it is an error). A checkout does not, since a compiled module hides its source. `DIRECTORY`
gets a copy of kpy as installing would give it, for the benchmark and for the tests.

What mypyc asks of these modules: annotations that are true, since a `bytes` is no bytearray there; one type for each
name of a function, caught errors too; no `del` of an attribute, nothing of a class or a module replaced from outside,
and no generator expression that may not become a list. A class that has subclasses has them among these modules too.
The fields of a dataclass or a named tuple have types that are there at run time, and `Any` for `object`; a dataclass
with slots is not generic. The bounds of a slice change nothing: mypyc evaluates some of them twice. And they must not
compute for long in a thread of their own: unlike the interpreter, compiled loops do not let the event loop in every
5 ms. So what reads whole logs (storage/recovery.py, storage/cleaner.py) is not among them.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from protocol import native

HOT_MODULES = (
    "kpy/api/fetch.py",
    "kpy/api/fetch_sessions.py",
    "kpy/api/metadata.py",
    "kpy/api/metadata_views.py",
    "kpy/api/produce.py",
    "kpy/api/registry.py",
    "kpy/coordinator.py",
    "kpy/group/classic.py",
    "kpy/group/group.py",
    "kpy/group/offsets.py",
    "kpy/group/rebalance.py",
    "kpy/group/records.py",
    "kpy/group/shard.py",
    "kpy/group/turn.py",
    "kpy/group_coordinator.py",
    "kpy/java_hash.py",
    "kpy/machine.py",
    "kpy/net/channel.py",
    "kpy/net/connection.py",
    "kpy/net/poller.py",
    "kpy/net/sender.py",
    "kpy/net/tls_channel.py",
    "kpy/peers.py",
    "kpy/pending.py",
    "kpy/records/batch.py",
    "kpy/records/validate.py",
    "kpy/replica/fetchers.py",
    "kpy/replica/follower.py",
    "kpy/replica/leader.py",
    "kpy/replica/manager.py",
    "kpy/replica/partition.py",
    "kpy/replica/purgatory.py",
    "kpy/replica/rotation.py",
    "kpy/storage/cold_read.py",
    "kpy/storage/header_order.py",
    "kpy/storage/index.py",
    "kpy/storage/log.py",
    "kpy/storage/producer_state.py",
    "kpy/storage/scan.py",
    "kpy/storage/segment.py",
    "kpy/timers.py",
    "kpy/transaction_coordinator.py",
)
# -O1 takes half the time of -O2, and the modules are as fast: they call CPython most of the time.
SETUP = """
import sys
from mypyc.build import mypycify
from setuptools import setup

options = ["--follow-imports=silent", "--ignore-missing-imports", *sys.argv[1:]]
extensions = mypycify(options, group_name="kpy.hot", opt_level="1", debug_level="0")
setup(name="kpy", packages=["kpy"], ext_modules=extensions, script_args=["--quiet", "build_ext", "--inplace"])
"""
PACKAGE = Path(__file__).parent / "kpy"
SOURCES_ONLY = shutil.ignore_patterns("__pycache__", "*.so")


def compile_into(directory: Path) -> list[Path]:
    """Compiles the hot modules into the package directory `kpy` in this directory. Returns the files, seen from there.

    Raises NativeError.
    """
    # In a copy: setuptools leaves things where it works, and asks the pyproject.toml that it finds there.
    with tempfile.TemporaryDirectory(prefix="kpy-hot-") as work:
        shutil.copytree(PACKAGE, Path(work, "kpy"), ignore=SOURCES_ONLY)
        native.run([sys.executable, "-c", SETUP, *HOT_MODULES], work)
        made = sorted(path.relative_to(work) for path in Path(work, "kpy").rglob("*.so"))
        for path in made:
            target = directory / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(Path(work, path), target)
    return made


def compile_as_asked(directory: Path) -> list[Path]:
    """The same, as KPY_NATIVE asks. Where nothing is asked, and it does not work, a line says why."""
    made: list[Path] = []
    native.done_as_asked("compiled modules", lambda: made.extend(compile_into(directory)))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hot_modules", description="Copies kpy and compiles the copy.")
    parser.add_argument("directory", type=Path, help="gets the package kpy, instead of one that is there")
    directory: Path = parser.parse_args().directory
    package = directory / PACKAGE.name
    if package.exists():
        shutil.rmtree(package)
    shutil.copytree(PACKAGE, package, ignore=SOURCES_ONLY)
    try:
        native.compile_as_asked(package / native.TARGET.name)
        compile_as_asked(directory)
        # As pip does.
        subprocess.run([sys.executable, "-m", "compileall", "-q", str(package)], check=True)
    except native.NativeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
