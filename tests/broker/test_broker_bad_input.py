"""What a broker does with bytes that no client should send: its own answer, and nobody else notices."""

import errno
import os
import resource
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from raw_client import Connect, RawClient, batch, error_name, frame, header, produce_request, run_with_broker, sized

from kpy.config import BrokerConfig
from kpy.errors import StorageError
from kpy.records.batch import NewRecord, build_batch
from kpy.server import serve
from kpy.wire.api_versions import ApiVersionsRequest
from kpy.wire.create_topics import CreatableTopic, CreateTopicsRequest
from kpy.wire.metadata import MetadataRequest, MetadataRequestTopic

PRODUCE, FETCH, METADATA, CREATE_TOPICS, API_VERSIONS = 0, 1, 3, 19, 18


def check_closes(data_dir: Path, data: bytes) -> None:
    """The broker closes a connection on which `data` came, and goes on serving another one."""

    async def test(connect: Connect) -> None:
        async with await connect() as bystander, await connect() as client:
            await bystander.create_topic("t")
            await client.send(data)
            assert await client.receive_frame() is None
            assert (await bystander.produce("t", batch(b"still here"))).error_code == 0

    run_with_broker(data_dir, test)


@pytest.mark.parametrize("size", [-1, 0, 7, -(2**31), 100 * 1024 * 1024 + 1, 2**31 - 1])
def test_a_frame_of_an_impossible_size_closes_the_connection(tmp_path: Path, size: int) -> None:
    check_closes(tmp_path, struct.pack(">i", size) + bytes(16))


@pytest.mark.parametrize("key", [-1, 4, 93, 1000, 32767])
def test_an_api_that_is_not_served_closes_the_connection(tmp_path: Path, key: int) -> None:
    check_closes(tmp_path, sized(header(key, 0) + bytes(20)))


@pytest.mark.parametrize("version", [-1, 14, 32767])
def test_a_version_that_is_not_served_closes_the_connection(tmp_path: Path, version: int) -> None:
    check_closes(tmp_path, sized(header(PRODUCE, version) + bytes(20)))


def test_a_truncated_body_closes_the_connection(tmp_path: Path) -> None:
    whole = frame(PRODUCE, produce_request("t", batch(b"v")), 9)
    check_closes(tmp_path, sized(whole[4:-30]))


def test_a_client_id_longer_than_the_frame_closes_the_connection(tmp_path: Path) -> None:
    check_closes(tmp_path, sized(struct.pack(">hhih", METADATA, 1, 7, 30000) + b"short"))


def test_an_array_count_larger_than_the_frame_closes_the_connection(tmp_path: Path) -> None:
    check_closes(tmp_path, sized(header(METADATA, 1) + struct.pack(">i", 2**31 - 1)))


@pytest.mark.parametrize("version", [5, 99, -1, 32767])
def test_an_unknown_api_versions_version_is_answered_in_version_0(tmp_path: Path, version: int) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await client.send(sized(header(API_VERSIONS, version, 77) + b"garbage"))
            response = await client.receive_frame()
            # Correlation id, error 35, one entry: key 18, versions 0 to 4. What a live Apache Kafka 3.9.1 answers.
            assert response == struct.pack(">ihihhh", 77, 35, 1, API_VERSIONS, 0, 4)
            answer = await client.ask(API_VERSIONS, ApiVersionsRequest("raw", "1"), 4)
            assert answer.error_code == 0

    run_with_broker(tmp_path, test)


@pytest.mark.parametrize(("name", "version"), [("", "1"), ("raw", ""), ("-raw", "1"), ("raw", "1 2"), ("raw\n", "1")])
def test_a_software_name_out_of_pattern_is_an_invalid_request(tmp_path: Path, name: str, version: str) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            answer = await client.ask(API_VERSIONS, ApiVersionsRequest(name, version), 3)
            assert error_name(answer.error_code) == "INVALID_REQUEST"
            assert answer.api_keys == []

    run_with_broker(tmp_path, test)


def with_byte(data: bytes, position: int, value: int) -> bytes:
    changed = bytearray(data)
    changed[position] = value
    return bytes(changed)


@pytest.mark.parametrize(
    ("records", "error"),
    [
        (None, "INVALID_RECORD"),
        (b"", "INVALID_RECORD"),
        (batch(b"a") + batch(b"b"), "INVALID_RECORD"),
        (with_byte(batch(b"value"), -1, 0xFF), "CORRUPT_MESSAGE"),
        (with_byte(batch(b"value"), 16, 1), "INVALID_RECORD"),
        (batch(b"x" * 1_100_000), "MESSAGE_TOO_LARGE"),
        (batch(b"control", control=True), "INVALID_RECORD"),
        (
            batch(b"txn", transactional=True, producer_id=7, producer_epoch=0, base_sequence=0),
            "TRANSACTIONAL_ID_AUTHORIZATION_FAILED",
        ),
    ],
    ids=["null", "empty", "two batches", "bad crc", "magic 1", "too large", "control", "transactional without an id"],
)
def test_records_that_cannot_be_appended_are_refused_and_the_connection_stays(
    tmp_path: Path, records: bytes | None, error: str
) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            answer = await client.produce("t", records)
            assert error_name(answer.error_code) == error
            assert answer.base_offset == -1
            assert (await client.produce("t", batch(b"good"))).base_offset == 0

    run_with_broker(tmp_path, test)


def test_acks_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            assert error_name((await client.produce("t", batch(b"v"), acks=2)).error_code) == "INVALID_REQUIRED_ACKS"

    run_with_broker(tmp_path, test)


def test_a_failed_produce_without_acks_closes_the_connection(tmp_path: Path) -> None:
    check_closes(tmp_path, frame(PRODUCE, produce_request("no-such-topic", batch(b"v"), acks=0), 9))


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "../../etc", "nul\0", "x" * 250, "tab\t", "ümlaut", "a b"])
def test_an_illegal_topic_name_is_refused_and_leaves_nothing_on_disk(tmp_path: Path, name: str) -> None:
    data_dir = tmp_path / "data"

    async def test(connect: Connect) -> None:
        async with await connect() as client:
            created = await client.ask(CREATE_TOPICS, CreateTopicsRequest([CreatableTopic(name, 1, 1)], 1000), 5)
            assert error_name(created.topics[0].error_code) == "INVALID_TOPIC_EXCEPTION"
            asked = MetadataRequest([MetadataRequestTopic(name=name)], allow_auto_topic_creation=True)
            assert error_name((await client.ask(METADATA, asked, 9)).topics[0].error_code) == "INVALID_TOPIC_EXCEPTION"
            assert error_name((await client.fetch(name, 0)).error_code) == "UNKNOWN_TOPIC_OR_PARTITION"
        assert not [entry for entry in data_dir.iterdir() if entry.is_dir()]

    run_with_broker(data_dir, test)
    assert [entry.name for entry in tmp_path.iterdir()] == ["data"]


def test_declared_sizes_cost_no_memory(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as bystander:
            await bystander.create_topic("t")
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            clients = [await connect() for _ in range(50)]
            for client in clients:
                await client.send(struct.pack(">i", 100 * 1024 * 1024) + b"x" * 100)
            assert (await bystander.produce("t", batch(b"v"))).error_code == 0
            grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            assert grown_kib < 50 * 1024
            for client in clients:
                await client.stream.aclose()

    run_with_broker(tmp_path, test)


async def start(config: BrokerConfig) -> None:
    await serve(config, started=lambda _: None)


def refused_start(config: BrokerConfig) -> Callable[[Connect], Awaitable[None]]:
    async def test(connect: Connect) -> None:
        with pytest.raises(StorageError, match="in use"):
            await start(config)
        async with await connect() as client:
            await client.create_topic("still-served")

    return test


def test_a_data_directory_of_a_running_broker_is_refused(tmp_path: Path) -> None:
    config = BrokerConfig.of({"listeners": "PLAINTEXT://127.0.0.1:0", "log.dirs": str(tmp_path)})
    run_with_broker(tmp_path, refused_start(config))


def test_a_port_in_use_is_refused_and_the_data_is_closed_cleanly(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            port = client.stream.socket.getpeername()[1]
        config = BrokerConfig.of({"listeners": f"PLAINTEXT://127.0.0.1:{port}", "log.dirs": str(tmp_path / "second")})
        with pytest.raises(OSError, match="in use") as caught:
            await start(config)
        assert caught.value.errno == errno.EADDRINUSE
        assert (tmp_path / "second" / ".kafka_cleanshutdown").exists()

    run_with_broker(tmp_path / "first", test)


@pytest.mark.parametrize("kind", ["index", "timeindex"])
def test_a_corrupt_index_is_rebuilt_at_the_start(tmp_path: Path, kind: str) -> None:
    async def fill(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t", index_interval_bytes="0")
            for number in range(50):
                await client.produce("t", batch(b"value %d" % number))

    run_with_broker(tmp_path, fill)
    [index] = (tmp_path / "t-0").glob(f"*.{kind}")
    index.write_bytes(os.urandom(len(index.read_bytes()) - 3))

    async def read(connect: Connect) -> None:
        async with await connect() as client:
            await check_values(client, 50)

    run_with_broker(tmp_path, read)


@pytest.mark.parametrize("cut", [1, 10, 60, 75])
def test_a_torn_tail_is_cut_at_the_start(tmp_path: Path, cut: int) -> None:
    async def fill(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            for number in range(20):
                await client.produce("t", batch(b"value %d" % number))

    run_with_broker(tmp_path, fill)
    (tmp_path / ".kafka_cleanshutdown").unlink()
    (tmp_path / "recovery-point-offset-checkpoint").unlink()
    [segment] = (tmp_path / "t-0").glob("*.log")
    os.truncate(segment, segment.stat().st_size - cut)

    async def read(connect: Connect) -> None:
        async with await connect() as client:
            await check_values(client, 19)
            assert (await client.produce("t", batch(b"value 19"))).base_offset == 19

    run_with_broker(tmp_path, read)


async def check_values(client: RawClient, count: int) -> None:
    """Topic t holds `count` records with the values that the test wrote, each found by its own offset too."""
    from kpy.records.batch import iter_batches, iter_records

    answer = await client.fetch("t", 0)
    values = [record.value for _, each in iter_batches(answer.records) for record in iter_records(each)]
    assert values == [b"value %d" % number for number in range(count)]
    for number in range(count):
        answer = await client.fetch("t", number)
        first = next(iter_batches(answer.records))
        assert first[0].base_offset == number


def test_a_batch_at_the_limit_is_taken_and_one_byte_more_is_not(tmp_path: Path) -> None:
    def sized_batch(size: int) -> bytes:
        overhead = len(build_batch([NewRecord(1, None, b"x" * 5000)])) - 5000
        data = build_batch([NewRecord(1, None, b"x" * (size - overhead))])
        assert len(data) == size
        return data

    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t", max_message_bytes="6000")
            assert (await client.produce("t", sized_batch(6000))).error_code == 0
            assert error_name((await client.produce("t", sized_batch(6001))).error_code) == "MESSAGE_TOO_LARGE"

    run_with_broker(tmp_path, test)


def test_a_client_that_never_reads_does_not_stop_the_others(tmp_path: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as greedy, await connect() as client:
            await client.create_topic("t")
            for _ in range(20):
                await client.produce("t", batch(b"x" * 900_000))
            request = frame(FETCH, fetch_everything(), 12)
            with trio.move_on_after(0.5):
                for _ in range(2000):
                    await greedy.send(request)
            assert (await client.produce("t", batch(b"v"))).error_code == 0

    run_with_broker(tmp_path, test)


def fetch_everything() -> object:
    from kpy.wire.fetch import FetchPartition, FetchRequest, FetchTopic

    position = FetchPartition(0, fetch_offset=0, partition_max_bytes=50 << 20)
    return FetchRequest(max_bytes=50 << 20, topics=[FetchTopic("t", partitions=[position])])


@pytest.mark.parametrize(
    "settings",
    [
        {"max.connections": "2"},
        {"max.connections.per.ip": "2"},
        {"max.connections.per.ip": "100", "max.connections.per.ip.overrides": "127.0.0.1:2,10.0.0.1:50"},
    ],
)
def test_connections_beyond_a_limit_are_closed(tmp_path: Path, settings: dict[str, str]) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as first, await connect() as second:
            for client in (first, second):
                assert (await client.ask(API_VERSIONS, ApiVersionsRequest("raw", "1"), 3)).error_code == 0
            async with await connect() as third:
                assert await third.receive_frame() is None

    run_with_broker(tmp_path, test, settings)
