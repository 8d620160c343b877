"""What kafka-python's clients find after the broker was restarted in an orderly way."""

from kafka import TopicPartition
from kafka.admin import ConfigResource
from kafka.structs import OffsetAndMetadata

from compat.harness import BrokerFactory, unique
from compat.kafka_python.clients import Clients, numbered, read, read_to_end, send_all, values_of


def test_records_topics_and_configs_outlive_a_restart(fresh_broker: BrokerFactory) -> None:
    broker = fresh_broker()
    with Clients(broker.bootstrap) as clients:
        topic = clients.topic("kept", partitions=3, configs={"retention.ms": "123456789"})
        producer = clients.producer()
        for index in range(3):
            send_all(producer, topic, numbered(20, f"partition {index}"), partition=index)
        before = clients.admin().describe_topics([topic])
        cluster_before = clients.admin().describe_cluster()

    broker.restart()

    with Clients(broker.bootstrap) as clients:
        after = clients.admin().describe_topics([topic])
        assert after[0]["topic_id"] == before[0]["topic_id"]
        assert sorted(p["partition_index"] for p in after[0]["partitions"]) == [0, 1, 2]
        assert clients.admin().describe_cluster()["cluster_id"] == cluster_before["cluster_id"]
        configs = clients.admin().describe_configs([ConfigResource("TOPIC", topic)])["topic"][topic]
        assert configs["retention.ms"]["value"] == "123456789"
        for index in range(3):
            records = read_to_end(clients.reader(TopicPartition(topic, index)))
            assert [(r.offset, r.value) for r in records] == list(enumerate(numbered(20, f"partition {index}")))
        answers = send_all(clients.producer(), topic, numbered(1, "next"), partition=1)
        assert answers[0].offset == 20


def test_clients_that_stay_go_on_after_a_restart(fresh_broker: BrokerFactory) -> None:
    broker = fresh_broker()
    with Clients(broker.bootstrap) as clients:
        topic = clients.topic("stays")
        producer = clients.producer(enable_idempotence=True)
        consumer = clients.consumer(topic, group_id=unique("group"), enable_auto_commit=False)
        send_all(producer, topic, numbered(10, "before"))
        assert values_of(read(consumer, 10)) == numbered(10, "before")
        consumer.commit()

        broker.restart()

        answers = send_all(producer, topic, numbered(10, "after"))
        assert [answer.offset for answer in answers] == list(range(10, 20))
        assert values_of(read(consumer, 10)) == numbered(10, "after")
        consumer.commit()
        assert consumer.committed(TopicPartition(topic, 0)) == 20


def test_commits_outlive_a_restart(fresh_broker: BrokerFactory) -> None:
    broker = fresh_broker()
    group = unique("group")
    with Clients(broker.bootstrap) as clients:
        topic = clients.topic("commits", partitions=2)
        send_all(clients.producer(), topic, numbered(20), partition=0)
        consumer = clients.consumer(group_id=group)
        consumer.assign([TopicPartition(topic, 0)])
        consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(3, "three", -1)})
        consumer.commit({TopicPartition(topic, 0): OffsetAndMetadata(12, "twelve", -1)})

    broker.restart()

    with Clients(broker.bootstrap) as clients:
        consumer = clients.consumer(topic, group_id=group)
        assert values_of(read(consumer, 8)) == numbered(20)[12:]
        committed = clients.admin().list_group_offsets(group)[group]
        assert committed[TopicPartition(topic, 0)].metadata in {"twelve", ""}
        assert group in {listed["group_id"] for listed in clients.admin().list_groups()}
