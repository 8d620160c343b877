"""Brings an answer into a form that two brokers can agree on, and lists what they do not agree on.

Replaced by a symbol is what no two brokers have in common: ids they invent, their port, the time of now. The same id
has the same symbol wherever it comes again, so an answer with a wrong id is still a difference.
"""

import re
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

from compat.differential.connection import Silence
from kpy.errors import ApiError
from kpy.records.batch import check_crc, iter_batches, iter_records
from kpy.records.compression import Codec, decompress
from kpy.wire.primitives import Message

NOW_WITHIN_MS = 600_000
UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
NUMBER = re.compile(r"\d{13}")
MAX_RECORDS_BYTES = 1 << 24

# Neither value nor presence of these is compared. Throttling, cluster ids and disks are each cluster's own.
NOT_COMPARED = frozenset({"throttle_time_ms", "cluster_id", "log_dir", "total_bytes", "usable_bytes"})

ITSELF = ""

# Lists whose order no client may rely on: Apache Kafka fills them from hash maps. The key sorts them.
UNORDERED: Mapping[str, str] = {
    "MetadataResponse.topics": "name",
    "MetadataResponseTopic.partitions": "partition_index",
    "DescribeConfigsResult.configs": "name",
    "DescribeConfigsResponse.results": "resource_name",
    "CreatableTopicResult.configs": "name",
    "CreateTopicsResponse.topics": "name",
    "DeleteTopicsResponse.responses": "name",
    "CreatePartitionsResponse.results": "name",
    "AlterConfigsResponse.responses": "resource_name",
    "IncrementalAlterConfigsResponse.responses": "resource_name",
    "ListGroupsResponse.groups": "group_id",
    "DescribedGroup.members": "member_id",
    "JoinGroupResponse.members": "member_id",
    "DeleteGroupsResponse.results": "group_id",
    "ProduceResponse.responses": "name",
    "ListOffsetsResponse.topics": "name",
    "OffsetFetchResponse.topics": "name",
    "OffsetFetchResponseTopic.partitions": "partition_index",
    "OffsetFetchResponseGroup.topics": "name",
    "OffsetFetchResponseTopics.partitions": "partition_index",
    "TransactionState.topics": "topic",
    "TopicData.partitions": ITSELF,
    "AddPartitionsToTxnResponse.results_by_topic_v3_and_below": "name",
    "AddPartitionsToTxnResult.topic_results": "name",
    "AddPartitionsToTxnTopicResult.results_by_partition": "partition_index",
    "TxnOffsetCommitResponse.topics": "name",
    "TxnOffsetCommitResponseTopic.partitions": "partition_index",
    "WritableTxnMarkerResult.topics": "name",
    "WritableTxnMarkerTopicResult.partitions": "partition_index",
    "OffsetCommitResponse.topics": "name",
    "OffsetCommitResponseTopic.partitions": "partition_index",
    "OffsetDeleteResponseTopic.partitions": "partition_index",
    "TopicProduceResponse.partition_responses": "index",
    "ListOffsetsTopicResponse.partitions": "partition_index",
    "DescribeLogDirsResult.topics": "name",
    "DescribeLogDirsTopic.partitions": "partition_index",
}


def plain(value: Any, symbols: Mapping[Any, str], field: str = "") -> Any:
    """Messages as dicts of their fields, records decoded, and symbols for `symbols` and what is always different."""
    if isinstance(value, Silence):
        return value.value
    if isinstance(value, Message):
        owner = type(value).__name__
        fields = {}
        for name in type(value).__slots__:
            if name not in NOT_COMPARED:
                fields[name] = _field(owner, name, getattr(value, name), symbols)
        return fields
    if isinstance(value, list):
        return [plain(item, symbols, field) for item in value]
    if isinstance(value, memoryview):
        value = bytes(value)
    return _symbol(value, symbols, field)


def _field(owner: str, name: str, value: Any, symbols: Mapping[Any, str]) -> Any:
    if name == "records" and value is not None:
        return records(bytes(value))
    shown = plain(value, symbols, name)
    sort_key = UNORDERED.get(f"{owner}.{name}")
    if sort_key is not None and shown is not None:
        shown = sorted(shown, key=lambda item: str(item[sort_key] if sort_key else item))
    return shown


def _symbol(value: Any, symbols: Mapping[Any, str], field: str) -> Any:
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if is_now(value):
            return "<now>"
        return symbols.get(value, value) if value > 1000 else value
    if isinstance(value, str):
        for known, symbol in symbols.items():
            if isinstance(known, str) and known:
                value = value.replace(known, symbol)
        return NUMBER.sub(lambda found: "<now>" if is_now(int(found[0])) else found[0], UUID.sub("<uuid>", value))
    if isinstance(value, bytes):
        if field == "topic_id" and any(value):
            return symbols.get(value, "<topic id>")
        return symbols.get(value, value)
    return value


def records(data: bytes) -> list[Any]:
    """Every batch or old message with all its fields. Sizes and checksums of compressed ones depend on the library."""
    shown: list[Any] = []
    position = 0
    while position + 17 <= len(data):
        (size,) = struct.unpack_from(">i", data, position + 8)
        if position + 12 + size > len(data):
            # Part of a batch, up to the byte that was allowed, or a filler after converted messages: no client looks at
            # it. kpy ends where the last whole batch does.
            break
        entry = data[position : position + 12 + size]
        shown.append(_batch(entry) if entry[16] == 2 else _message(entry))
        position += len(entry)
    return shown


def _batch(data: bytes) -> dict[str, Any]:
    [(header, batch)] = iter_batches(data)
    fields = header._asdict()
    del fields["crc"]
    if header.codec != Codec.NONE:
        del fields["batch_length"]
    fields["crc is right"] = check_crc(batch)
    try:
        fields["records"] = [tuple(record) for record in iter_records(batch, MAX_RECORDS_BYTES)]
    except ApiError as error:
        fields["records"] = f"unreadable: {error.message}"
    return _with_now(fields)


def _message(data: bytes) -> dict[str, Any]:
    offset, size, _crc, magic, attributes = struct.unpack_from(">qiIbb", data)
    position = 18
    fields: dict[str, Any] = {"offset": offset, "magic": magic, "attributes": attributes}
    if magic == 1:
        fields["timestamp"] = struct.unpack_from(">q", data, position)[0]
        position += 8
    fields["key"], position = _nullable(data, position)
    value, _ = _nullable(data, position)
    codec = Codec(attributes & 7)
    if codec == Codec.NONE:
        fields["size"] = size
        fields["value"] = value
    else:
        fields["messages"] = records(decompress(codec, value or b"", MAX_RECORDS_BYTES))
    return _with_now(fields)


def _nullable(data: bytes, position: int) -> tuple[bytes | None, int]:
    (size,) = struct.unpack_from(">i", data, position)
    position += 4
    return (None, position) if size < 0 else (data[position : position + size], position + size)


def _with_now(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_now(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_now(item) for item in value]
    return "<now>" if isinstance(value, int) and is_now(value) else value


def is_now(value: int) -> bool:
    """Whether this is a time in ms about now."""
    return abs(value - time.time() * 1000) < NOW_WITHIN_MS


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(path, kpy's value, Apache Kafka's value) of everything that is not the same."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in dict.fromkeys((*ours, *theirs)):
            yield from differences(ours.get(name), theirs.get(name), f"{path}.{name}" if path else name)
    elif isinstance(ours, list) and isinstance(theirs, list) and (len(ours) == len(theirs) or _is_start(theirs, ours)):
        for index, (our, their) in enumerate(zip(ours, theirs, strict=False)):
            yield from differences(our, their, f"{path}.{index}" if path else str(index))
    elif ours != theirs or type(ours) is not type(theirs):
        yield path, ours, theirs


def _is_start(theirs: list[Any], ours: list[Any]) -> bool:
    """Whether both are converted messages: Apache Kafka answers with no more bytes than the batches had unconverted."""
    return 0 < len(theirs) < len(ours) and isinstance(theirs[0], dict) and theirs[0].get("magic") in (0, 1)
