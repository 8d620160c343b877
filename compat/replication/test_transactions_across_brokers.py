"""Transactions and groups whose partitions and coordinators are on several brokers, which come and go.

What is asserted is what users rely on: a reader of committed records sees exactly the transactions that were committed,
whole, whoever leads the partitions and whoever coordinates; and a producer and a group go on when their coordinator's
broker is killed, or stops, and when it comes back.
"""

from collections import Counter
from collections.abc import Iterable, Iterator

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from compat.harness import BACKENDS, unique, wait_until
from compat.replication.cluster import Cluster, cluster_in
from kpy.java_hash import string_hash, without_sign

ALL = {1, 2, 3}
ASSIGNMENT = [[1, 2, 3], [2, 3, 1], [3, 1, 2]]
PARTITIONS = len(ASSIGNMENT)
STATE_PARTITIONS = 3
TRANSACTIONS = 12
KPY = 3
TIMEOUT_S = 45.0


@pytest.fixture(scope="module")
def kpy_brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster_in(tmp_path_factory.mktemp("three")) as started:
        for broker_id in sorted(ALL):
            started.start(broker_id, BACKENDS["kpy"])
        yield started


def new_topic(cluster: Cluster) -> str:
    topic = unique("txn")
    cluster.create_topic(topic, ASSIGNMENT)
    cluster.wait_for_isr(topic, PARTITIONS, ALL, asking=KPY)
    return topic


def living_in(state_partition: int) -> str:
    """A transactional id, or a group, that lives in this partition of its coordinators' topic."""
    while True:
        name = unique("id")
        if without_sign(string_hash(name)) % STATE_PARTITIONS == state_partition:
            return name


def transactional_producer(cluster: Cluster, transactional_id: str) -> Producer:
    producer = Producer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "transactional.id": transactional_id,
            "transaction.timeout.ms": "60000",
            "linger.ms": "0",
        }
    )
    producer.init_transactions(TIMEOUT_S)
    return producer


def write(producer: Producer, topic: str, value: str) -> None:
    """The value to each partition."""
    for partition in range(PARTITIONS):
        producer.produce(topic, value, partition=partition)


def consumer_of(cluster: Cluster, group: str, isolation_level: str = "read_committed") -> Consumer:
    return Consumer(
        {
            "bootstrap.servers": cluster.bootstrap,
            "group.id": group,
            "isolation.level": isolation_level,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": "false",
            "enable.partition.eof": "true",
            "session.timeout.ms": "10000",
        }
    )


def read_all(cluster: Cluster, topic: str, isolation_level: str = "read_committed") -> Counter[str]:
    """How often each value is in the topic."""
    consumer = consumer_of(cluster, unique("reader"), isolation_level)
    consumer.assign([TopicPartition(topic, index, 0) for index in range(PARTITIONS)])
    found: Counter[str] = Counter()
    ended: set[int] = set()
    while len(ended) < PARTITIONS:
        message = consumer.poll(TIMEOUT_S)
        assert message is not None, f"nothing to read, {sorted(ended)} have ended"
        error = message.error()
        if error is None:
            found[message.value().decode()] += 1
        elif error.code() == KafkaError._PARTITION_EOF:
            ended.add(message.partition())
    consumer.close()
    return found


def in_all_partitions(values: Iterable[str]) -> Counter[str]:
    return Counter(dict.fromkeys(values, PARTITIONS))


def leaders_of(cluster: Cluster, topic: str, asking: int) -> dict[int, int]:
    wait_until(lambda: len(cluster.leaders(topic, asking)) == STATE_PARTITIONS, f"{topic} is known")
    return cluster.leaders(topic, asking)


def transactions_of_all_coordinators(cluster: Cluster, topic: str) -> None:
    """Every second transaction is aborted. Each coordinator has one producer, and each partition another leader."""
    committed: list[str] = []
    written: list[str] = []
    for state_partition in range(STATE_PARTITIONS):
        producer = transactional_producer(cluster, living_in(state_partition))
        for number in range(TRANSACTIONS):
            value = f"{state_partition}/{number}"
            producer.begin_transaction()
            write(producer, topic, value)
            written.append(value)
            if number % 2:
                producer.flush(TIMEOUT_S)
                producer.abort_transaction(TIMEOUT_S)
            else:
                producer.commit_transaction(TIMEOUT_S)
                committed.append(value)
    assert set(leaders_of(cluster, "__transaction_state", asking=KPY).values()) == ALL
    wait_until(lambda: read_all(cluster, topic) == in_all_partitions(committed), "all of the committed, nothing else")
    assert read_all(cluster, topic, "read_uncommitted") == in_all_partitions(written)


def test_readers_see_what_was_committed_across_leaders(kpy_brokers: Cluster) -> None:
    transactions_of_all_coordinators(kpy_brokers, new_topic(kpy_brokers))


def gone(cluster: Cluster, broker_id: int, stop: str) -> int:
    """Kills or stops the broker; another one."""
    broker = cluster.brokers[broker_id]
    if stop == "kill":
        broker.kill()
    else:
        broker.stop()
    return min(ALL - {broker_id})


def back(cluster: Cluster, broker_id: int, topic: str) -> None:
    asking = min(ALL - {broker_id})
    cluster.brokers[broker_id].start()
    cluster.wait_for_isr(topic, PARTITIONS, ALL, asking)
    for internal in ("__transaction_state", "__consumer_offsets"):
        if cluster.isrs(internal, asking):
            cluster.wait_for_isr(internal, STATE_PARTITIONS, ALL, asking)


def producer_outlives(cluster: Cluster, coordinator: int, transactional_id: str, stop: str) -> None:
    """Its coordinator, in the midst of a transaction."""
    topic = new_topic(cluster)
    producer = transactional_producer(cluster, transactional_id)
    producer.begin_transaction()
    write(producer, topic, "before")
    producer.commit_transaction(TIMEOUT_S)
    producer.begin_transaction()
    write(producer, topic, "meanwhile")
    producer.flush(TIMEOUT_S)
    asking = gone(cluster, coordinator, stop)
    producer.commit_transaction(TIMEOUT_S)
    producer.begin_transaction()
    write(producer, topic, "without it")
    producer.commit_transaction(TIMEOUT_S)
    assert coordinator not in leaders_of(cluster, "__transaction_state", asking).values()
    back(cluster, coordinator, topic)
    producer.begin_transaction()
    write(producer, topic, "aborted")
    producer.flush(TIMEOUT_S)
    producer.abort_transaction(TIMEOUT_S)
    producer.begin_transaction()
    write(producer, topic, "afterwards")
    producer.commit_transaction(TIMEOUT_S)
    expected = in_all_partitions(["before", "meanwhile", "without it", "afterwards"])
    wait_until(lambda: read_all(cluster, topic) == expected, "all of the committed, nothing else")


@pytest.mark.parametrize("stop", ["kill", "stop"])
def test_a_transactional_producer_goes_on_when_its_coordinator_goes(kpy_brokers: Cluster, stop: str) -> None:
    transactional_id = living_in(0)
    transactional_producer(kpy_brokers, transactional_id)
    coordinator = leaders_of(kpy_brokers, "__transaction_state", asking=KPY)[0]
    producer_outlives(kpy_brokers, coordinator, transactional_id, stop)


def offsets(cluster: Cluster, topic: str, group: str) -> list[int]:
    """What the group has committed."""
    consumer = consumer_of(cluster, group)
    try:
        found = consumer.committed([TopicPartition(topic, index) for index in range(PARTITIONS)], TIMEOUT_S)
    except KafkaException:
        return []
    finally:
        consumer.close()
    return [each.offset for each in found]


@pytest.mark.parametrize("stop", ["kill", "stop"])
def test_a_group_goes_on_when_its_coordinator_goes(kpy_brokers: Cluster, stop: str) -> None:
    """It reads from one topic and writes to another, exactly once."""
    cluster = kpy_brokers
    source, sink = new_topic(cluster), new_topic(cluster)
    group = living_in(1)
    feeding = transactional_producer(cluster, unique("feed"))
    consumer = consumer_of(cluster, group)
    consumer.subscribe([source])
    transactional_id = living_in(2)
    fed: list[str] = []

    def feed_and_process() -> None:
        value = str(len(fed))
        feeding.begin_transaction()
        write(feeding, source, value)
        feeding.commit_transaction(TIMEOUT_S)
        fed.append(value)
        # Anew each time: librdkafka 2.16 waits for ever for a coordinator that has gone out of the metadata meanwhile.
        process(consumer, transactional_producer(cluster, transactional_id), sink, PARTITIONS)

    feed_and_process()
    coordinator = leaders_of(cluster, "__consumer_offsets", asking=KPY)[1]
    asking = gone(cluster, coordinator, stop)
    feed_and_process()
    assert leaders_of(cluster, "__consumer_offsets", asking)[1] != coordinator
    back(cluster, coordinator, source)
    feed_and_process()
    wait_until(lambda: read_all(cluster, sink) == in_all_partitions(fed), "each record once")
    ends = [consumer.get_watermark_offsets(TopicPartition(source, index), TIMEOUT_S)[1] for index in range(PARTITIONS)]
    # Behind the last record of each partition is its transaction's marker.
    assert offsets(cluster, source, group) == [end - 1 for end in ends]
    consumer.close()


def process(consumer: Consumer, producer: Producer, sink: str, count: int) -> None:
    """Takes so many records over into the sink, with their offsets in the same transaction."""
    producer.begin_transaction()
    taken = 0
    positions: dict[tuple[str, int], int] = {}

    def take() -> bool:
        nonlocal taken
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            producer.produce(sink, message.value(), partition=message.partition())
            positions[message.topic(), message.partition()] = message.offset() + 1
            taken += 1
        return taken == count

    wait_until(take, f"{count} records, of which there are {taken}", TIMEOUT_S)
    moved = [TopicPartition(topic, index, offset) for (topic, index), offset in positions.items()]
    producer.send_offsets_to_transaction(moved, consumer.consumer_group_metadata(), TIMEOUT_S)
    producer.commit_transaction(TIMEOUT_S)


def test_deleted_records_are_gone_from_every_replica(kpy_brokers: Cluster) -> None:
    deletion_reaches_all(kpy_brokers)


def deletion_reaches_all(cluster: Cluster) -> None:
    """Whoever leads next: the answer has waited for the followers."""
    topic = new_topic(cluster)
    producer = Producer({"bootstrap.servers": cluster.bootstrap, "acks": "all"})
    for number in range(10):
        write(producer, topic, str(number))
    assert producer.flush(TIMEOUT_S) == 0
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    wanted = [TopicPartition(topic, index, 7) for index in range(PARTITIONS)]
    for deleted in admin.delete_records(wanted, request_timeout=TIMEOUT_S, operation_timeout=TIMEOUT_S).values():
        assert deleted.result(TIMEOUT_S).low_watermark == 7
    asking = gone(cluster, KPY, "kill")
    wait_until(lambda: KPY not in cluster.leaders(topic, asking).values(), "the others lead", TIMEOUT_S)
    assert read_all(cluster, topic) == in_all_partitions(["7", "8", "9"])
    back(cluster, KPY, topic)
