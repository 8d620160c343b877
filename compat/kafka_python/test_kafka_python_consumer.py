"""kafka-python's consumer without a group: where it starts, where it stands, what it asks the broker about offsets."""

import threading

import pytest
from kafka import TopicPartition
from kafka.errors import OffsetOutOfRangeError
from kafka.structs import OffsetAndTimestamp

from compat.harness import unique, wait_until
from compat.kafka_python.clients import (
    Clients,
    numbered,
    poll_records,
    read,
    read_to_end,
    send_all,
    values_of,
)


def test_earliest_reads_all_and_latest_only_what_comes_after(clients: Clients) -> None:
    partition = TopicPartition(clients.topic("reset"), 0)
    producer = clients.producer()
    send_all(producer, partition.topic, numbered(10, "old"))
    earliest = clients.reader(partition, auto_offset_reset="earliest")
    latest = clients.reader(partition, auto_offset_reset="latest")

    assert latest.position(partition) == 10
    send_all(producer, partition.topic, numbered(5, "new"))

    assert values_of(read_to_end(earliest)) == numbered(10, "old") + numbered(5, "new")
    assert values_of(read_to_end(latest)) == numbered(5, "new")


def test_seek_and_position(clients: Clients) -> None:
    partition = TopicPartition(clients.topic("seek"), 0)
    send_all(clients.producer(), partition.topic, numbered(50))
    consumer = clients.reader(partition, max_poll_records=10)

    consumer.seek(partition, 42)
    assert consumer.position(partition) == 42
    assert values_of(read_to_end(consumer)) == numbered(50)[42:]
    assert consumer.position(partition) == 50

    consumer.seek_to_beginning(partition)
    assert consumer.position(partition) == 0
    assert values_of(read(consumer, 10)) == numbered(10)
    assert consumer.position(partition) == 10

    consumer.seek_to_end(partition)
    assert consumer.position(partition) == 50


def test_seek_into_the_middle_of_a_compressed_batch(clients: Clients) -> None:
    partition = TopicPartition(clients.topic("middle"), 0)
    send_all(clients.producer(compression_type="gzip", linger_ms=100), partition.topic, numbered(100))
    consumer = clients.reader(partition)

    for offset in (99, 50, 1):
        consumer.seek(partition, offset)
        records = read_to_end(consumer)
        assert [(record.offset, record.value) for record in records] == list(enumerate(numbered(100)))[offset:]


def test_beginning_and_end_offsets(clients: Clients) -> None:
    topic = clients.topic("ends", partitions=3)
    partitions = [TopicPartition(topic, index) for index in range(3)]
    producer = clients.producer()
    send_all(producer, topic, numbered(7), partition=0)
    send_all(producer, topic, numbered(3), partition=2)
    consumer = clients.consumer()

    assert consumer.beginning_offsets(partitions) == dict.fromkeys(partitions, 0)
    assert consumer.end_offsets(partitions) == dict(zip(partitions, (7, 0, 3), strict=True))


def test_the_high_watermark_comes_with_the_records(clients: Clients) -> None:
    partition = TopicPartition(clients.topic("highwater"), 0)
    send_all(clients.producer(), partition.topic, numbered(12))
    consumer = clients.reader(partition, max_poll_records=1)

    read(consumer, 1)

    assert consumer.highwater(partition) == 12


def test_offsets_for_times(clients: Clients) -> None:
    topic = clients.topic("times", partitions=2)
    partition, empty = TopicPartition(topic, 0), TopicPartition(topic, 1)
    start_ms = 1_700_000_000_000
    # One batch, so that the broker must look inside it.
    producer = clients.producer(linger_ms=200)
    for number in range(10):
        producer.send(topic, b"v", partition=0, timestamp_ms=start_ms + number * 1000)
    producer.flush()
    consumer = clients.consumer()

    def found(timestamp_ms: int) -> tuple[int, int] | None:
        at: OffsetAndTimestamp | None = consumer.offsets_for_times({partition: timestamp_ms})[partition]
        return None if at is None else (at.offset, at.timestamp)

    assert found(0) == (0, start_ms)
    assert found(start_ms) == (0, start_ms)
    assert found(start_ms + 4000) == (4, start_ms + 4000)
    assert found(start_ms + 4001) == (5, start_ms + 5000)
    assert found(start_ms + 9000) == (9, start_ms + 9000)
    assert found(start_ms + 9001) is None
    assert consumer.offsets_for_times({empty: start_ms}) == {empty: None}


def test_offsets_for_times_with_timestamps_out_of_order(clients: Clients) -> None:
    partition = TopicPartition(clients.topic("unordered-times"), 0)
    producer = clients.producer()
    start_ms = 1_700_000_000_000
    for delta_ms in (5000, 1000, 9000, 2000):
        producer.send(partition.topic, b"v", timestamp_ms=start_ms + delta_ms).get(timeout=10)
    consumer = clients.consumer()

    def offset_at(timestamp_ms: int) -> int:
        return consumer.offsets_for_times({partition: timestamp_ms})[partition].offset

    # The first record, in the order of offsets, that is not older.
    assert offset_at(start_ms + 500) == 0
    assert offset_at(start_ms + 5001) == 2
    assert offset_at(start_ms + 9000) == 2


def test_pause_and_resume(clients: Clients) -> None:
    topic = clients.topic("pause", partitions=2)
    paused, running = TopicPartition(topic, 0), TopicPartition(topic, 1)
    producer = clients.producer()
    consumer = clients.reader(paused, running)
    consumer.pause(paused)
    send_all(producer, topic, numbered(10, "paused"), partition=0)
    send_all(producer, topic, numbered(10, "running"), partition=1)

    assert values_of(read(consumer, 10)) == numbered(10, "running")
    assert consumer.position(paused) == 0

    consumer.resume(paused)
    assert values_of(read(consumer, 10)) == numbered(10, "paused")


def test_an_offset_out_of_range_is_reported_or_reset(clients: Clients) -> None:
    partition = TopicPartition(clients.topic("range"), 0)
    send_all(clients.producer(), partition.topic, numbered(5))

    strict = clients.reader(partition, auto_offset_reset="none")
    strict.seek(partition, 100)
    with pytest.raises(OffsetOutOfRangeError):
        read(strict, 1)

    lenient = clients.reader(partition, auto_offset_reset="earliest")
    lenient.seek(partition, 100)
    assert values_of(read(lenient, 5)) == numbered(5)


def test_a_batch_larger_than_every_limit_of_the_consumer_still_comes(clients: Clients) -> None:
    """KIP-74: the first batch of a response is whole, whatever the limits."""
    partition = TopicPartition(clients.topic("progress"), 0)
    values = [bytes([number]) * 20_000 for number in range(5)]
    send_all(clients.producer(), partition.topic, values)
    consumer = clients.reader(partition, max_partition_fetch_bytes=1000, fetch_max_bytes=1000)

    assert values_of(read_to_end(consumer)) == values


def test_small_fetches_lose_nothing(clients: Clients) -> None:
    topic = clients.topic("small", partitions=3)
    producer = clients.producer(batch_size=500)
    for number in range(600):
        producer.send(topic, b"%05d" % number * 10, partition=number % 3)
    producer.flush()
    consumer = clients.reader(
        *(TopicPartition(topic, index) for index in range(3)),
        max_partition_fetch_bytes=1500,
        fetch_max_bytes=3000,
        max_poll_records=7,
    )

    records = read_to_end(consumer)

    for index in range(3):
        values = [record.value for record in records if record.partition == index]
        assert values == [b"%05d" % number * 10 for number in range(index, 600, 3)]


@pytest.mark.parametrize("sessions", [True, False])
def test_many_partitions_with_and_without_fetch_sessions(clients: Clients, sessions: bool) -> None:
    """KIP-227: a session leaves out what has not changed, and must not leave out anything else."""
    topic = clients.topic("sessions", partitions=20)
    producer = clients.producer()
    consumer = clients.reader(
        *(TopicPartition(topic, index) for index in range(20)),
        enable_incremental_fetch_sessions=sessions,
        fetch_max_wait_ms=100,
    )
    received: dict[int, list[bytes]] = {index: [] for index in range(20)}

    for round_number in range(5):
        for index in range(round_number, 20, 3):
            producer.send(topic, b"%d in %d" % (round_number, index), partition=index)
        producer.flush()
        for record in read_to_end(consumer):
            received[record.partition].append(record.value)

    assert received == {
        index: [b"%d in %d" % (number, index) for number in range(5) if number <= index and (index - number) % 3 == 0]
        for index in range(20)
    }


def test_a_waiting_fetch_is_woken_by_each_record(clients: Clients) -> None:
    """Each record is produced only after the one before it was received.

    A broker that lets the fetch wait its 10 s out would need minutes, which the time limit of the test does not give.
    """
    partition = TopicPartition(clients.topic("ping"), 0)
    producer = clients.producer()
    consumer = clients.reader(partition, fetch_max_wait_ms=10_000)
    received: list[bytes] = []

    def receive() -> None:
        while len(received) < 30:
            received.extend(values_of(poll_records(consumer)))

    receiver = threading.Thread(target=receive)
    receiver.start()
    for number in range(30):
        producer.send(partition.topic, b"%d" % number)
        wait_until(lambda: len(received) > number, f"record {number}")  # noqa: B023 - called in this round only
    receiver.join()

    assert received == [b"%d" % number for number in range(30)]


def test_too_few_bytes_come_when_the_wait_is_over(clients: Clients) -> None:
    partition = TopicPartition(clients.topic("min-bytes"), 0)
    consumer = clients.reader(partition, fetch_min_bytes=1_000_000, fetch_max_wait_ms=200)
    send_all(clients.producer(), partition.topic, numbered(3))

    assert values_of(read_to_end(consumer)) == numbered(3)


def test_reading_committed_sees_all_records_without_transactions(clients: Clients) -> None:
    partition = TopicPartition(clients.topic("committed"), 0)
    send_all(clients.producer(), partition.topic, numbered(20))

    assert values_of(read_to_end(clients.reader(partition, isolation_level="read_committed"))) == numbered(20)


def test_the_iterator_ends_when_nothing_comes(clients: Clients) -> None:
    partition = TopicPartition(clients.topic("iterator"), 0)
    send_all(clients.producer(), partition.topic, numbered(10))

    consumer = clients.reader(partition, consumer_timeout_ms=500)

    assert [record.value for record in consumer] == numbered(10)


def test_topics_and_partitions_are_listed(clients: Clients) -> None:
    topic = clients.topic("listed", partitions=4)
    consumer = clients.consumer(allow_auto_create_topics=False)

    assert topic in consumer.topics()
    assert consumer.partitions_for_topic(topic) == {0, 1, 2, 3}
    missing = unique("missing")
    assert not consumer.partitions_for_topic(missing)
    assert missing not in consumer.topics()


def test_a_pattern_subscription_finds_new_topics(clients: Clients) -> None:
    prefix = unique("pattern")
    first = clients.topic(f"{prefix}-a")
    consumer = clients.consumer(group_id=unique("group"), metadata_max_age_ms=200)
    consumer.subscribe(pattern=f"^{prefix}-.*")
    producer = clients.producer()

    send_all(producer, first, numbered(3, "first"))
    assert values_of(read(consumer, 3)) == numbered(3, "first")
    second = clients.topic(f"{prefix}-b")
    send_all(producer, second, numbered(3, "second"))
    assert values_of(read(consumer, 3)) == numbered(3, "second")


def test_consuming_an_unknown_topic_creates_it_when_asked_to(clients: Clients) -> None:
    topic = unique("consumed")
    consumer = clients.reader(TopicPartition(topic, 0), allow_auto_create_topics=True)

    assert poll_records(consumer) == []
    assert topic in clients.admin().list_topics()
    send_all(clients.producer(), topic, numbered(2))

    assert values_of(read(consumer, 2)) == numbered(2)
