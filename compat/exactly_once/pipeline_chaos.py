"""A consume-transform-produce pipeline, and the hand that kills its workers and its broker.

Workers are processes of any client that copy one topic to another in transactions (librdkafka_worker.py,
PipelineWorker.java). SIGKILLs come when so much has been copied as the seed says, to whom it says, also two
at once; SIGSTOPs last longer than the session, and while a worker sleeps another may be started under its transactional
id. Workers that have ended, or that have not turned for long, are started anew, as by any supervisor.

Two readers of committed records judge: one that has been there all the time, and one that comes when all is over. Each
must have seen every record once, and those of a partition in order.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from compat.harness import BrokerProcess, against, unique

PARTITIONS = 6
STATIC_WORKERS = 2
WORKERS = 3
AT_ONCE_CHANCE = 0.15
"""Of a kill that comes together with the next one."""
FREEZE_S = 4.5
"""Past the session of librdkafka_worker.py."""
STALL_S = 8.0
"""Past the timeout of a worker's calls. librdkafka's send_offsets_to_transaction (2.16.1) may not end at all when the
broker dies about then: it never sends its second request."""
START_S = 20.0
"""How much longer the first turn may take: a JVM has to start, and a transaction of its former self to be ended."""
REST_TIMEOUT_S = 120.0
PAUSE_S = 0.02

SETTINGS = {
    "group.min.session.timeout.ms": "1000",
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
    # Logs roll, and what coordinators write is compacted, while all of this goes on.
    "log.segment.bytes": "1000000",
    "offsets.topic.segment.bytes": "100000",
    "transaction.state.log.segment.bytes": "100000",
    "log.cleaner.backoff.ms": "1000",
    "log.cleaner.min.cleanable.ratio": "0.2",
}

Command = Callable[[Sequence[str]], list[str]]
"""The command line of a worker with these arguments, which are those of librdkafka_worker.py."""


class Blow(NamedTuple):
    """What is done to whom, when so many records have been copied."""

    at: int
    kind: str
    worker: int
    delay_s: float
    """Between the count and the blow, so that it hits any moment of a transaction; of a freeze, how long it lasts."""
    usurps: bool
    """Of a freeze: another worker is started under the same transactional id meanwhile."""


def planned(seed: int, messages: int, kills: int, freezes: int) -> list[Blow]:
    """As many kills of the broker as of workers, and the freezes, in any order."""
    chance = random.Random(seed)
    kinds = ["kill broker"] * (kills // 2) + ["kill worker"] * (kills - kills // 2) + ["freeze worker"] * freezes
    chance.shuffle(kinds)
    blows: list[Blow] = []
    at = 0.0
    for kind in kinds:
        if chance.random() >= AT_ONCE_CHANCE:
            at += messages / (len(kinds) + 1) * chance.uniform(0.6, 1.2)
        delay_s = FREEZE_S * chance.uniform(0.8, 1.2) if kind == "freeze worker" else chance.uniform(0, 0.1)
        blows.append(Blow(int(at), kind, chance.randrange(WORKERS), delay_s, chance.random() < 0.5))
    return blows


class History:
    """What was done and what was seen, with its time, in memory and in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self._started = time.monotonic()
        self._file = path.open("w")

    def add(self, kind: str, details: str = "") -> None:
        self.counts[kind] += 1
        self._file.write(f"{self.age_s:8.3f} {kind} {details}\n")
        self._file.flush()

    @property
    def age_s(self) -> float:
        return time.monotonic() - self._started

    def close(self) -> None:
        self._file.close()


class Workers:
    """The processes of the pipeline, and those they have replaced and that may still be alive."""

    def __init__(self, command: Command, arguments: Sequence[str], work_dir: Path, history: History) -> None:
        self._command = command
        self._arguments = arguments
        self._history = history
        self._errors = (work_dir / "workers.log").open("ab")
        self._work_dir = work_dir
        self._born = 0
        self._pulses: dict[int, Path] = {}
        """Of each worker's present process: one that it has replaced may still turn, and must not speak for it."""
        self._usurped: list[subprocess.Popen[bytes]] = []
        self.processes = [self._started(number) for number in range(WORKERS)]

    def _started(self, number: int) -> subprocess.Popen[bytes]:
        self._born += 1
        pulse = self._pulses[number] = self._work_dir / f"pulse-{self._born}"
        pulse.touch()
        first_turn_by = time.time() + START_S
        os.utime(pulse, (first_turn_by, first_turn_by))
        instance_id = f"static-{number}" if number < STATIC_WORKERS else "-"
        arguments = [*self._arguments, f"pipeline-{number}", instance_id, str(pulse)]
        return subprocess.Popen(self._command(arguments), stdin=subprocess.DEVNULL, stderr=self._errors)

    def kill(self, number: int) -> None:
        self._end(self.processes[number])
        self.processes[number] = self._started(number)

    def usurp(self, number: int) -> None:
        """Start another one in the place of one that does not move."""
        self._usurped.append(self.processes[number])
        self.processes[number] = self._started(number)

    def tend(self) -> None:
        """Start anew who has ended, or does not turn any more."""
        for number, process in enumerate(self.processes):
            exit_code = process.poll()
            if exit_code is not None:
                self._history.add("worker ended", f"{number} with exit code {exit_code}")
                self.processes[number] = self._started(number)
            elif time.time() - self._pulses[number].stat().st_mtime > STALL_S:
                self._history.add("worker stalled", f"{number}")
                self.kill(number)

    def close(self) -> None:
        for process in self.processes + self._usurped:
            self._end(process)
        self._errors.close()

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()


class Reader:
    """A consumer of committed records of all partitions, outside any group; what it has seen of each, in order."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.seen: list[list[int]] = [[] for _ in range(PARTITIONS)]
        self.ends: set[int] = set()
        """The partitions that have been read to their last stable offset since the last record came of them."""
        settings = {"isolation.level": "read_committed", "enable.partition.eof": True, "fetch.wait.max.ms": 50}
        backoff = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "log_level": 0}
        self._consumer = Consumer({**settings, **backoff, "bootstrap.servers": bootstrap, "group.id": unique("reader")})
        self._consumer.assign([TopicPartition(topic, index, 0) for index in range(PARTITIONS)])

    @property
    def count(self) -> int:
        return sum(map(len, self.seen))

    def read(self, timeout_s: float) -> None:
        for message in self._consumer.consume(1000, timeout_s):
            error, index, value = message.error(), message.partition() or 0, message.value()
            if error is None and value is not None:
                self.seen[index].append(int(value))
                self.ends.discard(index)
            elif error is not None and error.code() == KafkaError._PARTITION_EOF:
                self.ends.add(index)

    def read_to_end(self) -> None:
        deadline = time.monotonic() + REST_TIMEOUT_S
        while len(self.ends) < PARTITIONS:
            assert time.monotonic() < deadline, f"only the ends of {self.ends} are reached"
            self.read(0.1)

    def close(self) -> None:
        self._consumer.close()


class Pipeline:
    """One run: a broker, a source with all its records, a sink, workers, and a plan."""

    def __init__(self, command: Command, broker: BrokerProcess, work_dir: Path, messages: int, history: History):
        self.broker = broker
        self.history = history
        self._command = command
        self._work_dir = work_dir
        self._messages = messages
        self._group, self.source, self.sink = unique("group"), unique("source"), unique("sink")
        self._thawing: list[tuple[float, subprocess.Popen[bytes]]] = []

    def prepare(self) -> None:
        """Write record n of each partition with the value n."""
        admin = AdminClient({"bootstrap.servers": self.broker.bootstrap})
        for created in admin.create_topics(
            [NewTopic(name, PARTITIONS, 1) for name in (self.source, self.sink)]
        ).values():
            created.result(30)
        producer = Producer(
            {"bootstrap.servers": self.broker.bootstrap, "enable.idempotence": True, "linger.ms": 5, "log_level": 0}
        )
        for number in range(self._messages):
            producer.produce(self.source, b"%d" % (number // PARTITIONS), partition=number % PARTITIONS)
            if number % 1000 == 0:
                producer.poll(0)
        assert producer.flush(60) == 0

    def run(self, plan: list[Blow]) -> Reader:
        """Returns the reader that was there all the time, once it has seen all there is."""
        arguments = (self.broker.bootstrap, self.source, self.sink, self._group)
        workers = Workers(self._command, arguments, self._work_dir, self.history)
        reader = Reader(self.broker.bootstrap, self.sink)
        left = plan[::-1]
        deadline = time.monotonic() + REST_TIMEOUT_S
        try:
            while reader.count < self._messages or left:
                before = reader.count
                reader.read(PAUSE_S)
                workers.tend()
                self._thaw()
                if left and (reader.count >= left[-1].at or reader.count >= self._messages):
                    self._strike(left.pop(), workers, reader)
                if reader.count > before:
                    deadline = time.monotonic() + REST_TIMEOUT_S
                assert time.monotonic() < deadline, f"nothing is copied any more after {reader.count} records"
        finally:
            workers.close()
        self.history.add("all copied", f"{reader.count}")
        return reader

    def _strike(self, blow: Blow, workers: Workers, reader: Reader) -> None:
        self.history.add(blow.kind, f"{'' if blow.kind == 'kill broker' else blow.worker} after {reader.count} records")
        process = workers.processes[blow.worker]
        if blow.kind == "freeze worker":
            process.send_signal(signal.SIGSTOP)
            self._thawing.append((time.monotonic() + blow.delay_s, process))
            if blow.usurps:
                self.history.add("usurp worker", f"{blow.worker}")
                workers.usurp(blow.worker)
            return
        time.sleep(blow.delay_s)
        if blow.kind == "kill worker":
            workers.kill(blow.worker)
        else:
            self.broker.kill()
            self.broker.start()
            self.history.add("broker is back")

    def _thaw(self) -> None:
        for due in [due for due in self._thawing if due[0] <= time.monotonic()]:
            self._thawing.remove(due)
            due[1].send_signal(signal.SIGCONT)

    def check(self, reader: Reader) -> None:
        """Every record is there once and in order, and every offset is committed."""
        expected = [list(range(len(range(index, self._messages, PARTITIONS)))) for index in range(PARTITIONS)]
        fresh = Reader(self.broker.bootstrap, self.sink)
        fresh.read_to_end()
        fresh.close()
        for name, seen in (("the reader during the run", reader.seen), ("a reader afterwards", fresh.seen)):
            for index, (found, wanted) in enumerate(zip(seen, expected, strict=True)):
                lost, doubled = Counter(wanted) - Counter(found), Counter(found) - Counter(wanted)
                summary = f"{name}, partition {index}: {len(lost)} lost, {len(doubled)} doubled"
                assert not lost, f"{summary}; lost {sorted(lost)[:10]}"
                assert not doubled, f"{summary}; doubled {sorted(doubled)[:10]}"
                assert found == wanted, f"{name}: partition {index} is out of order"
        consumer = Consumer({"bootstrap.servers": self.broker.bootstrap, "group.id": self._group, "log_level": 0})
        asked = [TopicPartition(self.source, index) for index in range(PARTITIONS)]
        committed = {each.partition: each.offset for each in consumer.committed(asked, timeout=30)}
        consumer.close()
        assert committed == {index: len(numbers) for index, numbers in enumerate(expected)}


def run_chaos(command: Command, name: str, work_dir: Path, *, seed: int, messages: int, kills: int) -> str:
    """Copy `messages` records through `kills` SIGKILLs; the history, which a failure shows and keeps."""
    history = History(work_dir / f"history-{name}-{seed}.txt")
    history.add("seed", f"{seed}: {messages} messages, {kills} kills")
    broker = BrokerProcess(work_dir, SETTINGS)
    broker.start()
    pipeline = Pipeline(command, broker, work_dir, messages, history)
    try:
        pipeline.prepare()
        reader = pipeline.run(planned(seed, messages, kills, max(1, kills // 12)))
        pipeline.check(reader)
        reader.close()
        broker.stop()
        if against() == "kpy":
            check = [sys.executable, "-m", "kpy", "check-data", str(broker.data_dir)]
            assert subprocess.run(check, check=False).returncode == 0, "kpy check-data finds damage"
        history.add("exactly once", str(dict(history.counts)))
    except BaseException:
        print(f"seed {seed}; everything is kept in {work_dir}; the history of {name}:\n{history.path.read_text()}")
        raise
    finally:
        history.close()
        broker.close()
    assert history.counts["kill broker"] + history.counts["kill worker"] == kills
    return history.path.read_text()
