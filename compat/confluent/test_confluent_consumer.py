"""librdkafka's consumer outside groups: ends, watermarks, times, seeks, pauses, and what it does out of range."""

import threading
import time

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, TopicPartition

from compat.confluent.clients import (
    Clients,
    numbered,
    offsets_and_values,
    read,
    read_to_end,
    send_all,
    values_of,
)
from compat.harness import unique, wait_until


def test_earliest_reads_all_and_latest_only_what_comes_after(clients: Clients) -> None:
    topic = clients.topic("reset")
    producer = clients.producer()
    send_all(producer, topic, numbered(10, "old"))
    earliest = clients.reader(TopicPartition(topic, 0))
    latest = clients.reader(TopicPartition(topic, 0), settings={"auto.offset.reset": "latest"})

    # The end is reported once the position at the end is known.
    assert read_to_end(latest) == []
    send_all(producer, topic, numbered(5, "new"))

    assert values_of(read(earliest, 15)) == numbered(10, "old") + numbered(5, "new")
    assert values_of(read(latest, 5)) == numbered(5, "new")


def test_the_end_of_a_partition_is_reported_each_time_it_is_reached(clients: Clients) -> None:
    topic = clients.topic("eof")
    producer = clients.producer()
    reader = clients.reader(TopicPartition(topic, 0))

    ends: list[int | None] = []
    for round_number in range(3):
        message = None
        while message is None or message.error() is None:
            message = reader.poll(10)
            assert message is not None
        assert message.error().code() == KafkaError._PARTITION_EOF
        ends.append(message.offset())
        send_all(producer, topic, numbered(2, f"round {round_number}"))

    assert ends == [0, 2, 4]


def test_a_consumer_starts_at_the_offset_of_its_assignment(clients: Clients) -> None:
    topic = clients.topic("start")
    send_all(clients.producer(), topic, numbered(30))

    def first_from(offset: int) -> list[tuple[int | None, bytes | None]]:
        return offsets_and_values(read_to_end(clients.reader(TopicPartition(topic, 0, offset))))

    assert first_from(17) == list(enumerate(numbered(30)))[17:]
    assert first_from(OFFSET_BEGINNING) == list(enumerate(numbered(30)))
    assert first_from(OFFSET_END) == []


def test_seek_and_position(clients: Clients) -> None:
    topic = clients.topic("seek")
    send_all(clients.producer(), topic, numbered(50))
    reader = clients.reader(TopicPartition(topic, 0))
    read_to_end(reader)

    for offset in (42, 0, 49):
        reader.seek(TopicPartition(topic, 0, offset))
        assert offsets_and_values(read_to_end(reader)) == list(enumerate(numbered(50)))[offset:]
        assert reader.position([TopicPartition(topic, 0)])[0].offset == 50


def test_seek_into_the_middle_of_a_compressed_batch(clients: Clients) -> None:
    topic = clients.topic("middle")
    send_all(clients.producer({"compression.type": "lz4", "linger.ms": 100}), topic, numbered(200))
    reader = clients.reader(TopicPartition(topic, 0, 150))

    assert offsets_and_values(read_to_end(reader)) == list(enumerate(numbered(200)))[150:]


def test_pause_and_resume(clients: Clients) -> None:
    topic = clients.topic("pause", partitions=2)
    paused, running = TopicPartition(topic, 0), TopicPartition(topic, 1)
    producer = clients.producer()
    reader = clients.reader(paused, running)
    read_to_end(reader)
    reader.pause([paused])
    send_all(producer, topic, numbered(10, "paused"), partition=0)
    send_all(producer, topic, numbered(10, "running"), partition=1)

    assert values_of(read(reader, 10)) == numbered(10, "running")
    reader.resume([paused])
    assert values_of(read(reader, 10)) == numbered(10, "paused")


def test_watermarks(clients: Clients) -> None:
    topic = clients.topic("watermarks", partitions=2)
    send_all(clients.producer(), topic, numbered(7), partition=0)
    reader = clients.reader(TopicPartition(topic, 0))

    assert reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=10) == (0, 7)
    assert reader.get_watermark_offsets(TopicPartition(topic, 1), timeout=10) == (0, 0)
    read_to_end(reader)
    _, cached_high = reader.get_watermark_offsets(TopicPartition(topic, 0), cached=True)
    assert cached_high == 7


def test_offsets_for_times(clients: Clients) -> None:
    topic = clients.topic("times", partitions=2)
    start_ms = 1_700_000_000_000
    producer = clients.producer({"linger.ms": 200})
    for number in range(10):
        producer.produce(topic, b"v", partition=0, timestamp=start_ms + number * 1000)
    producer.flush(10)
    consumer = clients.consumer()

    def offset_at(timestamp_ms: int, partition: int = 0) -> int:
        (found,) = consumer.offsets_for_times([TopicPartition(topic, partition, timestamp_ms)], timeout=10)
        assert found.error is None
        return found.offset

    assert offset_at(0) == 0
    assert offset_at(start_ms + 4000) == 4
    assert offset_at(start_ms + 4001) == 5
    assert offset_at(start_ms + 9000) == 9
    assert offset_at(start_ms + 9001) == OFFSET_END
    assert offset_at(start_ms, partition=1) == OFFSET_END


def test_an_offset_out_of_range_is_reported_or_reset(clients: Clients) -> None:
    topic = clients.topic("range")
    send_all(clients.producer(), topic, numbered(5))

    strict = clients.reader(TopicPartition(topic, 0, 100), settings={"auto.offset.reset": "error"})
    message = strict.poll(10)
    assert message is not None
    assert message.error().code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE)

    lenient = clients.reader(TopicPartition(topic, 0, 100))
    assert values_of(read_to_end(lenient)) == numbered(5)


def test_a_batch_larger_than_every_limit_of_the_consumer_still_comes(clients: Clients) -> None:
    """KIP-74."""
    topic = clients.topic("progress")
    values = [bytes([number]) * 20_000 for number in range(5)]
    send_all(clients.producer({"batch.num.messages": 1}), topic, values)
    reader = clients.reader(
        TopicPartition(topic, 0),
        settings={"fetch.message.max.bytes": 1000, "fetch.max.bytes": 1000, "message.max.bytes": 1000},
    )

    assert values_of(read_to_end(reader)) == values


def test_a_waiting_fetch_is_woken_by_each_record(clients: Clients) -> None:
    """Each record is produced only after the one before it was received.

    A broker that lets the fetch wait its 10 s out would need minutes, which the time limit of the test does not give.
    """
    topic = clients.topic("ping")
    producer = clients.producer({"linger.ms": 0})
    reader = clients.reader(TopicPartition(topic, 0), settings={"fetch.wait.max.ms": 10_000})
    received: list[bytes | None] = []
    done = threading.Event()

    def receive(consumer: Consumer) -> None:
        while not done.is_set():
            message = consumer.poll(0.1)
            if message is not None and message.error() is None:
                received.append(message.value())

    receiver = threading.Thread(target=receive, args=(reader,))
    receiver.start()
    try:
        for number in range(30):
            send_all(producer, topic, [b"%d" % number])
            wait_until(lambda: len(received) > number, f"record {number}")  # noqa: B023 - called in this round only
    finally:
        done.set()
        receiver.join()

    assert received == [b"%d" % number for number in range(30)]


def test_too_few_bytes_come_when_the_wait_is_over(clients: Clients) -> None:
    topic = clients.topic("min-bytes")
    reader = clients.reader(TopicPartition(topic, 0), settings={"fetch.min.bytes": 100_000, "fetch.wait.max.ms": 200})
    send_all(clients.producer(), topic, numbered(3))

    assert values_of(read(reader, 3)) == numbered(3)


def test_reading_uncommitted_sees_the_same_as_the_default(clients: Clients) -> None:
    """librdkafka reads committed records by default."""
    topic = clients.topic("isolation")
    send_all(clients.producer(), topic, numbered(20))

    for level in ("read_committed", "read_uncommitted"):
        reader = clients.reader(TopicPartition(topic, 0), settings={"isolation.level": level})
        assert values_of(read_to_end(reader)) == numbered(20)


def test_records_are_consumed_in_batches(clients: Clients) -> None:
    topic = clients.topic("consume")
    send_all(clients.producer(), topic, numbered(100))
    consumer = clients.consumer()
    consumer.assign([TopicPartition(topic, 0, 0)])

    received: list[bytes | None] = []
    deadline = time.monotonic() + 10
    while len(received) < 100 and time.monotonic() < deadline:
        batch = consumer.consume(30, timeout=1)
        assert len(batch) <= 30
        received += values_of(batch)

    assert received == numbered(100)


def test_metadata_lists_topics_partitions_and_the_broker(clients: Clients) -> None:
    topic = clients.topic("listed", partitions=3)
    consumer = clients.consumer()

    metadata = consumer.list_topics(timeout=10)

    host, port = clients.bootstrap.split(":")
    ((broker_id, broker),) = metadata.brokers.items()
    assert (broker.host, broker.port) == (host, int(port))
    assert metadata.controller_id == broker_id
    assert len(metadata.cluster_id) == 22
    partitions = metadata.topics[topic].partitions
    assert sorted(partitions) == [0, 1, 2]
    assert {(p.leader, tuple(p.replicas), tuple(p.isrs)) for p in partitions.values()} == {
        (broker_id, (broker_id,), (broker_id,))
    }
    missing = unique("missing")
    unknown = consumer.list_topics(missing, timeout=10).topics[missing]
    assert unknown.error is not None
    assert unknown.error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_subscribing_to_an_unknown_topic_is_reported(clients: Clients) -> None:
    topic = unique("missing")
    consumer = clients.consumer({"allow.auto.create.topics": False})
    consumer.subscribe([topic])
    codes: list[int] = []

    def reported() -> bool:
        message = consumer.poll(0.1)
        if message is not None:
            codes.append(message.error().code())
        return bool(codes)

    wait_until(reported, "the error")
    assert codes[0] == KafkaError.UNKNOWN_TOPIC_OR_PART
