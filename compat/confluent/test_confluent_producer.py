"""librdkafka's producer, by confluent-kafka: delivery reports, idempotence, codecs, partitioners and refusals."""

import json
import time
from typing import Any

import pytest
from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, KafkaError, Message, TopicPartition

from compat.confluent.clients import (
    Clients,
    delivery_error,
    numbered,
    offsets_and_values,
    read_to_end,
    send_all,
    values_of,
)
from compat.harness import BrokerFactory, unique, wait_until

# Kafka's own vectors for its key hash (UtilsTest.testMurmur2).
MURMUR2 = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("acks", ["1", "all"])
def test_delivery_reports_come_in_order_with_the_offsets(clients: Clients, acks: str) -> None:
    topic = clients.topic("acks")
    values = numbered(500)

    reports = send_all(clients.producer({"acks": acks, "linger.ms": 0, "max.in.flight": 1}), topic, values)

    assert offsets_and_values(reports) == list(enumerate(values))
    messages = read_to_end(clients.reader(TopicPartition(topic, 0)))
    assert offsets_and_values(messages) == list(enumerate(values))


@pytest.mark.parametrize("settings", [{"acks": "1", "linger.ms": 0}, {"enable.idempotence": True, "linger.ms": 0}])
def test_a_topic_that_is_on_disk_before_it_acknowledges_takes_every_record_once(
    clients: Clients, settings: dict[str, Any]
) -> None:
    topic = clients.topic("flushed", configs={"flush.messages": "1"})
    values = numbered(500)

    reports = send_all(clients.producer(settings), topic, values)

    assert offsets_and_values(reports) == list(enumerate(values))
    messages = read_to_end(clients.reader(TopicPartition(topic, 0)))
    assert offsets_and_values(messages) == list(enumerate(values))


def test_records_without_acknowledgement_arrive_in_order(clients: Clients) -> None:
    topic = clients.topic("acks0")
    values = numbered(500)

    send_all(clients.producer({"acks": "0"}), topic, values)

    received: list[bytes | None] = []
    reader = clients.reader(TopicPartition(topic, 0))

    def all_came() -> bool:
        received.extend(values_of(read_to_end(reader)) if not received else _more(reader))
        return len(received) >= len(values)

    wait_until(all_came, "all records")
    assert received == values


def _more(reader: Any) -> list[bytes | None]:
    message = reader.poll(0.1)
    return [message.value()] if message is not None and message.error() is None else []


def test_an_idempotent_producer_with_five_in_flight_keeps_order(clients: Clients) -> None:
    topic = clients.topic("idempotent", partitions=3)
    producer = clients.producer(
        {"enable.idempotence": True, "max.in.flight": 5, "batch.num.messages": 7, "linger.ms": 0}
    )
    values = numbered(3000)

    for number, value in enumerate(values):
        producer.produce(topic, value, partition=number % 3)
        producer.poll(0)
    assert producer.flush(20) == 0

    for partition in range(3):
        messages = read_to_end(clients.reader(TopicPartition(topic, partition)))
        assert offsets_and_values(messages) == list(enumerate(values[partition::3]))


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_each_codec_is_read_back(clients: Clients, codec: str) -> None:
    topic = clients.topic(f"codec-{codec}")
    values = [f"{number} ".encode() * 50 for number in range(1000)]

    producer = clients.producer({"compression.type": codec, "linger.ms": 50})
    send_all(producer, topic, values, key=b"key", headers=[("codec", codec)])

    messages = read_to_end(clients.reader(TopicPartition(topic, 0)))
    assert offsets_and_values(messages) == list(enumerate(values))
    assert {(message.key(), tuple(message.headers())) for message in messages} == {
        (b"key", (("codec", codec.encode()),))
    }


@pytest.mark.parametrize("stored", ["uncompressed", "gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("produced", ["none", "lz4"])
def test_a_topics_own_codec_replaces_the_producers(clients: Clients, produced: str, stored: str) -> None:
    topic = clients.topic("recompressed", configs={"compression.type": stored})
    values = [f"{number} ".encode() * 50 for number in range(200)]

    send_all(clients.producer({"compression.type": produced, "linger.ms": 50}), topic, values)

    assert offsets_and_values(read_to_end(clients.reader(TopicPartition(topic, 0)))) == list(enumerate(values))


def test_headers_keep_order_duplicates_nulls_and_empty_values(clients: Clients) -> None:
    topic = clients.topic("headers")
    headers = [("trace", b"1"), ("null", None), ("trace", b"2"), ("empty", b""), ("größe", "zwölf".encode())]

    send_all(clients.producer(), topic, [b"value"], headers=headers)

    (message,) = read_to_end(clients.reader(TopicPartition(topic, 0)))
    assert message.headers() == headers


def test_null_and_empty_keys_and_values_stay_apart(clients: Clients) -> None:
    topic = clients.topic("nulls")
    producer = clients.producer()
    sent = [(b"key", None), (None, b"value"), (b"", b""), (b"", None), (None, b""), (None, None)]

    for key, value in sent:
        producer.produce(topic, value, key=key, partition=0)
    producer.flush(10)

    messages = read_to_end(clients.reader(TopicPartition(topic, 0)))
    assert [(message.key(), message.value()) for message in messages] == sent


def test_create_time_is_the_producers_and_append_time_the_brokers(clients: Clients) -> None:
    created = clients.topic("create-time")
    appended = clients.topic("append-time", configs={"message.timestamp.type": "LogAppendTime"})
    before_ms = int(time.time() * 1000)

    (report,) = send_all(clients.producer(), created, [b"v"], timestamp=1234)
    assert report.timestamp() == (TIMESTAMP_CREATE_TIME, 1234)
    send_all(clients.producer(), appended, [b"v"], timestamp=1234)

    (message,) = read_to_end(clients.reader(TopicPartition(created, 0)))
    assert message.timestamp() == (TIMESTAMP_CREATE_TIME, 1234)
    (message,) = read_to_end(clients.reader(TopicPartition(appended, 0)))
    kind, timestamp_ms = message.timestamp()
    assert kind == TIMESTAMP_LOG_APPEND_TIME
    assert before_ms <= timestamp_ms <= int(time.time() * 1000)


def test_keys_choose_the_partition_by_kafkas_murmur2(clients: Clients) -> None:
    topic = clients.topic("keys", partitions=4)
    producer = clients.producer({"partitioner": "murmur2_random"})
    chosen: dict[bytes | None, int | None] = {}

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        assert error is None
        chosen[message.key()] = message.partition()

    for key in MURMUR2:
        producer.produce(topic, b"v", key=key, on_delivery=on_delivery)
    producer.flush(10)

    assert chosen == {key: (value & 0x7FFFFFFF) % 4 for key, value in MURMUR2.items()}


def test_the_same_key_always_goes_to_the_same_partition(clients: Clients) -> None:
    topic = clients.topic("same", partitions=7)
    producer = clients.producer()
    for number in range(700):
        producer.produce(topic, b"%d" % number, key=b"key-%d" % (number % 20))
    producer.flush(10)

    partitions_of: dict[bytes | None, set[int | None]] = {}
    values_by_key: dict[bytes | None, list[int]] = {}
    for message in read_to_end(clients.reader(*(TopicPartition(topic, index) for index in range(7)))):
        partitions_of.setdefault(message.key(), set()).add(message.partition())
        values_by_key.setdefault(message.key(), []).append(int(message.value() or b""))

    assert {len(partitions) for partitions in partitions_of.values()} == {1}
    assert values_by_key == {b"key-%d" % key: list(range(key, 700, 20)) for key in range(20)}


def test_fifty_partitions(clients: Clients) -> None:
    topic = clients.topic("fifty", partitions=50)
    producer = clients.producer({"enable.idempotence": True})
    for number in range(5000):
        producer.produce(topic, b"%d" % number, partition=number % 50)
    assert producer.flush(20) == 0

    received: dict[int | None, list[int]] = {}
    for message in read_to_end(clients.reader(*(TopicPartition(topic, index) for index in range(50)))):
        received.setdefault(message.partition(), []).append(int(message.value() or b""))

    assert received == {index: list(range(index, 5000, 50)) for index in range(50)}


def test_large_batches(clients: Clients) -> None:
    topic = clients.topic("batches")
    values = [b"%06d" % number * 200 for number in range(10_000)]
    producer = clients.producer(
        {
            "enable.idempotence": True,
            "linger.ms": 100,
            "batch.size": 1_000_000,
            "batch.num.messages": 100_000,
            "message.max.bytes": 1_048_000,
        }
    )

    send_all(producer, topic, values)

    assert values_of(read_to_end(clients.reader(TopicPartition(topic, 0)))) == values


def test_a_record_above_the_topics_limit_is_refused_and_the_next_one_taken(clients: Clients) -> None:
    topic = clients.topic("limit", configs={"max.message.bytes": "10000"})
    producer = clients.producer()

    error = delivery_error(producer, topic, b"x" * 20_000)

    assert error is not None
    assert error.code() == KafkaError.MSG_SIZE_TOO_LARGE
    assert send_all(producer, topic, [b"x" * 9000])[0].offset() == 0


def test_large_records_pass_where_the_topic_allows_them(clients: Clients) -> None:
    topic = clients.topic("large", configs={"max.message.bytes": "20000000"})
    values = [bytes([number]) * 5_000_000 for number in range(3)]

    send_all(clients.producer({"message.max.bytes": 20_000_000}), topic, values)

    assert values_of(read_to_end(clients.reader(TopicPartition(topic, 0)))) == values


def test_a_record_without_key_is_refused_by_a_compacted_topic(clients: Clients) -> None:
    topic = clients.topic("compacted", configs={"cleanup.policy": "compact"})
    producer = clients.producer()

    error = delivery_error(producer, topic, b"no key")

    assert error is not None
    assert error.code() == KafkaError.INVALID_RECORD
    assert delivery_error(producer, topic, b"value", key=b"key") is None


def test_a_partition_that_is_not_there_is_unknown(clients: Clients) -> None:
    topic = clients.topic("two", partitions=2)

    error = delivery_error(clients.producer({"message.timeout.ms": 2000}), topic, b"lost", partition=5)

    assert error is not None
    assert error.code() == KafkaError._UNKNOWN_PARTITION


def test_producing_to_an_unknown_topic_creates_it(clients: Clients) -> None:
    topic = unique("auto.created")

    (report,) = send_all(clients.producer(), topic, [b"first"])

    assert (report.partition(), report.offset()) == (0, 0)
    assert values_of(read_to_end(clients.reader(TopicPartition(topic, 0)))) == [b"first"]


def test_without_automatic_creation_an_unknown_topic_stays_unknown(fresh_broker: BrokerFactory) -> None:
    broker = fresh_broker({"auto.create.topics.enable": "false"})
    topic = unique("never")

    with Clients(broker.bootstrap) as clients:
        producer = clients.producer({"message.timeout.ms": 3000, "topic.metadata.propagation.max.ms": 200})
        error = delivery_error(producer, topic, b"lost")
        assert error is not None
        assert error.code() in (KafkaError._UNKNOWN_TOPIC, KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._MSG_TIMED_OUT)
        assert topic not in clients.admin().list_topics(timeout=10).topics


def test_statistics_count_what_was_sent(clients: Clients) -> None:
    topic = clients.topic("stats")
    reported: list[dict[str, Any]] = []
    producer = clients.producer(
        {"statistics.interval.ms": 100, "stats_cb": lambda text: reported.append(json.loads(text))}
    )

    send_all(producer, topic, numbered(100))

    def counted() -> bool:
        producer.poll(0.05)
        return bool(reported) and reported[-1]["txmsgs"] == 100

    wait_until(counted, "the statistics")
    broker_states = [broker["state"] for broker in reported[-1]["brokers"].values() if broker["nodeid"] >= 0]
    assert broker_states == ["UP"]
    assert sum(broker["rxerrs"] + broker["txerrs"] for broker in reported[-1]["brokers"].values()) == 0
