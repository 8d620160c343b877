"""System calls of a running broker that fail with EIO, by strace: what a broken disk does."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from compat.harness import require_tool, wait_until

STOP_TIMEOUT_S = 30.0

CALLS = {
    "write": "write,pwrite64,pwritev,pwritev2",
    "sync": "fsync,fdatasync,sync_file_range",
    "read": "pread64,preadv,preadv2,sendfile",
}


@contextmanager
def failing(pid: int, path: Path, calls: str) -> Iterator[None]:
    """Every such call of a process on this file fails with EIO."""
    command = [require_tool("strace"), "-f", "-o", "/dev/null", "-p", str(pid), "-P", str(path)]
    command += ["-e", f"trace={calls}", "-e", f"inject={calls}:error=EIO"]
    strace = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: _is_traced(pid), "strace is attached")
        yield
    finally:
        strace.send_signal(signal.SIGINT)
        strace.wait(STOP_TIMEOUT_S)


def _is_traced(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return "TracerPid:\t0\n" not in status
