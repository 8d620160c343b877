"""The JSON of Apache Kafka's znodes, checked against what a 3.9.1 cluster wrote."""

import json

import pytest

from kpy import ids
from kpy.metadata import znodes
from kpy.metadata.store import with_parents

TOPIC_ID = ids.from_text("P-7WtMDkTCKPdgp4LFQjIA")


def test_topic_node_is_kafkas() -> None:
    node = znodes.TopicNode(TOPIC_ID, {0: (1, 2, 3), 1: (2, 3, 1)})
    assert json.loads(znodes.encode_topic(node)) == {
        "partitions": {"0": [1, 2, 3], "1": [2, 3, 1]},
        "topic_id": "P-7WtMDkTCKPdgp4LFQjIA",
        "adding_replicas": {},
        "removing_replicas": {},
        "version": 3,
    }


def test_topic_node_of_kafka_is_read() -> None:
    data = (
        b'{"partitions":{"1":[2,3,1],"0":[1,2,3]},"topic_id":"P-7WtMDkTCKPdgp4LFQjIA",'
        b'"adding_replicas":{},"removing_replicas":{},"version":3}'
    )
    assert znodes.decode_topic(data) == znodes.TopicNode(TOPIC_ID, {0: (1, 2, 3), 1: (2, 3, 1)})


def test_topic_node_of_an_old_tool_has_no_id() -> None:
    assert znodes.decode_topic(b'{"version":1,"partitions":{"0":[1]}}') == znodes.TopicNode(ids.ZERO_ID, {0: (1,)})


def test_partition_state_is_kafkas() -> None:
    state = znodes.PartitionState(leader=1, leader_epoch=15, isr=(2, 1, 3), controller_epoch=9)
    data = znodes.encode_partition_state(state)
    assert json.loads(data) == {"controller_epoch": 9, "leader": 1, "version": 1, "leader_epoch": 15, "isr": [2, 1, 3]}
    assert znodes.decode_partition_state(data) == state


def test_partition_state_while_recovering_is_read() -> None:
    data = (
        b'{"leader_recovery_state":1,"controller_epoch":9,"leader":2,"version":1,"leader_epoch":4,"isr":[2],'
        b'"a_key_of_the_future":[]}'
    )
    assert znodes.decode_partition_state(data) == znodes.PartitionState(2, 4, (2,), 9, leader_recovery_state=1)


def test_config_node_is_kafkas() -> None:
    data = znodes.encode_config({"retention.ms": "3600000"})
    assert json.loads(data) == {"version": 1, "config": {"retention.ms": "3600000"}}
    assert znodes.decode_config(data) == {"retention.ms": "3600000"}


def test_cluster_id_has_its_version_as_text() -> None:
    data = znodes.encode_cluster_id("VUJmE3lXTTqs0g9LRGRJbQ")
    assert json.loads(data) == {"version": "1", "id": "VUJmE3lXTTqs0g9LRGRJbQ"}
    assert znodes.decode_cluster_id(data) == "VUJmE3lXTTqs0g9LRGRJbQ"


def test_producer_id_block_has_its_bounds_as_text() -> None:
    data = znodes.encode_producer_id_block(znodes.ProducerIdBlock(3, 1000, 1999))
    assert json.loads(data) == {"version": 1, "broker": 3, "block_start": "1000", "block_end": "1999"}
    assert znodes.decode_producer_id_block(data) == znodes.ProducerIdBlock(3, 1000, 1999)


def test_broker_registration_is_kafkas() -> None:
    registration = znodes.BrokerRegistration(
        {"PLAINTEXT": ("127.0.0.1", 25091), "SASL": ("127.0.0.1", 25082)},
        {"PLAINTEXT": "PLAINTEXT", "SASL": "SASL_PLAINTEXT"},
        "r1",
    )
    data = znodes.encode_broker(registration, 1795243812002)
    assert json.loads(data) == {
        "features": {},
        "listener_security_protocol_map": {"PLAINTEXT": "PLAINTEXT", "SASL": "SASL_PLAINTEXT"},
        "endpoints": ["PLAINTEXT://127.0.0.1:25091", "SASL://127.0.0.1:25082"],
        "rack": "r1",
        "jmx_port": -1,
        "port": 25091,
        "host": "127.0.0.1",
        "version": 5,
        "timestamp": "1795243812002",
    }
    assert znodes.decode_broker(data) == registration


def test_broker_registration_without_plaintext_or_rack() -> None:
    registration = znodes.BrokerRegistration({"TLS": ("::1", 9093)}, {"TLS": "SSL"}, None)
    data = znodes.encode_broker(registration, 0)
    document = json.loads(data)
    assert document["endpoints"] == ["TLS://[::1]:9093"]
    assert (document["host"], document["port"]) == (None, -1)
    assert "rack" not in document
    assert znodes.decode_broker(data) == registration


@pytest.mark.parametrize("data", [None, b"", b"null", b"[]", b"{", b"{}", b"\xff", b'{"version":1}'])
def test_other_data_is_refused(data: bytes | None) -> None:
    for decode in (
        znodes.decode_cluster_id,
        znodes.decode_topic,
        znodes.decode_partition_state,
        znodes.decode_config,
        znodes.decode_broker,
        znodes.decode_producer_id_block,
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - one kind of error, whatever the reason
            decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b'{"topic_id":"short","partitions":{"0":[1]}}',
        b'{"partitions":{"0":[1],"2":[1]}}',
        b'{"partitions":{"0":"1"}}',
        b'{"partitions":{"0":[null]}}',
        b'{"partitions":[]}',
    ],
)
def test_a_topic_node_that_makes_no_sense_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - as above
        znodes.decode_topic(data)


def test_parents_come_before_their_children() -> None:
    assert with_parents(["/a/b/c", "/a/d"]) == ["/a", "/a/b", "/a/b/c", "/a/d"]
