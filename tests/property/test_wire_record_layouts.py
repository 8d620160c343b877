"""kpy/records against the declared layouts, which construct interprets: what one builds the other reads."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kpy import ids
from kpy.records.batch import NewRecord, build_batch, check_crc, iter_records, read_header
from kpy.records.compression import Codec
from kpy.records.legacy import down_convert, iter_messages
from kpy.storage.fs import OsFs
from kpy.storage.producer_state import ProducedBatch, Producer, parse_marker
from kpy.storage.snapshots import read_snapshot, write_snapshot
from protocol import records as layouts
from tests.golden import golden_frames

MAX_MESSAGE_BYTES = 1 << 20

contents = st.none() | st.binary(max_size=80)
timestamps = st.integers(0, 2**60)
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


producers = st.builds(
    lambda batch, **fields: producer_with(Producer(**fields), batch),
    batch=st.builds(ProducedBatch, st.integers(0, 2**31 - 1), st.integers(0, 2**62), st.integers(0, 100), timestamps),
    producer_id=st.integers(0, 2**62),
    epoch=st.integers(0, 2**15 - 1),
    coordinator_epoch=st.integers(-1, 2**31 - 1),
    last_timestamp=timestamps,
)


def producer_with(producer: Producer, batch: ProducedBatch) -> Producer:
    producer.batches.append(batch)
    producer.last_timestamp = batch.timestamp
    return producer


@given(st.lists(producers, max_size=3))
@settings(max_examples=50, derandomize=True, deadline=None, database=None)
def test_producer_snapshots_are_written_and_read_as_declared(written: list[Producer]) -> None:
    declared = {
        "checked": {
            "checked": {
                "value": [
                    {
                        "producer_id": each.producer_id,
                        "producer_epoch": each.epoch,
                        "last_sequence": each.last_sequence,
                        "last_offset": each.last_data_offset,
                        "offset_delta": each.batches[-1].offset_delta,
                        "timestamp": each.last_timestamp,
                        "coordinator_epoch": each.coordinator_epoch,
                        "current_txn_first_offset": each.current_txn_first_offset,
                    }
                    for each in written
                ]
            }
        }
    }
    built = layouts.ProducerSnapshot.build(declared)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "snapshot")
        write_snapshot(OsFs(), str(path), written)
        assert path.read_bytes() == built
        found = read_snapshot(OsFs(), str(path))
    assert [(each.producer_id, each.epoch, each.coordinator_epoch, list(each.batches)) for each in found] == [
        (each.producer_id, each.epoch, each.coordinator_epoch, list(each.batches)) for each in written
    ]


@pytest.mark.parametrize("frame", golden_frames.frames()["LeaderChangeMessage"], ids=lambda frame: frame.variant)
def test_leader_change_messages_are_what_apache_kafka_writes(frame: golden_frames.Frame) -> None:
    layout = layouts.leader_change_message(frame.version)
    parsed = layout.parse(frame.data)
    assert (parsed.version, parsed.leader_id) == (frame.json["version"], frame.json["leaderId"])
    for ours, theirs in ((parsed.voters, "voters"), (parsed.granting_voters, "grantingVoters")):
        assert [each.voter_id for each in ours] == [each["voterId"] for each in frame.json[theirs]]
        if frame.version >= 1:
            assert [ids.to_text(each.voter_directory_id) for each in ours] == [
                each["voterDirectoryId"] for each in frame.json[theirs]
            ]
    if frame.variant != "unknown":
        assert layout.build(parsed) == frame.data


def test_crc32c_of_the_check_string() -> None:
    assert layouts.crc32c(b"123456789") == 0xE3069283
