"""The generated modules: what their messages are like, and what they do with bytes that are not well-formed."""

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from kpy.errors import ErrorCode, WireError
from kpy.ids import ZERO_ID
from kpy.wire import (
    alter_user_scram_credentials,
    api_versions,
    apis,
    consumer_protocol,
    create_delegation_token,
    fetch,
    group_records,
    header,
    heartbeat,
    incremental_alter_configs,
    metadata,
    produce,
    sasl_authenticate,
)
from kpy.wire.fetch import (
    FetchableTopicResponse,
    FetchPartition,
    FetchRequest,
    FetchResponse,
    FetchTopic,
    PartitionData,
)
from kpy.wire.produce import PartitionProduceData, ProduceRequest, TopicProduceData

BATCHES = bytes(range(70))


def joined(chunks: list[Any]) -> memoryview:
    return memoryview(b"".join(chunks))


def produce_request(partitions: int = 2) -> ProduceRequest:
    data = [PartitionProduceData(index, BATCHES) for index in range(partitions)]
    return ProduceRequest(None, -1, 30_000, [TopicProduceData("topic", partition_data=data)])


# Messages


def test_defaults_are_apache_kafkas() -> None:
    request = FetchRequest()
    assert (request.replica_id, request.max_bytes, request.session_epoch) == (-1, 0x7FFFFFFF, -1)
    assert (request.cluster_id, request.replica_state, request.rack_id) == (None, None, "")
    assert FetchTopic().topic_id == ZERO_ID


def test_default_arrays_are_not_shared() -> None:
    first, second = FetchRequest(), FetchRequest()
    first.topics.append(FetchTopic("t"))
    assert second.topics == []


def test_an_array_given_by_the_caller_is_kept() -> None:
    topics: list[FetchTopic] = []
    assert FetchRequest(topics=topics).topics is topics


def test_null_and_empty_arrays_are_different() -> None:
    assert metadata.MetadataRequest(topics=None) != metadata.MetadataRequest()
    assert (
        metadata.decode_request(joined(metadata.encode_request(metadata.MetadataRequest(None), 12)), 12).topics is None
    )
    assert metadata.decode_request(joined(metadata.encode_request(metadata.MetadataRequest([]), 12)), 12).topics == []


def test_messages_are_equal_when_their_fields_are() -> None:
    assert produce_request() == produce_request()
    assert produce_request() != produce_request(partitions=3)
    assert FetchRequest() != ProduceRequest()


def test_messages_are_not_hashable() -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(produce_request())


@pytest.mark.parametrize(
    "message",
    [
        sasl_authenticate.SaslAuthenticateRequest(b"hunter2"),
        sasl_authenticate.SaslAuthenticateResponse(auth_bytes=b"hunter2"),
        incremental_alter_configs.AlterableConfig("listener.name.x.ssl.keystore.password", 0, "hunter2"),
        incremental_alter_configs.AlterableConfig("sasl.jaas.config", 0, "hunter2"),
        create_delegation_token.CreateDelegationTokenResponse(hmac=b"hunter2"),
        alter_user_scram_credentials.ScramCredentialUpsertion("u", 1, 4096, b"hunter2", b"hunter2"),
    ],
)
def test_repr_hides_secrets(message: object) -> None:
    assert "hunter2" not in repr(message)
    assert "<hidden>" in repr(message)


def test_repr_shows_values_of_configs_that_are_no_secrets() -> None:
    assert "604800000" in repr(incremental_alter_configs.AlterableConfig("retention.ms", 0, "604800000"))


def test_repr_shows_the_size_of_records_instead_of_their_bytes() -> None:
    decoded = produce.decode_request(joined(produce.encode_request(produce_request(1), 9)), 9)
    assert "PartitionProduceData(index=0, records=<70 bytes>)" in repr(decoded)


def test_an_error_code_is_sent_as_its_number() -> None:
    response = heartbeat.HeartbeatResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS)
    decoded = heartbeat.decode_response(joined(heartbeat.encode_response(response, 4)), 4)
    assert decoded.error_code == 27


# Records are not copied


@pytest.mark.parametrize("version", [3, 9, 13])
def test_decoded_records_are_a_view_of_the_frame(version: int) -> None:
    frame = bytearray(joined(produce.encode_request(produce_request(), version)))
    records = produce.decode_request(memoryview(frame), version).topic_data[0].partition_data[1].records
    assert isinstance(records, memoryview)
    assert records == BATCHES
    frame[bytes(frame).rindex(BATCHES)] = 0xFF
    assert records[0] == 0xFF


class Payload:
    """Something with a length, as a piece of a file is."""

    def __len__(self) -> int:
        return 1000


@pytest.mark.parametrize("version", range(fetch.MIN_VERSION, fetch.MAX_VERSION + 1))
def test_encoded_records_are_passed_through_by_identity(version: int) -> None:
    payloads = [Payload(), BATCHES, bytearray(BATCHES)]
    partitions = [PartitionData(index, records=records) for index, records in enumerate(payloads)]
    chunks = fetch.encode_response(
        FetchResponse(responses=[FetchableTopicResponse("t", partitions=partitions)]), version
    )
    for payload in payloads:
        assert any(chunk is payload for chunk in chunks)
    rest = [chunk for chunk in chunks if not any(chunk is payload for payload in payloads)]
    assert all(isinstance(chunk, bytearray) for chunk in rest)


def test_empty_and_null_records_need_no_buffer_of_their_own() -> None:
    partitions = [PartitionData(0, records=b""), PartitionData(1, records=None)]
    chunks = fetch.encode_response(FetchResponse(responses=[FetchableTopicResponse("t", partitions=partitions)]), 12)
    assert len(chunks) == 1
    decoded = fetch.decode_response(joined(chunks), 12).responses[0].partitions
    assert [decoded[0].records, decoded[1].records] == [memoryview(b""), None]


# Versions


def test_a_field_that_the_version_lacks_is_not_sent_and_decodes_to_its_default() -> None:
    response = heartbeat.HeartbeatResponse(throttle_time_ms=5, error_code=27)
    assert bytes(joined(heartbeat.encode_response(response, 0))) == b"\x00\x1b"
    assert heartbeat.decode_response(memoryview(b"\x00\x1b"), 0) == heartbeat.HeartbeatResponse(0, 27)


@pytest.mark.parametrize("version", [-1, 5, 32767])
def test_an_undeclared_version_is_a_wire_error(version: int) -> None:
    with pytest.raises(WireError, match=f"Heartbeat request has no version {version}"):
        heartbeat.decode_request(memoryview(bytes(100)), version)
    with pytest.raises(WireError, match=f"Heartbeat request has no version {version}"):
        heartbeat.encode_request(heartbeat.HeartbeatRequest(), version)


def test_null_in_a_version_that_does_not_allow_it_is_not_written() -> None:
    with pytest.raises(WireError, match="topics may not be null in this version"):
        metadata.encode_request(metadata.MetadataRequest(None), 0)


def test_tables_are_indexed_by_version() -> None:
    assert len(produce.REQUEST_READERS) == produce.MAX_VERSION + 1
    assert produce.REQUEST_READERS[3] is produce.REQUEST_READERS[8]
    assert produce.REQUEST_READERS[8] is not produce.REQUEST_READERS[9]


def test_the_table_of_apis_agrees_with_their_modules() -> None:
    assert {0, 1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19, 20, 22} <= set(apis.APIS)
    for key, api in apis.APIS.items():
        module = import_module(f"kpy.wire.{api.module}")
        assert (api.key, module.API_KEY) == (key, key)
        assert (api.min_version, api.max_version) == (module.MIN_VERSION, module.MAX_VERSION)
        assert api.flexible_since == module.FLEXIBLE_SINCE


def test_a_codec_imports_no_other_codec() -> None:
    script = "import sys, kpy.wire.fetch; print(*(name for name in sys.modules if name.startswith('kpy.wire.')))"
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert set(found) == {"kpy.wire.fetch", "kpy.wire.layouts", "kpy.wire.primitives"}


# Headers and records


def test_request_header_tells_where_the_body_begins() -> None:
    data = joined(header.encode_request_header(header.RequestHeader(12, 4, 7, "me"), 2))
    assert bytes(data) == b"\x00\x0c\x00\x04\x00\x00\x00\x07\x00\x02me\x00"
    assert header.decode_request_header(data, 2) == (header.RequestHeader(12, 4, 7, "me"), len(data))


def test_client_id_is_not_compact_in_the_flexible_header() -> None:
    data = joined(header.encode_request_header(header.RequestHeader(12, 4, 7, None), 2))
    assert bytes(data) == b"\x00\x0c\x00\x04\x00\x00\x00\x07\xff\xff\x00"


def test_group_records_carry_their_version() -> None:
    key = group_records.OffsetCommitKey("g", "t", 3)
    data = group_records.encode_offset_commit_key(key, 1)
    assert data == b"\x00\x01\x00\x01g\x00\x01t\x00\x00\x00\x03"
    assert group_records.decode_offset_commit_key(data) == key


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x09", b"\x00\x01\x00\x05g"])
def test_malformed_group_record_is_a_wire_error(data: bytes) -> None:
    with pytest.raises(WireError, match="OffsetCommitKey"):
        group_records.decode_offset_commit_key(data)


def test_consumer_protocol_round_trip() -> None:
    subscription = consumer_protocol.ConsumerProtocolSubscription(["a", "b"], None, generation_id=3, rack_id="r")
    data = consumer_protocol.encode_consumer_protocol_subscription(subscription, 3)
    assert consumer_protocol.decode_consumer_protocol_subscription(data) == subscription


# Malformed bytes

HEARTBEAT_V0 = bytes(joined(heartbeat.encode_request(heartbeat.HeartbeatRequest("group", 1, "member"), 0)))
HEARTBEAT_V4 = bytes(joined(heartbeat.encode_request(heartbeat.HeartbeatRequest("group", 1, "member"), 4)))
PRODUCE_V3 = bytes(joined(produce.encode_request(produce_request(), 3)))
PRODUCE_V9 = bytes(joined(produce.encode_request(produce_request(), 9)))


def replaced(frame: bytes, at: int, hexadecimal: str, length: int | None = None) -> bytes:
    new = bytes.fromhex(hexadecimal)
    return frame[:at] + new + frame[at + (len(new) if length is None else length) :]


@pytest.mark.parametrize(
    ("decode", "version", "frame", "message"),
    [
        pytest.param(
            heartbeat.decode_request,
            0,
            replaced(HEARTBEAT_V0, 0, "fffe"),
            "Heartbeat request v0-v2: group_id at byte 0: negative length -2",
            id="negative length",
        ),
        pytest.param(
            heartbeat.decode_request,
            0,
            replaced(HEARTBEAT_V0, 0, "ffff"),
            "Heartbeat request v0-v2: group_id at byte 0: null where null is not allowed",
            id="null in a field that is never null",
        ),
        pytest.param(
            heartbeat.decode_request,
            4,
            replaced(HEARTBEAT_V4, 0, "00"),
            "Heartbeat request v4: group_id at byte 0: null where null is not allowed",
            id="null in a compact field that is never null",
        ),
        pytest.param(
            heartbeat.decode_request,
            4,
            replaced(HEARTBEAT_V4, 0, "80" * 10 + "01"),
            "Heartbeat request v4: group_id at byte 0: varint longer than 5 bytes",
            id="varint of eleven bytes",
        ),
        pytest.param(
            heartbeat.decode_request,
            4,
            replaced(HEARTBEAT_V4, 1, "ff"),
            "Heartbeat request v4: group_id at byte 0: not UTF-8",
            id="broken UTF-8",
        ),
        pytest.param(
            heartbeat.decode_request,
            4,
            HEARTBEAT_V4[:-1] + bytes.fromhex("02 0501aa 0501aa"),
            "Heartbeat request v4: tags at byte 19: tag 5 behind tag 5",
            id="duplicate tags",
        ),
        pytest.param(
            heartbeat.decode_request,
            4,
            HEARTBEAT_V4[:-1] + bytes.fromhex("02 0501aa 0401aa"),
            "Heartbeat request v4: tags at byte 19: tag 4 behind tag 5",
            id="tags out of order",
        ),
        pytest.param(
            heartbeat.decode_request,
            4,
            HEARTBEAT_V4[:-1] + bytes.fromhex("01 057f aabb"),
            "Heartbeat request v4: tags at byte 19: tag 5 has 127 bytes, but only 2 remain",
            id="tag longer than what remains",
        ),
        pytest.param(
            heartbeat.decode_request,
            4,
            HEARTBEAT_V4[:-1] + bytes.fromhex("7f 0500"),
            "Heartbeat request v4: tags at byte 19: 127 elements, but only 2 bytes remain",
            id="more tags than fit into what remains",
        ),
        pytest.param(
            heartbeat.decode_request,
            4,
            HEARTBEAT_V4[:8],
            "Heartbeat request v4: generation_id at byte 6: ends too early",
            id="truncated in a number",
        ),
        pytest.param(
            heartbeat.decode_request,
            4,
            HEARTBEAT_V4[:-1],
            "Heartbeat request v4: tags at byte 18: ends too early",
            id="truncated before the tags",
        ),
        pytest.param(
            produce.decode_request,
            3,
            replaced(PRODUCE_V3, 8, "7fffffff"),
            "Produce request v3-v8: topic_data at byte 12: 2147483647 elements, but only 167 bytes remain",
            id="huge count",
        ),
        pytest.param(
            produce.decode_request,
            3,
            replaced(PRODUCE_V3, 8, "80000000"),
            "Produce request v3-v8: topic_data at byte 12: negative count -2147483648",
            id="negative count",
        ),
        pytest.param(
            produce.decode_request,
            9,
            replaced(PRODUCE_V9, 7, "ffffffff0f", 1),
            "Produce request v9-v12: topic_data at byte 12: 4294967294 elements, but only 161 bytes remain",
            id="huge compact count",
        ),
        pytest.param(
            produce.decode_request,
            9,
            replaced(PRODUCE_V9, 7, "00"),
            "Produce request v9-v12: topic_data at byte 8: null where null is not allowed",
            id="null array that is never null",
        ),
        pytest.param(
            produce.decode_request,
            3,
            replaced(PRODUCE_V3, 27, "fffffffe"),
            "Produce request v3-v8: topic_data[0].partition_data[0] at byte 31: records has the length -2",
            id="negative length of records",
        ),
        pytest.param(
            produce.decode_request,
            3,
            replaced(PRODUCE_V3, 27, "7fffffff"),
            "Produce request v3-v8: topic_data[0].partition_data[0] at byte 31: "
            "records has the length 2147483647, but only 148 bytes remain",
            id="huge length of records",
        ),
    ],
)
def test_malformed_bytes_are_refused_with_the_place(
    decode: Callable[[memoryview, int], object], version: int, frame: bytes, message: str
) -> None:
    with pytest.raises(WireError) as refused:
        decode(memoryview(frame), version)
    assert str(refused.value) == message


@pytest.mark.parametrize("version", [0, 3, 9, 13])
def test_every_truncation_is_a_wire_error(version: int) -> None:
    frame = joined(produce.encode_request(produce_request(), version))
    for size in range(len(frame)):
        with pytest.raises(WireError):
            produce.decode_request(frame[:size], version)


@pytest.mark.parametrize("version", [0, 3, 9, 13])
def test_a_frame_that_ends_early_is_refused_even_if_more_bytes_follow_it(version: int) -> None:
    frame = bytes(joined(produce.encode_request(produce_request(), version)))
    reader = produce.REQUEST_READERS[version]
    assert reader is not None
    for size in range(len(frame)):
        with pytest.raises(WireError):
            reader(memoryview(frame + bytes(100)), 0, size)


def test_an_offset_counts_from_the_message_wherever_that_is_in_the_buffer() -> None:
    broken = b"head" + replaced(HEARTBEAT_V4, 0, "00")
    with pytest.raises(WireError, match="group_id at byte 0: null where null is not allowed"):
        heartbeat.decode_request(memoryview(broken), 4, 4)


def test_what_is_behind_the_end_of_a_message_does_not_explain_it() -> None:
    reader = heartbeat.REQUEST_READERS[4]
    assert reader is not None
    for following in (b"\x00", b"\x7f" * 100, b"\xff" * 100):
        with pytest.raises(WireError, match=r"at byte 18: ends too early$"):
            reader(memoryview(HEARTBEAT_V4[:-1] + following), 0, len(HEARTBEAT_V4) - 1)


def test_a_zero_may_take_more_bytes_than_it_needs() -> None:
    frame = HEARTBEAT_V4[:-2] + bytes.fromhex("8000 00")
    assert heartbeat.decode_request(memoryview(frame), 4) == heartbeat.decode_request(memoryview(HEARTBEAT_V4), 4)
    frame = HEARTBEAT_V4[:-2] + bytes.fromhex("808000 808000")
    assert heartbeat.decode_request(memoryview(frame), 4) == heartbeat.decode_request(memoryview(HEARTBEAT_V4), 4)


def test_bytes_behind_a_message_are_refused_where_it_has_to_be_exact() -> None:
    frame = memoryview(b"head" + HEARTBEAT_V4 + b"more")
    assert heartbeat.decode_request(frame[:-4], 4, 4, exact=True).group_id == "group"
    with pytest.raises(WireError, match=r"^Heartbeat request v4: at byte 19: 4 bytes too many$"):
        heartbeat.decode_request(frame, 4, 4, exact=True)


def test_bytes_behind_a_request_are_left_alone() -> None:
    assert heartbeat.decode_request(memoryview(HEARTBEAT_V4 + b"more"), 4).group_id == "group"


def test_a_request_can_start_anywhere_in_the_buffer() -> None:
    assert heartbeat.decode_request(memoryview(b"head" + HEARTBEAT_V4), 4, 4).group_id == "group"


def test_unknown_tagged_fields_are_skipped() -> None:
    frame = HEARTBEAT_V4[:-1] + bytes.fromhex("02 0003aabbcc 8f0101dd")
    assert heartbeat.decode_request(memoryview(frame), 4) == heartbeat.HeartbeatRequest("group", 1, "member")


def test_unknown_tagged_fields_among_known_ones_are_skipped() -> None:
    response = api_versions.ApiVersionsResponse(finalized_features_epoch=7, zk_migration_ready=True)
    frame = bytes(joined(api_versions.encode_response(response, 3)))
    known = bytes.fromhex("0201080000000000000007030101")
    assert frame.endswith(known)
    more = frame[: -len(known)] + bytes.fromhex("03010800000000000000070301010902ffff")
    assert api_versions.decode_response(memoryview(more), 3) == response


@pytest.mark.parametrize("tag", ["0107" + "00" * 7, "0109" + "00" * 9])
def test_a_tagged_field_of_another_size_than_its_value_is_refused(tag: str) -> None:
    frame = bytes(joined(api_versions.encode_response(api_versions.ApiVersionsResponse(), 3)))
    with pytest.raises(WireError, match=r"tag 1 has \d bytes, but its value takes 8"):
        api_versions.decode_response(memoryview(frame[:-1] + bytes.fromhex("01" + tag + "00")), 3)


def test_a_bool_is_true_for_any_byte_but_zero() -> None:
    frame = bytearray(joined(metadata.encode_request(metadata.MetadataRequest(None, True), 4)))
    frame[-1] = 2
    assert metadata.decode_request(memoryview(frame), 4).allow_auto_topic_creation is True


def test_partition_of_a_fetch_request_keeps_its_tagged_default() -> None:
    request = FetchRequest(topics=[FetchTopic(partitions=[FetchPartition(1)])])
    decoded = fetch.decode_request(joined(fetch.encode_request(request, 18)), 18)
    assert decoded.topics[0].partitions[0].high_watermark == 2**63 - 1
