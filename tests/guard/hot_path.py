"""What the guards count: fixed requests, sent a thousand times, and the texts that say what a request may cost.

    REWRITE=1 pytest tests/guard

writes what requests cost now over what the texts say; the difference is then for the version control to show, and for
a person to agree to.
"""

import difflib
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from kpy.records.batch import NewRecord, build_batch
from kpy.wire.fetch import FetchPartition, FetchRequest, FetchTopic
from tests.broker.raw_client import decode_response, frame, produce_request

REQUESTS = 1000
PRODUCE, FETCH, CREATE_TOPICS = 0, 1, 19
PRODUCE_VERSION = 9
FETCH_VERSION = 12
CREATE_TOPICS_VERSION = 5
RECORD_BYTES = 100
LARGE_RECORD_BYTES = 70_000
"""More than net/channel.py copies: a Fetch of it ends in sendfile."""
WRITTEN, SMALL, LARGE, EMPTY = "written", "small", "large", "empty"
"""Topics of one partition: one for what is produced meanwhile, one with a small record, with a large one, with none."""
CONTENTS = {WRITTEN: 0, SMALL: RECORD_BYTES, LARGE: LARGE_RECORD_BYTES, EMPTY: 0}
"""What lies in them before anything is counted, in bytes of the only record's value."""

SETTINGS: Mapping[str, str] = {
    # Nothing else is done while requests are counted, however slow the machine is.
    "log.cleaner.enable": "false",
    "log.retention.check.interval.ms": "3600000",
    "replica.high.watermark.checkpoint.interval.ms": "3600000",
    "log.flush.scheduler.interval.ms": "3600000",
}


def one_record(size_bytes: int) -> bytes:
    return build_batch([NewRecord(time.time_ns() // 1_000_000, None, bytes(size_bytes))])


def produce_frame(topic: str, size_bytes: int) -> bytes:
    """With acks=1."""
    return frame(PRODUCE, produce_request(topic, one_record(size_bytes)), PRODUCE_VERSION)


def fetch_frame(topic: str) -> bytes:
    """From the first offset, without a wait and without a session."""
    position = FetchPartition(0, fetch_offset=0, partition_max_bytes=1 << 20)
    request = FetchRequest(max_wait_ms=0, min_bytes=1, topics=[FetchTopic(topic, partitions=[position])])
    request.session_epoch = -1
    return frame(FETCH, request, FETCH_VERSION)


class Scenario(NamedTuple):
    name: str
    request: bytes
    in_flight: int
    records_bytes: int = 0
    """What the answer to a Fetch holds, at least."""


def scenarios() -> list[Scenario]:
    produce = produce_frame(WRITTEN, RECORD_BYTES)
    return [
        Scenario("Produce, 1 in flight", produce, 1),
        Scenario("Produce, 5 in flight", produce, 5),
        Scenario("empty Fetch", fetch_frame(EMPTY), 1),
        Scenario("Fetch of one record of 100 bytes", fetch_frame(SMALL), 1, RECORD_BYTES),
        Scenario("Fetch of one record of 70 kB", fetch_frame(LARGE), 1, LARGE_RECORD_BYTES),
    ]


def check_answer(scenario: Scenario, answer: bytes) -> None:
    """An answer without its size prefix: a broker that refuses has little work."""
    if scenario.name.startswith("Produce"):
        (partition,) = decode_response(PRODUCE, PRODUCE_VERSION, answer, 7).responses[0].partition_responses
    else:
        (partition,) = decode_response(FETCH, FETCH_VERSION, answer, 7).responses[0].partitions
        assert len(partition.records) >= scenario.records_bytes
        assert bool(partition.records) == bool(scenario.records_bytes)
    assert partition.error_code == 0


def figure(count: int, digits: int) -> str:
    """What one of the requests takes, when all have taken `count`, without zeros at the end."""
    return f"{count / REQUESTS:.{digits}f}".rstrip("0").rstrip(".")


def check(path: Path, text: str) -> None:
    """Compares with what is agreed on, or with REWRITE=1 agrees to what is."""
    if os.environ.get("REWRITE") == "1":
        path.write_text(text)
    expected = path.read_text() if path.exists() else ""
    changed = [line for line in difflib.ndiff(expected.splitlines(), text.splitlines()) if line[0] in "+-"]
    assert not changed, "\n".join(
        [
            f"it is another thing than {path.name} says; if that is meant: REWRITE=1 pytest tests/guard",
            *changed,
        ]
    )
