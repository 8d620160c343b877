"""One consumer process of the group chaos: writes down each record's value before it commits it, until SIGTERM.

One whose group.instance.id another has taken over ends with FENCED_EXIT_CODE.

python chaos_consumer.py <bootstrap> <topic> <group> <instance id or -> <strategy> <output file>
"""

import os
import signal
import sys
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message

POLL_S = 0.1
MAX_RECORDS = 50
FENCED_EXIT_CODE = 3


def read(consumer: Consumer) -> list[Message]:
    messages = consumer.consume(MAX_RECORDS, POLL_S)
    for message in messages:
        error = message.error()
        if error is not None and error.code() == KafkaError._FATAL:
            sys.exit(FENCED_EXIT_CODE)
    return [message for message in messages if message.error() is None]


def main(bootstrap: str, topic: str, group: str, instance_id: str, strategy: str, output: str) -> None:
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    settings: dict[str, Any] = {
        "bootstrap.servers": bootstrap,
        "group.id": group,
        "partition.assignment.strategy": strategy,
        "session.timeout.ms": 6_000,
        "heartbeat.interval.ms": 500,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "log_level": 0,
    }
    if instance_id != "-":
        settings["group.instance.id"] = instance_id
    consumer = Consumer(settings)
    consumer.subscribe([topic])
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    while not stopped:
        messages = read(consumer)
        if not messages:
            continue
        # One write a batch, so that a kill leaves no half of a line.
        os.write(file, b"".join((message.value() or b"") + b"\n" for message in messages))
        try:
            consumer.commit(asynchronous=False)
        except KafkaException:
            # The group has moved on without this member, which learns of it with its next poll.
            continue
    consumer.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
