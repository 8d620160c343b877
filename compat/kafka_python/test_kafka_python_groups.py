"""kafka-python's consumer groups: members join and leave, each record goes to one of them, and commits are kept."""

import threading
from collections.abc import Iterable, Iterator

import pytest
from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.errors import CommitFailedError, FencedInstanceIdError, UnknownMemberIdError
from kafka.structs import OffsetAndMetadata

from compat.harness import unique, wait_until
from compat.kafka_python.clients import Clients, numbered, poll_records, read, read_to_end, send_all, values_of


class Member:
    """A consumer that a thread of its own polls, since a group comes together only while all of its members poll."""

    def __init__(self, consumer: KafkaConsumer) -> None:
        self.consumer = consumer
        self.received: list[ConsumerRecord] = []
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._poll)
        self._thread.start()

    def _poll(self) -> None:
        while not self._stopped.is_set():
            self.received.extend(poll_records(self.consumer, timeout_ms=500))

    @property
    def owned(self) -> set[TopicPartition]:
        return set(self.consumer.assignment() or ())

    def stop(self) -> None:
        """Stop polling; the consumer is the caller's again, and still a member."""
        self._stopped.set()
        self._thread.join()


class Members:
    """The members of one group."""

    def __init__(self) -> None:
        self.members: list[Member] = []

    def add(self, consumer: KafkaConsumer) -> Member:
        member = Member(consumer)
        self.members.append(member)
        return member

    def remove(self, member: Member) -> None:
        self.members.remove(member)
        member.stop()
        member.consumer.close()

    def stop(self) -> None:
        for member in self.members:
            member.stop()

    def settle(self, topic: str, partitions: int) -> None:
        """Wait until every partition has exactly one member and every member a partition."""
        expected = [TopicPartition(topic, index) for index in range(partitions)]

        def settled() -> bool:
            owned = [member.owned for member in self.members]
            return all(owned) and sorted(partition for some in owned for partition in some) == expected

        wait_until(settled, "each partition has one member")

    def exchange(self, clients: Clients, topic: str, partitions: int, values: list[bytes]) -> None:
        """Produce to all partitions in turn; each record must come once, to the member that has its partition."""
        producer = clients.producer()
        for number, value in enumerate(values):
            producer.send(topic, value, partition=number % partitions)
        producer.flush()
        expected = set(values)

        def came(member: Member) -> list[ConsumerRecord]:
            return [record for record in list(member.received) if record.value in expected]

        wait_until(lambda: sum(len(came(member)) for member in self.members) >= len(values), "every record is received")
        for member in self.members:
            for partition in member.owned:
                index = partition.partition
                assert [r.value for r in came(member) if r.partition == index] == values[index::partitions]
        assert sum(len(came(member)) for member in self.members) == len(values)


@pytest.fixture
def members(clients: Clients) -> Iterator[Members]:
    made = Members()
    yield made
    made.stop()


@pytest.mark.parametrize(
    "assignor",
    [
        RangePartitionAssignor,
        RoundRobinPartitionAssignor,
        StickyPartitionAssignor,
        CooperativeStickyAssignor,
    ],
)
def test_members_join_and_leave(clients: Clients, members: Members, assignor: type) -> None:
    topic = clients.topic("rebalance", partitions=6)
    group = unique("group")

    def join() -> Member:
        return members.add(clients.consumer(topic, group_id=group, partition_assignment_strategy=[assignor]))

    first = join()
    members.settle(topic, 6)
    members.exchange(clients, topic, 6, numbered(30, "one member"))
    join()
    members.settle(topic, 6)
    members.exchange(clients, topic, 6, numbered(30, "two members"))
    join()
    members.settle(topic, 6)
    assert [len(member.owned) for member in members.members] == [2, 2, 2]
    members.exchange(clients, topic, 6, numbered(30, "three members"))
    members.remove(first)
    members.settle(topic, 6)
    assert [len(member.owned) for member in members.members] == [3, 3]
    members.exchange(clients, topic, 6, numbered(30, "two members again"))


def test_more_members_than_partitions(clients: Clients, members: Members) -> None:
    topic = clients.topic("idle", partitions=1)
    group = unique("group")
    admin = clients.admin()
    for _ in range(2):
        members.add(clients.consumer(topic, group_id=group))

    def both_are_members() -> bool:
        described = admin.describe_groups([group])[group]
        return described["group_state"] == "Stable" and len(described["members"]) == 2

    wait_until(both_are_members, "both are members")
    wait_until(lambda: sorted(len(m.owned) for m in members.members) == [0, 1], "one of them has the partition")
    members.exchange(clients, topic, 1, numbered(20))


def test_a_restarted_consumer_resumes_where_it_committed(clients: Clients) -> None:
    topic = clients.topic("resume")
    group = unique("group")
    send_all(clients.producer(), topic, numbered(30))

    first = clients.consumer(topic, group_id=group, enable_auto_commit=False, max_poll_records=10)
    assert values_of(read(first, 10)) == numbered(30)[:10]
    first.commit()
    assert values_of(read(first, 10)) == numbered(30)[10:20]
    first.close()

    second = clients.consumer(topic, group_id=group, enable_auto_commit=False)
    assert values_of(read(second, 20)) == numbered(30)[10:]


def test_closing_commits_automatically(clients: Clients) -> None:
    topic = clients.topic("auto-commit")
    group = unique("group")
    send_all(clients.producer(), topic, numbered(10))
    first = clients.consumer(topic, group_id=group, auto_commit_interval_ms=60_000)
    read(first, 10)
    first.close()

    observer = clients.consumer(group_id=group)

    assert observer.committed(TopicPartition(topic, 0)) == 10


def test_commits_carry_metadata(clients: Clients) -> None:
    topic = clients.topic("metadata", partitions=2)
    first, second = TopicPartition(topic, 0), TopicPartition(topic, 1)
    group = unique("group")
    consumer = clients.consumer(group_id=group)
    consumer.assign([first, second])

    consumer.commit({first: OffsetAndMetadata(7, "größe 7", -1), second: OffsetAndMetadata(0, "", 0)})

    observer = clients.consumer(group_id=group)
    assert observer.committed(first) == 7
    assert observer.committed(first, metadata=True) == OffsetAndMetadata(7, "größe 7", -1)
    assert observer.committed(second, metadata=True) == OffsetAndMetadata(0, "", 0)
    assert observer.committed(TopicPartition(clients.topic("uncommitted"), 0)) is None


def test_a_later_commit_wins_even_if_it_is_lower(clients: Clients) -> None:
    partition = TopicPartition(clients.topic("rewind"), 0)
    consumer = clients.consumer(group_id=unique("group"))
    consumer.assign([partition])

    for offset in (100, 20, 50):
        consumer.commit({partition: OffsetAndMetadata(offset, "", -1)})

    assert consumer.committed(partition) == 50


def test_commits_in_flight_are_all_answered_and_the_last_one_counts(clients: Clients) -> None:
    partition = TopicPartition(clients.topic("async-commit"), 0)
    consumer = clients.consumer(group_id=unique("group"))
    consumer.assign([partition])
    consumer.commit({partition: OffsetAndMetadata(0, "", -1)})

    futures = [consumer.commit_async({partition: OffsetAndMetadata(offset, "", -1)}) for offset in range(1, 6)]
    wait_until(lambda: all(future.is_done for future in futures), "5 answers")

    assert [future.exception for future in futures] == [None] * 5
    assert consumer.committed(partition) == 5


def test_groups_of_one_topic_do_not_disturb_each_other(clients: Clients) -> None:
    topic = clients.topic("shared")
    send_all(clients.producer(), topic, numbered(10))

    for _ in range(3):
        consumer = clients.consumer(topic, group_id=unique("group"))
        assert values_of(read(consumer, 10)) == numbered(10)


def test_the_listener_hears_of_each_rebalance(clients: Clients, members: Members) -> None:
    topic = clients.topic("listener", partitions=2)
    group = unique("group")
    events: list[tuple[str, frozenset[int]]] = []

    class Listener(ConsumerRebalanceListener):
        def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
            events.append(("revoked", frozenset(partition.partition for partition in revoked)))

        def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
            events.append(("assigned", frozenset(partition.partition for partition in assigned)))

    consumer = clients.consumer(group_id=group, partition_assignment_strategy=[RangePartitionAssignor])
    consumer.subscribe([topic], listener=Listener())
    first = members.add(consumer)
    members.settle(topic, 2)
    members.add(clients.consumer(topic, group_id=group, partition_assignment_strategy=[RangePartitionAssignor]))
    members.settle(topic, 2)

    (mine,) = (partition.partition for partition in first.owned)
    told = [event for event in events if event[1]]
    assert told == [("assigned", {0, 1}), ("revoked", {0, 1}), ("assigned", {mine})]


def test_a_static_member_comes_back_to_its_partitions_without_a_rebalance(clients: Clients, members: Members) -> None:
    """KIP-345."""
    topic = clients.topic("static", partitions=4)
    group = unique("group")

    def join(instance: str) -> Member:
        return members.add(clients.consumer(topic, group_id=group, group_instance_id=instance))

    first = join("a")
    members.settle(topic, 4)
    second = join("b")
    members.settle(topic, 4)
    before = second.owned
    generation = first.consumer.group_metadata().generation_id

    members.remove(second)
    again = join("b")
    members.settle(topic, 4)

    assert again.owned == before
    assert again.consumer.group_metadata().generation_id == generation
    assert first.consumer.group_metadata().generation_id == generation
    members.exchange(clients, topic, 4, numbered(20))


def test_a_second_member_with_the_same_instance_id_fences_the_first(clients: Clients, members: Members) -> None:
    topic = clients.topic("fenced")
    group = unique("group")
    first = Member(clients.consumer(topic, group_id=group, group_instance_id="same", enable_auto_commit=False))
    wait_until(lambda: first.owned, "the first has the partition")
    first.stop()

    members.add(clients.consumer(topic, group_id=group, group_instance_id="same"))
    members.settle(topic, 1)

    with pytest.raises(FencedInstanceIdError):
        first.consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(1, "", -1)})


def test_a_stranger_may_not_commit_for_a_group_with_members(clients: Clients, members: Members) -> None:
    topic = clients.topic("stranger")
    group = unique("group")
    members.add(clients.consumer(topic, group_id=group))
    members.settle(topic, 1)

    stranger = clients.consumer(group_id=group)
    stranger.assign([TopicPartition(topic, 0)])
    with pytest.raises((CommitFailedError, UnknownMemberIdError)):
        stranger.commit({TopicPartition(topic, 0): OffsetAndMetadata(5, "", -1)})

    assert stranger.committed(TopicPartition(topic, 0)) is None


def test_a_member_takes_up_partitions_that_are_added(clients: Clients, members: Members) -> None:
    topic = clients.topic("grows", partitions=1)
    members.add(clients.consumer(topic, group_id=unique("group"), metadata_max_age_ms=200))
    members.settle(topic, 1)

    clients.admin().create_partitions({topic: 3})
    members.settle(topic, 3)

    members.exchange(clients, topic, 3, numbered(15))


def test_one_group_over_several_topics(clients: Clients) -> None:
    topics = [clients.topic("several", partitions=2) for _ in range(3)]
    producer = clients.producer()
    for topic in topics:
        send_all(producer, topic, numbered(4, topic), partition=1)

    consumer = clients.consumer(*topics, group_id=unique("group"))
    records = read(consumer, 12)

    assert sorted(values_of(records)) == sorted(value for topic in topics for value in numbered(4, topic))
    assert consumer.assignment() == {TopicPartition(topic, index) for topic in topics for index in range(2)}
    assert read_to_end(consumer) == []
