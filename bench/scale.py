"""Works with much of something: topics, partitions, consumers; and with codecs, sizes and acks of records."""

import time
from contextlib import ExitStack
from functools import partial

from bench.brokers import BrokerProcess
from bench.link import CONSUMER, CREATE_TOPICS_VERSION, LATEST, LIST_OFFSETS_VERSION, TIMEOUT_S, Link
from bench.programs import WorkFailedError, rdload, run, talking
from bench.requests import LOADS, all_topics_metadata_request, load_rows, send_over_and_over
from bench.rows import CONSUMER_SETTINGS, PRODUCER_SETTINGS, latency_work, librdkafka_work
from bench.warm_up import WARM_UP_LIMIT_S, WARM_UP_SCALE, until_no_cheaper
from bench.work import MB, Bench, Row, Work, fresh_topic
from kpy.wire import create_topics, list_offsets

MANY_TOPICS = 1000
CREATE_TIMEOUT_S = 120.0
RECORD_BYTES = 1000


def many_topics(bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """Seconds to create topics in one request until all have a leader; then, of a broker that is warm, requests/s and
    us of its CPU for Metadata of all, under each load.
    """
    broker.start()
    names = [f"many-{number:04}" for number in range(MANY_TOPICS)]
    topics = [create_topics.CreatableTopic(name, 1, 1) for name in names]
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

    def ask(bench: Bench, connections: int, in_flight: int) -> tuple[float, float]:
        request = all_topics_metadata_request()
        return send_over_and_over(bench, request, broker.port, connections, in_flight, broker.cpu_seconds)

    until_no_cheaper(lambda: ask(bench._replace(scale=WARM_UP_SCALE), 10, 1)[1], WARM_UP_LIMIT_S)
    return created_s, *(figure for load in LOADS for figure in ask(bench, *load))


def _without_leader(link: Link, names: list[str]) -> int:
    partition = [list_offsets.ListOffsetsPartition(0, timestamp=LATEST)]
    request = list_offsets.ListOffsetsRequest(CONSUMER, 0, [list_offsets.ListOffsetsTopic(n, partition) for n in names])
    answered = link.call(list_offsets, request, LIST_OFFSETS_VERSION).topics
    return sum(bool(topic.partitions[0].error_code) for topic in answered)


def fan_out(consumers: int, bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """MB/s of all consumers together, each a process that reads the whole of one partition; broker CPU in s/GB."""
    records = max(1000, bench.records(RECORD_BYTES) // consumers)
    payloads = str(bench.payload_file(RECORD_BYTES))
    with fresh_topic(bench, broker, 2 * records * RECORD_BYTES // MB) as topic, ExitStack() as programs:
        run([rdload(), "produce", broker.bootstrap, topic, payloads, str(records), "acks=1", *PRODUCER_SETTINGS])
        command = [rdload(), "consume", broker.bootstrap, topic, str(records), *CONSUMER_SETTINGS, "waits=1"]
        readers = [programs.enter_context(talking(command)) for _ in range(consumers)]
        for reader in readers:
            reader.hear()  # It has connected.
        cpu_before, started = broker.cpu_seconds(), time.monotonic()
        for reader in readers:
            reader.say()
        for reader in readers:
            reader.hear()
        seconds, cpu_s = time.monotonic() - started, broker.cpu_seconds() - cpu_before
    megabytes = consumers * records * RECORD_BYTES / MB
    return megabytes / seconds, 1000 * cpu_s / megabytes


def _fan_out_work(consumers: int) -> Work:
    what = f"fan-out of one partition to {consumers} {'consumer' if consumers == 1 else 'consumers'}"
    rows = (Row(what, "MB/s", "higher"), Row(f"{what}: broker CPU", "s/GB", "lower"))
    return Work(rows, partial(fan_out, consumers), in_quick=False)


def _many_topics_work() -> Work:
    rows = (
        Row(f"create {MANY_TOPICS} topics, until all have a leader", "s", "lower"),
        *(row for load in LOADS for row in load_rows(f"Metadata, {MANY_TOPICS} topics", *load)),
    )
    return Work(rows, many_topics, on_new_broker=True, in_quick=False)


SCALE_WORKS: tuple[Work, ...] = (
    _many_topics_work(),
    *(
        librdkafka_work(f"{size} B, {codec}", size, f"compression.codec={codec}", quick=False)
        for size in (100, 1000, 100_000)
        for codec in ("none", "lz4", "snappy", "gzip", "zstd")
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
