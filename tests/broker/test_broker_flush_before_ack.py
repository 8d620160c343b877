"""flush.messages=1 through a broker: nobody is told or shown what is not on disk, and nobody else waits for it."""

import errno
import os
import select
import threading
from pathlib import Path
from typing import Any

import pytest
import trio
from raw_client import Connect, RawClient, batch, error_name, frame, produce_request, run_with_broker

from kpy.records.batch import iter_batches, iter_records
from kpy.storage.fs import OsFs
from kpy.wire.find_coordinator import FindCoordinatorRequest
from kpy.wire.metadata import MetadataRequest
from kpy.wire.offset_commit import OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic
from kpy.wire.produce import PartitionProduceData, ProduceRequest, TopicProduceData

PRODUCE, METADATA, OFFSET_COMMIT, FIND_COORDINATOR = 0, 3, 8, 10


class SlowDisk(OsFs):
    """Syncs of .log files take as long as the test likes, and fail if it likes that."""

    def __init__(self) -> None:
        self.may_sync = threading.Event()
        self.is_syncing = threading.Event()
        self.broken = False
        self.failures = 0

    def fsync(self, fd: int) -> None:  # type: ignore[override]  # OsFs binds os.fsync
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".log"):
            self.is_syncing.set()
            assert self.may_sync.wait(20)
            if self.broken:
                self.failures += 1
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    def sync_dir(self, path: str) -> None:
        return

    async def wait_for_sync(self) -> None:
        assert await trio.to_thread.run_sync(self.is_syncing.wait, 20)


def has_no_answer(client: RawClient) -> bool:
    """Whether nothing has come. Asked after a later request of somebody else was answered."""
    return not select.select([client.stream.socket.fileno()], [], [], 0)[0]


def values(answer: Any) -> list[bytes | None]:
    return [record.value for _, each in iter_batches(answer.records) for record in iter_records(each)]


def test_a_producer_and_readers_wait_for_the_disk_and_other_clients_do_not(tmp_path: Path) -> None:
    disk = SlowDisk()

    async def test(connect: Connect) -> None:
        async with await connect() as producer, await connect() as reader, await connect() as bystander:
            await producer.create_topic("t", flush_messages="1")
            await producer.create_topic("relaxed")
            await producer.send(frame(PRODUCE, produce_request("t", batch(b"value")), 9))
            await disk.wait_for_sync()
            assert (await bystander.ask(METADATA, MetadataRequest(None), 9)).topics
            assert (await bystander.produce("relaxed", batch(b"other"))).error_code == 0
            early = await reader.fetch("t", 0)
            assert (early.error_code, early.high_watermark, values(early)) == (0, 0, [])
            assert has_no_answer(producer)
            async with trio.open_nursery() as nursery:

                async def tail() -> None:
                    assert values(await reader.fetch("t", 0, max_wait_ms=20_000)) == [b"value"]

                nursery.start_soon(tail)
                disk.may_sync.set()
                assert await producer.receive_frame() is not None

    run_with_broker(tmp_path, test, fs=disk)


@pytest.mark.parametrize("acks", [1, -1])
def test_a_request_for_several_partitions_is_answered_when_all_are_on_disk(tmp_path: Path, acks: int) -> None:
    disk = SlowDisk()
    data = [TopicProduceData(name, partition_data=[PartitionProduceData(0, batch(b"v"))]) for name in ("t", "u", "v")]

    async def test(connect: Connect) -> None:
        async with await connect() as client:
            for name, flush_messages in (("t", "1"), ("u", "1"), ("v", "1000")):
                await client.create_topic(name, flush_messages=flush_messages)
            disk.may_sync.set()
            answer = await client.ask(PRODUCE, ProduceRequest(None, acks, 1000, data), 9)
            codes = [each.partition_responses[0].error_code for each in answer.responses]
            assert codes == [0, 0, 0]
            for name in ("t", "u", "v"):
                assert values(await client.fetch(name, 0)) == [b"v"]

    run_with_broker(tmp_path, test, fs=disk)


def test_records_without_an_acknowledgement_become_readable_when_they_are_on_disk(tmp_path: Path) -> None:
    disk = SlowDisk()

    async def test(connect: Connect) -> None:
        async with await connect() as producer, await connect() as reader:
            await producer.create_topic("t", flush_messages="1")
            await producer.send(frame(PRODUCE, produce_request("t", batch(b"value"), acks=0), 9))
            await disk.wait_for_sync()
            assert values(await reader.fetch("t", 0)) == []
            disk.may_sync.set()
            assert values(await reader.fetch("t", 0, max_wait_ms=20_000)) == [b"value"]

    run_with_broker(tmp_path, test, fs=disk)


def test_a_disk_that_does_not_sync_acknowledges_nothing_and_is_not_asked_again(tmp_path: Path) -> None:
    disk = SlowDisk()
    disk.broken = True

    async def test(connect: Connect) -> None:
        async with await connect() as first, await connect() as second:
            await first.create_topic("t", flush_messages="1")
            await first.send(frame(PRODUCE, produce_request("t", batch(b"first")), 9))
            await disk.wait_for_sync()
            async with trio.open_nursery() as nursery:

                async def produce_behind() -> None:
                    answer = await second.produce("t", batch(b"second"))
                    assert error_name(answer.error_code) == "KAFKA_STORAGE_ERROR"
                    assert answer.base_offset == -1

                nursery.start_soon(produce_behind)
                disk.may_sync.set()
                assert await first.receive_frame() is not None
            again = await second.produce("t", batch(b"third"))
            assert error_name(again.error_code) == "KAFKA_STORAGE_ERROR"
            assert error_name((await second.fetch("t", 0)).error_code) == "KAFKA_STORAGE_ERROR"

    run_with_broker(tmp_path, test, fs=disk)
    assert disk.failures == 1


def test_an_offset_commit_waits_for_the_disk(tmp_path: Path) -> None:
    disk = SlowDisk()
    wanted = OffsetCommitRequestPartition(partition_index=0, committed_offset=1)
    commit = OffsetCommitRequest("g", topics=[OffsetCommitRequestTopic(name="t", partitions=[wanted])])

    async def test(connect: Connect) -> None:
        async with await connect() as client, await connect() as bystander:
            await client.create_topic("t")
            while (await client.ask(FIND_COORDINATOR, FindCoordinatorRequest("g", 0), 2)).error_code:
                await trio.lowlevel.checkpoint()
            await client.send(frame(OFFSET_COMMIT, commit, 7))
            await disk.wait_for_sync()
            assert (await bystander.ask(METADATA, MetadataRequest(None), 9)).topics
            assert has_no_answer(client)
            disk.may_sync.set()
            assert await client.receive_frame() is not None
            assert (await client.ask(OFFSET_COMMIT, commit, 7)).topics[0].partitions[0].error_code == 0

    settings = {"log.flush.interval.messages": "1", "offsets.topic.replication.factor": "1"}
    run_with_broker(tmp_path, test, settings, fs=disk)


def test_what_a_killed_broker_left_in_the_page_cache_is_synced_before_it_is_read(tmp_path: Path) -> None:
    disk = SlowDisk()
    disk.may_sync.set()

    async def write(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            assert (await client.produce("t", batch(b"value"))).error_code == 0

    async def read(connect: Connect) -> None:
        assert disk.is_syncing.is_set()
        async with await connect() as client:
            assert values(await client.fetch("t", 0)) == [b"value"]

    run_with_broker(tmp_path, write, fs=disk)
    (tmp_path / ".kafka_cleanshutdown").unlink()
    (tmp_path / "recovery-point-offset-checkpoint").write_text("0\n1\nt 0 0\n")
    disk.is_syncing.clear()
    run_with_broker(tmp_path, read, {"log.flush.interval.messages": "1"}, fs=disk)
