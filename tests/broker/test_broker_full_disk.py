"""A disk that takes no more: an error to the client, the end of the broker with a line that says why, nothing
acknowledged lost.
"""

import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trio
from raw_client import TEST_SECONDS, RawClient, batch, error_name

from kpy.records.batch import iter_batches, iter_records

LIMIT_BYTES = 200_000
"""The kernel lets no file of the broker grow beyond this: what a full disk does, without needing one."""


@contextmanager
def broker(data_dir: Path, *, limited: bool) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """A broker in a process of its own, stopped at the end; its port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kpy", "start", "--listen", "127.0.0.1:0", "--data-dir", str(data_dir)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        if limited:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))
        yield port, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TEST_SECONDS)


async def fill_until_refused(port: int) -> tuple[list[bytes], str]:
    """Produces until the broker refuses. The acknowledged values, and the error."""
    acknowledged: list[bytes] = []
    async with RawClient(await trio.open_tcp_stream("127.0.0.1", port)) as client:
        await client.create_topic("t")
        while True:
            value = b"%d " % len(acknowledged) + b"x" * 5000
            answer = await client.produce("t", batch(value))
            if answer.error_code:
                break
            acknowledged.append(value)
        assert await client.receive_frame() is None, "the last data directory has failed, and the broker goes on"
    return acknowledged, error_name(answer.error_code)


async def read_all(port: int) -> list[bytes | None]:
    async with RawClient(await trio.open_tcp_stream("127.0.0.1", port)) as client:
        answer = await client.fetch("t", 0)
        return [record.value for _, each in iter_batches(answer.records) for record in iter_records(each)]


def test_a_full_disk_is_told_to_the_client_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    with broker(tmp_path, limited=True) as (port, process):
        acknowledged, error = trio.run(fill_until_refused, port)
        _, stderr = process.communicate(timeout=TEST_SECONDS)
        complaints = [line for line in stderr.splitlines() if "ERROR" in line]
        assert process.returncode == 1
    assert error == "KAFKA_STORAGE_ERROR"
    assert len(acknowledged) > 30
    assert len(complaints) == 1
    assert str(tmp_path) in complaints[0]
    assert stderr.splitlines()[-1] == f"kpy: error: every data directory has failed: {tmp_path}"
    with broker(tmp_path, limited=False) as (port, _):
        assert trio.run(read_all, port) == acknowledged
