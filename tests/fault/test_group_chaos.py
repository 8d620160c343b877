"""Consumers of one group join, leave, are killed, and sleep past their session, while producers write: nothing is lost.

Every consumer is a process (chaos_consumer.py), so SIGKILL and SIGSTOP are real; which happens to whom and when comes
from a seed. Every acknowledged record is delivered at least once. What the coordinator did is read from its own log:
each generation gives each partition one owner, generations go up, and no commit of a partition is lower than the one
before it.

    make chaos CHAOS_SECONDS=600 CHAOS_SEED=7
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from compat.harness import BrokerProcess, unique, wait_until
from kpy.group.records import read_group, read_key, read_offset
from kpy.records.batch import iter_records, read_header
from kpy.wire.consumer_protocol import decode_consumer_protocol_assignment
from kpy.wire.group_records import GroupMetadataValue, OffsetCommitKey

SECONDS = float(os.environ.get("CHAOS_SECONDS", "25"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
PARTITIONS = 50
CONSUMERS = 5
RECORDS_PER_SECOND = 200
PAST_THE_SESSION_S = 8.0
REST_TIMEOUT_S = 90.0

pytestmark = pytest.mark.timeout(SECONDS + 300)


class Load:
    """A producer that writes numbered records at a steady rate until it is stopped."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.acknowledged: set[bytes] = set()
        self._topic = topic
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "log_level": 0})
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        number = 0
        while not self._stopped.wait(0.05):
            for _ in range(int(RECORDS_PER_SECOND * 0.05)):
                value = str(number).encode()
                self._producer.produce(self._topic, value, partition=number % PARTITIONS, on_delivery=self._delivered)
                number += 1
            self._producer.poll(0)

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        value = message.value()
        if error is None and value is not None:
            self.acknowledged.add(value)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()
        assert self._producer.flush(30) == 0


class Consumers:
    """The processes that are alive, and what all of them have ever read."""

    def __init__(self, bootstrap: str, topic: str, strategy: str, work_dir: Path) -> None:
        self.group = unique("chaos")
        self.alive: list[subprocess.Popen[bytes]] = []
        self.names: dict[int, str] = {}
        self._arguments = (bootstrap, topic, self.group)
        self._strategy = strategy
        self._work_dir = work_dir
        self._born = 0

    def start(self, instance_id: str = "-") -> None:
        self._born += 1
        output = str(self._work_dir / f"read-{self._born}")
        script = str(Path(__file__).with_name("chaos_consumer.py"))
        command = [sys.executable, script, *self._arguments, instance_id, self._strategy, output]
        process = subprocess.Popen(command)
        self.alive.append(process)
        self.names[process.pid] = instance_id

    def end(self, process: subprocess.Popen[bytes], number: signal.Signals) -> str:
        """End a process; the instance id that it had."""
        self.alive.remove(process)
        process.send_signal(number)
        process.wait(60)
        return self.names.pop(process.pid)

    def read(self) -> set[bytes]:
        return {line for path in self._work_dir.glob("read-*") for line in path.read_bytes().split()}

    def close(self) -> None:
        for process in self.alive:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGTERM)
        for process in self.alive:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def something_happens(consumers: Consumers, chance: random.Random) -> None:
    process = chance.choice(consumers.alive)
    what = chance.random()
    if what < 0.25:
        consumers.start()
    elif what < 0.45 and len(consumers.alive) > 2:
        consumers.end(process, signal.SIGTERM)
    elif what < 0.75:
        # A static member comes back as itself, another as a stranger beside the silence of its former self.
        consumers.start(consumers.end(process, signal.SIGKILL))
    else:
        process.send_signal(signal.SIGSTOP)
        time.sleep(PAST_THE_SESSION_S * chance.uniform(0.5, 1.2))
        process.send_signal(signal.SIGCONT)
    time.sleep(chance.uniform(0.2, 2.0))


def log_of(broker: BrokerProcess) -> Iterator[tuple[bytes, bytes | None]]:
    """Every record of __consumer_offsets, partition by partition, in order."""
    for path in sorted(broker.data_dir.glob("__consumer_offsets-*/*.log")):
        data, position = memoryview(path.read_bytes()), 0
        while position < len(data):
            header = read_header(data, position)
            for record in iter_records(data[position : position + header.size_bytes]):
                yield record.key or b"", record.value
            position += header.size_bytes


def owners(group: GroupMetadataValue) -> list[int]:
    """The partitions that a generation assigns, of all members."""
    assigned = [
        decode_consumer_protocol_assignment(memoryview(each.assignment)) for each in group.members if each.assignment
    ]
    return [index for each in assigned for topic in each.assigned_partitions for index in topic.partitions]


def check_log(broker: BrokerProcess, group_id: str, cooperative: bool) -> None:
    generation, assigned_generations = 0, 0
    committed: dict[int, int] = {}
    for key, value in log_of(broker):
        about = read_key(key)
        assert about is not None
        if about.group != group_id or value is None:
            continue
        if isinstance(about, OffsetCommitKey):
            offset = read_offset(value).offset
            assert offset >= committed.get(about.partition, -1), f"the commits of {about.partition} go back"
            committed[about.partition] = offset
            continue
        group = read_group(value)
        assert group.generation >= generation
        generation = group.generation
        owned = owners(group)
        assert len(owned) == len(set(owned)), f"a partition has two owners in generation {generation}"
        if group.members:
            assigned_generations += 1
            # A cooperative rebalance may leave out, for one generation, what moves from one member to another.
            assert cooperative or len(owned) == PARTITIONS
    assert assigned_generations > 2
    assert set(committed) == set(range(PARTITIONS))


@pytest.mark.parametrize("strategy", ["range", "cooperative-sticky"])
def test_a_group_in_chaos_delivers_every_record_and_never_two_owners(strategy: str, tmp_path: Path) -> None:
    chance = random.Random(f"{SEED} {strategy}")
    broker = BrokerProcess(tmp_path, {"group.initial.rebalance.delay.ms": "0"})
    broker.start()
    topic = unique("chaos")
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(30)
    consumers = Consumers(broker.bootstrap, topic, strategy, tmp_path)
    try:
        load = Load(broker.bootstrap, topic)
        for number in range(CONSUMERS):
            consumers.start(f"static-{number}" if number < 2 else "-")
        end = time.monotonic() + SECONDS / 2
        while time.monotonic() < end:
            something_happens(consumers, chance)
        load.stop()
        assert load.acknowledged
        wait_until(lambda: load.acknowledged <= consumers.read(), "every record is delivered", REST_TIMEOUT_S)
    finally:
        consumers.close()
    broker.stop()
    check_log(broker, consumers.group, strategy == "cooperative-sticky")
