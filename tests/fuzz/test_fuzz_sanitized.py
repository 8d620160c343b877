"""The accelerator makes no error of memory on damaged frames and batches, a few here, 300,000 by `make fuzz`; and its
thread and the event loop none with each other.
"""

import os

import pytest

from compat.harness import unavailable
from protocol.native import NativeError
from tests.fuzz import sanitized_sending
from tests.fuzz.sanitized import run_sanitized

FRAMES = 20_000 if os.environ.get("CI") == "true" else 1000
ROUNDS = 5000 if os.environ.get("CI") == "true" else 500
SEED = 20_261_127


def test_damaged_frames_and_batches_lead_c_to_no_error_of_memory() -> None:
    try:
        done = run_sanitized(FRAMES, SEED)
    except NativeError as error:
        unavailable(f"the accelerator cannot be compiled with sanitizers: {error}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WireErrors" in done.stdout


@pytest.mark.parametrize("sanitizer", sanitized_sending.SANITIZERS)
def test_sending_beside_the_event_loop_leads_to_no_race_and_no_error_of_memory(sanitizer: str) -> None:
    try:
        done = sanitized_sending.run_sanitized(sanitizer, ROUNDS, SEED)
    except NativeError as error:
        unavailable(f"the accelerator cannot be compiled with sanitizers: {error}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cut short" in done.stdout
