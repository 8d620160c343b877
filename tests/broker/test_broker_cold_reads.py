"""One consumer of old records waits for the disk; nobody else does."""

import errno
import os
import threading
from pathlib import Path
from typing import Any

import trio
from raw_client import Connect, batch, error_name, frame, run_with_broker

from kpy.records.batch import iter_batches, iter_records
from kpy.storage.fs import OsFs
from kpy.wire.fetch import FetchPartition, FetchRequest, FetchTopic

FETCH = 1


class ColdDisk(OsFs):
    """Once `is_cold`, topic `old` is not in the page cache until a read has come through, which the test lets go."""

    def __init__(self) -> None:
        self.is_cold = False
        self.may_read = threading.Event()
        self.is_reading = threading.Event()
        self.fails = False
        self.reads_in_the_broker = 0
        self._broker = threading.current_thread()

    def _is_cold(self, fd: int) -> bool:
        return self.is_cold and "/old-0/" in os.readlink(f"/proc/self/fd/{fd}")

    def is_cached(self, fd: int, position: int, size: int) -> bool:  # type: ignore[override]  # OsFs binds a function
        return not self._is_cold(fd) or self.may_read.is_set()

    def pread(self, fd: int, size: int, position: int) -> bytes:  # type: ignore[override]  # OsFs binds os.pread
        if self._is_cold(fd) and not self.may_read.is_set():
            if threading.current_thread() is self._broker:
                self.reads_in_the_broker += 1
            else:
                self.is_reading.set()
                assert self.may_read.wait(20)
        if self._is_cold(fd) and self.fails:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return os.pread(fd, size, position)

    async def wait_for_read(self) -> None:
        assert await trio.to_thread.run_sync(self.is_reading.wait, 20)


def request(*topics: str, offset: int = 0, max_wait_ms: int = 0, min_bytes: int = 1) -> FetchRequest:
    wanted = [
        FetchTopic(name, partitions=[FetchPartition(0, fetch_offset=offset, partition_max_bytes=1 << 20)])
        for name in topics
    ]
    return FetchRequest(max_wait_ms=max_wait_ms, min_bytes=min_bytes, max_bytes=1 << 20, topics=wanted)


def values(partition: Any) -> list[bytes | None]:
    return [record.value for _, each in iter_batches(partition.records) for record in iter_records(each)]


def test_a_consumer_of_old_records_stalls_nobody_else(tmp_path: Path) -> None:
    disk = ColdDisk()

    async def test(connect: Connect) -> None:
        async with await connect() as cold, await connect() as hot:
            for name in ("old", "new"):
                await hot.create_topic(name)
                for value in (b"first", b"second"):
                    assert (await hot.produce(name, batch(value))).error_code == 0
            disk.is_cold = True
            await cold.send(frame(FETCH, request("old", offset=1), 12))
            await disk.wait_for_read()
            for _ in range(20):
                assert (await hot.produce("new", batch(b"more"))).error_code == 0
            assert len(values(await hot.fetch("new", 0))) == 22
            assert (await hot.produce("old", batch(b"third"))).error_code == 0
            disk.may_read.set()
            assert await cold.receive_frame() is not None
            assert values(await cold.fetch("old", 1)) == [b"second", b"third"]

    run_with_broker(tmp_path, test, fs=disk)
    assert disk.reads_in_the_broker == 0


def test_old_and_new_records_of_one_fetch_come_together(tmp_path: Path) -> None:
    disk = ColdDisk()

    async def test(connect: Connect) -> None:
        async with await connect() as client:
            for name in ("new", "old"):
                await client.create_topic(name)
                assert (await client.produce(name, batch(b"value"))).error_code == 0
            disk.is_cold = True
            async with trio.open_nursery() as nursery:

                async def fetch() -> None:
                    answer = await client.ask(FETCH, request("new", "old"), 12)
                    assert [values(topic.partitions[0]) for topic in answer.responses] == [[b"value"], [b"value"]]

                nursery.start_soon(fetch)
                await disk.wait_for_read()
                disk.may_read.set()

    run_with_broker(tmp_path, test, fs=disk)
    assert disk.reads_in_the_broker == 0


def test_a_fetch_goes_on_waiting_when_the_old_records_are_too_few(tmp_path: Path) -> None:
    disk = ColdDisk()

    async def test(connect: Connect) -> None:
        async with await connect() as client, await connect() as producer:
            await client.create_topic("old")
            assert (await client.produce("old", batch(b"value"))).error_code == 0
            disk.is_cold = True
            await client.send(frame(FETCH, request("old", max_wait_ms=20_000, min_bytes=1000), 12))
            await disk.wait_for_read()
            disk.may_read.set()
            assert (await producer.produce("old", batch(bytes(1000)))).error_code == 0
            assert await client.receive_frame() is not None

    run_with_broker(tmp_path, test, fs=disk)


def test_a_client_that_leaves_while_its_records_are_read_harms_nobody(tmp_path: Path) -> None:
    disk = ColdDisk()

    async def test(connect: Connect) -> None:
        async with await connect() as client:
            async with await connect() as leaving:
                await leaving.create_topic("old")
                assert (await leaving.produce("old", batch(b"value"))).error_code == 0
                disk.is_cold = True
                await leaving.send(frame(FETCH, request("old"), 12))
                await disk.wait_for_read()
            disk.may_read.set()
            assert values(await client.fetch("old", 0)) == [b"value"]

    run_with_broker(tmp_path, test, fs=disk)


def test_a_disk_that_cannot_be_read_is_told_to_the_client(tmp_path: Path) -> None:
    disk = ColdDisk()

    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("old")
            assert (await client.produce("old", batch(b"value"))).error_code == 0
            disk.is_cold = disk.fails = True
            async with trio.open_nursery() as nursery:

                async def fetch() -> None:
                    answer = await client.ask(FETCH, request("old"), 12)
                    code = answer.responses[0].partitions[0].error_code
                    assert error_name(code) == "KAFKA_STORAGE_ERROR"

                nursery.start_soon(fetch)
                await disk.wait_for_read()
                disk.may_read.set()

    run_with_broker(tmp_path, test, fs=disk)
