"""Works beside partitions in which nothing happens: the same small things at 10, 100, 1,000 and 10,000 of them.

What should cost the same however many there are shows here when it does not; curves.py says how it grows.
"""

from functools import partial

from bench.brokers import BrokerProcess
from bench.proc import require_descriptors
from bench.requests import (
    SPARE_DESCRIPTORS,
    fetch_request,
    load_rows,
    one_topic_metadata_request,
    produce_request,
    send_requests,
)
from bench.rows import write_to_partitions
from bench.warm_up import warm_up_with_requests
from bench.work import Bench, Row, Work

COUNTS = (10, 100, 1000, 10_000)
DESCRIPTORS_A_PARTITION = 1.2
"""What Apache Kafka has open of each; kpy opens files when they are used."""
IDLE_S = 3.0
LOAD = (10, 1)
REQUESTS = (
    ("Produce", produce_request),
    ("empty Fetch", fetch_request),
    ("Metadata", one_topic_metadata_request),
)


def beside_partitions(count: int, bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """With a record in each partition: the start after a clean stop in s, by the clock and of CPU; memory in MB and CPU
    in % of a core when it is idle then; and requests for a topic with one partition, in requests/s and in us of the
    broker's CPU for each.
    """
    require_descriptors(round(count * DESCRIPTORS_A_PARTITION) + SPARE_DESCRIPTORS)
    broker.start()
    write_to_partitions(broker, count)
    broker.stop()
    start = broker.start(), broker.cpu_seconds()
    idle = broker.memory().rss_mb, broker.cpu_percent(IDLE_S)
    warm_up_with_requests(bench, broker)
    figures = (figure for _, request in REQUESTS for figure in send_requests(bench, broker, request, *LOAD))
    return *start, *idle, *figures


def _work(count: int) -> Work:
    what = f"growth, {count:,} partitions"
    rows = (
        Row(f"{what}: start after a clean stop", "s", "lower"),
        Row(f"{what}: start after a clean stop: broker CPU", "s", "lower"),
        Row(f"{what}: RSS, idle", "MB", "lower"),
        Row(f"{what}: CPU, idle", "% of a core", "lower"),
        *(row for name, _ in REQUESTS for row in load_rows(f"{what}: {name}", *LOAD)),
    )
    return Work(rows, partial(beside_partitions, count), on_new_broker=True, in_quick=False, in_full=False)


GROWTH_WORKS: tuple[Work, ...] = tuple(map(_work, COUNTS))
