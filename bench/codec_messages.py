"""The messages that bench/codec.py measures with, as kpy's objects. Sizes are those of ordinary clients."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from kpy.records.batch import NewRecord, build_batch
from kpy.wire import fetch, join_group, metadata, offset_fetch, produce

RECORDS_PER_BATCH = 10
VALUE_BYTES = 100
TIMESTAMP_MS = 1_700_000_000_000

BATCH = build_batch([NewRecord(TIMESTAMP_MS + i, b"key-%d" % i, b"v" * VALUE_BYTES) for i in range(RECORDS_PER_BATCH)])


class Case(NamedTuple):
    """One row of the table."""

    title: str
    api: str
    """The module of kpy.wire, and of kio.schema."""
    message: Any
    version: int

    @property
    def is_request(self) -> bool:
        return type(self.message).__name__.endswith("Request")


def cases() -> Iterator[Case]:
    """Every row, in order."""
    for partitions in (100, 10_000):
        yield Case(f"Metadata response v12, {partitions:,} partitions", "metadata", _metadata(partitions), 12)
    for partitions in (1, 10, 100):
        label = "1 partition" if partitions == 1 else f"{partitions} partitions"
        yield Case(f"Produce request v9, {label}", "produce", _produce_request(partitions), 9)
        yield Case(f"Produce response v9, {label}", "produce", _produce_response(partitions), 9)
        for version in (12, 17):
            yield Case(f"Fetch request v{version}, {label}", "fetch", _fetch_request(partitions, version), version)
            yield Case(f"Fetch response v{version}, {label}", "fetch", _fetch_response(partitions, version), version)
    yield Case("JoinGroup request v9", "join_group", _join_group_request(), 9)
    yield Case("JoinGroup response v9, 50 members", "join_group", _join_group_response(50), 9)
    yield Case("OffsetFetch request v8, 100 partitions", "offset_fetch", _offset_fetch_request(), 8)
    yield Case("OffsetFetch response v8, 100 partitions", "offset_fetch", _offset_fetch_response(), 8)


def _topic_id(number: int) -> bytes:
    return b"topic id" + number.to_bytes(8)


def _metadata(partitions: int) -> Any:
    brokers = [metadata.MetadataResponseBroker(i, f"broker-{i}.example.com", 9092, None) for i in range(3)]
    topics: list[Any] = []
    for number in range(partitions // 10):
        each = [
            metadata.MetadataResponsePartition(0, i, i % 3, 5, [i % 3, (i + 1) % 3], [i % 3, (i + 1) % 3])
            for i in range(10)
        ]
        topics.append(metadata.MetadataResponseTopic(0, f"topic-{number}", _topic_id(number), partitions=each))
    return metadata.MetadataResponse(0, brokers, "Some3ClusterId4of22Chr", 1, topics)


def _produce_request(partitions: int) -> Any:
    data = [produce.PartitionProduceData(i, BATCH) for i in range(partitions)]
    return produce.ProduceRequest(None, -1, 30_000, [produce.TopicProduceData("orders", partition_data=data)])


def _produce_response(partitions: int) -> Any:
    each = [produce.PartitionProduceResponse(i, 0, 1_000_000 + i, -1, 0) for i in range(partitions)]
    return produce.ProduceResponse([produce.TopicProduceResponse("orders", partition_responses=each)])


def _fetch_request(partitions: int, version: int) -> Any:
    each = [fetch.FetchPartition(i, 5, 1_000_000 + i, -1, -1, 1_048_576) for i in range(partitions)]
    topic = fetch.FetchTopic("orders" if version < 13 else "", _topic_id(0) if version >= 13 else bytes(16), each)
    request = fetch.FetchRequest(max_wait_ms=500, min_bytes=1, max_bytes=52_428_800, topics=[topic], rack_id="")
    request.session_epoch = 0
    return request


def _fetch_response(partitions: int, version: int) -> Any:
    each = [
        fetch.PartitionData(i, 0, 1_000_010, 1_000_010, 0, aborted_transactions=None, records=BATCH)
        for i in range(partitions)
    ]
    topic = fetch.FetchableTopicResponse(
        "orders" if version < 13 else "", _topic_id(0) if version >= 13 else bytes(16), each
    )
    return fetch.FetchResponse(responses=[topic])


def _join_group_request() -> Any:
    protocols = [join_group.JoinGroupRequestProtocol(name, b"m" * 100) for name in ("range", "cooperative-sticky")]
    return join_group.JoinGroupRequest("a-group", 45_000, 300_000, "member-1", None, "consumer", protocols, "joining")


def _join_group_response(members: int) -> Any:
    each = [
        join_group.JoinGroupResponseMember(f"consumer-{i}-0123456789abcdef", None, b"m" * 100) for i in range(members)
    ]
    return join_group.JoinGroupResponse(
        0, 0, 7, "consumer", "range", "consumer-0-0123456789abcdef", False, "consumer-0-0123456789abcdef", each
    )


def _offset_fetch_request() -> Any:
    topics = [offset_fetch.OffsetFetchRequestTopics(f"topic-{t}", partition_indexes=[*range(10)]) for t in range(10)]
    return offset_fetch.OffsetFetchRequest(groups=[offset_fetch.OffsetFetchRequestGroup("a-group", topics=topics)])


def _offset_fetch_response() -> Any:
    topics = [
        offset_fetch.OffsetFetchResponseTopics(
            f"topic-{t}",
            partitions=[offset_fetch.OffsetFetchResponsePartitions(i, 1_000_000 + i, 5, "") for i in range(10)],
        )
        for t in range(10)
    ]
    return offset_fetch.OffsetFetchResponse(groups=[offset_fetch.OffsetFetchResponseGroup("a-group", topics)])
