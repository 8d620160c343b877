"""Works on connections that are open and have nothing to say: what they cost, and how soon a new broker has them all.

The broker has just started, as after a restart, when all its clients come back at once.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

from bench.brokers import BrokerProcess
from bench.proc import require_descriptors
from bench.programs import loadgen, talking
from bench.requests import SPARE_DESCRIPTORS, api_versions_request, prepared
from bench.work import Bench, Row, Work

FIRST_CONNECTIONS = 10
SETTLE_S = 1.0
"""Memory is looked at when the broker has had this long since its last answer."""
IDLE_S = 3.0
COUNTS = (10, 100, 1000, 10_000)
ENOUGH_TO_SHARE = 1000
"""With fewer, what one of them takes drowns in what the broker takes anyway."""


def idle_connections(count: int, bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """Of connections that have asked once: seconds until all were answered; then the broker's memory in MB, its CPU in
    % of a core, and, if they are many, the kilobytes that each of them added.
    """
    require_descriptors(count + FIRST_CONNECTIONS + SPARE_DESCRIPTORS)
    broker.start()
    # The first ones make the broker load what it needs for any.
    with connected(bench, broker, FIRST_CONNECTIONS):
        time.sleep(SETTLE_S)
        before_mb = broker.memory().pss_mb
        with connected(bench, broker, count) as answered_s:
            time.sleep(SETTLE_S)
            memory = broker.memory()
            cpu_percent = broker.cpu_percent(IDLE_S)
    each_kb = (memory.pss_mb - before_mb) * 1000 / count
    return answered_s, memory.rss_mb, cpu_percent, *([each_kb] if count >= ENOUGH_TO_SHARE else [])


@contextmanager
def connected(bench: Bench, broker: BrokerProcess, count: int) -> Generator[float]:
    """While this is entered, that many connections are open. Gives the seconds until each was answered once."""
    frame_file, position = prepared(bench, api_versions_request(""), broker.port)
    with talking([loadgen(), "idle", str(broker.port), frame_file, str(count), str(position)]) as client:
        yield float(client.hear())
        client.say()  # Fails if they have not been open all the time.


def _idle_work(count: int) -> Work:
    what = f"idle connections, {count:,}"
    rows = [
        Row(f"{what}: until all are answered", "s", "lower"),
        Row(f"{what}: RSS", "MB", "lower"),
        Row(f"{what}: CPU", "% of a core", "lower"),
    ]
    if count >= ENOUGH_TO_SHARE:
        rows.append(Row(what, "kB each", "lower"))
    measure = partial(idle_connections, count)
    return Work(tuple(rows), measure, on_new_broker=True, in_quick=False, in_full=count >= ENOUGH_TO_SHARE)


CONNECTION_WORKS: tuple[Work, ...] = tuple(map(_idle_work, COUNTS))
