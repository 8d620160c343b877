"""Frames that Apache Kafka's own classes wrote, for every API and version: kpy reads each, and writes the same bytes.

tests/golden/README.md tells how the frames are made.
"""

import base64
import gzip
import importlib
import json
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kpy import ids
from protocol import generate

GOLDEN = Path(__file__).parents[2] / "golden"

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


class Frame(NamedTuple):
    release: str
    version: int
    variant: str
    data: bytes
    json: Any


@cache
def frames() -> dict[str, list[Frame]]:
    """All frames, by message."""
    found: dict[str, list[Frame]] = defaultdict(list)
    for path in sorted(GOLDEN.glob("frames-*.tsv.gz")):
        release = path.name.removeprefix("frames-").removesuffix(".tsv.gz")
        for line in gzip.decompress(path.read_bytes()).decode().splitlines():
            message, version, variant, data, value = line.split("\t")
            frame = Frame(release, int(version), variant, bytes.fromhex(data), json.loads(value))
            for old, new in RENAMED.items():
                if message.startswith(old):
                    message, frame = message.replace(old, new), frame._replace(json={})
            found[message].append(frame)
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


@pytest.mark.parametrize("message", [message for message in frames() if api_of(message) not in UNDECLARED])
def test_frames_of_apache_kafka_survive_decode_and_encode(message: str) -> None:
    module, _, table = declared()[message]
    for frame in frames()[message]:
        if withdrawn(message, frame):
            continue
        where = f"{message} v{frame.version} of {frame.release}, {frame.variant}"
        value, end = getattr(module, f"{table}_READERS")[frame.version](memoryview(frame.data), 0, len(frame.data))
        assert end == len(frame.data), where
        assert list(differences(value, frame.json, message)) == [], where
        chunks: list[Any] = []
        getattr(module, f"{table}_WRITERS")[frame.version](value, chunks)
        assert b"".join(chunks).hex() == frame.data.hex(), where


def test_there_is_a_frame_for_every_declared_version() -> None:
    for name, (_, message, _) in declared().items():
        assert {frame.version for frame in frames()[name]} >= set(message.all_versions), name


def test_every_version_of_apache_kafka_is_declared() -> None:
    for name, found in frames().items():
        if api_of(name) not in UNDECLARED:
            sent = {frame.version for frame in found if not withdrawn(name, frame)}
            assert sent <= set(declared()[name][1].all_versions), name
