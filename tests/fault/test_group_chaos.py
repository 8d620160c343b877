"""Consumers of one group join, leave, are killed, and sleep past their session, while producers write: nothing is lost.

Every consumer is a process (chaos_consumer.py), so SIGKILL and SIGSTOP are real; which happens to whom and when comes
from a seed. Every acknowledged record is delivered at least once. What the coordinator did is read from its own log:
each generation gives each partition one owner, generations go up, and no commit of a partition is lower than the one
before it.

    make chaos CHAOS_SECONDS=600 CHAOS_SEED=7 CHAOS_CONSUMERS=20 CHAOS_PAUSE_S=60
"""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from confluent_kafka import KafkaError, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from compat.harness import BrokerProcess, unique, wait_until
from kpy.group.records import read_group, read_key, read_offset
from kpy.records.batch import iter_records, read_header
from kpy.wire.consumer_protocol import decode_consumer_protocol_assignment
from kpy.wire.group_records import GroupMetadataValue, OffsetCommitKey
from tests.fault.chaos_consumer import FENCED_EXIT_CODE

SECONDS = float(os.environ.get("CHAOS_SECONDS", "25"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))
CONSUMERS = int(os.environ.get("CHAOS_CONSUMERS", "5"))
PAUSE_S = float(os.environ.get("CHAOS_PAUSE_S", "8"))
"""About how long a consumer sleeps; its session is over after 6 s."""
AWAKE_AT_LEAST = max(2, CONSUMERS // 2)
ALIVE_AT_MOST = CONSUMERS * 3 // 2
STATIC_NAMES = [f"static-{number}" for number in range(CONSUMERS * 2 // 5)]
NO_NAME = "-"
PEACE_S = 10.0
"""Now and then nothing happens for as long as a group needs to miss the killed and to share the partitions."""
PARTITIONS = 50
RECORDS_PER_SECOND = 200
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


class Member(NamedTuple):
    process: subprocess.Popen[bytes]
    name: str
    """Its group.instance.id, or NO_NAME."""

    def __str__(self) -> str:
        return f"{self.process.pid} ({self.name})"


class Consumers:
    """The processes that are alive, some of which sleep, and what all of them have ever read."""

    def __init__(self, bootstrap: str, topic: str, strategy: str, work_dir: Path) -> None:
        self.group = unique("chaos")
        self.awake: list[Member] = []
        self.asleep: list[tuple[float, Member]] = []
        """Each with the time at which it wakes."""
        self.happened = Counter[str]()
        self._leaving: list[Member] = []
        self._arguments = (bootstrap, topic, self.group)
        self._strategy = strategy
        self._work_dir = work_dir
        self._born = 0
        self._began = time.monotonic()

    def alive(self) -> int:
        return len(self.awake) + len(self.asleep)

    def names_without_anybody_awake(self) -> list[str]:
        taken = {member.name for member in self.awake}
        return [name for name in STATIC_NAMES if name not in taken]

    def start(self, name: str) -> Member:
        self._born += 1
        output = str(self._work_dir / f"read-{self._born}")
        script = str(Path(__file__).with_name("chaos_consumer.py"))
        member = Member(
            subprocess.Popen([sys.executable, script, *self._arguments, name, self._strategy, output]), name
        )
        self.awake.append(member)
        self._note("joins", member)
        return member

    def leave(self, member: Member) -> None:
        self.awake.remove(member)
        self._leaving.append(member)
        member.process.send_signal(signal.SIGTERM)
        self._note("leaves", member)

    def kill(self, member: Member) -> None:
        self.awake.remove(member)
        member.process.kill()
        member.process.wait()
        self._note("is killed", member)

    def pause(self, member: Member, seconds: float) -> None:
        self.awake.remove(member)
        member.process.send_signal(signal.SIGSTOP)
        self.asleep.append((time.monotonic() + seconds, member))
        self._note("falls asleep", member)

    def wake(self, now: float) -> None:
        """Wake those whose time has come; of those that are gone by themselves make sure that they had a reason."""
        for each in [each for each in self.asleep if each[0] <= now]:
            self.asleep.remove(each)
            self.awake.append(each[1])
            each[1].process.send_signal(signal.SIGCONT)
            self._note("wakes", each[1])
        for member in [member for member in self.awake if member.process.poll() is not None]:
            assert member.process.returncode == FENCED_EXIT_CODE, f"{member} ended by itself"
            self.awake.remove(member)
            self._note("is fenced", member)

    def read(self) -> set[bytes]:
        return {line for path in self._work_dir.glob("read-*") for line in path.read_bytes().split()}

    def close(self) -> None:
        self.wake(float("inf"))
        for member in list(self.awake):
            self.leave(member)
        for member in self._leaving:
            try:
                member.process.wait(30)
            except subprocess.TimeoutExpired:
                member.process.kill()
                member.process.wait()

    def _note(self, what: str, member: Member) -> None:
        self.happened[what] += 1
        print(
            f"{time.monotonic() - self._began:6.1f} s  {member} {what}: {len(self.awake)} and {len(self.asleep)} asleep"
        )


def something_happens(consumers: Consumers, chance: random.Random) -> None:
    member = chance.choice(consumers.awake)
    what = chance.random()
    if what < 0.25:
        # A stranger, or one under the name of a static member that has left, or that sleeps and will wake up fenced.
        names = consumers.names_without_anybody_awake() if chance.random() < 0.5 else []
        if consumers.alive() < ALIVE_AT_MOST:
            consumers.start(chance.choice(names or [NO_NAME]))
    elif what < 0.55:
        # A static member comes back as itself, another as a stranger beside the silence of its former self.
        consumers.kill(member)
        consumers.start(member.name)
    elif len(consumers.awake) > AWAKE_AT_LEAST:
        if what < 0.75:
            consumers.leave(member)
        else:
            consumers.pause(member, PAUSE_S * chance.uniform(0.5, 1.2))


def chaos(consumers: Consumers, chance: random.Random, seconds: float) -> None:
    end = time.monotonic() + seconds
    while (now := time.monotonic()) < end:
        consumers.wake(now)
        something_happens(consumers, chance)
        time.sleep(PEACE_S if chance.random() < 0.1 else chance.uniform(0.2, 2.0))


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
    generation, assigned_generations, commits = 0, 0, 0
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
            commits += 1
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
    print(f"{generation} generations, {assigned_generations} with an assignment, {commits} commits")
    assert assigned_generations > 1
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
        for name in [*STATIC_NAMES, *[NO_NAME] * (CONSUMERS - len(STATIC_NAMES))]:
            consumers.start(name)
        # A member that sleeps or goes before the first assignment delays it by its session: all of a short chaos.
        wait_until(consumers.read, "the group has an assignment", REST_TIMEOUT_S)
        chaos(consumers, chance, SECONDS / 2)
        consumers.wake(float("inf"))
        load.stop()
        print(f"{len(load.acknowledged)} records; {dict(consumers.happened)}")
        assert load.acknowledged
        wait_until(lambda: load.acknowledged <= consumers.read(), "every record is delivered", REST_TIMEOUT_S)
    finally:
        consumers.close()
    broker.stop()
    check_log(broker, consumers.group, strategy == "cooperative-sticky")
