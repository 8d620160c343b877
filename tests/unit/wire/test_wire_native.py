"""The accelerator, compiled for these tests: it reads and writes what Python does, and leaves the rest to Python."""

import gc
import importlib
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from kpy.errors import ErrorCode, WireError
from kpy.wire import api_versions, fetch, heartbeat, layouts, metadata, produce
from kpy.wire.layouts import Layouts
from kpy.wire.primitives import Message
from protocol import generate
from protocol.grammar import Kind
from tests.golden.golden_frames import Frame, frames
from tests.unit.memory_growth import grown_bytes


def python(function: Any) -> Any:
    """The generated function, also where the codecs are accelerated already."""
    return getattr(function, "python", function)


class Tables:
    """The readers and writers of a codec, accelerated. Whatever they leave to Python is counted."""

    def __init__(self, accelerator: Any, codec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(layouts, "NATIVE", accelerator)
        text, classes = codec.LAYOUTS._text, codec.LAYOUTS._classes.values()
        self.codec = codec
        self.layouts = Layouts(text, *classes)
        self.left_to_python = 0

    def _counted(self, function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            self.left_to_python += 1
            return python(function)(*arguments)

        return function and call

    def of(self, message: type[Message], table: str) -> tuple[Any, Any]:
        readers = [self._counted(function) for function in getattr(self.codec, f"{table}_READERS")]
        writers = [self._counted(function) for function in getattr(self.codec, f"{table}_WRITERS")]
        return self.layouts.readers(message, tuple(readers)), self.layouts.writers(message, tuple(writers))


def messages() -> Iterator[tuple[Any, str, str]]:
    """Codec, name and table of every message that has a layout."""
    for declaration in generate.declaration_modules():
        codec = importlib.import_module(f"kpy.wire.{generate.short_name(declaration)}")
        for name, message in generate.messages_in(declaration).items():
            if message.kind is not Kind.HEADER:
                yield codec, name, generate.names_of(name, message).word.upper()


ALL = [pytest.param(codec, name, table, id=name) for codec, name, table in messages()]


def declared(codec: Any, table: str, name: str) -> list[Frame]:
    table_length = len(getattr(codec, f"{table}_READERS"))
    return [
        frame
        for frame in frames().get(name, [])
        if frame.version < table_length and getattr(codec, f"{table}_READERS")[frame.version]
    ]


@pytest.mark.parametrize(("codec", "name", "table"), ALL)
def test_it_reads_and_writes_what_python_does(
    accelerator: Any, monkeypatch: pytest.MonkeyPatch, codec: Any, name: str, table: str
) -> None:
    tables = Tables(accelerator, codec, monkeypatch)
    readers, writers = tables.of(getattr(codec, name), table)
    for frame in declared(codec, table, name):
        data = memoryview(frame.data)
        found = readers[frame.version](data, 0, len(data))
        plain = python(getattr(codec, f"{table}_READERS")[frame.version])(data, 0, len(data))
        assert found == plain
        assert repr(found) == repr(plain)
        ours: list[Any] = []
        theirs: list[Any] = []
        writers[frame.version](found[0], ours)
        python(getattr(codec, f"{table}_WRITERS")[frame.version])(found[0], theirs)
        assert ours == theirs
        assert [type(chunk) for chunk in ours] == [type(chunk) for chunk in theirs]
    assert tables.left_to_python == 0


@pytest.fixture
def tables(accelerator: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda codec: Tables(accelerator, codec, monkeypatch)


def test_malformed_bytes_are_explained_by_python(tables: Any) -> None:
    readers, _ = tables(heartbeat).of(heartbeat.HeartbeatRequest, "REQUEST")
    with pytest.raises(WireError, match="Heartbeat request v4: group_id at byte 0: not UTF-8"):
        readers[4](memoryview(b"\x02\xff" + bytes(20)), 0, 22)
    for size in range(19):
        with pytest.raises(WireError):
            readers[0](memoryview(b"\0\5group\0\0\0\1\0\6member")[:size], 0, size)


@pytest.mark.parametrize("bounds", [(-1, 5), (0, 200), (6, 5), (2**70, 2**70)])
def test_bounds_outside_of_the_buffer_are_left_to_python(tables: Any, bounds: tuple[int, int]) -> None:
    table = tables(heartbeat)
    readers, _ = table.of(heartbeat.HeartbeatResponse, "RESPONSE")
    with pytest.raises((WireError, struct.error, OverflowError, IndexError)):
        readers[0](memoryview(b"\0"), *bounds)
    assert table.left_to_python == 1


@pytest.mark.parametrize(
    "view",
    [memoryview(b"\0\x1b" * 4)[::2], memoryview(b"\0\x1b\0\0").cast("b"), memoryview(b"\0\x1b\0\0").cast("H")],
)
def test_views_that_are_not_plain_bytes_are_left_to_python(tables: Any, view: memoryview) -> None:
    table = tables(heartbeat)
    readers, _ = table.of(heartbeat.HeartbeatResponse, "RESPONSE")
    with pytest.raises((WireError, NotImplementedError, BufferError, ValueError)):
        raise WireError(str(readers[0](view, 0, len(view))))
    assert table.left_to_python == 1


def test_records_are_views_of_the_frame_in_their_own_place(tables: Any) -> None:
    batches = [bytes([number]) * 50 for number in range(3)]
    data = [produce.PartitionProduceData(index, batch) for index, batch in enumerate(batches)]
    request = produce.ProduceRequest(None, 1, 1000, [produce.TopicProduceData("t", partition_data=data)])
    frame = bytearray(b"head" + b"".join(produce.encode_request(request, 9)))
    readers, _ = tables(produce).of(produce.ProduceRequest, "REQUEST")
    decoded = readers[9](memoryview(frame)[2:], 2, len(frame) - 2)[0]
    records = [each.records for each in decoded.topic_data[0].partition_data]
    assert records == batches
    assert [each.nbytes for each in records] == [50] * 3
    assert records[1][10:20] == batches[1][10:20]
    frame[frame.rindex(batches[2])] = 0xFF
    assert records[2][0] == 0xFF
    del decoded, request
    with pytest.raises(BufferError):
        frame.clear()
    records.clear()


class Payload:
    """Something whose length is told by Python code that does what it should not."""

    def __init__(self, then: Any = lambda: None) -> None:
        self.then = then

    def __len__(self) -> int:
        self.then()
        return 1000


def fetch_response(*records: Any) -> fetch.FetchResponse:
    partitions = [fetch.PartitionData(index, records=each) for index, each in enumerate(records)]
    return fetch.FetchResponse(responses=[fetch.FetchableTopicResponse("t", partitions=partitions)])


def test_payloads_pass_through_by_identity(tables: Any) -> None:
    table = tables(fetch)
    _, writers = table.of(fetch.FetchResponse, "RESPONSE")
    payload, chunks = Payload(), list[Any]()
    writers[12](fetch_response(payload, None, b"", b"abc"), chunks)
    assert chunks[1] is payload
    assert chunks[3] == b"abc"
    assert len(chunks) == 5
    assert table.left_to_python == 0


def test_a_message_that_changes_while_it_is_written_does_no_harm(tables: Any) -> None:
    table = tables(fetch)
    _, writers = table.of(fetch.FetchResponse, "RESPONSE")
    for change in ("clear", "append"):
        response = fetch_response()
        partitions = response.responses[0].partitions

        def then(partitions: Any = partitions, change: str = change) -> None:
            partitions.clear() if change == "clear" else partitions.append(fetch.PartitionData())
            gc.collect()

        partitions.extend([fetch.PartitionData(0, records=Payload(then)), fetch.PartitionData(1)])
        chunks: list[Any] = []
        writers[12](response, chunks)
    assert table.left_to_python == 2


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (heartbeat.HeartbeatRequest("g", 2**31), struct.error),
        (heartbeat.HeartbeatRequest("g", -(2**70)), struct.error),
        (heartbeat.HeartbeatRequest("g" * 32768), WireError),
        (heartbeat.HeartbeatRequest("\ud800"), UnicodeEncodeError),
        (heartbeat.HeartbeatRequest(None), AttributeError),  # type: ignore[arg-type]  # on purpose
        (heartbeat.HeartbeatRequest("g", "1"), struct.error),  # type: ignore[arg-type]  # on purpose
        (heartbeat.HeartbeatResponse(), AttributeError),
    ],
)
def test_what_cannot_be_written_is_refused_by_python_and_leaves_nothing(
    tables: Any, message: Any, error: type[Exception]
) -> None:
    _, writers = tables(heartbeat).of(heartbeat.HeartbeatRequest, "REQUEST")
    with pytest.raises(error):
        writers[4](message, [])


def test_numbers_of_other_types_are_written(tables: Any) -> None:
    table = tables(heartbeat)
    _, writers = table.of(heartbeat.HeartbeatResponse, "RESPONSE")
    chunks: list[Any] = []
    writers[0](heartbeat.HeartbeatResponse(error_code=ErrorCode.REBALANCE_IN_PROGRESS), chunks)
    assert chunks == [b"\x00\x1b"]
    assert table.left_to_python == 0


def test_an_attribute_that_is_gone_is_an_error_and_not_a_crash(tables: Any) -> None:
    _, writers = tables(heartbeat).of(heartbeat.HeartbeatResponse, "RESPONSE")
    response = heartbeat.HeartbeatResponse()
    del response.error_code
    with pytest.raises(AttributeError):
        writers[0](response, [])


def test_default_arrays_are_not_shared(tables: Any) -> None:
    readers, _ = tables(api_versions).of(api_versions.ApiVersionsResponse, "RESPONSE")
    frame = memoryview(b"".join(api_versions.encode_response(api_versions.ApiVersionsResponse(), 3)))
    first, second = (readers[3](frame, 0, len(frame))[0] for _ in range(2))
    first.supported_features.append(api_versions.SupportedFeatureKey("f"))
    assert second.supported_features == []


def test_repeated_strings_and_numbers_are_told_from_others(tables: Any) -> None:
    readers, _ = tables(metadata).of(metadata.MetadataResponse, "RESPONSE")
    names = ["same", "same", "", "sama", "samé", "samé", "same", "s" * 300, "s" * 300]
    ports = [70_000, 70_000, -70_000, 1, 70_000, 2**31 - 1, -(2**31), 0, 70_000]
    brokers = [metadata.MetadataResponseBroker(i, *each) for i, each in enumerate(zip(names, ports, strict=True))]
    frame = memoryview(b"".join(metadata.encode_response(metadata.MetadataResponse(brokers=brokers), 12)))
    for _ in range(2):
        assert readers[12](frame, 0, len(frame))[0].brokers == brokers


def test_no_memory_is_lost(tables: Any) -> None:
    batches = [b"x" * 100, None]
    frame = memoryview(b"".join(fetch.encode_response(fetch_response(*batches), 17)))
    readers, writers = tables(fetch).of(fetch.FetchResponse, "RESPONSE")

    def work() -> None:
        for size in range(0, len(frame), 7):
            with pytest.raises(WireError):
                readers[17](frame, 0, size)
        for _ in range(50):
            message = readers[17](frame, 0, len(frame))[0]
            writers[17](message, [])
            message.responses[0].partitions[0].partition_index = "not a number"
            with pytest.raises(struct.error):
                writers[17](message, [])

    assert grown_bytes(work) < 5000


def test_a_layout_that_its_class_does_not_have_is_refused(accelerator: Any) -> None:
    def field(name: str = "group_id", code: str = "s", layout: Any = None) -> tuple[Any, ...]:
        return name, code, False, False, -1, layout, ""

    for type_, fields in [
        (heartbeat.HeartbeatRequest, [field("no_such_slot")]),
        (heartbeat.HeartbeatRequest, [field("__init__")]),
        (heartbeat.HeartbeatRequest, [field(code="?")]),
        (heartbeat.HeartbeatRequest, [field(code="T")]),
        (int, []),
    ]:
        with pytest.raises((TypeError, ValueError, AttributeError)):
            accelerator.Layout(type_, 0, len(fields), len(fields), tuple(fields))
