"""Requests that many scenarios make."""

from typing import Any

from compat.differential.scenario import Ask, Saved, Taken
from kpy.records.batch import NewRecord, build_batch
from kpy.wire.create_topics import CreatableTopic, CreatableTopicConfig, CreateTopicsRequest
from kpy.wire.fetch import FetchPartition, FetchRequest, FetchTopic
from kpy.wire.produce import PartitionProduceData, ProduceRequest, TopicProduceData

PRODUCE, FETCH, LIST_OFFSETS, METADATA = 0, 1, 2, 3
OFFSET_COMMIT, OFFSET_FETCH, FIND_COORDINATOR = 8, 9, 10
JOIN_GROUP, HEARTBEAT, LEAVE_GROUP, SYNC_GROUP, DESCRIBE_GROUPS, LIST_GROUPS = 11, 12, 13, 14, 15, 16
API_VERSIONS, CREATE_TOPICS, DELETE_TOPICS, INIT_PRODUCER_ID = 18, 19, 20, 22
DELETE_RECORDS, OFFSET_FOR_LEADER_EPOCH = 21, 23
ALTER_REPLICA_LOG_DIRS, DESCRIBE_LOG_DIRS = 34, 35
ADD_PARTITIONS_TO_TXN, ADD_OFFSETS_TO_TXN, END_TXN, WRITE_TXN_MARKERS, TXN_OFFSET_COMMIT = 24, 25, 26, 27, 28
DESCRIBE_PRODUCERS, DESCRIBE_TRANSACTIONS, LIST_TRANSACTIONS = 61, 65, 66
DESCRIBE_CONFIGS, ALTER_CONFIGS, CREATE_PARTITIONS = 32, 33, 37
DELETE_GROUPS, INCREMENTAL_ALTER_CONFIGS, OFFSET_DELETE, DESCRIBE_CLUSTER = 42, 44, 47, 60

TIMESTAMP = 1_700_000_000_000
"""Of the first record of every batch: long ago, so that the same request is the same bytes on every day."""


def create(name: str = "t", partitions: int = 1, **configs: str) -> Ask:
    """A topic named {name}, whose id is then Saved("name_id"). Config names have _ for dots."""
    settings = [CreatableTopicConfig(key.replace("_", "."), value) for key, value in configs.items()]
    topic = CreatableTopic("{" + name + "}", partitions, 1, [], settings)
    return Ask(CreateTopicsRequest([topic], 10_000), save={f"{name}_id": "topics.0.topic_id"}, version=7)


def values(*each: str, **options: Any) -> bytes:
    """One batch of records with these values, keys k0, k1, ..., a second apart."""
    records = [NewRecord(TIMESTAMP + 1000 * index, b"k%d" % index, value.encode()) for index, value in enumerate(each)]
    return build_batch(records, **options)


def produce(
    records: bytes | None, name: str = "t", partition: int = 0, acks: int = -1, version: int | None = None
) -> Ask:
    """To one partition. acks=0 has no answer."""
    data = PartitionProduceData(partition, records)
    topic = TopicProduceData("{" + name + "}", Saved(f"{name}_id"), [data])
    taken = Taken.NEVER if acks == 0 else Taken.AT_ONCE
    return Ask(ProduceRequest(None, acks, 10_000, [topic]), version, taken=taken)


def fetch_position(offset: int, partition: int = 0, max_bytes: int = 1 << 20, **fields: Any) -> FetchPartition:
    return FetchPartition(partition, fetch_offset=offset, partition_max_bytes=max_bytes, **fields)


def fetch_topic(*positions: FetchPartition, name: str = "t") -> FetchTopic:
    """By name and by id, of which the version takes one."""
    return FetchTopic("{" + name + "}", Saved(f"{name}_id"), list(positions))


def fetch_request(*topics: FetchTopic, **fields: Any) -> FetchRequest:
    return FetchRequest(**{"max_wait_ms": 0, "max_bytes": 1 << 20, "topics": list(topics), **fields})


def fetch(offset: int, name: str = "t", version: int | None = None, **fields: Any) -> Ask:
    """Of partition 0, without waiting."""
    return Ask(fetch_request(fetch_topic(fetch_position(offset), name=name), **fields), version)
