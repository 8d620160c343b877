"""librdkafka's consumer groups: eager and incremental rebalances, static and vanished members, commits."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, Message, TopicPartition

from compat.confluent.clients import Clients, numbered, read, send_all, values_of
from compat.harness import BrokerFactory, unique, wait_until


class Member:
    """A consumer in a group, what it has received, and the rebalances it was told of, in order."""

    def __init__(self, consumer: Consumer, topic: str) -> None:
        self.consumer = consumer
        self.received: list[Message] = []
        self.rebalances: list[tuple[str, frozenset[int]]] = []
        consumer.subscribe(
            [topic],
            on_assign=self._noting("assigned"),
            on_revoke=self._noting("revoked"),
            on_lost=self._noting("lost"),
        )

    def _noting(self, what: str) -> Callable[[Consumer, list[TopicPartition]], None]:
        def note(_: Consumer, partitions: list[TopicPartition]) -> None:
            self.rebalances.append((what, frozenset(partition.partition for partition in partitions)))

        return note

    @property
    def owned(self) -> set[int]:
        return {partition.partition for partition in self.consumer.assignment()}

    def poll(self) -> None:
        message = self.consumer.poll(0.01)
        while message is not None:
            assert message.error() is None, message.error()
            self.received.append(message)
            message = self.consumer.poll(0)


class Members:
    """The members of one group, polled in turn."""

    def __init__(self, topic: str, partitions: int) -> None:
        self.topic = topic
        self.partitions = partitions
        self.members: list[Member] = []

    def add(self, consumer: Consumer) -> Member:
        member = Member(consumer, self.topic)
        self.members.append(member)
        return member

    def remove(self, member: Member) -> None:
        self.members.remove(member)
        member.consumer.close()

    def settle(self) -> None:
        """Poll until every partition has exactly one member and every member a partition."""

        def settled() -> bool:
            for member in self.members:
                member.poll()
            owned = [member.owned for member in self.members]
            return all(owned) and sorted(index for some in owned for index in some) == list(range(self.partitions))

        wait_until(settled, "each partition has one member")

    def exchange(self, clients: Clients, values: list[bytes]) -> None:
        """Produce to all partitions in turn; each record must come once, to the member that has its partition."""
        producer = clients.producer({"enable.idempotence": True})
        for number, value in enumerate(values):
            producer.produce(self.topic, value, partition=number % self.partitions)
        assert producer.flush(10) == 0
        expected = set(values)

        def came(member: Member) -> list[Message]:
            return [message for message in member.received if message.value() in expected]

        def all_came() -> bool:
            for member in self.members:
                member.poll()
            return sum(len(came(member)) for member in self.members) >= len(values)

        wait_until(all_came, "every record is received")
        for member in self.members:
            for index in member.owned:
                received = [message.value() for message in came(member) if message.partition() == index]
                assert received == values[index :: self.partitions]
        assert sum(len(came(member)) for member in self.members) == len(values)


@pytest.mark.parametrize("assignor", ["range", "roundrobin", "cooperative-sticky"])
def test_members_join_and_leave(clients: Clients, assignor: str) -> None:
    group = unique("group")
    members = Members(clients.topic("rebalance", partitions=6), partitions=6)

    def join() -> Member:
        return members.add(clients.consumer({"group.id": group, "partition.assignment.strategy": assignor}))

    first = join()
    members.settle()
    members.exchange(clients, numbered(30, "one member"))
    join()
    members.settle()
    members.exchange(clients, numbered(30, "two members"))
    join()
    members.settle()
    assert [len(member.owned) for member in members.members] == [2, 2, 2]
    members.exchange(clients, numbered(30, "three members"))
    members.remove(first)
    members.settle()
    assert [len(member.owned) for member in members.members] == [3, 3]
    members.exchange(clients, numbered(30, "two members again"))


def test_a_cooperative_rebalance_takes_only_what_moves(clients: Clients) -> None:
    """KIP-429: the first member never gives up a partition that it keeps."""
    group = unique("group")
    members = Members(clients.topic("cooperative", partitions=6), partitions=6)
    settings = {"group.id": group, "partition.assignment.strategy": "cooperative-sticky"}

    first = members.add(clients.consumer(settings))
    members.settle()
    second = members.add(clients.consumer(settings))
    members.settle()

    moved = frozenset(second.owned)
    assert len(moved) == 3
    assert [event for event in first.rebalances if event[1]] == [("assigned", frozenset(range(6))), ("revoked", moved)]
    assert [event for event in second.rebalances if event[1]] == [("assigned", moved)]


def test_an_eager_rebalance_takes_everything_first(clients: Clients) -> None:
    group = unique("group")
    members = Members(clients.topic("eager", partitions=4), partitions=4)
    settings = {"group.id": group, "partition.assignment.strategy": "range"}

    first = members.add(clients.consumer(settings))
    members.settle()
    members.add(clients.consumer(settings))
    members.settle()

    everything = frozenset(range(4))
    assert [event for event in first.rebalances if event[1]] == [
        ("assigned", everything),
        ("revoked", everything),
        ("assigned", frozenset(first.owned)),
    ]


def test_a_static_member_comes_back_without_a_rebalance(clients: Clients) -> None:
    """KIP-345."""
    group = unique("group")
    members = Members(clients.topic("static", partitions=4), partitions=4)

    def join(instance: str) -> Member:
        return members.add(clients.consumer({"group.id": group, "group.instance.id": instance}))

    first = join("a")
    members.settle()
    second = join("b")
    members.settle()
    before = second.owned
    heard = len(first.rebalances)

    members.remove(second)
    again = join("b")
    members.settle()

    assert again.owned == before
    members.exchange(clients, numbered(20))
    assert len(first.rebalances) == heard


def test_a_second_member_with_the_same_instance_id_fences_the_first(clients: Clients) -> None:
    topic = clients.topic("fenced")
    settings = {"group.id": unique("group"), "group.instance.id": "same"}
    members = Members(topic, partitions=1)
    first = members.add(clients.consumer(settings))
    members.settle()
    members.members.remove(first)

    members.add(clients.consumer(settings))
    members.settle()

    codes: list[int] = []

    def fenced() -> bool:
        message = first.consumer.poll(0.05)
        if message is not None and message.error() is not None:
            codes.append(message.error().code())
        return bool(codes)

    wait_until(fenced, "the first hears that it is fenced")
    assert codes[0] in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID)


VANISHING_MEMBER = """
import sys
from confluent_kafka import Consumer
bootstrap, group, topic = sys.argv[1:]
consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group, "session.timeout.ms": 1500,
                     "heartbeat.interval.ms": 200, "partition.assignment.strategy": "cooperative-sticky"})
consumer.subscribe([topic], on_assign=lambda _, partitions: partitions and print("assigned", flush=True))
while True:
    consumer.poll(0.1)
"""


def test_a_killed_members_partitions_go_to_the_others_when_its_session_ends(fresh_broker: BrokerFactory) -> None:
    broker = fresh_broker({"group.min.session.timeout.ms": "1000"})
    group = unique("group")
    with Clients(broker.bootstrap) as clients:
        topic = clients.topic("killed", partitions=4)
        members = Members(topic, partitions=4)
        command = [sys.executable, "-c", VANISHING_MEMBER, broker.bootstrap, group, topic]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as vanishing:
            assert vanishing.stdout is not None
            assert vanishing.stdout.readline() == b"assigned\n"
            survivor = members.add(
                clients.consumer({"group.id": group, "partition.assignment.strategy": "cooperative-sticky"})
            )

            def share() -> bool:
                survivor.poll()
                return len(survivor.owned) == 2

            wait_until(share, "the partitions are shared")
            os.kill(vanishing.pid, signal.SIGKILL)

        members.settle()
        members.exchange(clients, numbered(20))


def test_a_restarted_consumer_resumes_where_it_committed(clients: Clients) -> None:
    topic = clients.topic("resume")
    group = unique("group")
    send_all(clients.producer(), topic, numbered(30))
    settings = {"group.id": group, "enable.auto.commit": False}

    first = clients.consumer(settings)
    first.subscribe([topic])
    messages = read(first, 10)
    (committed,) = first.commit(message=messages[-1], asynchronous=False)
    assert (committed.error, committed.offset) == (None, 10)
    read(first, 10)
    first.close()

    second = clients.consumer(settings)
    second.subscribe([topic])
    assert values_of(read(second, 20)) == numbered(30)[10:]


def test_closing_commits_automatically(clients: Clients) -> None:
    topic = clients.topic("auto-commit")
    group = unique("group")
    send_all(clients.producer(), topic, numbered(10))
    first = clients.consumer({"group.id": group, "auto.commit.interval.ms": 60_000})
    first.subscribe([topic])
    read(first, 10)
    first.close()

    (committed,) = clients.consumer({"group.id": group}).committed([TopicPartition(topic, 0)], timeout=10)

    assert committed.offset == 10


def test_only_stored_offsets_are_committed(clients: Clients) -> None:
    topic = clients.topic("stored")
    group = unique("group")
    send_all(clients.producer(), topic, numbered(10))
    consumer = clients.consumer({"group.id": group, "enable.auto.offset.store": False, "enable.auto.commit": False})
    consumer.subscribe([topic])
    messages = read(consumer, 10)

    with pytest.raises(KafkaException) as nothing_stored:
        consumer.commit(asynchronous=False)
    assert nothing_stored.value.args[0].code() == KafkaError._NO_OFFSET
    consumer.store_offsets(message=messages[3])
    consumer.commit(asynchronous=False)

    assert consumer.committed([TopicPartition(topic, 0)], timeout=10)[0].offset == 4


def test_commits_carry_metadata(clients: Clients) -> None:
    topic = clients.topic("metadata", partitions=2)
    group = unique("group")
    consumer = clients.consumer({"group.id": group})

    answer = consumer.commit(
        offsets=[TopicPartition(topic, 0, 7, metadata="größe 7"), TopicPartition(topic, 1, 0)], asynchronous=False
    )

    assert [(partition.offset, partition.error) for partition in answer] == [(7, None), (0, None)]
    observer = clients.consumer({"group.id": group})
    first, second = observer.committed([TopicPartition(topic, 0), TopicPartition(topic, 1)], timeout=10)
    assert (first.offset, first.metadata) == (7, "größe 7")
    assert second.offset == 0
    other = clients.topic("uncommitted")
    assert observer.committed([TopicPartition(other, 0)], timeout=10)[0].offset == OFFSET_INVALID


def test_asynchronous_commits_are_answered(clients: Clients) -> None:
    topic = clients.topic("async-commit")
    answers: list[tuple[KafkaError | None, int]] = []
    consumer = clients.consumer({"on_commit": lambda error, partitions: answers.append((error, partitions[0].offset))})

    for offset in range(1, 51):
        consumer.commit(offsets=[TopicPartition(topic, 0, offset)], asynchronous=True)

    def answered() -> bool:
        consumer.poll(0.02)
        return len(answers) == 50

    wait_until(answered, "50 answers")
    assert answers == [(None, offset) for offset in range(1, 51)]
    assert consumer.committed([TopicPartition(topic, 0)], timeout=10)[0].offset == 50


def test_a_member_takes_up_partitions_that_are_added(clients: Clients) -> None:
    from confluent_kafka.admin import NewPartitions

    topic = clients.topic("grows", partitions=1)
    members = Members(topic, partitions=1)
    members.add(clients.consumer({"topic.metadata.refresh.interval.ms": 200}))
    members.settle()

    clients.admin().create_partitions([NewPartitions(topic, 3)])[topic].result(10)
    members.partitions = 3
    members.settle()

    members.exchange(clients, numbered(15))


def test_a_pattern_subscription_finds_new_topics(clients: Clients) -> None:
    prefix = unique("pattern")
    first = clients.topic(f"{prefix}-a")
    consumer = clients.consumer({"topic.metadata.refresh.interval.ms": 200})
    consumer.subscribe([f"^{prefix}-.*"])
    producer = clients.producer()

    send_all(producer, first, numbered(3, "first"))
    assert values_of(read(consumer, 3)) == numbered(3, "first")
    second = clients.topic(f"{prefix}-b")
    send_all(producer, second, numbered(3, "second"))
    assert values_of(read(consumer, 3)) == numbered(3, "second")


def test_commits_and_members_outlive_a_restart_of_the_broker(fresh_broker: BrokerFactory) -> None:
    broker = fresh_broker()
    with Clients(broker.bootstrap) as clients:
        topic = clients.topic("restart")
        producer = clients.producer({"enable.idempotence": True})
        consumer = clients.consumer({"enable.auto.commit": False})
        consumer.subscribe([topic])
        send_all(producer, topic, numbered(10, "before"))
        assert values_of(read(consumer, 10)) == numbered(10, "before")
        consumer.commit(asynchronous=False)

        broker.restart()

        assert [m.offset() for m in send_all(producer, topic, numbered(10, "after"))] == list(range(10, 20))
        assert values_of(_skip_errors(consumer, 10)) == numbered(10, "after")
        assert consumer.committed([TopicPartition(topic, 0)], timeout=10)[0].offset == 10


def _skip_errors(consumer: Consumer, count: int) -> list[Message]:
    """Read while the consumer reports that the broker was away."""
    messages: list[Message] = []

    def came() -> bool:
        message = consumer.poll(0.1)
        if message is not None and message.error() is None:
            messages.append(message)
        return len(messages) == count

    wait_until(came, f"{count} records")
    return messages
