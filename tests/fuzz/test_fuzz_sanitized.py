"""The accelerator makes no error of memory on damaged frames and batches: a few here, 300,000 by `make fuzz`."""

import os

from compat.harness import unavailable
from protocol.native import NativeError
from tests.fuzz.sanitized import run_sanitized

FRAMES = 20_000 if os.environ.get("CI") == "true" else 1000
SEED = 20_261_127


def test_damaged_frames_and_batches_lead_c_to_no_error_of_memory() -> None:
    try:
        done = run_sanitized(FRAMES, SEED)
    except NativeError as error:
        unavailable(f"the accelerator cannot be compiled with sanitizers: {error}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WireErrors" in done.stdout
