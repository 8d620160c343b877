"""What coordinators keep in the records of __consumer_offsets and __transaction_state, decoded.

The key's first int16 is its version and says what the record is about, the value's is the version of its layout.
Records of kinds that kpy does not know are left as they are.
"""

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from kpy.cli.tree import EMBEDDED, transaction_state
from kpy.errors import WireError
from kpy.records.batch import Record
from kpy.wire import consumer_group_records, consumer_protocol, group_records, transaction_records
from kpy.wire.layouts import Layouts
from kpy.wire.primitives import Message

OFFSETS_TOPIC: Final = "__consumer_offsets"
TRANSACTIONS_TOPIC: Final = "__transaction_state"

_Decode = Callable[[bytes], Message]
_Kind = tuple[_Decode, _Decode, Layouts]

_OFFSET: _Kind = (
    group_records.decode_offset_commit_key,
    group_records.decode_offset_commit_value,
    group_records.LAYOUTS,
)
_consumer = consumer_group_records
_KINDS: Final[dict[str, dict[int, _Kind]]] = {
    OFFSETS_TOPIC: {
        0: _OFFSET,
        1: _OFFSET,
        2: (
            group_records.decode_group_metadata_key,
            group_records.decode_group_metadata_value,
            group_records.LAYOUTS,
        ),
        3: (
            _consumer.decode_consumer_group_metadata_key,
            _consumer.decode_consumer_group_metadata_value,
            _consumer.LAYOUTS,
        ),
        4: (
            _consumer.decode_consumer_group_partition_metadata_key,
            _consumer.decode_consumer_group_partition_metadata_value,
            _consumer.LAYOUTS,
        ),
        5: (
            _consumer.decode_consumer_group_member_metadata_key,
            _consumer.decode_consumer_group_member_metadata_value,
            _consumer.LAYOUTS,
        ),
        6: (
            _consumer.decode_consumer_group_target_assignment_metadata_key,
            _consumer.decode_consumer_group_target_assignment_metadata_value,
            _consumer.LAYOUTS,
        ),
        7: (
            _consumer.decode_consumer_group_target_assignment_member_key,
            _consumer.decode_consumer_group_target_assignment_member_value,
            _consumer.LAYOUTS,
        ),
        8: (
            _consumer.decode_consumer_group_current_member_assignment_key,
            _consumer.decode_consumer_group_current_member_assignment_value,
            _consumer.LAYOUTS,
        ),
    },
    TRANSACTIONS_TOPIC: {
        0: (
            transaction_records.decode_transaction_log_key,
            transaction_records.decode_transaction_log_value,
            transaction_records.LAYOUTS,
        ),
    },
}


class CoordinatorRecord(NamedTuple):
    """A decoded record. `value` is None for a tombstone."""

    key: Message
    key_version: int
    value: Message | None
    value_version: int
    layouts: Layouts


def decode_coordinator_record(record: Record, topic: str) -> CoordinatorRecord | None:
    """None if the record is none of the kinds that this topic has, or cannot be decoded."""
    if record.key is None or len(record.key) < 2:
        return None
    version = int.from_bytes(record.key[:2], signed=True)
    kind = _KINDS[topic].get(version)
    if kind is None:
        return None
    decode_key, decode_value, layouts = kind
    try:
        key = decode_key(record.key)
        value = None if record.value is None else decode_value(record.value)
    except WireError:
        return None
    value_version = -1 if record.value is None else int.from_bytes(record.value[:2], signed=True)
    return CoordinatorRecord(key, version, value, value_version, layouts)


def as_json(message: Message, layouts: Layouts, version: int, group_type: str = "consumer") -> dict[str, Any]:
    """The fields that this version has. Bytes are hex, but for what consumers put there, which is decoded too."""
    forms = layouts.by_version[f"{type(message).__name__}.{version}"].forms
    group_type = getattr(message, "protocol_type", group_type)
    fields: dict[str, Any] = {}
    for name, form in zip(message.__slots__, forms, strict=True):
        value: Any = getattr(message, name)
        if form.code == "-":
            continue
        if form.struct and value:
            inner = int(form.struct.rpartition(".")[2])
            several = value if form.is_array else [value]
            structs = [as_json(each, layouts, inner, group_type) for each in several]
            value = structs if form.is_array else structs[0]
        elif form.code == "y" and value is not None:
            value = _embedded_as_json(message, name, bytes(value), group_type)
        elif name == "transaction_status":
            value = transaction_state(int(value or 0))
        fields[name] = value
    return fields


def _embedded_as_json(owner: Message, name: str, value: bytes, group_type: str) -> Any:
    decode = EMBEDDED.get((type(owner).__name__, name))
    if decode is None or group_type != "consumer" or not value:
        return value.hex()
    try:
        message = decode(value)
    except WireError:
        return value.hex()
    return as_json(message, consumer_protocol.LAYOUTS, int.from_bytes(value[:2]))
