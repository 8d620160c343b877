"""What a broker still knows after a clean stop, and after a crash."""

from pathlib import Path

import pytest
from raw_client import Connect, RawClient, batch, error_name, run_with_broker

from kpy.records.batch import NewRecord, build_batch, iter_batches
from kpy.server import now_ms
from kpy.wire.metadata import MetadataRequest, MetadataRequestTopic

METADATA = 3


def crash(data_dir: Path) -> None:
    """Makes a cleanly stopped data directory look like one of a killed broker."""
    (data_dir / ".kafka_cleanshutdown").unlink()
    (data_dir / "recovery-point-offset-checkpoint").unlink()


async def leader_epoch(client: RawClient) -> int:
    answer = await client.ask(METADATA, MetadataRequest([MetadataRequestTopic(name="t")]), 9)
    return answer.topics[0].partitions[0].leader_epoch


@pytest.mark.parametrize("crashed", [False, True])
def test_the_leader_epoch_rises_after_a_crash_and_only_then(tmp_path: Path, crashed: bool) -> None:
    async def before(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            await client.produce("t", batch(b"v"))
            assert await leader_epoch(client) == 0

    async def after(connect: Connect) -> None:
        async with await connect() as client:
            assert await leader_epoch(client) == (1 if crashed else 0)
            assert (await client.produce("t", batch(b"w"))).base_offset == 1

    run_with_broker(tmp_path, before)
    if crashed:
        crash(tmp_path)
    run_with_broker(tmp_path, after)


@pytest.mark.parametrize("crashed", [False, True])
def test_an_idempotent_producers_repeat_is_recognised_after_a_restart(tmp_path: Path, crashed: bool) -> None:
    first = batch(b"a", producer_id=5, producer_epoch=0, base_sequence=0)
    second = batch(b"b", b"c", producer_id=5, producer_epoch=0, base_sequence=1)
    gap = batch(b"x", producer_id=5, producer_epoch=0, base_sequence=9)

    async def before(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            assert (await client.produce("t", first)).base_offset == 0
            assert (await client.produce("t", second)).base_offset == 1
            assert (await client.produce("t", first)).base_offset == 0

    async def after(connect: Connect) -> None:
        async with await connect() as client:
            assert (await client.produce("t", second)).base_offset == 1
            assert error_name((await client.produce("t", gap)).error_code) == "OUT_OF_ORDER_SEQUENCE_NUMBER"
            assert (await client.fetch("t", 0)).high_watermark == 3

    run_with_broker(tmp_path, before)
    if crashed:
        crash(tmp_path)
    run_with_broker(tmp_path, after)


def test_a_deleted_topic_stays_deleted_and_its_name_is_free(tmp_path: Path) -> None:
    from kpy.wire.delete_topics import DeleteTopicsRequest

    async def before(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            await client.produce("t", batch(b"old"))
            answer = await client.ask(20, DeleteTopicsRequest(topic_names=["t"], timeout_ms=1000), 5)
            assert answer.responses[0].error_code == 0
            await client.create_topic("t")

    async def after(connect: Connect) -> None:
        async with await connect() as client:
            assert (await client.fetch("t", 0)).high_watermark == 0
            assert (await client.produce("t", batch(b"new"))).base_offset == 0

    run_with_broker(tmp_path, before)
    run_with_broker(tmp_path, after)


def test_a_log_that_lost_its_topic_id_is_kept(tmp_path: Path) -> None:
    async def before(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            await client.produce("t", batch(b"v"))

    async def after(connect: Connect) -> None:
        async with await connect() as client:
            assert (await client.fetch("t", 0)).high_watermark == 1

    run_with_broker(tmp_path, before)
    metadata = tmp_path / "t-0" / "partition.metadata"
    content = metadata.read_text()
    metadata.unlink()
    run_with_broker(tmp_path, after)
    assert metadata.read_text() == content


def test_a_log_of_another_topic_with_that_name_is_not_taken_for_it(tmp_path: Path) -> None:
    async def before(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            await client.produce("t", batch(b"v"))

    async def after(connect: Connect) -> None:
        async with await connect() as client:
            assert (await client.fetch("t", 0)).high_watermark == 0

    run_with_broker(tmp_path, before)
    (tmp_path / "t-0" / "partition.metadata").write_text("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAFg")
    run_with_broker(tmp_path, after)


def test_a_batch_whose_base_offset_the_disk_has_changed_is_never_sent(tmp_path: Path) -> None:
    """Its neighbours are: only who wants this batch is answered CORRUPT_MESSAGE."""

    async def before(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            now = now_ms()
            for number in range(5):
                records = [NewRecord(now + number, None, bytes(size)) for size in (5000, 10)]
                assert (await client.produce("t", build_batch(records))).base_offset == 2 * number

    async def after(connect: Connect) -> None:
        async with await connect() as client:
            first = await client.fetch("t", 0)
            assert [header.base_offset for header, _ in iter_batches(first.records)] == [0, 2]
            damaged = await client.fetch("t", 4)
            assert (error_name(damaged.error_code), damaged.records) == ("CORRUPT_MESSAGE", b"")

    run_with_broker(tmp_path, before)
    log = tmp_path / "t-0" / f"{0:020d}.log"
    data = bytearray(log.read_bytes())
    data[2 * len(data) // 5 + 7] ^= 1
    log.write_bytes(data)
    run_with_broker(tmp_path, after)
