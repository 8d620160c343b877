"""trio as `kpy start` imports it, each time in a process of its own: in this one it has been imported long ago."""

import os
import subprocess
import sys

import pytest

from kpy.trio_import import LATER


def output_of(program: str) -> str:
    imported = "import sys\nfrom kpy.trio_import import import_trio\nimport_trio()\n"
    return subprocess.run(
        [sys.executable, "-c", imported + program], capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


@pytest.mark.parametrize("name", sorted(LATER))
def test_a_module_that_is_left_out_is_loaded_when_it_is_used(name: str) -> None:
    program = f"""
import {name}
before = len(vars({name}))
{name}.__doc__, {name}.__name__, getattr({name}, "no_such_name", None)
print(before < len(vars({name})), type({name}).__name__, {name}.__spec__.loader is {name}.__loader__)
import importlib
importlib.reload({name})
"""
    assert output_of(program) == "True module True"


def test_a_name_that_a_module_lacks_is_still_an_attribute_error() -> None:
    assert output_of("import ssl\nprint(hasattr(ssl, 'no_such_name'), hasattr(ssl, 'SSLContext'))") == "False True"


def test_modules_that_were_imported_before_and_are_imported_later_are_as_ever() -> None:
    program = "import bz2, json, tempfile\nprint(type(bz2).__name__, type(json).__name__, len(sys.meta_path))"
    plain = subprocess.run(
        [sys.executable, "-c", "import sys; print(len(sys.meta_path))"], capture_output=True, text=True, check=True
    ).stdout.strip()
    assert output_of(program) == f"module module {plain}"


@pytest.mark.skipif("CS_GNU_LIBC_VERSION" not in os.confstr_names, reason="elsewhere the library is searched for")
def test_threads_bear_their_names_in_the_system_without_a_search_for_the_library() -> None:
    program = """
import trio
def name():
    with open("/proc/thread-self/comm") as file:
        return file.read().strip()
async def main():
    return await trio.to_thread.run_sync(name, thread_name="kpy-disk")
print(trio.run(main), "_posixsubprocess" in sys.modules)
"""
    assert output_of(program) == "kpy-disk False"
