"""What is measured of three brokers: the table of works, and how each is done on one cluster.

A cluster is started for a round, measured, and ended before the other kind is started: six brokers do not fit on two
cores. Works that count requests share one cluster, which is warmed up first; those that count partitions get one each.
"""

import contextlib
import itertools
import time
from collections.abc import Callable, Sequence
from functools import partial
from signal import SIGKILL, SIGTERM, Signals
from typing import NamedTuple

from bench.acknowledged import ACKS_ALL, AcknowledgedProducer, Load, longest_gap
from bench.cluster import SESSION_TIMEOUT_MS, SIZE, Cluster
from bench.memory import warm_memory
from bench.programs import rdload, run
from bench.requests import load_name, produce_request, send_over_and_over
from bench.rows import LATENCY_RECORDS_PER_S, PRODUCER_SETTINGS
from bench.warm_up import until_no_cheaper
from bench.work import GB, MB, SMALL_MEGABYTES, Bench, Row, Scale

RECORD_BYTES = 1000
SHARE = 2
"""A cluster writes each record three times, so it gets half as many as a lone broker."""
PARTITIONS_A_TOPIC = 100
LIGHT_LOAD_PAUSE_S = 0.02
SETTLE_S = 1.0
"""Of rest between the end of one failure and the next one."""
WARM_UP_SCALE = Scale(warm_up_s=0.0, requests_s=3.0, megabytes=150, latency_s=0, history_megabytes=0)
WARM_UP_LIMIT_S = 75.0
SESSION = f", session timeout {SESSION_TIMEOUT_MS // 1000} s"


class ClusterWork(NamedTuple):
    """`measure` is given a whole cluster; with `on_new_cluster` one that nothing was done with."""

    rows: tuple[Row, ...]
    measure: Callable[[Bench, Cluster], tuple[float, ...]]
    on_new_cluster: bool = False
    in_quick: bool = False
    in_full: bool = True


def warm_up(bench: Bench, cluster: Cluster) -> None:
    """The same as on a lone broker: until a request gets no cheaper, and then some long batches."""
    bench = bench._replace(scale=WARM_UP_SCALE)
    loads = ((1, 1), (50, 5))
    until_no_cheaper(lambda: sum(request_rate(*load, bench, cluster)[1] for load in loads), WARM_UP_LIMIT_S)
    for partitions in (1, 6):
        throughput(partitions, bench, cluster)


def throughput(partitions: int, bench: Bench, cluster: Cluster) -> tuple[float, ...]:
    """MB/s of records that are on three brokers, and the CPU seconds per GB of all three."""
    records = bench.records(RECORD_BYTES) // SHARE
    total = records * RECORD_BYTES
    settings = ("acks=all", *PRODUCER_SETTINGS, f"partitions={partitions}")
    payloads = str(bench.payload_file(RECORD_BYTES))
    with cluster.topic(partitions) as topic, warm_memory(bench.home, (SIZE + 1) * total // MB):
        cpu_before = cluster.cpu_seconds()
        produced = run([rdload(), "produce", cluster.bootstrap, topic, payloads, str(records), *settings])
        cpu_s = cluster.cpu_seconds() - cpu_before
    return total / float(produced) / MB, cpu_s * GB / total


def request_rate(connections: int, in_flight: int, bench: Bench, cluster: Cluster) -> tuple[float, ...]:
    """Requests a second of one leader, and the CPU time for one in microseconds of all three."""
    with cluster.topic() as topic, warm_memory(bench.home, SMALL_MEGABYTES):
        request = produce_request(topic, ACKS_ALL)
        port = cluster.brokers[1].port
        return send_over_and_over(bench, request, port, connections, in_flight, cluster.cpu_seconds)


def request_rate_beside(partitions: int, bench: Bench, cluster: Cluster) -> tuple[float, ...]:
    """The same with one request in flight, where all brokers have many partitions in which nothing happens."""
    _create_standing(partitions, cluster)
    return request_rate(1, 1, bench, cluster)


def _create_standing(partitions: int, cluster: Cluster) -> list[str]:
    topics = [f"standing-{number:03}" for number in range(partitions // PARTITIONS_A_TOPIC)]
    for topic in topics:
        cluster.create_topic(topic, PARTITIONS_A_TOPIC)
    return topics


def latency(bench: Bench, cluster: Cluster) -> tuple[float, ...]:
    """From a producer to its consumer: the 50th and 99th percentile in ms, and the CPU time in us of all three."""
    records = (bench.scale.latency_s + 1) * LATENCY_RECORDS_PER_S
    load = (str(bench.payload_file(100)), str(records), str(LATENCY_RECORDS_PER_S))
    with cluster.topic() as topic:
        cpu_before = cluster.cpu_seconds()
        percentiles = run([rdload(), "latency", cluster.bootstrap, topic, *load, "linger.ms=0", "acks=all"])
        cpu_s = cluster.cpu_seconds() - cpu_before
    p50, p99, _ = map(float, percentiles.split())
    return p50, p99, 1e6 * cpu_s / records


def leader_failure(_bench: Bench, cluster: Cluster) -> tuple[float, ...]:
    """Seconds without an acknowledged record of a partition whose leader is killed, and of one whose leader stops."""
    return tuple(_without_leader(cluster, how) for how in (SIGKILL, SIGTERM))


def _without_leader(cluster: Cluster, how: Signals) -> float:
    leader = cluster.others(cluster.controller_id(1))[0]
    broker = cluster.brokers[leader]
    with cluster.topic(first_leader=leader) as topic, AcknowledgedProducer(cluster.ports, topic) as producer:
        producer.write()
        time.sleep(SETTLE_S)
        started = producer.write()
        broker.send(how)
        if how == SIGKILL:
            seconds = producer.write() - started
        else:
            seconds = longest_gap([started, *producer.write_until(lambda: broker.has_ended, 0)])
        broker.wait()
        cluster.start_missing()
        cluster.wait_until_whole([topic])
    return seconds


def controller_failure(partitions: int, _bench: Bench, cluster: Cluster) -> tuple[float, ...]:
    """Seconds until there is another controller, and other leaders, when it is killed, and when it stops."""
    topics = _create_standing(partitions, cluster)
    return tuple(_without_controller(cluster, topics, how) for how in (SIGKILL, SIGTERM))


def _without_controller(cluster: Cluster, topics: Sequence[str], how: Signals) -> float:
    time.sleep(SETTLE_S)
    controller_id = cluster.controller_id(1)
    survivors = cluster.others(controller_id)

    def has_other_leaders(asked: int, topic: str) -> bool:
        leaders = cluster.leaders(asked, topic)
        return len(leaders) == PARTITIONS_A_TOPIC and set(leaders.values()) <= set(survivors)

    broker = cluster.brokers[controller_id]
    started = time.monotonic()
    broker.send(how)
    for survivor in survivors:
        cluster.wait_until(
            lambda survivor=survivor: cluster.controller_id(survivor) in survivors, "there is another controller"
        )
    for survivor, topic in itertools.product(survivors, topics):
        cluster.wait_until(
            partial(has_other_leaders, survivor, topic),
            f"{topic} has other leaders",
        )
    seconds = time.monotonic() - started
    broker.wait()
    cluster.start_missing()
    cluster.wait_until_whole(topics)
    return seconds


def rolling_restart(_bench: Bench, cluster: Cluster) -> tuple[float, ...]:
    """Seconds until all three have been stopped and started, the controller last, and are in sync again; the longest
    time without an acknowledged record of one of three partitions meanwhile.
    """
    controller_id = cluster.controller_id(1)
    with contextlib.ExitStack() as stack:
        topics = [stack.enter_context(cluster.topic(first_leader=broker_id)) for broker_id in cluster.brokers]
        load = Load(cluster.ports, topics, LIGHT_LOAD_PAUSE_S)
        started = time.monotonic()
        try:
            for broker_id in (*cluster.others(controller_id), controller_id):
                cluster.brokers[broker_id].stop()
                cluster.start_missing()
                cluster.wait_until_whole(topics)
        finally:
            seconds = time.monotonic() - started
            gap_s = load.stop()
    return seconds, gap_s


def measure(work: ClusterWork, bench: Bench, cluster: Cluster) -> tuple[float, ...]:
    """Does a work on a cluster that is complete."""
    cluster.begin()
    return work.measure(bench, cluster)


def _throughput_work(partitions: int) -> ClusterWork:
    what = f"cluster: librdkafka produce, acks=all, {partitions} partition{'s' if partitions > 1 else ''}"
    rows = (Row(what, "MB/s", "higher"), Row(f"{what}: CPU of all brokers", "s/GB", "lower"))
    return ClusterWork(rows, partial(throughput, partitions))


def _request_work(connections: int, in_flight: int) -> ClusterWork:
    what = f"cluster: {load_name('Produce acks=all', connections, in_flight)}"
    rows = (Row(what, "requests/s", "higher"), Row(f"{what}: CPU of all brokers", "us/request", "lower"))
    return ClusterWork(rows, partial(request_rate, connections, in_flight))


def _beside_work(partitions: int) -> ClusterWork:
    what = f"cluster: {load_name('Produce acks=all', 1, 1)}, beside {partitions:,} idle partitions"
    rows = (Row(what, "requests/s", "higher"), Row(f"{what}: CPU of all brokers", "us/request", "lower"))
    return ClusterWork(rows, partial(request_rate_beside, partitions))


def _controller_work(partitions: int) -> ClusterWork:
    what = f"cluster: {partitions:,} partitions, controller"
    rows = (
        Row(f"{what} killed until others lead{SESSION}", "s", "lower"),
        Row(f"{what} stopped until others lead", "s", "lower"),
    )
    return ClusterWork(rows, partial(controller_failure, partitions), on_new_cluster=True)


LATENCY = f"cluster: end to end, {LATENCY_RECORDS_PER_S} records/s, acks=all"

CLUSTER_WORKS: tuple[ClusterWork, ...] = (
    _request_work(1, 1),
    _request_work(10, 1),
    _request_work(50, 5),
    _throughput_work(1),
    _throughput_work(6),
    ClusterWork(
        (
            Row(f"{LATENCY}: p50", "ms", "lower"),
            Row(f"{LATENCY}: p99", "ms", "lower"),
            Row(f"{LATENCY}: CPU of all brokers", "us/record", "lower"),
        ),
        latency,
    ),
    ClusterWork(
        (
            Row(f"cluster: leader killed until a record is acknowledged{SESSION}", "s", "lower"),
            Row("cluster: leader stopped, longest wait for an acknowledged record", "s", "lower"),
        ),
        leader_failure,
    ),
    ClusterWork(
        (
            Row("cluster: rolling restart of three brokers", "s", "lower"),
            Row("cluster: rolling restart, longest wait for an acknowledged record", "s", "lower"),
        ),
        rolling_restart,
    ),
    _beside_work(1000),
    _controller_work(1000),
    _controller_work(4000),
)
"""In the order in which they are done and shown."""
