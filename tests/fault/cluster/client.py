"""A client of the cluster: takes actions from its seed until SIGTERM, and writes down what it did and was told.

python -m tests.fault.cluster.client <settings as JSON, see ClientSettings>
"""

import faulthandler
import json
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from tests.fault.cluster.history import HistoryWriter, Micro, Poll, Send
from tests.fault.cluster.workload import Action, Assign, Burst, Crash, PollOnce, Transaction, Workload

PARTITIONS_PER_TOPIC = 2
POLL_S = 0.1
MAX_POLL_RECORDS = 500
MEAN_PAUSE_S = 0.03
DELIVERY_TIMEOUT_S = 8.0
TRANSACTION_TIMEOUT_S = 10.0
# How long a commit whose outcome is not known is asked for again.
COMMIT_TIMEOUT_S = 10.0
# Longer than all of these together.
STUCK_S = 90.0

CONNECTION: Mapping[str, Any] = {
    "log_level": 0,
    "error_cb": lambda error: None,  # Brokers that are away are what this is about.
    "socket.timeout.ms": 5_000,
    "socket.connection.setup.timeout.ms": 2_000,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 500,
    "topic.metadata.refresh.interval.ms": 2_000,
}


@dataclass(frozen=True)
class ClientSettings:
    """Which client this is, of how many, and what it may do."""

    client: int
    clients: int
    seed: int
    bootstrap: str
    topic: str
    keys: int
    transactional: bool
    subscribes: bool
    acks: str
    history: str

    def to_json(self) -> str:
        return json.dumps(asdict(self))


def topic_partition(topic: str, key: int, offset: int = 0) -> TopicPartition:
    """Keys are partitions, a few to a topic."""
    return TopicPartition(f"{topic}-{key // PARTITIONS_PER_TOPIC}", key % PARTITIONS_PER_TOPIC, offset)


def key_of(topic: str, partition: int) -> int:
    return int(topic.rpartition("-")[2]) * PARTITIONS_PER_TOPIC + partition


def consumer_settings(bootstrap: str, group: str) -> dict[str, Any]:
    return {
        **CONNECTION,
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "isolation.level": "read_committed",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 1_000,
        "fetch.wait.max.ms": 50,
    }


def polled(consumer: Consumer, timeout_s: float = POLL_S) -> Poll:
    """One poll; what it says of brokers that are away is not kept."""
    records: dict[int, list[tuple[int, int]]] = {}
    for message in consumer.consume(MAX_POLL_RECORDS, timeout_s):
        topic, partition, offset, value = message.topic(), message.partition(), message.offset(), message.value()
        if message.error() is None and topic and value and partition is not None and offset is not None:
            records.setdefault(key_of(topic, partition), []).append((offset, int(value)))
    return Poll(records)


def error_of(failed: BaseException) -> KafkaError | None:
    """What librdkafka says of an exception, if it does."""
    return failed.args[0] if isinstance(failed, KafkaException) else None


class Delivery:
    """What becomes of one send."""

    def __init__(self, send: Send) -> None:
        self.send = send
        self.error: KafkaError | None = None
        self.is_over = False

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self.error = error
        self.is_over = True
        offset = message.offset()
        if error is None and offset is not None and offset >= 0:
            self.send = self.send._replace(offset=offset)


# What the binding raises where it serves callbacks, once a producer has failed for good: the error itself, or this if
# another callback comes after it.
FAILED = (KafkaException, SystemError)


class Process:
    """One producer and one consumer, for as long as the outcome of all that they do is known.

    Each action returns whether the process may go on. KafkaException where it cannot begin.
    """

    def __init__(self, number: int, settings: ClientSettings, history: HistoryWriter) -> None:
        self._number = number
        self._settings = settings
        self._history = history
        self._positions: dict[int, int] = {}
        self._assigned: frozenset[int] = frozenset()
        self._rebalanced: set[int] = set()
        producer: dict[str, Any] = {
            **CONNECTION,
            "bootstrap.servers": settings.bootstrap,
            "acks": settings.acks,
            "enable.idempotence": settings.acks == "all",
            "linger.ms": 1,
            "message.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
            "request.timeout.ms": 4_000,
            "retry.backoff.ms": 50,
        }
        if settings.transactional:
            producer["transactional.id"] = f"client-{settings.client}"
            producer["transaction.timeout.ms"] = int(TRANSACTION_TIMEOUT_S * 1000)
        self._producer = Producer(producer)
        if settings.transactional:
            self._producer.init_transactions(TRANSACTION_TIMEOUT_S)
        group = "group" if settings.subscribes else f"group-{settings.client}"
        self._consumer = Consumer(consumer_settings(settings.bootstrap, group))

    def take(self, action: Action) -> bool:
        match action:
            case Assign():
                return self._assign(action)
            case Burst():
                return self._send(action.sends)
            case PollOnce():
                return self._poll_once()
            case Transaction():
                return self._transact(action)
            case Crash():
                return self._crash(action)

    def _assign(self, action: Assign) -> bool:
        f = "subscribe" if self._settings.subscribes else "assign"
        op = self._history.invoke(self._number, f, keys=sorted(action.keys))
        if self._settings.subscribes:
            topics = sorted({topic_partition(self._settings.topic, key).topic for key in action.keys})
            self._consumer.subscribe(
                topics, on_assign=self._rebalance, on_revoke=self._rebalance, on_lost=self._rebalance
            )
        else:
            if action.from_beginning:
                # What was read before is forgotten in the history too: the keys are given up and taken anew.
                self._history.complete(self._number, op, "ok", f)
                op = self._history.invoke(self._number, f, keys=sorted(action.keys))
                self._positions = {}
            self._assigned = action.keys
            self._assign_positions()
        self._history.complete(self._number, op, "ok", f, keys=sorted(action.keys))
        return True

    def _assign_positions(self) -> None:
        self._consumer.assign(
            [topic_partition(self._settings.topic, key, self._positions.get(key, 0)) for key in sorted(self._assigned)]
        )

    def _rebalance(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        self._rebalanced.update(key_of(each.topic, each.partition) for each in partitions)

    def _poll(self) -> Poll:
        poll = polled(self._consumer)
        self._positions.update((key, records[-1][0] + 1) for key, records in poll.records.items())
        return poll

    def _poll_once(self) -> bool:
        op = self._history.invoke(self._number, "poll", [Poll({})])
        self._rebalanced.clear()
        poll = self._poll()
        if self._settings.subscribes and poll.records:
            # If the group has moved on, or its coordinator is away, what was read will be read again.
            with suppress(KafkaException):
                self._consumer.commit(asynchronous=False)
        self._history.complete(self._number, op, "ok", "poll", [poll], rebalanced=sorted(self._rebalanced))
        return True

    def _produce(self, send: Send) -> Delivery:
        delivery = Delivery(send)
        where = topic_partition(self._settings.topic, send.key)
        self._producer.produce(where.topic, str(send.value), partition=where.partition, on_delivery=delivery)
        return delivery

    def _send(self, sends: Sequence[Send]) -> bool:
        begun: list[tuple[int, Delivery]] = []
        error = ""
        for send in sends:
            op = self._history.invoke(self._number, "send", [send])
            try:
                begun.append((op, self._produce(send)))
            except FAILED as refused:
                # The producer has failed for good, and has not taken this one.
                error = str(refused)
                self._history.complete(self._number, op, "fail", "send", [send], error=error)
        try:
            self._producer.flush(2 * DELIVERY_TIMEOUT_S)
        except FAILED as failed:
            error = str(failed)
        for op, delivery in begun:
            known = delivery.is_over and delivery.error is None
            if not known:
                error = error or str(delivery.error)
            self._history.complete(
                self._number, op, "ok" if known else "info", "send", [delivery.send], error="" if known else error
            )
        return not error

    def _crash(self, action: Crash) -> bool:
        if action.sends:
            op = self._history.invoke(self._number, "txn", action.sends)
            with suppress(*FAILED):
                self._producer.begin_transaction()
                for send in action.sends:
                    self._produce(send)
                # Some are on a broker's disk by then and some are not.
                self._producer.poll(0.01)
            # Nobody has asked to commit it, so it never will be.
            self._history.complete(self._number, op, "fail", "txn", action.sends, error="crash")
        self._history.complete(self._number, self._history.invoke(self._number, "crash"), "info", "crash")
        return False

    def _transact(self, action: Transaction) -> bool:
        op = self._history.invoke(self._number, "txn", action.micros)
        self._rebalanced.clear()
        before = dict(self._positions)
        done: list[Micro | Delivery] = []
        outcome, error, may_go_on = self._try_transaction(action, done)
        micros = [each.send if isinstance(each, Delivery) else each for each in done]
        if outcome != "ok":
            micros += [micro for micro in action.micros[len(done) :] if isinstance(micro, Send)]
            self._rewind(before, micros)
        rebalanced = sorted(self._rebalanced)
        self._history.complete(self._number, op, outcome, "txn", micros, error=error, rebalanced=rebalanced)
        return may_go_on

    def _try_transaction(self, action: Transaction, done: list[Micro | Delivery]) -> tuple[str, str, bool]:
        """The outcome, what went wrong, and whether the process may go on."""
        try:
            self._producer.begin_transaction()
            for micro in action.micros:
                done.append(self._produce(micro) if isinstance(micro, Send) else self._poll())
                self._producer.poll(0)
            if action.aborts:
                return "fail", "aborted on purpose", self._abort()
            offsets = {
                key: records[-1][0] + 1
                for each in done
                if isinstance(each, Poll)
                for key, records in each.records.items()
            }
            if offsets:
                positions = [topic_partition(self._settings.topic, key, offset) for key, offset in offsets.items()]
                group = self._consumer.consumer_group_metadata()
                self._producer.send_offsets_to_transaction(positions, group, TRANSACTION_TIMEOUT_S)
            self._producer.flush(2 * DELIVERY_TIMEOUT_S)
        except FAILED as failed:
            # Nobody has asked to commit it, so it never will be. A coordinator that librdkafka has given up because it
            # was away for a while is one whose answers it may wait for without end (2.16.1), so it begins anew.
            error = error_of(failed)
            may_go_on = error is not None and error.code() != KafkaError._DESTROY_BROKER and self._abort()
            return "fail", str(failed), may_go_on
        return self._commit()

    def _commit(self) -> tuple[str, str, bool]:
        deadline = time.monotonic() + COMMIT_TIMEOUT_S
        while True:
            try:
                self._producer.commit_transaction(TRANSACTION_TIMEOUT_S)
            except FAILED as failed:
                error = error_of(failed)
                if error is not None and error.txn_requires_abort():
                    aborted = self._abort()
                    return "fail" if aborted else "info", str(failed), aborted
                if error is None or not error.retriable() or time.monotonic() > deadline:
                    return "info", str(failed), False
            else:
                return "ok", "", True

    def _abort(self) -> bool:
        deadline = time.monotonic() + COMMIT_TIMEOUT_S
        while True:
            try:
                self._producer.abort_transaction(TRANSACTION_TIMEOUT_S)
            except FAILED as failed:
                error = error_of(failed)
                if error is None or not error.retriable() or time.monotonic() > deadline:
                    return False
            else:
                return True

    def _rewind(self, before: dict[int, int], micros: Sequence[Micro]) -> None:
        """What a transaction has read that did not happen is to be read again."""
        if not self._settings.subscribes:
            self._positions = before
            self._assign_positions()
            return
        first: dict[int, int] = {}
        for micro in micros:
            if isinstance(micro, Poll):
                for key, records in micro.records.items():
                    first.setdefault(key, records[0][0])
        for key, offset in first.items():
            # The group may have taken this key away meanwhile.
            with suppress(KafkaException):
                self._consumer.seek(topic_partition(self._settings.topic, key, offset))

    def close(self) -> None:
        """An orderly end. A process that nobody closes has crashed."""
        self._consumer.close()


def main(settings: ClientSettings) -> None:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    history = HistoryWriter(Path(settings.history))
    workload = Workload(settings.seed, settings.client, settings.clients, settings.keys, settings.transactional)
    process: Process | None = None
    number = settings.client
    while not stopped:
        # A library that never comes back is no fault of the cluster: the client says where it is, and ends.
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
        if process is None:
            try:
                process = Process(number, settings, history)
            except KafkaException:
                # The coordinator of its transactions is away.
                continue
            workload.begins_anew()
        if not process.take(workload.next()):
            process, number = None, number + settings.clients
        time.sleep(workload.pause_s(MEAN_PAUSE_S))
    faulthandler.dump_traceback_later(STUCK_S, exit=True)
    if process is not None:
        process.close()
    history.close()


if __name__ == "__main__":
    main(ClientSettings(**json.loads(sys.argv[1])))
