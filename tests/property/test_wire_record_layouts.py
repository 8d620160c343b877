"""kpy/records against the declared layouts, which construct interprets: what one builds the other reads."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from kpy.records.batch import NewRecord, build_batch, check_crc, iter_records, read_header
from kpy.records.compression import Codec
from kpy.records.legacy import down_convert, iter_messages
from kpy.storage.producer_state import parse_marker
from protocol import records as layouts

MAX_MESSAGE_BYTES = 1 << 20

contents = st.none() | st.binary(max_size=80)
headers = st.lists(st.tuples(st.text(max_size=5), contents), max_size=2).map(tuple)
new_records = st.lists(st.builds(NewRecord, st.integers(0, 2**60), contents, contents, headers), min_size=1, max_size=5)


def declared_records(records: list[NewRecord]) -> list[dict[str, Any]]:
    return [
        {
            "attributes": 0,
            "timestamp_delta": record.timestamp - records[0].timestamp,
            "offset_delta": i,
            "key": record.key,
            "value": record.value,
            "headers": [{"key": key, "value": value} for key, value in record.headers],
        }
        for i, record in enumerate(records)
    ]


def declared_batch(records: list[NewRecord], base_offset: int, *, transactional: bool, control: bool) -> dict[str, Any]:
    body = {
        "attributes": {
            "unused": 0,
            "has_delete_horizon": False,
            "is_control": control,
            "is_transactional": transactional,
            "is_log_append_time": False,
            "codec": Codec.NONE,
        },
        "last_offset_delta": len(records) - 1,
        "base_timestamp": records[0].timestamp,
        "max_timestamp": max(record.timestamp for record in records),
        "producer_id": 7,
        "producer_epoch": 1,
        "base_sequence": 3,
        "records_count": len(records),
        "records": layouts.Records.build(declared_records(records)),
    }
    batch = {"partition_leader_epoch": 5, "body": {"checked": {"value": body}}}
    return {"base_offset": base_offset, "batch": batch}


@given(new_records, st.integers(0, 2**62), st.booleans(), st.booleans())
@settings(max_examples=50, derandomize=True, deadline=None, database=None)
def test_batches_are_built_as_declared(
    records: list[NewRecord], base_offset: int, transactional: bool, control: bool
) -> None:
    declared = declared_batch(records, base_offset, transactional=transactional, control=control)
    assert layouts.RecordBatch.build(declared) == build_batch(
        records,
        base_offset=base_offset,
        producer_id=7,
        producer_epoch=1,
        base_sequence=3,
        partition_leader_epoch=5,
        transactional=transactional,
        control=control,
    )


@given(new_records, st.integers(0, 2**62))
@settings(max_examples=50, derandomize=True, deadline=None, database=None)
def test_declared_batches_are_read(records: list[NewRecord], base_offset: int) -> None:
    batch = memoryview(
        layouts.RecordBatch.build(declared_batch(records, base_offset, transactional=False, control=False))
    )
    assert check_crc(batch)
    assert (read_header(batch).base_offset, read_header(batch).size_bytes) == (base_offset, len(batch))
    assert [NewRecord(*record[1:]) for record in iter_records(batch)] == records


@given(new_records, st.sampled_from([0, 1]))
@settings(max_examples=50, derandomize=True, deadline=None, database=None)
def test_message_sets_are_written_as_declared(records: list[NewRecord], magic: int) -> None:
    message_set = layouts.message_set(layouts.MessageV1 if magic else layouts.MessageV0)
    messages = [
        {
            "offset": 10 + i,
            "message": {
                "checked": {
                    "value": {"attributes": 0, "timestamp": record.timestamp, "key": record.key, "value": record.value}
                }
            },
        }
        for i, record in enumerate(records)
    ]
    declared = message_set.build(messages)
    assert declared == down_convert(build_batch(records, base_offset=10), magic)
    found = [(record.key, record.value) for record in iter_messages(memoryview(declared), MAX_MESSAGE_BYTES)]
    assert found == [(record.key, record.value) for record in records]


@given(st.sampled_from([0, 1]), st.integers(0, 2**31 - 1))
@settings(max_examples=20, derandomize=True, deadline=None, database=None)
def test_transaction_markers_are_read(kind: int, coordinator_epoch: int) -> None:
    key = layouts.ControlRecordKey.build({"version": 0, "type": kind})
    value = layouts.EndTransactionMarker.build({"version": 0, "coordinator_epoch": coordinator_epoch})
    marker = parse_marker(memoryview(build_batch([NewRecord(0, key, value)], transactional=True, control=True)))
    assert marker is not None
    assert (marker.is_abort, marker.coordinator_epoch) == (kind == 0, coordinator_epoch)


def test_crc32c_of_the_check_string() -> None:
    assert layouts.crc32c(b"123456789") == 0xE3069283
