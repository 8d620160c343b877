"""kafka-python's producer: what it sends is what a consumer reads, and a refusal is the error that Kafka promises."""

import time

import pytest
from kafka import TopicPartition
from kafka.errors import (
    InvalidRecordError,
    InvalidTimestampError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    UnknownTopicOrPartitionError,
)

from compat.harness import BrokerFactory, require_module, unique
from compat.kafka_python.clients import Clients, numbered, read_to_end, send_all, values_of

# Kafka's own vectors for its key hash (UtilsTest.testMurmur2).
MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("acks", [1, "all"])
def test_acknowledged_records_have_the_offsets_they_are_read_at(clients: Clients, acks: int | str) -> None:
    topic = clients.topic("acks")
    values = numbered(100)

    answers = send_all(clients.producer(acks=acks, enable_idempotence=False), topic, values)

    assert [answer.offset for answer in answers] == list(range(100))
    records = read_to_end(clients.reader(TopicPartition(topic, 0)))
    assert [(record.offset, record.value) for record in records] == list(enumerate(values))


def test_records_without_acknowledgement_arrive_in_order(clients: Clients) -> None:
    topic = clients.topic("acks0")
    values = numbered(200)
    producer = clients.producer(acks=0)

    send_all(producer, topic, values)
    producer.close()

    reader = clients.reader(TopicPartition(topic, 0))
    received: list[bytes] = []
    deadline = time.monotonic() + 10
    while len(received) < len(values) and time.monotonic() < deadline:
        received += values_of(read_to_end(reader))
    assert received == values


def test_keys_choose_the_partition_by_kafkas_murmur2(clients: Clients) -> None:
    topic = clients.topic("keys", partitions=4)
    producer = clients.producer()

    for key in MURMUR2:
        producer.send(topic, b"1 " + key, key=key)
        producer.send(topic, b"2 " + key, key=key)
    producer.flush()

    for partition in range(4):
        expected = [key for key, value in MURMUR2.items() if (value & 0x7FFFFFFF) % 4 == partition]
        records = read_to_end(clients.reader(TopicPartition(topic, partition)))
        assert [(record.key, record.value) for record in records] == [
            (key, prefix + key) for key in expected for prefix in (b"1 ", b"2 ")
        ]


def test_headers_keep_order_duplicates_and_empty_values(clients: Clients) -> None:
    topic = clients.topic("headers")
    headers = [("trace", b"1"), ("trace", b"2"), ("empty", b""), ("größe", "zwölf".encode()), ("binary", bytes(256))]

    clients.producer().send(topic, b"value", headers=headers).get(timeout=10)

    (record,) = read_to_end(clients.reader(TopicPartition(topic, 0)))
    assert [tuple(header) for header in record.headers] == headers


def test_null_and_empty_keys_and_values_stay_apart(clients: Clients) -> None:
    topic = clients.topic("nulls")
    producer = clients.producer()
    sent = [(b"key", None), (None, b"value"), (b"", b""), (b"", None), (None, b"")]

    for key, value in sent:
        producer.send(topic, value, key=key)
    producer.flush()

    records = read_to_end(clients.reader(TopicPartition(topic, 0)))
    assert [(record.key, record.value) for record in records] == sent


def test_create_time_is_the_producers(clients: Clients) -> None:
    topic = clients.topic("create-time")
    producer = clients.producer()
    now_ms = int(time.time() * 1000)
    timestamps = [now_ms, now_ms - 60_000, 1, now_ms + 60_000]

    answers = [producer.send(topic, b"v", timestamp_ms=timestamp).get(timeout=10) for timestamp in timestamps]

    assert [answer.timestamp for answer in answers] == timestamps
    records = read_to_end(clients.reader(TopicPartition(topic, 0)))
    assert [(record.timestamp, record.timestamp_type) for record in records] == [(ms, 0) for ms in timestamps]


def test_log_append_time_is_the_brokers(clients: Clients) -> None:
    topic = clients.topic("append-time", configs={"message.timestamp.type": "LogAppendTime"})
    before_ms = int(time.time() * 1000)

    answer = clients.producer().send(topic, b"v", timestamp_ms=1000).get(timeout=10)

    (record,) = read_to_end(clients.reader(TopicPartition(topic, 0)))
    assert record.timestamp_type == 1
    assert before_ms <= record.timestamp <= int(time.time() * 1000)
    assert answer.timestamp == record.timestamp


@pytest.mark.parametrize(
    ("codec", "module"), [("gzip", "gzip"), ("snappy", "snappy"), ("lz4", "lz4"), ("zstd", "zstandard")]
)
def test_each_codec_is_read_back(clients: Clients, codec: str, module: str) -> None:
    require_module(module)
    topic = clients.topic(f"codec-{codec}")
    values = [f"{number} ".encode() * 50 for number in range(500)]
    producer = clients.producer(compression_type=codec, linger_ms=20)

    answers = send_all(producer, topic, values, key=b"key", headers=[("codec", codec.encode())])

    assert [answer.offset for answer in answers] == list(range(500))
    records = read_to_end(clients.reader(TopicPartition(topic, 0)))
    assert [(record.offset, record.value) for record in records] == list(enumerate(values))
    assert {(record.key, tuple(record.headers)) for record in records} == {(b"key", (("codec", codec.encode()),))}


@pytest.mark.parametrize(("produced", "stored"), [(None, "gzip"), ("gzip", "zstd"), ("zstd", "uncompressed")])
def test_a_topics_own_codec_replaces_the_producers(clients: Clients, produced: str | None, stored: str) -> None:
    topic = clients.topic("recompressed", configs={"compression.type": stored})
    values = [f"{number} ".encode() * 50 for number in range(200)]
    producer = clients.producer(compression_type=produced, linger_ms=20)

    answers = send_all(producer, topic, values)

    assert [answer.offset for answer in answers] == list(range(200))
    records = read_to_end(clients.reader(TopicPartition(topic, 0)))
    assert [(record.offset, record.value) for record in records] == list(enumerate(values))


def test_a_batch_of_exactly_the_limit_is_accepted_and_one_byte_more_refused(clients: Clients) -> None:
    # One record with a null key and no headers: 61 bytes of batch header, then 3 bytes of record length, 1 of
    # attributes, 1 each of the two deltas and the key length, 3 of value length, the value, and 1 of header count.
    overhead = 61 + 3 + 1 + 1 + 1 + 1 + 3 + 1
    limit = 100_000
    topic = clients.topic("limit", configs={"max.message.bytes": str(limit)})
    producer = clients.producer(enable_idempotence=False)

    answer = producer.send(topic, b"x" * (limit - overhead)).get(timeout=10)
    with pytest.raises(MessageSizeTooLargeError):
        producer.send(topic, b"x" * (limit - overhead + 1)).get(timeout=10)

    assert answer.offset == 0
    records = read_to_end(clients.reader(TopicPartition(topic, 0)))
    assert [len(record.value) for record in records] == [limit - overhead]


def test_the_default_limit_takes_a_megabyte_and_no_more(clients: Clients) -> None:
    topic = clients.topic("megabyte")
    producer = clients.producer(max_request_size=4_000_000, enable_idempotence=False)
    large = bytes(range(256)) * 4000

    producer.send(topic, large).get(timeout=10)
    with pytest.raises(MessageSizeTooLargeError):
        producer.send(topic, b"x" * 1_100_000).get(timeout=10)
    answer = producer.send(topic, b"small").get(timeout=10)

    assert answer.offset == 1
    assert values_of(read_to_end(clients.reader(TopicPartition(topic, 0)))) == [large, b"small"]


def test_large_records_pass_where_the_topic_allows_them(clients: Clients) -> None:
    topic = clients.topic("large", configs={"max.message.bytes": "12000000"})
    values = [bytes([number]) * 1_500_000 for number in range(3)]
    producer = clients.producer(max_request_size=12_000_000)

    send_all(producer, topic, values)

    # The consumer asks for 1 MiB a partition; the first batch must come whole all the same (KIP-74).
    assert values_of(read_to_end(clients.reader(TopicPartition(topic, 0)))) == values


def test_an_idempotent_producer_with_many_batches_in_flight_keeps_order(clients: Clients) -> None:
    topic = clients.topic("idempotent", partitions=2)
    producer = clients.producer(enable_idempotence=True, batch_size=200, max_in_flight_requests_per_connection=5)
    values = numbered(1000)

    futures = [producer.send(topic, value, partition=number % 2) for number, value in enumerate(values)]
    answers = [future.get(timeout=20) for future in futures]

    for partition in range(2):
        records = read_to_end(clients.reader(TopicPartition(topic, partition)))
        assert values_of(records) == values[partition::2]
        assert [answer.offset for answer in answers[partition::2]] == [record.offset for record in records]


def test_a_batch_with_several_partitions_and_topics_is_split_rightly(clients: Clients) -> None:
    topics = [clients.topic("split", partitions=3) for _ in range(2)]
    producer = clients.producer(linger_ms=50)

    for number in range(300):
        producer.send(topics[number % 2], b"%d" % number, partition=number % 3)
    producer.flush()

    for number in range(6):
        records = read_to_end(clients.reader(TopicPartition(topics[number % 2], number % 3)))
        assert values_of(records) == [b"%d" % value for value in range(number, 300, 6)]


def test_a_record_without_key_is_refused_by_a_compacted_topic(clients: Clients) -> None:
    topic = clients.topic("compacted", configs={"cleanup.policy": "compact"})
    producer = clients.producer(enable_idempotence=False)

    with pytest.raises(InvalidRecordError):
        producer.send(topic, b"no key").get(timeout=10)
    assert producer.send(topic, b"value", key=b"key").get(timeout=10).offset == 0


def test_a_timestamp_out_of_the_topics_bounds_is_refused(clients: Clients) -> None:
    topic = clients.topic("bounds", configs={"message.timestamp.before.max.ms": "60000"})
    producer = clients.producer(enable_idempotence=False)
    now_ms = int(time.time() * 1000)

    with pytest.raises(InvalidTimestampError):
        producer.send(topic, b"old", timestamp_ms=now_ms - 3_600_000).get(timeout=10)
    assert producer.send(topic, b"new", timestamp_ms=now_ms).get(timeout=10).offset == 0


def test_min_insync_replicas_counts_no_more_than_the_replicas_there_are(clients: Clients) -> None:
    """Partition.effectiveMinIsr: a topic with one replica takes acks=all whatever it demands (KIP-966)."""
    topic = clients.topic("isr", configs={"min.insync.replicas": "2"})

    assert clients.producer(acks="all").send(topic, b"taken").get(timeout=10).offset == 0

    assert values_of(read_to_end(clients.reader(TopicPartition(topic, 0)))) == [b"taken"]


def test_producing_to_an_unknown_topic_creates_it(clients: Clients) -> None:
    topic = unique("auto.created")

    answer = clients.producer().send(topic, b"first").get(timeout=10)

    assert (answer.partition, answer.offset) == (0, 0)
    assert values_of(read_to_end(clients.reader(TopicPartition(topic, 0)))) == [b"first"]


def test_automatic_creation_follows_the_brokers_settings(fresh_broker: BrokerFactory) -> None:
    broker = fresh_broker({"num.partitions": "3"})
    topic = unique("auto")

    with Clients(broker.bootstrap) as clients:
        clients.producer().send(topic, b"first", partition=2).get(timeout=10)
        described = clients.admin().describe_topics([topic])

    assert sorted(partition["partition_index"] for partition in described[0]["partitions"]) == [0, 1, 2]


def test_without_automatic_creation_an_unknown_topic_stays_unknown(fresh_broker: BrokerFactory) -> None:
    broker = fresh_broker({"auto.create.topics.enable": "false"})
    topic = unique("never")

    with Clients(broker.bootstrap) as clients:
        with pytest.raises((KafkaTimeoutError, UnknownTopicOrPartitionError)):
            clients.producer(max_block_ms=500).send(topic, b"lost").get(timeout=10)
        assert topic not in clients.admin().list_topics()
