"""Frames that Apache Kafka's own classes wrote, for every API and version: kpy reads each, and writes the same bytes.

Where there is a JDK, Apache Kafka writes them anew and the checked-in ones are held against that; see tests/golden.
"""

import base64
import importlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from kpy import ids
from kpy.errors import WireError
from kpy.wire.apis import APIS
from protocol import generate
from protocol.grammar import Kind
from tests.golden import golden_frames
from tests.golden.golden_frames import Frame

UNDECLARED = {
    *("Vote", "BeginQuorumEpoch", "EndQuorumEpoch", "FetchSnapshot", "UpdateRaftVoter", "Envelope"),
    *("BrokerRegistration", "BrokerHeartbeat", "ControllerRegistration", "AssignReplicasToDirs"),
    *("InitializeShareGroupState", "ReadShareGroupState", "ReadShareGroupStateSummary", "WriteShareGroupState"),
    "DeleteShareGroupState",
}
"""What only KRaft controllers and brokers send to each other."""

RENAMED = {"ListClientMetricsResources": "ListConfigResources"}
"""Apache Kafka 3.9's name to that of 4.3, for the same API. Its fields were renamed too, so only bytes are compared."""

EARLY_ACCESS = {"ShareFetch", "ShareAcknowledge", "ShareGroupDescribe", "ShareGroupHeartbeat"}
"""Their v0 was withdrawn."""


@cache
def frames() -> dict[str, list[Frame]]:
    """All frames, by today's name of the message."""
    found: dict[str, list[Frame]] = {}
    for message, all_frames in golden_frames.frames().items():
        old = api_of(message)
        name = message.replace(old, RENAMED[old]) if old in RENAMED else message
        found.setdefault(name, []).extend(frame._replace(json={}) if old in RENAMED else frame for frame in all_frames)
    return found


@cache
def declared() -> dict[str, tuple[Any, Any, str]]:
    """Module, declaration and table prefix of every message."""
    found: dict[str, tuple[Any, Any, str]] = {}
    for declaration in generate.declaration_modules():
        module = importlib.import_module(f"kpy.wire.{generate.short_name(declaration)}")
        for name, message in generate.messages_in(declaration).items():
            found[name] = module, message, generate.names_of(name, message).word.upper()
    return found


def api_of(message: str) -> str:
    return message.removesuffix("Request").removesuffix("Response")


def withdrawn(message: str, frame: Frame) -> bool:
    return api_of(message) in EARLY_ACCESS and frame.version == 0


def differences(value: Any, wanted: Any, path: str) -> Iterator[str]:
    """Where a decoded value is not what Apache Kafka's JSON says. That leaves out records, and tagged defaults."""
    if isinstance(wanted, dict):
        for key, each in wanted.items():
            name = generate.snake(key)
            if name != "records":
                yield from differences(getattr(value, name), each, f"{path}.{name}")
    elif isinstance(wanted, list):
        if len(value) != len(wanted):
            yield f"{path} has {len(value)} elements, not {len(wanted)}"
        for i, (ours, theirs) in enumerate(zip(value, wanted, strict=False)):
            yield from differences(ours, theirs, f"{path}[{i}]")
    elif isinstance(value, bytes):
        if wanted not in (base64.b64encode(value).decode(), ids.to_text(value) if len(value) == ids.ID_SIZE else None):
            yield f"{path} is {value!r}, not {wanted!r}"
    elif value != wanted or isinstance(value, bool) != isinstance(wanted, bool):
        yield f"{path} is {value!r}, not {wanted!r}"


IN_RECORDS = "LeaderChangeMessage"
"""Declared in protocol/records.py, and compared by the tests of that."""

MESSAGES = [message for message in frames() if api_of(message) not in UNDECLARED and message != IN_RECORDS]


def joined(writer: Any, value: Any) -> bytes:
    chunks: list[Any] = []
    writer(value, chunks)
    return b"".join(chunks)


@pytest.mark.parametrize("message", MESSAGES)
def test_frames_of_apache_kafka_survive_decode_and_encode(message: str) -> None:
    module, _, table = declared()[message]
    for frame in frames()[message]:
        if withdrawn(message, frame):
            continue
        where = f"{message} v{frame.version} of {frame.release}, {frame.variant}"
        value, end = getattr(module, f"{table}_READERS")[frame.version](memoryview(frame.data), 0, len(frame.data))
        assert end == len(frame.data), where
        assert list(differences(value, frame.json, message)) == [], where
        encoded = joined(getattr(module, f"{table}_WRITERS")[frame.version], value)
        if frame.variant == "unknown":
            # What kpy does not know it leaves out, and all the rest is there.
            [full] = [
                each
                for each in frames()[message]
                if (each.release, each.version, each.variant) == (frame.release, frame.version, "full")
            ]
            assert len(frame.data) > len(full.data), where
            assert encoded.hex() == full.data.hex(), where
        else:
            assert encoded.hex() == frame.data.hex(), where


@pytest.mark.parametrize("message", MESSAGES)
def test_bytes_behind_a_frame_are_left_alone_unless_it_has_to_be_exact(message: str) -> None:
    module, declaration, table = declared()[message]
    if declaration.kind not in (Kind.REQUEST, Kind.RESPONSE):
        return
    decode = getattr(module, f"decode_{table.lower()}")
    for frame in frames()[message]:
        if withdrawn(message, frame):
            continue
        exact = decode(memoryview(frame.data), frame.version, exact=True)
        longer = memoryview(frame.data + b"\0")
        assert decode(longer, frame.version) == exact
        with pytest.raises(WireError, match=rf" v{frame.version}: at byte {len(frame.data)}: 1 bytes too many$"):
            decode(longer, frame.version, exact=True)


def test_there_is_a_frame_for_every_declared_version() -> None:
    for name, (_, message, _) in declared().items():
        assert {frame.version for frame in frames()[name]} >= set(message.all_versions), name


def test_every_api_version_and_direction_is_covered(capsys: pytest.CaptureFixture[str]) -> None:
    wanted = {
        (api.name, version, direction)
        for api in APIS.values()
        for direction in ("Request", "Response")
        if f"{api.name}{direction}" in declared()
        for version in declared()[f"{api.name}{direction}"][1].all_versions
    }
    covered = {
        (api_of(name), frame.version, name[len(api_of(name)) :]) for name in MESSAGES for frame in frames()[name]
    }
    with capsys.disabled():
        print(f"\ngolden frames: {len(wanted & covered):,} of {len(wanted):,} (API, version, direction)")
    assert wanted <= covered
    assert {api for api, _, _ in wanted} == {api.name for api in APIS.values()}


def test_every_version_of_apache_kafka_is_declared() -> None:
    for name, found in frames().items():
        if name in MESSAGES:
            sent = {frame.version for frame in found if not withdrawn(name, frame)}
            assert sent <= set(declared()[name][1].all_versions), name


@pytest.mark.parametrize("release", golden_frames.RELEASES)
def test_the_checked_in_frames_are_what_apache_kafka_writes(release: str) -> None:
    assert golden_frames.checked_in(release) == golden_frames.written_by_kafka(release)
