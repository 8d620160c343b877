"""Works with much of something: topics, connections, partitions, consumers; and codecs, sizes and acks of records."""

import resource
import socket
import subprocess
import time
from contextlib import ExitStack
from functools import partial

from bench.brokers import BrokerProcess
from bench.link import API_VERSIONS_REQUEST, TIMEOUT_S, Link, frame
from bench.programs import PROGRAM_TIMEOUT_S, WorkFailedError, rdload, run
from bench.rows import (
    CONSUMER_SETTINGS,
    MB,
    METADATA_VERSION,
    PRODUCER_SETTINGS,
    Bench,
    Request,
    Row,
    Work,
    fetch_request,
    fresh_topic,
    latency_work,
    librdkafka_work,
    produce_request,
    request_work,
)
from kpy.wire import api_versions, create_topics, list_offsets, metadata

MANY_TOPICS = 1000
CREATE_TIMEOUT_S = 120.0
CREATE_TOPICS_VERSION = 5
LIST_OFFSETS_VERSION = 7
API_VERSIONS_VERSION = 3
CONSUMER, LATEST = -1, -1
SPARE_DESCRIPTORS = 500
RECORD_BYTES = 1000
SETTLE_S = 1.0
"""What connections cost is looked at when the broker has had this long to accept them all."""


def api_versions_request(_topic: str) -> Request:
    message = api_versions.ApiVersionsRequest("kpy-bench", "1")
    return Request(api_versions, message, API_VERSIONS_VERSION, lambda answer: answer)


def many_topics(bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """Seconds to create topics in one request until all have a leader; then Metadata of all, and its CPU time in us.

    The answers are longer than loadgen.c takes, so Python asks here, one at a time.
    """
    broker.start()
    names = [f"many-{number:04}" for number in range(MANY_TOPICS)]
    topics = [create_topics.CreatableTopic(name, 1, 1) for name in names]
    request = frame(metadata, metadata.MetadataRequest(None), METADATA_VERSION)
    with Link(broker.port) as link:
        started = time.monotonic()
        created = link.call(
            create_topics, create_topics.CreateTopicsRequest(topics, int(TIMEOUT_S * 1000)), CREATE_TOPICS_VERSION
        ).topics
        if wrong := [topic.error_code for topic in created if topic.error_code]:
            raise WorkFailedError(f"{len(wrong)} of {MANY_TOPICS} topics are not created: error {wrong[0]}")
        while unled := _without_leader(link, names):
            if time.monotonic() > started + CREATE_TIMEOUT_S:
                raise WorkFailedError(f"{unled} of {MANY_TOPICS} topics have no leader after {CREATE_TIMEOUT_S:.0f} s")
        created_s = time.monotonic() - started
        _exchange_for(link, request, bench.scale.warm_up_s)
        cpu_before = broker.cpu_seconds()
        asked, seconds = _exchange_for(link, request, bench.scale.requests_s)
        cpu_s = broker.cpu_seconds() - cpu_before
    return created_s, asked / seconds, 1e6 * cpu_s / asked


def _without_leader(link: Link, names: list[str]) -> int:
    partition = [list_offsets.ListOffsetsPartition(0, timestamp=LATEST)]
    request = list_offsets.ListOffsetsRequest(CONSUMER, 0, [list_offsets.ListOffsetsTopic(n, partition) for n in names])
    answered = link.call(list_offsets, request, LIST_OFFSETS_VERSION).topics
    return sum(bool(topic.partitions[0].error_code) for topic in answered)


def _exchange_for(link: Link, request: bytes, seconds: float) -> tuple[int, float]:
    """How often the request was answered, and in which time."""
    started, asked = time.monotonic(), 0
    while time.monotonic() < started + seconds:
        link.exchange(request)
        asked += 1
    return asked, time.monotonic() - started


def idle_connections(count: int, _bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """Kilobytes of the broker's memory for each connection that has asked once and is silent now."""
    _allow_descriptors(count + SPARE_DESCRIPTORS)
    broker.start()
    with ExitStack() as connections:
        # The first ones make the broker load what it needs for any.
        for _ in range(10):
            connections.enter_context(_connection(broker.port))
        time.sleep(SETTLE_S)
        before = broker.memory().pss_mb
        for _ in range(count):
            connections.enter_context(_connection(broker.port))
        time.sleep(SETTLE_S)
        return ((broker.memory().pss_mb - before) * 1000 / count,)


def _allow_descriptors(count: int) -> None:
    """For this process and the broker that it starts. Raises WorkFailedError where the system does not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        raise WorkFailedError(f"{count} file descriptors are needed, and {hard} allowed (ulimit -Hn)")
    if soft != resource.RLIM_INFINITY and soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def _connection(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
    connection.sendall(API_VERSIONS_REQUEST)
    if not connection.recv(65536):
        raise WorkFailedError("the broker closed an idle connection")
    return connection


def fan_out(consumers: int, bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """MB/s of all consumers together, each a process that reads the whole of one partition; broker CPU in s/GB."""
    records = max(1000, bench.records(RECORD_BYTES) // consumers)
    payloads = str(bench.payload_file(RECORD_BYTES))
    with fresh_topic(bench, broker, 2 * records * RECORD_BYTES // MB) as topic:
        run([rdload(), "produce", broker.bootstrap, topic, payloads, str(records), "acks=1", *PRODUCER_SETTINGS])
        command = [rdload(), "consume", broker.bootstrap, topic, str(records), *CONSUMER_SETTINGS]
        cpu_before, started = broker.cpu_seconds(), time.monotonic()
        readers = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(consumers)
        ]
        try:
            exit_codes = [reader.wait(PROGRAM_TIMEOUT_S) for reader in readers]
        except subprocess.TimeoutExpired:
            raise WorkFailedError(f"{consumers} consumers are not done within {PROGRAM_TIMEOUT_S:.0f} s") from None
        finally:
            for reader in readers:
                reader.kill()
                reader.wait()
        seconds, cpu_s = time.monotonic() - started, broker.cpu_seconds() - cpu_before
    if any(exit_codes):
        raise WorkFailedError(f"{sum(map(bool, exit_codes))} of {consumers} consumers failed")
    megabytes = consumers * records * RECORD_BYTES / MB
    return megabytes / seconds, 1000 * cpu_s / megabytes


def _fan_out_work(consumers: int) -> Work:
    what = f"fan-out of one partition to {consumers} {'consumer' if consumers == 1 else 'consumers'}"
    rows = (Row(what, "MB/s", "higher"), Row(f"{what}: broker CPU", "s/GB", "lower"))
    return Work(rows, partial(fan_out, consumers), in_quick=False)


def _idle_work(count: int) -> Work:
    row = Row(f"idle connections, {count:,}", "kB each", "lower")
    return Work((row,), partial(idle_connections, count), on_new_broker=True, in_quick=False)


def _many_topics_work() -> Work:
    asked = f"Metadata, {MANY_TOPICS} topics, 1 connection, 1 in flight"
    rows = (
        Row(f"create {MANY_TOPICS} topics, until all have a leader", "s", "lower"),
        Row(asked, "requests/s", "higher"),
        Row(f"{asked}: broker CPU", "us/request", "lower"),
    )
    return Work(rows, many_topics, on_new_broker=True, in_quick=False)


SCALE_WORKS: tuple[Work, ...] = (
    _many_topics_work(),
    _idle_work(1000),
    _idle_work(10_000),
    request_work("ApiVersions", api_versions_request, 1, 1, quick=False),
    request_work("ApiVersions", api_versions_request, 50, 5, quick=False),
    request_work("Produce", produce_request, 1000, 1, quick=False),
    request_work("empty Fetch", fetch_request, 1000, 1, quick=False),
    *(
        librdkafka_work(f"{size} B, {codec}", size, f"compression.codec={codec}", quick=False)
        for size in (100, 1000, 100_000)
        for codec in ("none", "snappy", "gzip", "zstd")
        # These are in rows.py.
        if codec in ("snappy", "gzip") or size == 100_000
    ),
    librdkafka_work("100 B, none, acks=0", 100, "acks=0", quick=False),
    librdkafka_work("100 B, none, acks=all", 100, "acks=all", quick=False),
    librdkafka_work("100 B, none, idempotent", 100, "enable.idempotence=true", "acks=all", quick=False),
    *(
        librdkafka_work(f"1000 B, none, {count} partitions", 1000, f"partitions={count}", quick=False)
        for count in (6, 100)
    ),
    *(_fan_out_work(consumers) for consumers in (1, 10, 50)),
    latency_work("1", quick=False, records_per_s=5000),
)
