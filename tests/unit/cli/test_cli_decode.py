"""`kpy decode`: what it takes for input, and what it shows."""

import io
import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from captures import (
    BROKER,
    CLIENT,
    ETHERNET,
    LOOP,
    NULL,
    RAW,
    SLL,
    SLL2,
    SYN,
    Side,
    connection,
    pcap,
    pcapng,
    tcp,
)

from kpy.__main__ import main
from kpy.cli import capture, frames
from kpy.cli import pcap as pcap_module
from kpy.cli.arguments import parse
from kpy.cli.style import wants_colour
from kpy.records.batch import NewRecord, build_batch
from kpy.records.compression import Codec
from kpy.records.legacy import down_convert
from kpy.wire import (
    api_versions,
    fetch,
    header,
    heartbeat,
    incremental_alter_configs,
    join_group,
    metadata,
    produce,
    sasl_authenticate,
    sasl_handshake,
)
from kpy.wire.consumer_protocol import ConsumerProtocolSubscription, encode_consumer_protocol_subscription


def framed(*chunks: Any) -> bytes:
    data = b"".join(chunks)
    return struct.pack(">i", len(data)) + data


def request(module: Any, message: Any, version: int, correlation_id: int = 7) -> bytes:
    """A frame with its size in front."""
    api = frames.APIS[module.API_KEY]
    head_version = frames.request_header_version(api, version)
    head = header.RequestHeader(module.API_KEY, version, correlation_id, "me")
    return framed(*header.encode_request_header(head, head_version), *module.encode_request(message, version))


def response(module: Any, message: Any, version: int, correlation_id: int = 7) -> bytes:
    head_version = frames.response_header_version(frames.APIS[module.API_KEY], version)
    head = header.ResponseHeader(correlation_id)
    return framed(*header.encode_response_header(head, head_version), *module.encode_response(message, version))


HEARTBEAT = request(heartbeat, heartbeat.HeartbeatRequest("a-group", 3, "member"), 4)
HEARTBEAT_ANSWER = response(heartbeat, heartbeat.HeartbeatResponse(0, 27), 4)

HEARTBEAT_TREE = """\
→ Heartbeat request v4, correlation id 7, client id "me", 34 bytes
  ├─ group_id: "a-group"
  ├─ generation_id: 3
  ├─ member_id: "member"
  └─ group_instance_id: null
"""
ANSWER_TREE = """\
← Heartbeat response v4, correlation id 7, 12 bytes
  ├─ throttle_time_ms: 0
  └─ error_code: 27 REBALANCE_IN_PROGRESS
"""

Decode = Callable[..., tuple[int, str, str]]


@pytest.fixture
def decode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Decode:
    """Runs `kpy decode` over a file of these bytes; returns exit code, output and errors."""

    def decode(data: bytes, *arguments: str) -> tuple[int, str, str]:
        path = tmp_path / "input"
        path.write_bytes(data)
        code = main(["decode", str(path), *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err.replace(str(path), "FILE")

    return decode


# What it shows


def test_a_request_and_its_response_are_shown_as_trees(decode: Decode):
    assert decode(HEARTBEAT + HEARTBEAT_ANSWER) == (0, HEARTBEAT_TREE + ANSWER_TREE, "")


def test_structs_in_arrays_have_a_line_each_and_fields_of_other_versions_are_left_out(decode: Decode):
    topic_id = bytes(range(16))
    message = metadata.MetadataResponse(
        brokers=[metadata.MetadataResponseBroker(1, "localhost", 9092, None)],
        topics=[
            metadata.MetadataResponseTopic(
                3, "t", topic_id, partitions=[metadata.MetadataResponsePartition(0, 5, 1, 2, [1, 2], [1])]
            )
        ],
    )
    _, out, _ = decode(response(metadata, message, 12), "--request", "metadata", "12")
    assert '[0] node_id=1 host="localhost" port=9092 rack=null' in out
    assert '[0] error_code=3 UNKNOWN_TOPIC_OR_PARTITION name="t" topic_id=AAECAwQFBgcICQoLDA0ODw' in out
    assert "[0] error_code=0 partition_index=5 leader_id=1 leader_epoch=2 replica_nodes=[1, 2] isr_nodes=[1]" in out
    assert "cluster_authorized_operations" not in out
    _, out, _ = decode(response(metadata, message, 1), "--request", "3", "1")
    assert "topic_id" not in out


def test_tagged_fields_are_shown_when_they_were_sent(decode: Decode):
    def show(message: api_versions.ApiVersionsResponse) -> str:
        return decode(response(api_versions, message, 3), "--request", "18", "3")[1]

    assert "finalized_features_epoch" not in show(api_versions.ApiVersionsResponse())
    assert "finalized_features_epoch: 5" in show(api_versions.ApiVersionsResponse(finalized_features_epoch=5))


def test_an_api_versions_refusal_is_read_in_version_0(decode: Decode):
    refusal = response(api_versions, api_versions.ApiVersionsResponse(35), 0)
    code, out, _ = decode(request(api_versions, api_versions.ApiVersionsRequest(), 4) + refusal)
    assert code == 0
    assert "error_code: 35 UNSUPPORTED_VERSION" in out


@pytest.mark.parametrize(
    "frame",
    [
        request(sasl_authenticate, sasl_authenticate.SaslAuthenticateRequest(b"\0me\0hunter2"), 2),
        request(
            incremental_alter_configs,
            incremental_alter_configs.IncrementalAlterConfigsRequest(
                [
                    incremental_alter_configs.AlterConfigsResource(
                        4, "1", [incremental_alter_configs.AlterableConfig("ssl.key.password", 0, "hunter2")]
                    )
                ]
            ),
            1,
        ),
    ],
)
def test_secrets_are_hidden(decode: Decode, frame: bytes):
    code, out, _ = decode(frame)
    assert code == 0
    assert "<hidden>" in out
    assert "hunter2" not in out


def test_a_sasl_token_without_a_header_is_not_shown(decode: Decode):
    handshake = request(sasl_handshake, sasl_handshake.SaslHandshakeRequest("PLAIN"), 0)
    accepted = response(sasl_handshake, sasl_handshake.SaslHandshakeResponse(0, ["PLAIN"]), 0)
    token = framed(b"\0me\0hunter2")
    _, out, _ = decode(pcap(connection(handshake + token, accepted + framed())))
    assert "a SASL token of 11 bytes, without a header" in out
    assert "a SASL token of 0 bytes, without a header" in out
    assert "hunter2" not in out


def test_what_consumers_put_into_bytes_is_decoded(decode: Decode):
    metadata_bytes = encode_consumer_protocol_subscription(ConsumerProtocolSubscription(["t1", "t2"]), 1)

    def show(protocol_type: str) -> str:
        protocols = [join_group.JoinGroupRequestProtocol("range", metadata_bytes)]
        message = join_group.JoinGroupRequest("g", protocol_type=protocol_type, protocols=protocols)
        return decode(request(join_group, message, 9))[1]

    assert 'metadata: ConsumerProtocolSubscription v1 topics=["t1", "t2"]' in show("consumer")
    assert f"metadata=<{len(metadata_bytes)} bytes: 0001" in show("connect")


def test_control_characters_cannot_reach_the_terminal(decode: Decode):
    _, out, _ = decode(request(heartbeat, heartbeat.HeartbeatRequest('a\x1b[2J"\\\u0085'), 4))
    assert r'group_id: "a\x1b[2J\"\\\x85"' in out


# Records

RECORDS = [NewRecord(1_700_000_000_000 + i, b"k%d" % i, b"value", (("h", b"\xff\x00"),)) for i in range(3)]


def produce_frame(records: bytes, version: int = 9) -> bytes:
    topic = produce.TopicProduceData("t", partition_data=[produce.PartitionProduceData(0, records)])
    return request(produce, produce.ProduceRequest(None, -1, 1000, [topic]), version)


@pytest.mark.parametrize("codec", Codec)
def test_batches_are_summarised_and_expanded_on_demand(decode: Decode, codec: Codec):
    batch = build_batch(RECORDS, base_offset=40, codec=codec, producer_id=5, producer_epoch=1, base_sequence=9)
    _, out, _ = decode(produce_frame(batch))
    assert f"base_offset=40 count=3 codec={codec.name.lower()} " in out
    assert "producer_id=5 producer_epoch=1 base_sequence=9" in out
    assert "k1" not in out
    _, out, _ = decode(produce_frame(batch), "--records")
    assert ('offset=41 timestamp=2023-11-14T22:13:20.001Z key="k1" value="value" headers={"h": <2 bytes: ff00>}') in out


def test_a_batch_that_is_cut_off_or_damaged_is_shown_as_far_as_it_goes(decode: Decode):
    batch = build_batch(RECORDS)
    partition = fetch.PartitionData(0, records=batch + batch[:50])
    frame = response(
        fetch, fetch.FetchResponse(responses=[fetch.FetchableTopicResponse("t", partitions=[partition])]), 4
    )
    code, out, _ = decode(frame, "--request", "fetch", "4")
    assert code == 0
    assert "50 bytes of an incomplete batch" in out
    damaged = batch[:-1] + b"\xff"
    _, out, _ = decode(produce_frame(damaged), "--records")
    assert "CRC is wrong" in out
    _, out, _ = decode(produce_frame(batch[:16] + b"\x09" + batch[17:]))
    assert "Magic 9 is unknown" in out


def test_message_sets_of_old_clients_are_shown(decode: Decode):
    for magic in (0, 1):
        messages = down_convert(build_batch(RECORDS), magic)
        _, out, _ = decode(produce_frame(messages, 2), "--records")
        assert f"message magic={magic} offset=2 codec=none" in out
        assert 'key="k2" value="value"' in out


def test_a_control_batch_says_what_it_controls(decode: Decode):
    marker = build_batch(
        [NewRecord(0, b"\0\0\0\x01", b"\0\0\0\0\0\x05")], producer_id=5, control=True, transactional=True
    )
    assert "offset=0 commit" in decode(produce_frame(marker))[1]


# Hex

HEX = HEARTBEAT.hex()


def xxd(data: bytes) -> str:
    lines: list[str] = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        pairs = " ".join(row[i : i + 2].hex() for i in range(0, len(row), 2))
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{at:08x}: {pairs:<39}  {text}")
    return "\n".join(lines)


def hexdump(data: bytes) -> str:
    lines: list[str] = []
    for at in range(0, len(data), 16):
        row = data[at : at + 16]
        halves = f"{row[:8].hex(' ')}  {row[8:].hex(' ')}"
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{at:08x}  {halves:<48}  |{text}|")
    return "\n".join([*lines, f"{len(data):08x}"])


@pytest.mark.parametrize(
    "text",
    [
        HEX,
        HEX.upper(),
        HEARTBEAT.hex(" "),
        HEARTBEAT.hex(":"),
        ", ".join(f"0x{byte:02x}" for byte in HEARTBEAT),
        "".join(f"\\x{byte:02x}" for byte in HEARTBEAT),
        "\n".join(HEX[at : at + 20] for at in range(0, len(HEX), 20)),
        xxd(HEARTBEAT),
        hexdump(HEARTBEAT),
        HEARTBEAT[4:].hex(),
    ],
)
def test_hex_is_read_however_it_was_written(decode: Decode, text: str):
    assert decode(text.encode()) == (0, HEARTBEAT_TREE, "")


def test_paragraphs_of_hex_are_read_on_their_own(decode: Decode):
    code, out, _ = decode(f"{HEX}\n\n{HEARTBEAT_ANSWER[4:].hex()}\n".encode(), "--request", "heartbeat", "4")
    assert (code, out.count("← Heartbeat response v4")) == (1, 2)
    assert decode(f"{HEARTBEAT_ANSWER[4:].hex()}".encode(), "--request", "heartbeat", "4") == (0, ANSWER_TREE, "")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("zz", "'z' is not a hex digit"),
        ("0000000", "an odd number of hex digits"),
        ("00000005 00", "at byte 0: a frame of 5 bytes, of which 1 are there"),
    ],
)
def test_hex_that_is_none_is_refused_in_one_line(decode: Decode, text: str, reason: str):
    assert decode(text.encode()) == (1, "", f"kpy: error: FILE: {reason}\n")


# Frames


def test_a_frame_that_is_cut_off_is_told_after_those_before_it(decode: Decode):
    code, out, err = decode(HEARTBEAT + HEARTBEAT_ANSWER[:-1])
    assert (code, out) == (1, HEARTBEAT_TREE)
    assert err == "kpy: error: FILE: at byte 38: a frame of 12 bytes, of which 11 are there\n"


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\xfd\xfc binary"])
def test_input_that_is_nothing_known_is_refused_in_one_line(decode: Decode, data: bytes):
    code, out, err = decode(data)
    assert (code, out, err.count("\n")) == (1, "", 1)


def test_what_the_input_is_can_be_said(decode: Decode):
    assert decode(HEX.encode(), "--frames")[2].startswith("kpy: error: FILE: at byte 0: no frame has 808464432 bytes")
    assert decode(HEARTBEAT, "--pcap")[2] == "kpy: error: FILE: not a pcap or pcapng file\n"
    assert decode(HEARTBEAT, "--hex")[0] == 1
    with pytest.raises(SystemExit):
        parse(["decode", "--hex", "--pcap", "x"])


def test_a_missing_file_is_one_line(capsys: pytest.CaptureFixture[str]):
    assert main(["decode", "/no/such/file"]) == 1
    assert capsys.readouterr().err == "kpy: error: /no/such/file: No such file or directory\n"


def test_stdin_is_read_where_no_file_is_given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any):
    path = tmp_path / "input"
    path.write_bytes(HEARTBEAT)
    with path.open() as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert main(["decode"]) == 0
        assert not file.closed
    assert capsys.readouterr().out == HEARTBEAT_TREE


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--request", "Nonsense", "0"), "there is no API of this key or name"),
        (("--request", "Metadata", "99"), "Metadata has the versions 0 to 13"),
        (("--request", "Metadata", "x"), "Metadata has the versions 0 to 13"),
    ],
)
def test_a_request_that_does_not_exist_is_a_usage_error(decode: Decode, arguments: tuple[str, ...], reason: str):
    code, _, err = decode(HEARTBEAT, *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert reason in err


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (framed(b"\x7f\xff\0\0\0\0\0\7"), "API key 32767 is unknown"),
        (framed(b"\0\x0c\0\x63\0\0\0\7"), "Heartbeat has no version 99, only 0 to 4"),
        (framed(b"\0"), "1 bytes are too few for a request's header"),
        (framed(HEARTBEAT[4:-5]), "Heartbeat request v4: member_id at byte 12: length 6, but only 3 bytes remain"),
        (framed(HEARTBEAT[4:], b"abc"), "Heartbeat request v4: at byte 21: 3 bytes too many"),
    ],
)
def test_a_frame_that_does_not_decode_says_why_and_the_rest_is_shown(decode: Decode, frame: bytes, problem: str):
    code, out, _ = decode(frame + HEARTBEAT)
    assert code == 1
    assert f"! {problem}" in out
    assert out.endswith(HEARTBEAT_TREE)


def test_a_message_with_bytes_behind_it_is_shown_all_the_same(decode: Decode):
    assert 'group_id: "a-group"' in decode(framed(HEARTBEAT[4:], b"abc"))[1]


def test_no_response_is_awaited_to_a_produce_without_acks(decode: Decode):
    topic = produce.TopicProduceData("t", partition_data=[produce.PartitionProduceData(0, build_batch(RECORDS))])
    silent = request(produce, produce.ProduceRequest(None, 0, 1000, [topic]), 9)
    code, out, _ = decode(pcap(connection(silent, HEARTBEAT_ANSWER)))
    assert code == 1
    assert "answers a request that was not seen" in out


# Captures


def lines(out: str) -> list[str]:
    return [line for line in out.splitlines() if "→" in line or "←" in line]


@pytest.mark.parametrize("link_type", [ETHERNET, NULL, LOOP, RAW, SLL, SLL2])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("write", [pcap, pcapng])
def test_captures_of_every_kind_are_read(decode: Decode, link_type: int, order: str, write: Any):
    code, out, err = decode(write(connection(HEARTBEAT, HEARTBEAT_ANSWER), link_type, order))
    assert (code, err) == (0, "")
    first, second = lines(out)
    assert first.startswith("00:00:03.500 10.0.0.1:50000 > 10.0.0.2:9092 → Heartbeat request v4")
    assert second.startswith("00:00:04.500 10.0.0.2:9092 > 10.0.0.1:50000 ← Heartbeat response v4")


def test_ipv6_and_vlans_are_read(decode: Decode):
    client, broker = Side("::1", 50_000), Side("::2", 9092)
    _, out, _ = decode(pcap(connection(HEARTBEAT, HEARTBEAT_ANSWER, client, broker)))
    assert "[::1]:50000 > [::2]:9092 →" in out
    tagged = [bytes(12) + b"\x81\0\0\1\x08\0" + packet for packet in connection(HEARTBEAT, HEARTBEAT_ANSWER)]
    data = pcap([], ETHERNET)
    for packet in tagged:
        data += struct.pack("<IIII", 1, 0, len(packet), len(packet)) + packet
    assert len(lines(decode(data)[1])) == 2


def test_segments_may_be_split_swapped_repeated_and_overlap(decode: Decode):
    requests = HEARTBEAT * 3
    segments = [
        tcp(CLIENT, BROKER, 99, flags=SYN),
        tcp(CLIENT, BROKER, 140, requests[40:80]),
        tcp(CLIENT, BROKER, 100, requests[:30]),
        tcp(CLIENT, BROKER, 100, requests[:30]),
        tcp(CLIENT, BROKER, 120, requests[20:60]),
        tcp(CLIENT, BROKER, 180, requests[80:]),
    ]
    code, out, _ = decode(pcap(segments))
    assert (code, len(lines(out))) == (0, 3)


def test_sequence_numbers_wrap_around(decode: Decode):
    start = 2**32 - 10
    segments = [
        tcp(CLIENT, BROKER, start - 1, flags=SYN),
        tcp(CLIENT, BROKER, 10, HEARTBEAT[20:]),
        tcp(CLIENT, BROKER, start, HEARTBEAT[:20]),
    ]
    assert len(lines(decode(pcap(segments))[1])) == 1


def test_a_capture_may_begin_in_the_middle_of_a_connection(decode: Decode):
    segments = [
        tcp(BROKER, CLIENT, 500, HEARTBEAT_ANSWER[7:]),
        tcp(CLIENT, BROKER, 700, HEARTBEAT[9:]),
        tcp(CLIENT, BROKER, 700 + len(HEARTBEAT) - 9, HEARTBEAT),
        tcp(BROKER, CLIENT, 500 + len(HEARTBEAT_ANSWER) - 7, HEARTBEAT_ANSWER),
    ]
    code, out, _ = decode(pcap(segments))
    assert code == 0
    assert [("→" in line, "←" in line) for line in lines(out)] == [(True, False), (False, True)]


def test_reading_goes_on_behind_a_lost_segment(decode: Decode):
    segments = [
        tcp(CLIENT, BROKER, 99, flags=SYN),
        tcp(CLIENT, BROKER, 100, HEARTBEAT),
        tcp(CLIENT, BROKER, 100 + 2 * len(HEARTBEAT), HEARTBEAT[10:]),
        tcp(CLIENT, BROKER, 90 + 3 * len(HEARTBEAT), HEARTBEAT),
    ]
    assert len(lines(decode(pcap(segments))[1])) == 1
    segments[2] = tcp(CLIENT, BROKER, 100 + 2 * len(HEARTBEAT), HEARTBEAT)
    assert len(lines(decode(pcap(segments))[1])) == 2


def test_what_waits_for_a_lost_segment_is_bounded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pcap_module, "MAX_WAITING_SEGMENTS", 5)
    stream = pcap_module.Stream()
    client, broker = pcap_module.Address(*CLIENT), pcap_module.Address(*BROKER)

    def add(sequence: int, data: bytes, is_syn: bool = False) -> bytes:
        return stream.add(pcap_module.Segment(client, broker, sequence, is_syn, True, False, data))

    add(0, b"", is_syn=True)
    for index in range(5):
        assert add(10 + index * 2, b"x") == b""
    assert add(20, b"y") == b"x"
    assert stream.has_gap


def test_ports_that_are_used_again_are_another_connection(decode: Decode):
    both = connection(HEARTBEAT, HEARTBEAT_ANSWER)[:4] + connection(HEARTBEAT, HEARTBEAT_ANSWER)
    assert len(lines(decode(pcap(both))[1])) == 4


@pytest.mark.parametrize(
    ("data", "note"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03abc", "kpy: 1 connection left out: TLS"),
        (b"GET / HTTP/1.1\r\n\r\n", "kpy: 1 connection left out: not Kafka's protocol"),
    ],
)
def test_connections_that_are_not_kafka_are_counted(decode: Decode, data: bytes, note: str):
    other = connection(data, b"SSH-2.0", Side("10.0.0.3", 1), Side("10.0.0.4", 2))
    code, out, err = decode(pcap(other + connection(HEARTBEAT, HEARTBEAT_ANSWER)))
    assert (code, len(lines(out))) == (0, 2)
    assert note in err


def test_a_capture_without_frames_says_so(decode: Decode):
    assert decode(pcap([]))[2] == "kpy: no Kafka frames were found in the capture\n"
    assert "1 frame is incomplete at the end" in decode(pcap(connection(HEARTBEAT[:-1], b"")[:4]))[2]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: data[:10], "the capture ends in its header"),
        (lambda data: data[:32] + b"\xff\xff\xff\x7f" + data[36:], "it has a packet of 2147483647 bytes"),
        (lambda data: data[:20] + struct.pack("<I", 147) + data[24:], "link type 147, which is not supported"),
    ],
)
def test_a_damaged_capture_is_one_line(decode: Decode, damage: Callable[[bytes], bytes], reason: str):
    code, out, err = decode(damage(pcap(connection(HEARTBEAT, HEARTBEAT_ANSWER))))
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert reason in err


@pytest.mark.parametrize("write", [pcap, pcapng])
def test_every_cut_of_a_capture_ends_in_peace(decode: Decode, write: Any):
    data = write(connection(HEARTBEAT, HEARTBEAT_ANSWER))
    for size in range(4, len(data), 3):
        code, _, err = decode(data[:size], "--pcap")
        assert code in (0, 1)
        assert err.count("\n") <= 2


def test_frames_of_many_connections_are_bounded(monkeypatch: pytest.MonkeyPatch, decode: Decode):
    monkeypatch.setattr(capture, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(capture, "MAX_BUFFERED_BYTES", 50)
    packets = [
        packet
        for port in range(5)
        for packet in connection(HEARTBEAT[:30], b"", Side("10.0.0.1", 1000 + port), BROKER)[:3]
    ]
    code, _, err = decode(pcap(packets))
    assert code == 0
    assert "1 frame is incomplete" in err


# Colours


def test_colours_are_for_terminals_and_can_be_refused(monkeypatch: pytest.MonkeyPatch, decode: Decode):
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_colour("auto", Terminal())
    assert not wants_colour("auto", io.StringIO())
    assert not wants_colour("never", Terminal())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour("auto", Terminal())
    assert wants_colour("always", io.StringIO())
    coloured = decode(HEARTBEAT, "--color", "always")[1]
    assert "\x1b[" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == HEARTBEAT_TREE


def test_start_does_not_import_what_decode_needs():
    script = "import sys; from kpy.cli import arguments; arguments.parse(['start']); print(*sys.modules)"
    import subprocess

    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert not {"kpy.cli.decode", "kpy.cli.proxy", "kpy.cli.tree", "kpy.wire"} & set(found)
