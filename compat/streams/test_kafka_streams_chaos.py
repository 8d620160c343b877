"""Kafka Streams under SIGKILL: with exactly_once_v2 no kill of the application or of the broker changes a result.

One application counts words and joins orders with the customers they are of. It and the broker are killed while
records come in, in an order and at moments that a seed says. Every change of a count is written, so each word's counts
must read 1, 2, 3, ...; and each order must have been joined once.

    CHAOS_SEED=7 pytest compat/streams/test_kafka_streams_chaos.py
"""

import os
import random
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from compat.harness import BrokerProcess, unique
from compat.java.kafka_tools import java_of

HERE = Path(__file__).parent
SEED = int(os.environ.get("CHAOS_SEED", "1"))
PARTITIONS = 3
ROUNDS = ["application", "broker", "both", "application", "broker"]
RECORDS_A_ROUND = 200
PATIENCE_S = 90.0
WORDS = [f"word{number}" for number in range(20)]
CUSTOMERS = [f"customer{number}" for number in range(30)]

pytestmark = pytest.mark.timeout(600)


class Topics:
    """What goes in, and what a reader of committed records has seen come out."""

    def __init__(self, bootstrap: str, chance: random.Random) -> None:
        self.lines, self.counts = unique("lines"), unique("counts")
        self.orders, self.customers, self.joined = unique("orders"), unique("customers"), unique("joined")
        self.counted: dict[str, list[int]] = {}
        """Word -> its counts, in order."""
        self.orders_joined: list[str] = []
        self.expected_words: Counter[str] = Counter()
        self.expected_orders: list[str] = []
        self._chance = chance
        admin = AdminClient({"bootstrap.servers": bootstrap})
        names = (self.lines, self.counts, self.orders, self.customers, self.joined)
        for created in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
            created.result(30)
        client = {"bootstrap.servers": bootstrap, "reconnect.backoff.max.ms": 200, "log_level": 0}
        self._producer = Producer({**client, "enable.idempotence": True})
        self._consumer = Consumer({**client, "group.id": unique("reader"), "isolation.level": "read_committed"})
        self._consumer.assign(
            [TopicPartition(name, index, 0) for name in (self.counts, self.joined) for index in range(PARTITIONS)]
        )
        for number, customer in enumerate(CUSTOMERS):
            self._produce(self.customers, number, customer, f"of {customer}")
        self.flush()

    @property
    def parts(self) -> list[str]:
        return [f"count:{self.lines}:{self.counts}", f"join:{self.orders}:{self.customers}:{self.joined}"]

    def write(self) -> None:
        """One line, and one order."""
        line = self._chance.choices(WORDS, k=4)
        self._produce(self.lines, len(self.expected_orders), "", " ".join(line))
        self.expected_words.update(line)
        number, which = len(self.expected_orders), self._chance.randrange(len(CUSTOMERS))
        # As many partitions as the table's, and keys in the same of them: so Streams joins partition by partition.
        self._produce(self.orders, which, CUSTOMERS[which], f"order{number}")
        self.expected_orders.append(f"order{number} of {CUSTOMERS[which]}")

    def _produce(self, topic: str, number: int, key: str, value: str) -> None:
        self._producer.produce(topic, value.encode(), key.encode(), partition=number % PARTITIONS)

    def flush(self) -> None:
        assert self._producer.flush(60) == 0

    def read(self, timeout_s: float) -> None:
        for message in self._consumer.consume(1000, timeout_s):
            error, key, value = message.error(), message.key(), message.value()
            if error is not None:
                assert error.code() in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN), error
            elif message.topic() == self.counts:
                assert isinstance(key, bytes)
                self.counted.setdefault(key.decode(), []).append(int(value or b""))
            else:
                self.orders_joined.append((value or b"").decode())

    def is_done(self) -> bool:
        """Whether as much has come out as should; `check` says whether it is the right thing."""
        counted = sum(map(len, self.counted.values()))
        return counted >= self.expected_words.total() and len(self.orders_joined) >= len(self.expected_orders)

    def read_to_end(self, application: "Application") -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self.is_done():
            self.read(0.1)
            application.tend()
            assert time.monotonic() < deadline, (
                f"{len(self.orders_joined)} of {len(self.expected_orders)} orders are joined, "
                f"{sum(map(len, self.counted.values()))} of {self.expected_words.total()} words counted"
            )

    def check(self) -> None:
        expected = {word: list(range(1, count + 1)) for word, count in self.expected_words.items()}
        assert self.counted == expected
        assert sorted(self.orders_joined) == sorted(self.expected_orders)

    def close(self) -> None:
        self._consumer.close()


class Application:
    """The process, which is started anew when it ends, as by any supervisor."""

    def __init__(self, version: str, arguments: list[str], work_dir: Path) -> None:
        pom = HERE / f"kafka-streams-{version}.xml"
        self._command = java_of(pom, str(HERE / "Application.java"), *arguments)
        self._output = (work_dir / "application.log").open("ab")
        self._process = self._started()

    def _started(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=self._output, stderr=self._output)

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()

    def restart(self) -> None:
        self.kill()
        self._process = self._started()

    def tend(self) -> None:
        if self._process.poll() is not None:
            self.restart()

    def close(self) -> None:
        self.kill()
        self._output.close()


def one_round(whom: str, topics: Topics, application: Application, broker: BrokerProcess, at: int) -> None:
    """Write records, and strike when the `at`th is written, wherever the application is by then."""
    for number in range(RECORDS_A_ROUND):
        topics.write()
        topics.read(0.005)
        if number == at and whom != "broker":
            application.restart()
        if number == at and whom != "application":
            broker.kill()
            broker.start()
    topics.flush()


@pytest.mark.parametrize("version", ["3.9.1", "4.3.1"])
def test_counts_and_joins_are_exact_through_kills_of_application_and_broker(version: str, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    broker = BrokerProcess(tmp_path, {"transaction.abort.timed.out.transaction.cleanup.interval.ms": "500"})
    broker.start()
    topics = Topics(broker.bootstrap, chance)
    arguments = [broker.bootstrap, unique("chaos"), "exactly_once_v2", str(tmp_path / "state"), "static", *topics.parts]
    application = Application(version, arguments, tmp_path)
    rounds = chance.sample(ROUNDS, len(ROUNDS))
    try:
        for whom in rounds:
            topics.write()
            topics.flush()
            topics.read_to_end(application)
            one_round(whom, topics, application, broker, chance.randrange(RECORDS_A_ROUND))
        topics.read_to_end(application)
        # What came twice would come now.
        application.close()
        topics.read(1.0)
        topics.check()
    except BaseException:
        print(f"seed {SEED}, rounds {rounds}; everything is kept in {tmp_path}")
        raise
    finally:
        topics.close()
        application.close()
        broker.close()
