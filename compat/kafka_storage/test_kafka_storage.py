"""What kpy has written Apache Kafka 3.9.1 serves, record by record, and the reverse, after a stop and after a kill."""

import base64
import contextlib
import random
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from compat.confluent.clients import create_topic
from compat.harness import BrokerProcess, running, wait_until
from compat.kafka_storage import handover
from compat.zookeeper.zookeeper_server import ZookeeperServer, listening
from kpy.config import BrokerConfig
from kpy.records.batch import NewRecord, build_batch, read_header
from kpy.records.compression import Codec
from kpy.records.validate import ValidBatch
from kpy.server import now_ms, opened
from kpy.storage.log import Log
from tests.fault.test_kill9 import Acknowledged, Load
from tests.fault.test_kill9 import create_topic as load_topic

PLAIN, TRANSACTIONAL, COMPACTED = "plain", "transactional", "compacted"
TOPICS = (PLAIN, TRANSACTIONAL, COMPACTED)
GROUP = "readers"
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
RECORDS_PER_CODEC = 200
SMALL_SEGMENTS = {"segment.bytes": "20000", "index.interval.bytes": "500"}
COMPACTING = {**SMALL_SEGMENTS, "cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"}

pytestmark = pytest.mark.timeout(400)


def create_topics(broker: BrokerProcess) -> None:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    create_topic(admin, PLAIN, 2, SMALL_SEGMENTS)
    create_topic(admin, TRANSACTIONAL, 2, SMALL_SEGMENTS)
    create_topic(admin, COMPACTED, 1, COMPACTING)


def produce(broker: BrokerProcess, first: int = 0) -> None:
    """Records of every codec with keys, headers and nulls, from idempotent producers."""
    failures: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            failures.append(error)

    for codec in CODECS:
        producer = Producer(
            {
                "bootstrap.servers": broker.bootstrap,
                "enable.idempotence": True,
                "compression.type": codec,
                "batch.num.messages": 17,
                "log_level": 0,
            }
        )
        for n in range(first, first + RECORDS_PER_CODEC):
            key = None if n % 7 == 0 else b"key %d" % n
            value = None if n % 11 == 0 else f"{codec} value {n} ".encode() * (1 + n % 5)
            headers = [("n", b"%d" % n), ("null", None)]
            at = now_ms() - n % 50
            producer.produce(PLAIN, value, key, n % 2, on_delivery, timestamp=at, headers=headers)
            old = None if n % 13 == 0 else f"{codec} {n}".encode() * 10
            producer.produce(COMPACTED, old, b"key %d" % (n % 5), 0, on_delivery, timestamp=at, headers=headers)
            producer.poll(0)
        assert producer.flush(20) == 0
    assert not failures


def commit(broker: BrokerProcess) -> None:
    with _consumer(broker) as consumer:
        offsets = [TopicPartition(PLAIN, 0, 17), TopicPartition(PLAIN, 1, 23)]
        consumer.commit(offsets=offsets, asynchronous=False)


def committed(broker: BrokerProcess, group: str) -> list[int]:
    with _consumer(broker, group) as consumer:
        asked = [TopicPartition(PLAIN, partition) for partition in range(2)]
        return [each.offset for each in consumer.committed(asked, timeout=30)]


@contextlib.contextmanager
def _consumer(broker: BrokerProcess, group: str = GROUP) -> Iterator[Consumer]:
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": group, "log_level": 0})
    try:
        yield consumer
    finally:
        consumer.close()


class Transactions:
    """Transactions of two producers that take turns, written through the storage: kpy's clients get none yet."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._sequences = {1000: 0, 1001: 0}

    def send(self, producer_id: int, text: str, codec: Codec = Codec.NONE) -> None:
        records = [NewRecord(now_ms(), b"key", f"{text} {n}".encode() * 20, (("h", None),)) for n in range(5)]
        data = build_batch(
            records,
            codec=codec,
            producer_id=producer_id,
            producer_epoch=0,
            base_sequence=self._sequences[producer_id],
            transactional=True,
        )
        self._sequences[producer_id] += len(records)
        self._append(data)

    def end(self, producer_id: int, *, abort: bool) -> None:
        marker = NewRecord(now_ms(), struct.pack(">hh", 0, 0 if abort else 1), struct.pack(">hi", 0, 3))
        self._append(build_batch([marker], producer_id=producer_id, producer_epoch=0, transactional=True, control=True))

    def _append(self, data: bytes) -> None:
        self._log.append_as_leader(ValidBatch(read_header(data), memoryview(data), -1), 0, now_ms())
        self._log.high_watermark = self._log.log_end_offset


async def write_transactions(work_dir: Path) -> None:
    """Committed, aborted and open transactions over several segments; and compact what there is."""
    paths = ",".join(map(str, handover.log_dirs(work_dir)))
    config = BrokerConfig.of({"log.dirs": paths, "broker.id": "1", "log.retention.ms": "-1"})
    rng = random.Random(5)
    async with opened(config, now_ms) as opened_broker:
        broker, log_dirs = opened_broker.broker, opened_broker.log_dirs
        for partition in range(2):
            transactions = Transactions(broker.replicas.partition(TRANSACTIONAL, partition).log)
            for round_number in range(30):
                for producer_id in (1000, 1001):
                    transactions.send(producer_id, f"round {round_number} of {producer_id}", rng.choice(list(Codec)))
                for producer_id in (1001, 1000):
                    transactions.end(producer_id, abort=rng.random() < 0.5)
            transactions.send(1000, "never decided")
            transactions.send(1001, "behind the open transaction")
            transactions.end(1001, abort=False)
        log_dirs.logs[COMPACTED, 0].roll()
        await trio.to_thread.run_sync(log_dirs.clean, now_ms())


def fill_kpy(broker: BrokerProcess, work_dir: Path) -> None:
    with running(broker):
        create_topics(broker)
        produce(broker)
        commit(broker)
        broker.stop()
    trio.run(write_transactions, work_dir)


def all_served(broker: BrokerProcess) -> dict[str, handover.Served]:
    return {
        isolation: handover.served(broker, isolation, *TOPICS) for isolation in ("read_uncommitted", "read_committed")
    }


def check_variety(found: dict[str, handover.Served], work_dir: Path) -> None:
    """That what is compared is not nothing."""
    everything, decided = found["read_uncommitted"], found["read_committed"]
    assert len(everything.of(PLAIN)) >= RECORDS_PER_CODEC * len(CODECS)
    assert 5 <= len(everything.of(COMPACTED)) < RECORDS_PER_CODEC * len(CODECS)
    assert 50 < len(decided.of(TRANSACTIONAL)) < len(everything.of(TRANSACTIONAL))
    assert {record["key"] is None for record in everything.of(PLAIN)} == {True, False}
    assert {record["value"] is None for record in everything.of(PLAIN)} == {True, False}
    files = [path.name for directory in handover.log_dirs(work_dir) for path in directory.glob("*/*")]
    assert any(name.endswith(".txnindex") for name in files)
    assert sum(name.endswith(".log") for name in files) > 12
    assert all(list(directory.glob("*-*")) for directory in handover.log_dirs(work_dir))


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_apache_kafka_serves_what_kpy_has_written(tmp_path: Path, end: str) -> None:
    ours = handover.kpy_on(tmp_path / "kpy")
    fill_kpy(ours, tmp_path / "kpy")
    loaded, acknowledged = "", list[Acknowledged]()
    with running(ours):
        expected = all_served(ours)
        check_variety(expected, tmp_path / "kpy")
        if end == "killed":
            loaded = load_topic(ours)
            load = Load(ours.bootstrap, loaded, "load", {"acks": "all", "message.timeout.ms": 3000})
            wait_until(lambda: len(load.acknowledged) >= 1000, "records acknowledged")
            ours.kill()
            load.stop()
            acknowledged = load.acknowledged
        else:
            ours.stop()
    copy = handover.copied(tmp_path / "kpy", tmp_path / "apache-kafka")
    if end == "stopped":
        assert handover.check_dumps(copy) > 100
    with listening(ZookeeperServer(tmp_path / "zookeeper")) as zookeeper:
        handover.znodes_to_zookeeper(copy, zookeeper.address)
        with running(handover.apache_kafka_on(copy, zookeeper.address)) as theirs:
            same(all_served(theirs), expected)
            assert committed(theirs, GROUP) == [17, 23]
            if acknowledged:
                records = handover.served(theirs, "read_committed", loaded).of(loaded)
                stored = {(each["partition"], each["offset"]): base64.b64decode(each["value"]) for each in records}
                assert all(stored[partition, offset] == value for partition, offset, value in acknowledged)


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_kpy_serves_what_apache_kafka_has_written_and_gives_it_back(tmp_path: Path, end: str) -> None:
    with listening(ZookeeperServer(tmp_path / "zookeeper")) as zookeeper:
        with running(handover.apache_kafka_on(tmp_path / "first", zookeeper.address)) as theirs:
            create_topics(theirs)
            assert handover.tour("fill", theirs.bootstrap, *TOPICS) == ["filled"]
            commit(theirs)
            wait_until(lambda: cleaned(tmp_path / "first"), "compaction", timeout_s=30)
            expected = all_served(theirs)
            handover.stop_or_kill(theirs, end)

        copy = handover.copied(tmp_path / "first", tmp_path / "kpy")
        handover.znodes_to_kpy(copy, zookeeper.address)
        with running(handover.kpy_on(copy)) as ours:
            same(all_served(ours), expected)
            assert committed(ours, GROUP) == [17, 23]
            assert committed(ours, "tour-group")[0] == 17
            produce(ours, 1000)
            expected = all_served(ours)
            ours.stop()

        back = handover.copied(copy, tmp_path / "back")
        assert handover.check_dumps(back) > 100
        handover.znodes_to_zookeeper(back, zookeeper.address)
        handover.wait_until_forgotten(zookeeper.address)
        with running(handover.apache_kafka_on(back, zookeeper.address)) as again:
            same(all_served(again), expected)
            assert committed(again, GROUP) == [17, 23]


def cleaned(work_dir: Path) -> bool:
    """Whether a round of compaction is over."""
    checkpoints = [path / "cleaner-offset-checkpoint" for path in handover.log_dirs(work_dir)]
    return any(COMPACTED in path.read_text() for path in checkpoints if path.exists())


def same(found: dict[str, handover.Served], expected: dict[str, handover.Served]) -> None:
    """Both isolation levels give the same; a compacted topic may have been compacted once more in between."""
    for isolation, want in expected.items():
        got = found[isolation]
        assert got.ends == want.ends
        for topic in (PLAIN, TRANSACTIONAL):
            assert got.of(topic) == want.of(topic)
        assert all(record in want.of(COMPACTED) for record in got.of(COMPACTED))
        assert last_values(got) == last_values(want)


def last_values(data: handover.Served) -> dict[str, str]:
    return {
        record["key"]: record["value"]
        for record in {each["key"]: each for each in data.of(COMPACTED)}.values()
        if record["value"] is not None
    }
