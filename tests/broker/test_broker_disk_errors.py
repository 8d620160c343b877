"""A data directory that fails under a running broker: its partitions answer KAFKA_STORAGE_ERROR, the others go on.

The system calls of a real broker fail by strace (EIO), or find a real file system full; after a restart on a sound
disk everything that was acknowledged is there.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio
from raw_client import TEST_SECONDS, RawClient, batch, error_name

from compat.failing_disk import CALLS, failing
from compat.harness import require_root
from kpy.records.batch import iter_batches, iter_records

DIRECTORIES = ("first", "second")
TOPICS = ("a", "b")
SEGMENT = f"{0:020d}.log"


@contextmanager
def broker(root: Path) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """A broker with two data directories in a process of its own, stopped at the end; its port."""
    paths = ",".join(str(root / name) for name in DIRECTORIES)
    command = [sys.executable, "-m", "kpy", "start", "--listen", "127.0.0.1:0", "--set", f"log.dirs={paths}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        port = int(process.stdout.readline().rsplit(":", 1)[1])
        yield port, process
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=TEST_SECONDS)
        assert process.returncode == 0


async def create_topics(port: int, **configs: str) -> None:
    async with RawClient(await trio.open_tcp_stream("127.0.0.1", port)) as client:
        for topic in TOPICS:
            await client.create_topic(topic, **configs)


async def produce(port: int, topic: str, *values: bytes) -> list[bytes]:
    """The values that were acknowledged, up to the first that was refused."""
    acknowledged: list[bytes] = []
    async with RawClient(await trio.open_tcp_stream("127.0.0.1", port)) as client:
        for value in values:
            answer = await client.produce(topic, batch(value), acks=-1)
            if answer.error_code:
                assert error_name(answer.error_code) == "KAFKA_STORAGE_ERROR"
                break
            acknowledged.append(value)
    return acknowledged


async def read(port: int, topic: str) -> list[bytes | None] | str:
    """All values of the topic, or the error."""
    values: list[bytes | None] = []
    async with RawClient(await trio.open_tcp_stream("127.0.0.1", port)) as client:
        while True:
            answer = await client.fetch(topic, len(values))
            if answer.error_code:
                return error_name(answer.error_code)
            found = [record.value for _, each in iter_batches(answer.records) for record in iter_records(each)]
            if not found:
                return values
            values += found


def directory_of(root: Path, topic: str) -> Path:
    [found] = root.glob(f"*/{topic}-0")
    return found


@pytest.mark.parametrize("kind", CALLS)
def test_a_failing_disk_is_told_to_the_client_and_the_other_directory_goes_on(tmp_path: Path, kind: str) -> None:
    flushing = {"flush_messages": "1"} if kind == "sync" else {}
    values = [b"%d" % number for number in range(20)]
    with broker(tmp_path) as (port, process):
        trio.run(lambda: create_topics(port, **flushing))
        kept = {topic: trio.run(produce, port, topic, *values[:5]) for topic in TOPICS}
        assert kept == dict.fromkeys(TOPICS, values[:5])
        a, b = (directory_of(tmp_path, topic) for topic in TOPICS)
        assert a.parent != b.parent
        with failing(process.pid, a / SEGMENT, CALLS[kind]):
            if kind == "read":
                assert trio.run(read, port, "a") == "KAFKA_STORAGE_ERROR"
            assert trio.run(produce, port, "a", *values[5:]) == []
        # The disk is well again, but nobody knows what it has lost: the directory stays offline.
        assert trio.run(produce, port, "a", b"refused") == []
        assert trio.run(read, port, "a") == "KAFKA_STORAGE_ERROR"
        kept["b"] += trio.run(produce, port, "b", *values[5:])
        assert trio.run(read, port, "b") == values
    with broker(tmp_path) as (port, _):
        survived = trio.run(read, port, "a")
        # A write or sync that failed was not acknowledged; its batch may be there, once, all the same.
        assert survived in (values[:5], values[:6])
        assert trio.run(read, port, "b") == kept["b"]
        assert trio.run(produce, port, "a", b"next") == [b"next"]
        assert trio.run(read, port, "a") == [*survived, b"next"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """The root of two data directories, of which the second is a file system of 1 MiB."""
    require_root("mounting a small file system")
    path = tmp_path / DIRECTORIES[1]
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(path)], check=True)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def test_a_full_file_system_loses_nothing_acknowledged_and_serves_again_with_space(small_disk: Path) -> None:
    values = [b"%d " % number + b"x" * 9000 for number in range(300)]
    with broker(small_disk) as (port, _):
        trio.run(create_topics, port)
        [full] = [topic for topic in TOPICS if directory_of(small_disk, topic).parent.name == DIRECTORIES[1]]
        [other] = set(TOPICS) - {full}
        acknowledged = trio.run(produce, port, full, *values)
        assert 50 < len(acknowledged) < len(values)
        assert trio.run(produce, port, full, b"again") == []
        assert trio.run(produce, port, other, *values) == values
        assert trio.run(read, port, other) == values
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk / DIRECTORIES[1])], check=True)
    with broker(small_disk) as (port, _):
        assert trio.run(read, port, full) == acknowledged
        assert trio.run(produce, port, full, b"next") == [b"next"]
        assert trio.run(read, port, full) == [*acknowledged, b"next"]
