"""A running broker with several data directories: logs move while clients write, a disk fails, records are deleted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trio
from raw_client import Connect, RawClient, batch, error_name, run_with_broker

from kpy.records.batch import iter_batches, iter_records
from kpy.wire.alter_replica_log_dirs import AlterReplicaLogDir, AlterReplicaLogDirsRequest, AlterReplicaLogDirTopic
from kpy.wire.delete_records import DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic
from kpy.wire.describe_log_dirs import DescribeLogDirsRequest
from kpy.wire.offset_for_leader_epoch import (
    OffsetForLeaderEpochRequest,
    OffsetForLeaderPartition,
    OffsetForLeaderTopic,
)

DELETE_RECORDS, OFFSET_FOR_LEADER_EPOCH, ALTER_REPLICA_LOG_DIRS, DESCRIBE_LOG_DIRS = 21, 23, 34, 35


async def places(client: RawClient) -> dict[str, list[tuple[str, int, bool]]]:
    """(topic, partition, future) of the logs in each directory, by its name."""
    answer = await client.ask(DESCRIBE_LOG_DIRS, DescribeLogDirsRequest(None), 4)
    return {
        Path(result.log_dir).name: [
            (topic.name, each.partition_index, each.is_future_key)
            for topic in result.topics
            for each in topic.partitions
        ]
        for result in answer.results
    }


async def until(client: RawClient, is_so: Callable[[dict[str, Any]], bool]) -> None:
    """Asks again until the logs lie as they should; run_with_broker sets the limit."""
    while not is_so(await places(client)):
        await trio.lowlevel.checkpoint()


async def read_all(client: RawClient, end_offset: int) -> list[bytes | None]:
    found: list[bytes | None] = []
    while len(found) < end_offset:
        answer = await client.fetch("t", len(found))
        assert answer.error_code == 0
        found += [record.value for _, data in iter_batches(answer.records) for record in iter_records(data)]
    return found


async def move(client: RawClient, path: Path) -> None:
    request = AlterReplicaLogDirsRequest([AlterReplicaLogDir(str(path), [AlterReplicaLogDirTopic("t", [0])])])
    answer = await client.ask(ALTER_REPLICA_LOG_DIRS, request, 2)
    assert answer.results[0].partitions[0].error_code == 0


def test_log_moves_to_and_fro_while_it_is_written_and_waited_for(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"

    async def test(connect: Connect) -> None:
        acknowledged: list[bytes] = []
        stop = trio.Event()

        async def produce() -> None:
            async with await connect() as client:
                while not stop.is_set():
                    value = b"%d " % len(acknowledged) + b"x" * 3000
                    assert (await client.produce("t", batch(value))).base_offset == len(acknowledged)
                    acknowledged.append(value)

        async with await connect() as client, await connect() as reader, trio.open_nursery() as nursery:
            await client.create_topic("t", segment_bytes="100000")
            for value in (b"%d " % number + b"y" * 30000 for number in range(50)):
                assert (await client.produce("t", batch(value))).error_code == 0
                acknowledged.append(value)
            nursery.start_soon(produce)
            for target, name in ((b, "b"), (a, "a"), (b, "b")):
                await move(client, target)
                await until(client, lambda found, name=name: found[name] == [("t", 0, False)])  # type: ignore[misc]
            stop.set()
        async with await connect() as client, await connect() as reader:
            end_offset = len(acknowledged)
            assert await read_all(reader, end_offset) == acknowledged
            # A fetch that waits is answered by the log in its new place.
            answers: list[Any] = []

            async def wait() -> None:
                answers.append(await reader.fetch("t", end_offset, max_wait_ms=20_000))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(wait)
                await move(client, a)
                await until(client, lambda found: found["a"] == [("t", 0, False)])
                await client.produce("t", batch(b"last"))
            assert answers[0].high_watermark == end_offset + 1

    run_with_broker(tmp_path, test, {"log.dirs": f"{a},{b}"})
    assert not list(tmp_path.glob("*/*-future"))


def test_move_under_way_is_finished_after_a_restart(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    slow = {"log.dirs": f"{a},{b}", "replica.alter.log.dirs.io.max.bytes.per.second": "100000"}

    async def before(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            for _ in range(20):
                await client.produce("t", batch(b"x" * 50_000))
            await move(client, b)
            await until(client, lambda found: ("t", 0, True) in found["b"])

    async def after(connect: Connect) -> None:
        async with await connect() as client:
            await until(client, lambda found: found["b"] == [("t", 0, False)])
            assert await read_all(client, 20) == [b"x" * 50_000] * 20

    run_with_broker(tmp_path, before, slow)
    run_with_broker(tmp_path, after, {"log.dirs": f"{a},{b}"})


def test_one_disk_fails_and_the_partitions_of_the_other_are_served(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"

    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            await client.create_topic("u")
            await client.produce("t", batch(b"v"))
            found = await places(client)
            (victim,) = (name for name, logs in found.items() if logs == [("t", 0, False)])
            # The next segment cannot be made: something is in its way.
            (tmp_path / victim / "t-0" / f"{1:020d}.log").mkdir()
            request = DeleteRecordsRequest([DeleteRecordsTopic("t", [DeleteRecordsPartition(0, 0)])])
            assert (await client.ask(DELETE_RECORDS, request, 2)).topics[0].partitions[0].error_code == 0
            big = await client.produce("t", batch(b"v" * 200))
            assert error_name(big.error_code) == "KAFKA_STORAGE_ERROR"
            again = await client.produce("t", batch(b"v"))
            assert error_name(again.error_code) == "KAFKA_STORAGE_ERROR"
            assert (await client.produce("u", batch(b"v"))).error_code == 0
            results = (await client.ask(DESCRIBE_LOG_DIRS, DescribeLogDirsRequest(None), 4)).results
            assert {Path(each.log_dir).name: error_name(each.error_code) for each in results}[
                victim
            ] == "KAFKA_STORAGE_ERROR"

    run_with_broker(tmp_path, test, {"log.dirs": f"{a},{b}", "log.segment.bytes": "300"})


def test_deleted_records_are_gone_for_consumers_and_then_from_the_disk(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t", segment_bytes="200", file_delete_delay_ms="0")
            for _ in range(6):
                await client.produce("t", batch(b"x" * 100))
            request = DeleteRecordsRequest([DeleteRecordsTopic("t", [DeleteRecordsPartition(0, 4)])])
            answer = (await client.ask(DELETE_RECORDS, request, 2)).topics[0].partitions[0]
            assert (answer.error_code, answer.low_watermark) == (0, 4)
            assert error_name((await client.fetch("t", 3)).error_code) == "OFFSET_OUT_OF_RANGE"
            assert (await client.fetch("t", 4)).log_start_offset == 4
            while len(list((tmp_path / "t-0").glob("*.log*"))) > 2:
                await client.fetch("t", 4)

    settings = {"log.retention.check.interval.ms": "20", "replica.high.watermark.checkpoint.interval.ms": "20"}
    run_with_broker(tmp_path, test, settings)


def test_truncation_check_of_a_consumer_is_answered(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            await client.produce("t", batch(b"a", b"b"))
            asked = OffsetForLeaderTopic("t", [OffsetForLeaderPartition(0, 0, 0)])
            answer = await client.ask(OFFSET_FOR_LEADER_EPOCH, OffsetForLeaderEpochRequest(topics=[asked]), 4)
            (result,) = answer.topics[0].partitions
            assert (result.error_code, result.leader_epoch, result.end_offset) == (0, 0, 2)

    run_with_broker(tmp_path, test)


def test_partition_is_not_begun_anew_while_its_directory_is_missing(tmp_path: Path) -> None:
    a, b, away = tmp_path / "a", tmp_path / "b", tmp_path / "away"
    settings = {"log.dirs": f"{a},{b}"}

    async def before(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("s")
            await client.create_topic("t")
            await client.produce("t", batch(b"kept"))
            assert (await places(client))["b"] == [("t", 0, False)]

    async def without(connect: Connect) -> None:
        async with await connect() as client:
            assert error_name((await client.produce("t", batch(b"v"))).error_code) == "KAFKA_STORAGE_ERROR"
            assert (await client.produce("s", batch(b"v"))).error_code == 0

    async def after(connect: Connect) -> None:
        async with await connect() as client:
            assert await read_all(client, 1) == [b"kept"]
            assert (await client.produce("t", batch(b"v"))).base_offset == 1

    run_with_broker(tmp_path, before, settings)
    b.rename(away)
    b.write_text("not a directory")
    run_with_broker(tmp_path, without, settings)
    b.unlink()
    away.rename(b)
    run_with_broker(tmp_path, after, settings)


@pytest.mark.parametrize("second", ["same", "link"])
def test_directory_given_twice_is_refused(tmp_path: Path, second: str) -> None:
    from kpy.errors import StorageError

    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    other = tmp_path / ("a/." if second == "same" else "link")

    async def test(connect: Connect) -> None:
        raise AssertionError("the broker has started")

    with pytest.raises(BaseExceptionGroup) as refused:
        run_with_broker(tmp_path, test, {"log.dirs": f"{tmp_path / 'a'},{other}"})
    (error,) = refused.value.exceptions
    assert isinstance(error, StorageError)
    assert "are the same data directory" in str(error)
