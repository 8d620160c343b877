"""One process of the pipeline: copies records of one topic to another in transactions, offsets included, until killed.

It consumes in a group, and goes on after what can be mended by an abort; after anything else it ends with an error,
and whoever watches over it starts it anew. Each turn of its loop touches the pulse file.

python librdkafka_worker.py <bootstrap> <source> <sink> <group> <transactional id> <instance id or -> <pulse file>
"""

import os
import sys
from collections.abc import Mapping
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, Producer, TopicPartition

SESSION_MS = 3_000
TRANSACTION_TIMEOUT_MS = 6_000
TIMEOUT_S = 5.0
POLL_S = 0.1
RECORDS_A_TRANSACTION = 50

CLIENT: Mapping[str, Any] = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "log_level": 3}


class Worker:
    """A consumer and a producer that are one in what they commit."""

    def __init__(
        self, bootstrap: str, source: str, sink: str, group: str, transactional_id: str, instance: str
    ) -> None:
        self._sink = sink
        self._batch: list[Message] = []
        self._producer = Producer(
            {
                **CLIENT,
                "bootstrap.servers": bootstrap,
                "transactional.id": transactional_id,
                "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
                "message.timeout.ms": TRANSACTION_TIMEOUT_MS,
            }
        )
        self._producer.init_transactions(TIMEOUT_S)
        membership = {} if instance == "-" else {"group.instance.id": instance}
        self._consumer = Consumer(
            {
                **CLIENT,
                **membership,
                "bootstrap.servers": bootstrap,
                "group.id": group,
                "session.timeout.ms": SESSION_MS,
                "heartbeat.interval.ms": 300,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,
            }
        )
        # What was read under another assignment is the next owner's to copy.
        self._consumer.subscribe([source], on_revoke=self._forget, on_lost=self._forget)

    def turn(self) -> None:
        """Copy what there is, at most one transaction."""
        while len(self._batch) < RECORDS_A_TRANSACTION:
            message = self._consumer.poll(0 if self._batch else POLL_S)
            if message is None:
                break
            if message.error() is None:
                self._batch.append(message)
        batch = list(self._batch)
        if batch:
            self._batch.clear()
            self._copy(batch)

    def _forget(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._batch.clear()

    def _copy(self, batch: list[Message]) -> None:
        following = {each.partition(): (each.offset() or 0) + 1 for each in batch}
        source = batch[0].topic() or ""
        offsets = [TopicPartition(source, index or 0, offset) for index, offset in following.items()]
        self._producer.begin_transaction()
        try:
            for each in batch:
                self._producer.produce(self._sink, each.value(), each.key(), partition=each.partition() or 0)
            self._producer.send_offsets_to_transaction(offsets, self._consumer.consumer_group_metadata(), TIMEOUT_S)
            self._producer.commit_transaction(TIMEOUT_S)
        except KafkaException as failed:
            if not failed.args[0].txn_requires_abort():
                raise
            self._producer.abort_transaction(TIMEOUT_S)
            first = {each.partition(): each for each in reversed(batch)}
            for each in first.values():
                self._consumer.seek(TopicPartition(source, each.partition() or 0, each.offset() or 0))


def main(*arguments: str) -> None:
    *of_worker, pulse = arguments
    worker = Worker(*of_worker)
    while True:
        os.utime(pulse)
        worker.turn()


if __name__ == "__main__":
    main(*sys.argv[1:])
