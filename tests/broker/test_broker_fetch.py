"""Fetch and ListOffsets against a broker: positions, limits, long polls, sessions, old formats."""

from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from raw_client import Connect, RawClient, batch, error_name, frame, run_with_broker

from kpy.ids import ZERO_ID
from kpy.records.batch import NewRecord, build_batch, iter_batches, iter_records
from kpy.wire.fetch import FetchPartition, FetchRequest, FetchTopic, ForgottenTopic
from kpy.wire.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from kpy.wire.metadata import MetadataRequest, MetadataRequestTopic

FETCH, LIST_OFFSETS, METADATA = 1, 2, 3


def request(*positions: tuple[str, int], session: tuple[int, int] = (0, -1), **options: Any) -> FetchRequest:
    """A fetch of partition 0 of each topic from an offset."""
    topics = [
        FetchTopic(topic, partitions=[FetchPartition(0, fetch_offset=offset, partition_max_bytes=1 << 20)])
        for topic, offset in positions
    ]
    fields = {"min_bytes": 1, "max_bytes": 1 << 20, "max_wait_ms": 0, **options}
    return FetchRequest(session_id=session[0], session_epoch=session[1], topics=topics, **fields)


def values(partition: Any) -> list[bytes | None]:
    return [record.value for _, each in iter_batches(partition.records) for record in iter_records(each)]


async def fill(client: RawClient, topic: str, count: int) -> None:
    await client.create_topic(topic)
    for number in range(count):
        assert (await client.produce(topic, batch(b"a%d" % number, b"b%d" % number))).error_code == 0


def test_an_offset_inside_a_batch_gets_the_whole_batch(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await fill(client, "t", 3)
            answer = await client.fetch("t", 3)
            assert values(answer) == [b"a1", b"b1", b"a2", b"b2"]
            assert (answer.high_watermark, answer.last_stable_offset, answer.log_start_offset) == (6, 6, 0)

    run_with_broker(tmp_path, test)


@pytest.mark.parametrize("offset", [-1, 7, 2**62])
def test_an_offset_outside_the_log_is_out_of_range(tmp_path: Path, offset: int) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await fill(client, "t", 3)
            answer = await client.fetch("t", offset, max_wait_ms=20_000)
            assert error_name(answer.error_code) == "OFFSET_OUT_OF_RANGE"
            assert (answer.high_watermark, answer.log_start_offset) == (-1, -1)
            assert not answer.records
            assert answer.aborted_transactions is None

    run_with_broker(tmp_path, test)


def test_the_first_batch_comes_whole_even_if_it_is_larger_than_asked(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("large")
            await client.create_topic("other")
            await client.produce("large", batch(b"x" * 5000))
            await client.produce("other", batch(b"y" * 5000))
            response = await client.ask(FETCH, request(("large", 0), ("other", 0), max_bytes=100), 12)
            assert [len(topic.partitions[0].records) > 5000 for topic in response.responses] == [True, False]

    run_with_broker(tmp_path, test)


def test_a_long_poll_ends_with_the_first_record(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as consumer, await connect() as producer:
            await fill(producer, "t", 1)
            await consumer.send(frame(FETCH, request(("t", 2), max_wait_ms=25_000), 12))
            await trio.testing.wait_all_tasks_blocked(0.05)
            await producer.produce("t", batch(b"news"))
            response = await consumer.receive_frame()
            assert response is not None
            assert b"news" in response

    run_with_broker(tmp_path, test)


def test_a_long_poll_waits_for_min_bytes(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as consumer, await connect() as producer:
            await fill(producer, "t", 0)
            size = len(batch(b"12345"))
            await consumer.send(frame(FETCH, request(("t", 0), max_wait_ms=25_000, min_bytes=3 * size), 12))
            for _ in range(3):
                await producer.produce("t", batch(b"12345"))
            response = await consumer.receive_frame()
            assert response is not None
            assert response.count(b"12345") == 3

    run_with_broker(tmp_path, test)


def test_a_fetch_of_an_older_segment_waits_for_nothing(tmp_path: Path) -> None:
    """What is appended does not come to an older segment, whatever min_bytes is (Kafka class DelayedFetch)."""

    async def test(connect: Connect) -> None:
        async with await connect() as consumer, await connect() as producer:
            await producer.create_topic("t", segment_bytes="100")
            for number in range(3):
                assert (await producer.produce("t", batch(b"in segment %d" % number))).error_code == 0
            patient = {"max_wait_ms": 1_000_000, "min_bytes": 100}
            for number in range(2):
                response = await consumer.ask(FETCH, request(("t", number), **patient), 12)
                assert values(response.responses[0].partitions[0]) == [b"in segment %d" % number]
            # In the last segment there may be more to come, until there is a segment after it.
            for offset, expected in ((2, b"in segment 2"), (4, b"news")):
                await consumer.send(frame(FETCH, request(("t", offset), max_wait_ms=1_000_000, min_bytes=1000), 12))
                await trio.testing.wait_all_tasks_blocked(0.05)
                assert (await producer.produce("t", batch(b"news"))).error_code == 0
                response = await consumer.receive_frame()
                assert response is not None
                assert expected in response

    run_with_broker(tmp_path, test)


def test_a_long_poll_on_nothing_ends_empty_when_its_time_is_over(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await fill(client, "t", 1)
            answer = await client.fetch("t", 2, max_wait_ms=30)
            assert (answer.error_code, values(answer)) == (0, [])

    run_with_broker(tmp_path, test)


def test_deleting_a_topic_ends_the_long_poll_on_it(tmp_path: Path) -> None:
    from kpy.wire.delete_topics import DeleteTopicsRequest

    async def test(connect: Connect) -> None:
        async with await connect() as consumer, await connect() as admin:
            await fill(admin, "t", 1)
            await consumer.send(frame(FETCH, request(("t", 2), max_wait_ms=25_000), 12))
            await trio.testing.wait_all_tasks_blocked(0.05)
            await admin.ask(20, DeleteTopicsRequest(topic_names=["t"], timeout_ms=1000), 5)
            assert await consumer.receive_frame() is not None

    run_with_broker(tmp_path, test)


def test_an_incremental_session_answers_only_news(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await fill(client, "s", 1)
            await fill(client, "t", 1)
            opened = await client.ask(FETCH, request(("s", 0), ("t", 2), session=(0, 0)), 12)
            session_id = opened.session_id
            assert session_id != 0
            assert [topic.topic for topic in opened.responses] == ["s", "t"]
            # The client has read s; nothing is new.
            quiet = await client.ask(FETCH, request(("s", 2), session=(session_id, 1)), 12)
            assert (quiet.error_code, quiet.responses) == (0, [])
            await client.produce("t", batch(b"news"))
            answer = await client.ask(FETCH, request(session=(session_id, 2)), 12)
            assert [topic.topic for topic in answer.responses] == ["t"]
            assert values(answer.responses[0].partitions[0]) == [b"news"]
            # t is forgotten: its record is not repeated.
            forget = request(session=(session_id, 3))
            forget.forgotten_topics_data = [ForgottenTopic("t", partitions=[0])]
            assert (await client.ask(FETCH, forget, 12)).responses == []

    run_with_broker(tmp_path, test)


def test_a_wrong_session_id_or_epoch_is_refused(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await fill(client, "t", 1)
            opened = await client.ask(FETCH, request(("t", 0), session=(0, 0)), 12)
            unknown = await client.ask(FETCH, request(session=(opened.session_id + 1, 1)), 12)
            assert error_name(unknown.error_code) == "FETCH_SESSION_ID_NOT_FOUND"
            late = await client.ask(FETCH, request(session=(opened.session_id, 5)), 12)
            assert error_name(late.error_code) == "INVALID_FETCH_SESSION_EPOCH"
            assert (late.session_id, late.responses) == (0, [])

    run_with_broker(tmp_path, test)


def test_a_session_error_is_repeated_until_it_is_over(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            opened = await client.ask(FETCH, request(("later", 0), session=(0, 0)), 12)
            for epoch in (1, 2):
                again = await client.ask(FETCH, request(session=(opened.session_id, epoch)), 12)
                error = again.responses[0].partitions[0].error_code
                assert error_name(error) == "UNKNOWN_TOPIC_OR_PARTITION"
            await fill(client, "later", 1)
            answer = await client.ask(FETCH, request(session=(opened.session_id, 3)), 12)
            assert values(answer.responses[0].partitions[0]) == [b"a0", b"b0"]

    run_with_broker(tmp_path, test)


def test_sessions_beyond_the_limit_are_refused_with_id_zero(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await fill(client, "t", 1)
            first = await client.ask(FETCH, request(("t", 0), session=(0, 0)), 12)
            second = await client.ask(FETCH, request(("t", 0), session=(0, 0)), 12)
            assert first.session_id != 0
            assert second.session_id == 0
            assert values(second.responses[0].partitions[0]) == [b"a0", b"b0"]

    run_with_broker(tmp_path, test, {"max.incremental.fetch.session.cache.slots": "1"})


async def topic_id_of(client: RawClient, topic: str) -> bytes:
    answer = await client.ask(METADATA, MetadataRequest([MetadataRequestTopic(name=topic)]), 12)
    return answer.topics[0].topic_id


def test_topics_are_fetched_by_id(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await fill(client, "t", 1)
            topic_id = await topic_id_of(client, "t")
            position = FetchPartition(0, fetch_offset=0, partition_max_bytes=1 << 20)
            for version in (13, 15, 17, 18):
                ids = (topic_id, b"\x07" * 16, ZERO_ID)
                wanted = [FetchTopic(topic_id=each, partitions=[position]) for each in ids]
                response = await client.ask(FETCH, FetchRequest(max_bytes=1 << 20, topics=wanted), version)
                known, *unknown = [topic.partitions[0] for topic in response.responses]
                assert values(known) == [b"a0", b"b0"]
                assert {error_name(each.error_code) for each in unknown} == {"UNKNOWN_TOPIC_ID"}

    run_with_broker(tmp_path, test)


@pytest.mark.parametrize(("epoch", "error"), [(-2, "NONE"), (-1, "NONE"), (0, "NONE"), (1, "UNKNOWN_LEADER_EPOCH")])
def test_the_leader_epoch_is_checked(tmp_path: Path, epoch: int, error: str) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await fill(client, "t", 1)
            asked = request(("t", 0))
            asked.topics[0].partitions[0].current_leader_epoch = epoch
            response = await client.ask(FETCH, asked, 12)
            assert error_name(response.responses[0].partitions[0].error_code) == error

    run_with_broker(tmp_path, test)


@pytest.mark.parametrize("version", range(4))
def test_old_versions_get_records_in_the_old_formats(tmp_path: Path, version: int) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await fill(client, "t", 2)
            response = await client.ask(FETCH, request(("t", 0)), version)
            records = bytes(response.responses[0].partitions[0].records)
            magic = records[16]
            assert magic == (0 if version <= 1 else 1)
            assert all(value in records for value in (b"a0", b"b0", b"a1", b"b1"))

    run_with_broker(tmp_path, test)


@pytest.mark.parametrize("version", range(4))
def test_old_versions_get_no_plain_record_before_the_offset(tmp_path: Path, version: int) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await fill(client, "t", 1)
            response = await client.ask(FETCH, request(("t", 1)), version)
            records = bytes(response.responses[0].partitions[0].records)
            assert (b"a0" in records, b"b0" in records) == (False, True)

    run_with_broker(tmp_path, test)


@pytest.mark.parametrize(
    ("config", "value", "version", "error"),
    [
        ("compression_type", "zstd", 9, "UNSUPPORTED_COMPRESSION_TYPE"),
        ("compression_type", "zstd", 10, "NONE"),
        ("message_downconversion_enable", "false", 3, "UNSUPPORTED_VERSION"),
        ("message_downconversion_enable", "false", 4, "NONE"),
    ],
)
def test_a_topic_that_old_clients_cannot_read_says_so_while_it_is_empty(
    tmp_path: Path, config: str, value: str, version: int, error: str
) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t", **{config: value})
            response = await client.ask(FETCH, request(("t", 0)), version)
            assert error_name(response.responses[0].partitions[0].error_code) == error

    run_with_broker(tmp_path, test)


async def find(client: RawClient, timestamp: int, version: int) -> Any:
    partition = ListOffsetsPartition(0, timestamp=timestamp)
    asked = ListOffsetsRequest(topics=[ListOffsetsTopic("t", [partition])])
    response = await client.ask(LIST_OFFSETS, asked, version)
    return response.topics[0].partitions[0]


def test_offsets_are_found_by_timestamp_and_by_the_special_ones(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            times = [1000, 3000, 2000, 5000]
            for at in times:
                await client.produce("t", build_batch([NewRecord(at, None, b"v"), NewRecord(at + 10, None, b"w")]))
            found = {at: await find(client, at, 9) for at in (-1, -2, -3, -4, -5, 0, 1005, 2500, 3011, 5011)}
            assert {at: (each.error_code, each.timestamp, each.offset) for at, each in found.items()} == {
                -1: (0, -1, 8),
                -2: (0, -1, 0),
                -3: (0, 5010, 7),
                -4: (0, -1, 0),
                -5: (0, -1, -1),
                0: (0, 1000, 0),
                1005: (0, 1010, 1),
                2500: (0, 3000, 2),
                3011: (0, 5000, 6),
                5011: (0, -1, -1),
            }

    run_with_broker(tmp_path, test)


@pytest.mark.parametrize(("timestamp", "version"), [(-3, 0), (-3, 6), (-4, 7), (-5, 8), (-6, 10), (-77, 10)])
def test_a_special_timestamp_too_new_for_the_version_is_unsupported(
    tmp_path: Path, timestamp: int, version: int
) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            assert error_name((await find(client, timestamp, version)).error_code) == "UNSUPPORTED_VERSION"

    run_with_broker(tmp_path, test)


def test_the_same_partition_twice_is_an_invalid_request(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            twice = [ListOffsetsPartition(0, timestamp=-1), ListOffsetsPartition(0, timestamp=-2)]
            response = await client.ask(LIST_OFFSETS, ListOffsetsRequest(topics=[ListOffsetsTopic("t", twice)]), 5)
            errors = [error_name(each.error_code) for each in response.topics[0].partitions]
            assert errors == ["INVALID_REQUEST", "INVALID_REQUEST"]

    run_with_broker(tmp_path, test)


def test_version_0_lists_segment_offsets_newest_first(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t", segment_bytes="100")
            for _ in range(3):
                await client.produce("t", batch(b"v"))

            async def offsets(timestamp: int, at_most: int) -> list[int]:
                partition = ListOffsetsPartition(0, timestamp=timestamp, max_num_offsets=at_most)
                asked = ListOffsetsRequest(replica_id=-1, topics=[ListOffsetsTopic("t", [partition])])
                response = await client.ask(LIST_OFFSETS, asked, 0)
                return response.topics[0].partitions[0].old_style_offsets

            assert await offsets(-1, 10) == [3, 2, 1, 0]
            assert await offsets(-1, 2) == [3, 2]
            assert await offsets(-2, 10) == [0]
            twice = ListOffsetsTopic("t", [ListOffsetsPartition(0, timestamp=-2)] * 2)
            response = await client.ask(LIST_OFFSETS, ListOffsetsRequest(-1, topics=[twice]), 0)
            assert {error_name(each.error_code) for each in response.topics[0].partitions} == {"NONE"}

    run_with_broker(tmp_path, test)
