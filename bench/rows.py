"""What is measured: the table of works, and how each is done on one broker.

A work is done once on each broker in every round and gives one number for each of its rows. A row's name is its key in
results/runs.jsonl, so it changes only when what it means does.
"""

import random
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

from bench import groups
from bench.brokers import BrokerProcess
from bench.link import Link, frame
from bench.memory import warm_memory
from bench.payloads import web_shop_events
from bench.programs import Java, WorkFailedError, loadgen, rdload, run
from bench.transactions import TransactionalProducer
from kpy.cli.bench_client import BenchError, error_position
from kpy.records.batch import NewRecord, build_batch
from kpy.wire import fetch, metadata, offset_commit, produce

# The newest versions that both serve and that name topics by name, so that a request can be made before its topic is.
PRODUCE_VERSION = 9
FETCH_VERSION = 12
METADATA_VERSION = 12
TOPICS = 10
PARTITIONS_A_TOPIC = 100
GROUPS = 10_000
IDLE_S = 3.0
LATENCY_RECORDS_PER_S = 500
MB = 1_000_000
GB = 1_000_000_000
SMALL_MEGABYTES = 100  # More than the small requests of one number write.
PAYLOADS = 1000
"""Different values of one size, sent in turn; fewer of large ones."""
PAYLOADS_BYTES = 10_000_000

Better = Literal["higher", "lower"]


class Row(NamedTuple):
    name: str
    unit: str
    better: Better


class Scale(NamedTuple):
    """How much is done for one number: of a full run, and of a quick one."""

    warm_up_s: float
    requests_s: float
    megabytes: int
    """Of records of 1000 bytes; of smaller ones a third, since the clients are slower there."""
    latency_s: int
    history_megabytes: int
    """Of a log that is much longer than what is read and written meanwhile."""


FULL = Scale(warm_up_s=0.3, requests_s=2.0, megabytes=600, latency_s=10, history_megabytes=5000)
QUICK = Scale(warm_up_s=0.2, requests_s=1.0, megabytes=240, latency_s=4, history_megabytes=500)


class Bench(NamedTuple):
    """What works need besides a broker."""

    home: Path
    java: Java
    scale: Scale
    topic_numbers: Iterator[int]

    def records(self, size: int) -> int:
        megabytes = self.scale.megabytes if size >= 1000 else self.scale.megabytes // 3
        return megabytes * MB // size

    def megabytes_to_write(self, size: int) -> int:
        """All records of one size with what is around them, in the log and in the memory of a client."""
        return 2 * self.records(size) * size // MB

    def payload_file(self, size: int) -> Path:
        """Values of one size that compress about as real events do, one a line; always the same."""
        path = self.home / f"payloads-{size}"
        if not path.exists():
            rng, lines = random.Random(size), min(PAYLOADS, PAYLOADS_BYTES // size)
            path.write_text("".join(f"{web_shop_events(size, rng)}\n" for _ in range(lines)))
        return path


class Work(NamedTuple):
    """`measure` is given a running broker; with `on_new_broker` one that was never started, on an empty directory."""

    rows: tuple[Row, ...]
    measure: Callable[[Bench, BrokerProcess], tuple[float, ...]]
    on_new_broker: bool = False
    in_quick: bool = True
    settings: Mapping[str, str] | None = None
    """Of the new broker, beside those that all have."""


def start_up(_bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """An empty directory; then, with ten topics in it, after a clean stop and after a SIGKILL."""
    first_s = broker.start()
    create_ten_topics(broker)
    broker.stop()
    later_s = broker.start()
    broker.kill()
    after_kill_s = broker.start()
    return first_s, later_s, after_kill_s


def start_with_partitions(partitions: int, _bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """With a record in each partition: after a clean stop, with memory and descriptors then, and after a SIGKILL."""
    broker.start()
    batch = build_batch([NewRecord(time.time_ns() // 1_000_000, None, bytes(100))])
    data = [produce.PartitionProduceData(index, batch) for index in range(PARTITIONS_A_TOPIC)]
    with Link(broker.port) as link:
        for number in range(partitions // PARTITIONS_A_TOPIC):
            name = f"standing-{number}"
            link.create_topic(name, PARTITIONS_A_TOPIC)
            request = produce.ProduceRequest(None, 1, 60_000, [produce.TopicProduceData(name, partition_data=data)])
            answers = link.call(produce, request, PRODUCE_VERSION).responses[0].partition_responses
            if wrong := [answer.error_code for answer in answers if answer.error_code]:
                raise WorkFailedError(f"records for {name} are answered with error {wrong[0]}")
    broker.stop()
    clean_s = broker.start()
    rss_mb, descriptors = broker.memory().rss_mb, broker.descriptors() / partitions
    broker.kill()
    return clean_s, broker.start(), rss_mb, descriptors


def idle_and_loaded(bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """Memory and CPU of a broker with ten topics and nothing to do, and its memory when it has worked for a while."""
    broker.start()
    create_ten_topics(broker)
    cpu_before = broker.cpu_seconds()
    time.sleep(IDLE_S)
    idle_cpu_percent = 100 * (broker.cpu_seconds() - cpu_before) / IDLE_S
    idle = broker.memory()
    librdkafka_round_trip(bench, broker, size=1000, settings=())
    send_requests(bench, broker, produce_request, connections=50, in_flight=5)
    send_requests(bench, broker, fetch_request, connections=50, in_flight=5)
    loaded = broker.memory()
    return idle.pss_mb, idle.rss_mb, loaded.pss_mb, loaded.rss_mb, idle_cpu_percent


def create_ten_topics(broker: BrokerProcess) -> None:
    with Link(broker.port) as link:
        for number in range(TOPICS):
            link.create_topic(f"standing-{number}")


@contextmanager
def fresh_topic(
    bench: Bench, broker: BrokerProcess, megabytes: int = SMALL_MEGABYTES, partitions: int = 1
) -> Generator[str]:
    """A topic of its own for one number that writes `megabytes` in all; its data is gone afterwards in any case."""
    name = f"bench{next(bench.topic_numbers):06}"
    with Link(broker.port) as link:
        link.create_topic(name, partitions)
    try:
        with warm_memory(bench.home, megabytes):
            yield name
    finally:
        broker.delete_topic(name)


class Request(NamedTuple):
    """A request to be sent over and over. `error_code` finds, in an answer, what holds the code that must be 0."""

    api: ModuleType
    message: Any
    version: int
    holder_of_error: Callable[[Any], Any]

    def error_position(self, answer: bytes) -> int:
        """Where the error code lies in the answers to this request, of which one is given, without their size prefix.

        Raises WorkFailedError if the one has an error.
        """
        try:
            return error_position(self.api.API_KEY, self.version, answer, self.holder_of_error)
        except BenchError as error:
            raise WorkFailedError(f"{self.api.__name__}: {error}") from error


def produce_request(topic: str, acks: int = 1) -> Request:
    """One record of 100 bytes for partition 0."""
    batch = build_batch([NewRecord(1_700_000_000_000, None, bytes(100))])
    data = produce.TopicProduceData(topic, partition_data=[produce.PartitionProduceData(0, batch)])
    message = produce.ProduceRequest(None, acks, 20_000, [data])
    return Request(produce, message, PRODUCE_VERSION, lambda answer: answer.responses[0].partition_responses[0])


def fetch_request(topic: str) -> Request:
    """The end of an empty partition, without a wait and without a fetch session."""
    position = fetch.FetchPartition(0, fetch_offset=0, partition_max_bytes=MB)
    message = fetch.FetchRequest(max_wait_ms=0, min_bytes=1, topics=[fetch.FetchTopic(topic, partitions=[position])])
    message.session_epoch = -1
    return Request(fetch, message, FETCH_VERSION, lambda answer: answer.responses[0].partitions[0])


def one_topic_metadata_request(topic: str) -> Request:
    wanted = [metadata.MetadataRequestTopic(name=topic)]
    message = metadata.MetadataRequest(wanted, allow_auto_topic_creation=False)
    return Request(metadata, message, METADATA_VERSION, lambda answer: answer.topics[0])


def commit_request(topic: str) -> Request:
    """One partition's offset, of a group without members."""
    message = groups.commit_request("bench", topic, 1)
    return Request(offset_commit, message, groups.OFFSET_COMMIT_VERSION, lambda answer: answer.topics[0].partitions[0])


NewRequest = Callable[[str], Request]


def request_rate(
    new_request: NewRequest, connections: int, in_flight: int, bench: Bench, broker: BrokerProcess
) -> tuple[float, ...]:
    """Requests a second, and the broker's CPU time for one in microseconds."""
    return send_requests(bench, broker, new_request, connections, in_flight)


def send_requests(
    bench: Bench, broker: BrokerProcess, new_request: NewRequest, connections: int, in_flight: int
) -> tuple[float, float]:
    with fresh_topic(bench, broker) as topic:
        return send_over_and_over(bench, new_request(topic), broker.port, connections, in_flight, broker.cpu_seconds)


def send_over_and_over(
    bench: Bench, request: Request, port: int, connections: int, in_flight: int, cpu_seconds: Callable[[], float]
) -> tuple[float, float]:
    """Requests a second, and the CPU time for one in microseconds of what `cpu_seconds` counts."""
    frame_file = bench.home / "frame"
    request_frame = frame(request.api, request.message, request.version)
    frame_file.write_bytes(request_frame)
    with Link(port) as link:
        position = 4 + request.error_position(link.exchange(request_frame))
    seconds = map(str, (bench.scale.warm_up_s, bench.scale.requests_s))
    load = (str(connections), str(in_flight), *seconds, str(position))
    cpu_before = cpu_seconds()
    answers, measured_s, all_answers = run([loadgen(), str(port), str(frame_file), *load]).split()
    cpu_s = cpu_seconds() - cpu_before
    return int(answers) / float(measured_s), 1e6 * cpu_s / int(all_answers)


def librdkafka_throughput(
    size: int, settings: tuple[str, ...], bench: Bench, broker: BrokerProcess
) -> tuple[float, ...]:
    return librdkafka_round_trip(bench, broker, size, settings)


# Large batches, and a client that waits for nothing but the broker.
PRODUCER_SETTINGS = (
    "linger.ms=20",
    "batch.size=1000000",
    "batch.num.messages=1000000",
    "queue.buffering.max.messages=2000000",
    "queue.buffering.max.kbytes=1048576",
)
CONSUMER_SETTINGS = ("queued.min.messages=1000000", "queued.max.messages.kbytes=262144", "fetch.wait.max.ms=100")


def librdkafka_round_trip(
    bench: Bench, broker: BrokerProcess, size: int, settings: tuple[str, ...]
) -> tuple[float, ...]:
    """Produces and consumes the same records: MB/s each, then the broker's CPU seconds per GB each."""
    records = bench.records(size)
    payloads = str(bench.payload_file(size))
    produce_settings = ("acks=1", *PRODUCER_SETTINGS, *settings)
    spread = [setting for setting in settings if setting.startswith("partitions=")]
    partitions = int(spread[0].partition("=")[2]) if spread else 1
    with fresh_topic(bench, broker, bench.megabytes_to_write(size), partitions) as topic:
        cpu_0 = broker.cpu_seconds()
        produced = run([rdload(), "produce", broker.bootstrap, topic, payloads, str(records), *produce_settings])
        cpu_1 = broker.cpu_seconds()
        consumed = run([rdload(), "consume", broker.bootstrap, topic, str(records), *CONSUMER_SETTINGS, *spread])
        cpu_2 = broker.cpu_seconds()
    consume_s, consumed_bytes = map(float, consumed.split())
    total = records * size
    if consumed_bytes != total:
        raise WorkFailedError(f"{total} bytes were produced and {consumed_bytes:.0f} consumed")
    return (
        total / float(produced) / MB,
        total / consume_s / MB,
        (cpu_1 - cpu_0) * GB / total,
        (cpu_2 - cpu_1) * GB / total,
    )


def java_throughput(size: int, codec: str, bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """ProducerPerformance and ConsumerPerformance with their defaults, but acks=1; each is a JVM that starts cold."""
    records = bench.records(size)
    properties = (f"bootstrap.servers={broker.bootstrap}", "acks=1", f"compression.type={codec}")
    load = ("--num-records", str(records), "--payload-file", str(bench.payload_file(size)), "--throughput", "-1")
    target = ("--bootstrap-server", broker.bootstrap, "--messages", str(records), "--timeout", "30000")
    producer, consumer = (f"org.apache.kafka.tools.{name}Performance" for name in ("Producer", "Consumer"))
    with fresh_topic(bench, broker, bench.megabytes_to_write(size)) as topic:
        produced = bench.java.tool(producer, "--topic", topic, *load, "--producer-props", *properties)
        consumed = bench.java.tool(consumer, "--topic", topic, *target)
    return produced_per_second(produced, records) * size / MB, consumed_per_second(consumed, records) * size / MB


def produced_per_second(output: str, records: int) -> float:
    """From the last line: `600000 records sent, 81521.7 records/sec (77.74 MB/sec), ...`."""
    last = output.strip().splitlines()[-1].split()
    if last[:3] != [str(records), "records", "sent,"]:
        raise WorkFailedError(f"ProducerPerformance did not send all records:\n{output[-1000:]}")
    return float(last[3])


def consumed_per_second(output: str, records: int) -> float:
    """From the table of two lines: all records by the time that was spent fetching, without that of joining."""
    heading, values = (line.split(", ") for line in output.strip().splitlines()[-2:])
    found = dict(zip(heading, values, strict=True))
    if int(found["data.consumed.in.nMsg"]) < records:
        raise WorkFailedError(f"ConsumerPerformance did not get all records:\n{output[-1000:]}")
    return float(found["fetch.nMsg.sec"])


def latency(acks: str, records_per_s: int, bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """From a producer to its consumer: the 50th, 99th and 99.9th percentile in ms, and the broker's CPU time in us."""
    records = (bench.scale.latency_s + 1) * records_per_s
    load = (str(bench.payload_file(100)), str(records), str(records_per_s))
    with fresh_topic(bench, broker) as topic:
        cpu_before = broker.cpu_seconds()
        percentiles = run([rdload(), "latency", broker.bootstrap, topic, *load, "linger.ms=0", f"acks={acks}"])
        cpu_s = broker.cpu_seconds() - cpu_before
    return *map(float, percentiles.split()), 1e6 * cpu_s / records


def commit_rate(connections: int, in_flight: int, bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    groups.find_coordinator_of(broker.port, "bench")
    return send_requests(bench, broker, commit_request, connections, in_flight)


def transaction_rate(partitions: int, bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """Transactions a second of one producer, and the broker's CPU time for one in microseconds."""
    with fresh_topic(bench, broker, partitions=partitions) as topic, Link(broker.port) as link:
        producer = TransactionalProducer(link, topic, topic, partitions)
        producer.run(bench.scale.warm_up_s)
        cpu_before = broker.cpu_seconds()
        done = producer.run(bench.scale.requests_s)
        cpu_s = broker.cpu_seconds() - cpu_before
    return done.transactions / done.seconds, 1e6 * cpu_s / done.transactions


def group_of(size: int, bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """Milliseconds until all members are assigned, and until the others are again when one has left."""
    with groups.Crowd(broker.port, f"crowd-{next(bench.topic_numbers)}", size) as crowd:
        return 1000 * crowd.all_join(), 1000 * crowd.one_leaves()


def many_groups(_bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    return groups.load_time(broker, GROUPS), broker.memory().pss_mb


def load_name(request: str, connections: int, in_flight: int) -> str:
    return f"{request}, {connections} connection{'' if connections == 1 else 's'}, {in_flight} in flight"


def _partitions_work(partitions: int) -> Work:
    what = f"{partitions:,} partitions"
    rows = (
        Row(f"start, {what}, after a clean stop", "s", "lower"),
        Row(f"start, {what}, after SIGKILL", "s", "lower"),
        Row(f"RSS, idle, {what}", "MB", "lower"),
        Row(f"descriptors, idle, {what}", "a partition", "lower"),
    )
    return Work(rows, partial(start_with_partitions, partitions), on_new_broker=True, in_quick=False)


def request_work(name: str, new_request: NewRequest, connections: int, in_flight: int, quick: bool) -> Work:
    what = load_name(name, connections, in_flight)
    rows = (Row(what, "requests/s", "higher"), Row(f"{what}: broker CPU", "us/request", "lower"))
    return Work(rows, partial(request_rate, new_request, connections, in_flight), in_quick=quick)


def librdkafka_work(name: str, size: int, *settings: str, quick: bool = True) -> Work:
    rows = (
        Row(f"librdkafka produce, {name}", "MB/s", "higher"),
        Row(f"librdkafka consume, {name}", "MB/s", "higher"),
        Row(f"librdkafka produce, {name}: broker CPU", "s/GB", "lower"),
        Row(f"librdkafka consume, {name}: broker CPU", "s/GB", "lower"),
    )
    return Work(rows, partial(librdkafka_throughput, size, settings), in_quick=quick)


def _java_work(size: int, codec: str, quick: bool) -> Work:
    name = f"{size} B, {codec}"
    rows = (Row(f"Java produce, {name}", "MB/s", "higher"), Row(f"Java consume, {name}", "MB/s", "higher"))
    return Work(rows, partial(java_throughput, size, codec), in_quick=quick)


def _commit_work(connections: int, in_flight: int, quick: bool) -> Work:
    what = load_name("OffsetCommit", connections, in_flight)
    rows = (Row(what, "requests/s", "higher"), Row(f"{what}: broker CPU", "us/request", "lower"))
    return Work(rows, partial(commit_rate, connections, in_flight), in_quick=quick)


def _transaction_work(partitions: int, quick: bool) -> Work:
    what = f"transactions of {partitions} {'partition' if partitions == 1 else 'partitions'}"
    rows = (Row(what, "transactions/s", "higher"), Row(f"{what}: broker CPU", "us/transaction", "lower"))
    return Work(rows, partial(transaction_rate, partitions), in_quick=quick)


def _group_work(size: int, quick: bool) -> Work:
    rows = (
        Row(f"{size} members join one group", "ms", "lower"),
        Row(f"one of {size} members leaves: until the others are stable", "ms", "lower"),
    )
    return Work(rows, partial(group_of, size), in_quick=quick)


def latency_work(acks: str, quick: bool, records_per_s: int = LATENCY_RECORDS_PER_S) -> Work:
    what = f"end to end, {records_per_s} records/s, acks={acks}"
    rows = [Row(f"{what}: {percentile}", "ms", "lower") for percentile in ("p50", "p99", "p999")]
    rows.append(Row(f"{what}: broker CPU", "us/record", "lower"))
    return Work(tuple(rows), partial(latency, acks, records_per_s), in_quick=quick)


WORKS: tuple[Work, ...] = (
    Work(
        (
            Row("start, first", "s", "lower"),
            Row("start, 10 topics, after a clean stop", "s", "lower"),
            Row("start, 10 topics, after SIGKILL", "s", "lower"),
        ),
        start_up,
        on_new_broker=True,
    ),
    Work(
        (
            Row("PSS, idle, 10 topics", "MB", "lower"),
            Row("RSS, idle, 10 topics", "MB", "lower"),
            Row("PSS, after load", "MB", "lower"),
            Row("RSS, after load", "MB", "lower"),
            Row("idle CPU, 10 topics", "% of a core", "lower"),
        ),
        idle_and_loaded,
        on_new_broker=True,
    ),
    _partitions_work(1000),
    _partitions_work(4000),
    Work(
        (
            Row(f"start, {GROUPS} groups with offsets, until they are loaded", "s", "lower"),
            Row(f"PSS, {GROUPS} groups with offsets", "MB", "lower"),
        ),
        many_groups,
        on_new_broker=True,
        in_quick=False,
    ),
    request_work("Produce", produce_request, 1, 1, quick=True),
    request_work("Produce", produce_request, 1, 5, quick=True),
    request_work("Produce", produce_request, 10, 1, quick=True),
    request_work("Produce", produce_request, 10, 5, quick=False),
    request_work("Produce", produce_request, 50, 1, quick=True),
    request_work("Produce", produce_request, 50, 5, quick=True),
    request_work("empty Fetch", fetch_request, 1, 1, quick=True),
    request_work("empty Fetch", fetch_request, 10, 1, quick=False),
    request_work("empty Fetch", fetch_request, 50, 1, quick=False),
    request_work("empty Fetch", fetch_request, 50, 5, quick=True),
    request_work("Metadata", one_topic_metadata_request, 1, 1, quick=True),
    request_work("Metadata", one_topic_metadata_request, 10, 1, quick=False),
    request_work("Metadata", one_topic_metadata_request, 50, 1, quick=False),
    request_work("Metadata", one_topic_metadata_request, 50, 5, quick=True),
    _commit_work(1, 1, quick=True),
    _commit_work(50, 5, quick=False),
    _transaction_work(1, quick=True),
    _transaction_work(100, quick=False),
    _group_work(10, quick=True),
    _group_work(100, quick=False),
    _group_work(1000, quick=False),
    librdkafka_work("100 B, none", 100),
    librdkafka_work("100 B, lz4", 100, "compression.codec=lz4", quick=False),
    librdkafka_work("100 B, zstd", 100, "compression.codec=zstd", quick=False),
    librdkafka_work("1000 B, none", 1000),
    librdkafka_work("1000 B, lz4", 1000, "compression.codec=lz4"),
    librdkafka_work("1000 B, zstd", 1000, "compression.codec=zstd", quick=False),
    librdkafka_work("1000 B, none, idempotent", 1000, "enable.idempotence=true", "acks=all", quick=False),
    _java_work(100, "none", quick=True),
    _java_work(100, "lz4", quick=False),
    _java_work(100, "zstd", quick=False),
    _java_work(1000, "none", quick=True),
    _java_work(1000, "lz4", quick=False),
    _java_work(1000, "zstd", quick=False),
    latency_work("1", quick=True),
    latency_work("all", quick=False),
)
"""In the order in which they are done and shown."""
