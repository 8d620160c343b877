"""Each topic config that acts on a log takes effect on a running broker when it is altered."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from raw_client import Connect, RawClient, batch, error_name, run_with_broker

from kpy.records.batch import BatchHeader, NewRecord, build_batch, iter_batches, iter_records
from kpy.records.compression import Codec
from kpy.server import now_ms
from kpy.wire.incremental_alter_configs import AlterableConfig, AlterConfigsResource, IncrementalAlterConfigsRequest

TOPIC, BROKER = 2, 4
SETTINGS = {
    "log.retention.check.interval.ms": "20",
    "replica.high.watermark.checkpoint.interval.ms": "20",
    "log.cleaner.backoff.ms": "20",
}
DAY_MS = 86_400_000


async def alter(client: RawClient, resource_type: int = TOPIC, name: str = "t", **configs: str) -> None:
    """Config names have _ for dots."""
    changes = [AlterableConfig(key.replace("_", "."), 0, value) for key, value in configs.items()]
    request = IncrementalAlterConfigsRequest([AlterConfigsResource(resource_type, name, changes)])
    (response,) = (await client.ask(44, request, 1)).responses
    assert response.error_code == 0, response.error_message


async def until(client: RawClient, is_so: Callable[[], bool]) -> None:
    """Waits for a chore of the broker; run_with_broker sets the limit."""
    while not is_so():
        await client.fetch("t", 1 << 40)


async def produce(client: RawClient, *values: bytes, key: bytes | None = None, timestamp: int | None = None) -> Any:
    timestamp = now_ms() if timestamp is None else timestamp
    return await client.produce("t", build_batch([NewRecord(timestamp, key, value) for value in values]))


async def header_at(client: RawClient, offset: int) -> BatchHeader:
    answer = await client.fetch("t", offset)
    return next(header for header, _ in iter_batches(answer.records))


async def values_from(client: RawClient, offset: int) -> list[bytes | None]:
    """What one fetch gives: of a log with several segments, the first of them."""
    answer = await client.fetch("t", offset)
    return [record.value for _, data in iter_batches(answer.records) for record in iter_records(data)]


def logs(data_dir: Path) -> list[Path]:
    return sorted((data_dir / "t-0").glob("*.log"))


def size_bytes(data_dir: Path) -> int:
    return sum(path.stat().st_size for path in logs(data_dir))


def with_topic(
    data_dir: Path, test: Callable[[RawClient], Awaitable[None]], settings: dict[str, str] | None = None, **configs: str
) -> None:
    async def main(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t", **configs)
            await test(client)

    run_with_broker(data_dir, main, SETTINGS | (settings or {}))


def test_segment_bytes(tmp_path: Path) -> None:
    async def test(client: RawClient) -> None:
        await produce(client, b"x" * 100)
        await produce(client, b"x" * 100)
        assert len(logs(tmp_path)) == 1
        await alter(client, segment_bytes="300")
        await produce(client, b"x" * 100)
        assert len(logs(tmp_path)) == 2
        assert error_name((await produce(client, b"x" * 300)).error_code) == "RECORD_LIST_TOO_LARGE"

    with_topic(tmp_path, test)


def test_segment_ms(tmp_path: Path) -> None:
    async def test(client: RawClient) -> None:
        await produce(client, b"v", timestamp=now_ms() - 10_000)
        await produce(client, b"v")
        assert len(logs(tmp_path)) == 1
        await alter(client, segment_ms="5000")
        await produce(client, b"v")
        assert len(logs(tmp_path)) == 2

    with_topic(tmp_path, test)


def test_segment_index_bytes_and_index_interval_bytes(tmp_path: Path) -> None:
    async def test(client: RawClient) -> None:
        await produce(client, b"x" * 100)
        await alter(client, index_interval_bytes="0", segment_index_bytes="36", segment_bytes="100000")
        for _ in range(4):
            await produce(client, b"x" * 100)
        assert len(logs(tmp_path)) == 1, "a segment has got a new interval before it ended"
        await alter(client, segment_bytes="200")
        await produce(client, b"x" * 100)
        await alter(client, segment_bytes="100000")
        for _ in range(16):
            await produce(client, b"x" * 100)
        assert len(logs(tmp_path)) > 3

    with_topic(tmp_path, test)


@pytest.mark.parametrize("config", [{"retention_ms": "3600000"}, {"retention_bytes": "0"}])
def test_retention(tmp_path: Path, config: dict[str, str]) -> None:
    async def test(client: RawClient) -> None:
        for _ in range(3):
            await produce(client, b"x" * 100, timestamp=now_ms() - DAY_MS)
        assert len(logs(tmp_path)) == 3
        await alter(client, **config)
        await until(client, lambda: not list((tmp_path / "t-0").glob(f"{0:020d}.*")))
        while (await client.fetch("t", 3)).log_start_offset < 3:
            pass
        assert (await produce(client, b"v")).base_offset == 3

    with_topic(tmp_path, test, segment_bytes="200", retention_ms="-1", file_delete_delay_ms="0")


def test_file_delete_delay_ms(tmp_path: Path) -> None:
    def deleted() -> set[str]:
        return {path.name for path in (tmp_path / "t-0").glob("*.log.deleted")}

    async def test(client: RawClient) -> None:
        await produce(client, b"x" * 100, timestamp=0)
        await until(client, lambda: f"{0:020d}.log.deleted" in deleted())
        await alter(client, file_delete_delay_ms="0")
        await produce(client, b"x" * 100, timestamp=0)
        await until(client, lambda: len(logs(tmp_path)) == 1 and logs(tmp_path)[0].name == f"{2:020d}.log")
        await until(client, lambda: deleted() == {f"{0:020d}.log.deleted"})

    with_topic(tmp_path, test, retention_ms="1000")


async def fill_with_duplicates(client: RawClient, data_dir: Path) -> None:
    for number in range(6):
        await produce(client, b"%d " % number + b"x" * 110, key=b"key")
    assert size_bytes(data_dir) > 1000


@pytest.mark.parametrize(
    ("before", "change"),
    [
        ({"cleanup_policy": "delete", "min_cleanable_dirty_ratio": "0"}, {"cleanup_policy": "compact"}),
        ({"cleanup_policy": "delete", "min_cleanable_dirty_ratio": "0"}, {"cleanup_policy": "compact,delete"}),
        ({"cleanup_policy": "compact", "min_cleanable_dirty_ratio": "1"}, {"min_cleanable_dirty_ratio": "0"}),
        ({"cleanup_policy": "compact", "min_cleanable_dirty_ratio": "1"}, {"max_compaction_lag_ms": "1"}),
        (
            {
                "cleanup_policy": "compact",
                "min_cleanable_dirty_ratio": "0",
                "min_compaction_lag_ms": "86400000",
            },
            {"min_compaction_lag_ms": "0"},
        ),
    ],
)
def test_compaction_begins(tmp_path: Path, before: dict[str, str], change: dict[str, str]) -> None:
    async def test(client: RawClient) -> None:
        await fill_with_duplicates(client, tmp_path)
        await client.fetch("t", 6, max_wait_ms=60)
        assert size_bytes(tmp_path) > 1000, "it has begun before it should"
        await alter(client, **change)
        await until(client, lambda: size_bytes(tmp_path) < 500)
        assert await values_from(client, 0) == [b"4 " + b"x" * 110]

    with_topic(tmp_path, test, segment_bytes="200", **before)


def test_cleanup_policy_says_whether_records_need_keys(tmp_path: Path) -> None:
    async def test(client: RawClient) -> None:
        assert (await produce(client, b"v")).error_code == 0
        await alter(client, cleanup_policy="compact")
        assert error_name((await produce(client, b"v")).error_code) == "INVALID_RECORD"
        await alter(client, cleanup_policy="delete")
        assert (await produce(client, b"v")).error_code == 0

    with_topic(tmp_path, test)


def test_max_message_bytes(tmp_path: Path) -> None:
    async def test(client: RawClient) -> None:
        assert (await produce(client, b"x" * 1000)).error_code == 0
        await alter(client, max_message_bytes="500")
        assert error_name((await produce(client, b"x" * 1000)).error_code) == "MESSAGE_TOO_LARGE"

    with_topic(tmp_path, test)


def test_message_timestamp_type(tmp_path: Path) -> None:
    async def test(client: RawClient) -> None:
        assert (await produce(client, b"v", timestamp=5)).log_append_time_ms == -1
        await alter(client, message_timestamp_type="LogAppendTime")
        appended = (await produce(client, b"v", timestamp=5)).log_append_time_ms
        assert abs(appended - now_ms()) < DAY_MS
        header = await header_at(client, 1)
        assert (header.is_log_append_time, header.max_timestamp) == (True, appended)
        await alter(client, message_timestamp_type="CreateTime")
        assert (await produce(client, b"v", timestamp=5)).log_append_time_ms == -1

    with_topic(tmp_path, test, retention_ms="-1")


@pytest.mark.parametrize(
    ("config", "age_ms"),
    [
        ("message_timestamp_before_max_ms", 2 * DAY_MS),
        ("message_timestamp_after_max_ms", -2 * DAY_MS),
        ("message_timestamp_difference_max_ms", 2 * DAY_MS),
        ("message_timestamp_difference_max_ms", -2 * DAY_MS),
    ],
)
def test_bounds_of_timestamps(tmp_path: Path, config: str, age_ms: int) -> None:
    async def test(client: RawClient) -> None:
        assert (await produce(client, b"v", timestamp=now_ms() - age_ms)).error_code == 0
        await alter(client, **{config: str(DAY_MS)})
        refused = await produce(client, b"v", timestamp=now_ms() - age_ms)
        assert error_name(refused.error_code) == "INVALID_TIMESTAMP"
        assert (await produce(client, b"v", timestamp=now_ms() + age_ms // 4)).error_code == 0

    with_topic(tmp_path, test, retention_ms="-1")


@pytest.mark.parametrize(
    ("compression_type", "codec"),
    [
        ("uncompressed", Codec.NONE),
        ("gzip", Codec.GZIP),
        ("snappy", Codec.SNAPPY),
        ("lz4", Codec.LZ4),
        ("zstd", Codec.ZSTD),
    ],
)
def test_compression_type(tmp_path: Path, compression_type: str, codec: Codec) -> None:
    async def test(client: RawClient) -> None:
        sent = Codec.SNAPPY if codec is Codec.NONE else Codec.NONE
        data = batch(b"x" * 1000, b"y" * 1000, codec=sent)
        await client.produce("t", data)
        assert (await header_at(client, 0)).codec is sent, "producer keeps what the producer chose"
        await alter(client, compression_type=compression_type)
        await client.produce("t", data)
        assert (await header_at(client, 2)).codec is codec
        assert await values_from(client, 2) == [b"x" * 1000, b"y" * 1000]

    with_topic(tmp_path, test)


@pytest.mark.parametrize(("codec", "low", "high"), [("gzip", 1, 9), ("lz4", 1, 17), ("zstd", -100, 19)])
def test_compression_levels(tmp_path: Path, codec: str, low: int, high: int) -> None:
    text = b" ".join(b"%d %d" % (number, number * number % 977) for number in range(5000))

    async def test(client: RawClient) -> None:
        sizes: list[int] = []
        for offset, level in enumerate((low, high)):
            await alter(client, **{f"compression_{codec}_level": str(level)})
            await client.produce("t", batch(text))
            sizes.append((await header_at(client, offset)).batch_length)
        assert sizes[1] < sizes[0]

    with_topic(tmp_path, test, compression_type=codec)


@pytest.mark.parametrize("config", [{"flush_messages": "1"}, {"flush_ms": "1"}])
def test_flushes_move_the_recovery_point(tmp_path: Path, config: dict[str, str]) -> None:
    checkpoint = tmp_path / "recovery-point-offset-checkpoint"

    async def test(client: RawClient) -> None:
        await produce(client, b"v")
        await client.fetch("t", 1, max_wait_ms=60)
        assert "t 0 1\n" not in checkpoint.read_text(), "nothing asked for a flush yet"
        await alter(client, **config)
        await produce(client, b"v")
        await until(client, lambda: "t 0 2\n" in checkpoint.read_text())

    with_topic(tmp_path, test)


def test_preallocate(tmp_path: Path) -> None:
    async def test(client: RawClient) -> None:
        await produce(client, b"x" * 600)
        assert logs(tmp_path)[0].stat().st_size < 1000
        await alter(client, preallocate="true")
        await produce(client, b"x" * 600)
        assert logs(tmp_path)[1].stat().st_size == 1000
        assert await values_from(client, 1) == [b"x" * 600]
        await produce(client, b"x" * 600)
        assert logs(tmp_path)[1].stat().st_size < 1000, "a segment that is complete keeps nothing in reserve"

    with_topic(tmp_path, test, segment_bytes="1000")
    assert all(path.stat().st_size < 1000 for path in logs(tmp_path)), "nor does a log that is closed"


def test_message_downconversion_enable(tmp_path: Path) -> None:
    async def test(client: RawClient) -> None:
        await produce(client, b"v")
        assert (await client.fetch("t", 0, version=3)).error_code == 0
        await alter(client, message_downconversion_enable="false")
        assert error_name((await client.fetch("t", 0, version=3)).error_code) == "UNSUPPORTED_VERSION"

    with_topic(tmp_path, test)


@pytest.mark.parametrize("name", ["", "1"])
def test_defaults_of_the_broker_reach_the_logs_that_have_no_config_of_their_own(tmp_path: Path, name: str) -> None:
    async def test(client: RawClient) -> None:
        await produce(client, b"x" * 100)
        await alter(client, BROKER, name, log_segment_bytes="200", compression_type="gzip")
        await produce(client, b"x" * 100)
        assert len(logs(tmp_path)) == 2
        assert (await header_at(client, 1)).codec is Codec.GZIP
        await alter(client, compression_type="producer")
        await produce(client, b"x" * 100)
        assert (await header_at(client, 2)).codec is Codec.NONE

    with_topic(tmp_path, test)


def test_pause_of_the_cleaner_is_altered(tmp_path: Path) -> None:
    async def test(client: RawClient) -> None:
        await fill_with_duplicates(client, tmp_path)
        await alter(client, BROKER, "", log_cleaner_threads="1", log_cleaner_backoff_ms="20")
        await until(client, lambda: size_bytes(tmp_path) < 500)

    configs = {"cleanup_policy": "compact", "min_cleanable_dirty_ratio": "0", "segment_bytes": "200"}
    with_topic(tmp_path, test, {"log.cleaner.backoff.ms": "200", "log.cleaner.threads": "0"}, **configs)


def test_slow_cleaner_does_not_hold_up_the_end_of_the_broker(tmp_path: Path) -> None:
    async def test(client: RawClient) -> None:
        await fill_with_duplicates(client, tmp_path)
        await alter(client, cleanup_policy="compact")
        # At one byte a second the round lasts for an hour. It has begun when a fetch of two rounds' time has ended.
        await client.fetch("t", 6, max_wait_ms=60)

    slow = {"log.cleaner.io.max.bytes.per.second": "1"}
    with_topic(tmp_path, test, slow, segment_bytes="200", min_cleanable_dirty_ratio="0")
    assert size_bytes(tmp_path) > 1000
