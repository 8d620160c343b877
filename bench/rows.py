"""What is measured of the broker as a whole, and through clients: how each work is done, and the table of them."""

import time
from functools import partial

from bench import groups
from bench.brokers import BrokerProcess
from bench.link import Link
from bench.programs import WorkFailedError, rdload, run
from bench.requests import (
    PRODUCE_VERSION,
    REQUEST_WORKS,
    fetch_request,
    produce_request,
    send_requests,
)
from bench.transactions import TransactionalProducer
from bench.work import GB, MB, Bench, Row, Work, fresh_topic
from kpy.records.batch import NewRecord, build_batch
from kpy.wire import produce

TOPICS = 10
PARTITIONS_A_TOPIC = 100
GROUPS = 10_000
IDLE_S = 3.0
LATENCY_RECORDS_PER_S = 500


def start_up(_bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """An empty directory, and a first record in it; then, with ten topics, after a clean stop and after a SIGKILL."""
    first_s = broker.start()
    started = time.monotonic()
    write_to_partitions(broker, 1)
    first_record_s = first_s + time.monotonic() - started
    create_topics(broker, TOPICS - 1)
    broker.stop()
    later_s = broker.start()
    broker.kill()
    after_kill_s = broker.start()
    return first_s, first_record_s, later_s, after_kill_s


def start_with_partitions(partitions: int, _bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """With a record in each partition: after a clean stop, with memory and descriptors then, and after a SIGKILL."""
    broker.start()
    write_to_partitions(broker, partitions)
    broker.stop()
    clean_s = broker.start()
    rss_mb, descriptors = broker.memory().rss_mb, broker.descriptors() / partitions
    broker.kill()
    return clean_s, broker.start(), rss_mb, descriptors


def write_to_partitions(broker: BrokerProcess, partitions: int) -> None:
    """Returns when that many new partitions, a hundred a topic, have a record each."""
    batch = build_batch([NewRecord(time.time_ns() // 1_000_000, None, bytes(100))])
    with Link(broker.port) as link:
        for first in range(0, partitions, PARTITIONS_A_TOPIC):
            name, count = f"written-{first}", min(PARTITIONS_A_TOPIC, partitions - first)
            link.create_topic(name, count)
            data = [produce.PartitionProduceData(index, batch) for index in range(count)]
            request = produce.ProduceRequest(None, 1, 60_000, [produce.TopicProduceData(name, partition_data=data)])
            answers = link.call(produce, request, PRODUCE_VERSION).responses[0].partition_responses
            if wrong := [answer.error_code for answer in answers if answer.error_code]:
                raise WorkFailedError(f"records for {name} are answered with error {wrong[0]}")


def idle_and_loaded(bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """Memory and CPU of a broker with ten topics and nothing to do, and its memory when it has worked for a while."""
    broker.start()
    create_topics(broker, TOPICS)
    idle_cpu_percent = broker.cpu_percent(IDLE_S)
    idle = broker.memory()
    librdkafka_round_trip(bench, broker, size=1000, settings=())
    send_requests(bench, broker, produce_request, connections=50, in_flight=5)
    send_requests(bench, broker, fetch_request, connections=50, in_flight=5)
    loaded = broker.memory()
    return idle.pss_mb, idle.rss_mb, loaded.pss_mb, loaded.rss_mb, idle_cpu_percent


def create_topics(broker: BrokerProcess, count: int) -> None:
    with Link(broker.port) as link:
        for number in range(count):
            link.create_topic(f"standing-{number}")


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
    bench: Bench, broker: BrokerProcess, size: int, settings: tuple[str, ...], of_both: tuple[str, ...] = ()
) -> tuple[float, ...]:
    """Produces and consumes the same records: MB/s each, then the broker's CPU seconds per GB each.

    `settings` are those of the producer, beside what both clients have.
    """
    records = bench.records(size)
    payloads = str(bench.payload_file(size))
    produce_settings = ("acks=1", *PRODUCER_SETTINGS, *settings, *of_both)
    spread = [setting for setting in settings if setting.startswith("partitions=")]
    consume_settings = (*CONSUMER_SETTINGS, *spread, *of_both)
    partitions = int(spread[0].partition("=")[2]) if spread else 1
    with fresh_topic(bench, broker, bench.megabytes_to_write(size), partitions) as topic:
        cpu_0 = broker.cpu_seconds()
        produced = run([rdload(), "produce", broker.bootstrap, topic, payloads, str(records), *produce_settings])
        cpu_1 = broker.cpu_seconds()
        consumed = run([rdload(), "consume", broker.bootstrap, topic, str(records), *consume_settings])
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
    with fresh_topic(bench, broker) as topic:
        cpu_before = broker.cpu_seconds()
        percentiles = percentiles_ms(topic, acks, records_per_s, bench, broker)
        cpu_s = broker.cpu_seconds() - cpu_before
    return *percentiles, 1e6 * cpu_s / latency_records(records_per_s, bench)


def percentiles_ms(topic: str, acks: str, records_per_s: int, bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    load = (str(bench.payload_file(100)), str(latency_records(records_per_s, bench)), str(records_per_s))
    return tuple(
        map(float, run([rdload(), "latency", broker.bootstrap, topic, *load, "linger.ms=0", f"acks={acks}"]).split())
    )


def latency_records(records_per_s: int, bench: Bench) -> int:
    """With those of the first second, which are not counted."""
    return (bench.scale.latency_s + 1) * records_per_s


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


def _partitions_work(partitions: int) -> Work:
    what = f"{partitions:,} partitions"
    rows = (
        Row(f"start, {what}, after a clean stop", "s", "lower"),
        Row(f"start, {what}, after SIGKILL", "s", "lower"),
        Row(f"RSS, idle, {what}", "MB", "lower"),
        Row(f"descriptors, idle, {what}", "a partition", "lower"),
    )
    return Work(rows, partial(start_with_partitions, partitions), on_new_broker=True, in_quick=False)


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


def percentile_rows(what: str) -> tuple[Row, ...]:
    return tuple(Row(f"{what}: {percentile}", "ms", "lower") for percentile in ("p50", "p99", "p999"))


def latency_work(acks: str, quick: bool, records_per_s: int = LATENCY_RECORDS_PER_S) -> Work:
    what = f"end to end, {records_per_s} records/s, acks={acks}"
    rows = (*percentile_rows(what), Row(f"{what}: broker CPU", "us/record", "lower"))
    return Work(rows, partial(latency, acks, records_per_s), in_quick=quick)


WORKS: tuple[Work, ...] = (
    Work(
        (
            Row("start, first", "s", "lower"),
            Row("start, first, until a record is acknowledged", "s", "lower"),
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
    *REQUEST_WORKS,
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
