"""Tests that hang, in a run of their own: each is named as a failure, and those after it are run."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

CONFTEST = """
import sys

sys.path.insert(0, {root!r})
import tests.hangs
from tests.hangs import *

tests.hangs.GRACE_S = 1.0
"""
HANGING = """
import ctypes
import time

import pytest
import trio


@pytest.fixture
def broker_that_does_not_stop():
    yield
    time.sleep(1000)


def locked_twice(libc):
    mutex = ctypes.create_string_buffer(64)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)


def test_before(): pass
def test_in_trio(): trio.run(trio.sleep_forever)
def test_in_a_fixture_after_a_failure(broker_that_does_not_stop): raise ValueError
def test_in_c(): locked_twice(ctypes.CDLL(None))
def test_in_c_with_the_lock_of_the_interpreter(): locked_twice(ctypes.PyDLL(None))
def test_after(): pass
"""
LEAVING = """
import threading
import time


def test_that_leaves_a_thread(): threading.Thread(target=time.sleep, args=(1000,)).start()
"""


def run(directory: Path, test: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    (directory / "pytest.ini").write_text(
        "[pytest]\naddopts = -q -p no:cacheprovider -p no:hypothesispytest\ntimeout = 1\n"
    )
    (directory / "conftest.py").write_text(CONFTEST.format(root=str(ROOT)))
    (directory / "test_hanging.py").write_text(test)
    (directory / "test_other.py").write_text("def test_other(): pass\n")
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=200)


@pytest.mark.parametrize("processes", ["1", "2"])
def test_tests_that_hang_fail_and_the_others_are_run(tmp_path: Path, processes: str) -> None:
    ended = run(tmp_path, HANGING, "-n", processes, "--dist", "loadfile", "--no-loadscope-reorder")
    assert ended.returncode == 1
    failures = sorted(re.findall(r"^(FAILED|ERROR) test_hanging.py::(\w+)", ended.stdout, re.MULTILINE))
    assert failures == [
        ("ERROR", "test_in_a_fixture_after_a_failure"),
        ("FAILED", "test_in_a_fixture_after_a_failure"),
        ("FAILED", "test_in_c"),
        ("FAILED", "test_in_c_with_the_lock_of_the_interpreter"),
        ("FAILED", "test_in_trio"),
    ]
    assert re.search(r"^4 failed, 3 passed, 1 error in", ended.stdout, re.MULTILINE)
    assert "in locked_twice" in ended.stderr, "no stacks"


def test_without_a_process_beside_the_run_ends_and_shows_where(tmp_path: Path) -> None:
    ended = run(tmp_path, HANGING, "-n", "0")
    assert ended.returncode == 1
    assert "in test_in_c" in ended.stderr


def test_a_thread_that_a_test_leaves_does_not_keep_the_run_from_ending(tmp_path: Path) -> None:
    ended = run(tmp_path, LEAVING, "-n", "0")
    assert "2 passed" in ended.stdout
    assert ended.returncode == 1
    assert "_shutdown" in ended.stderr
