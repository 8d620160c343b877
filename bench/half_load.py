"""Works beside a producer that takes half of what the broker can take: what the other clients' records wait for then.

Half is different for each broker, since each is first asked for all: that is the load at which a broker should be run,
whatever its limit. So the load that was there is a row of its own.
"""

import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

from bench.brokers import BrokerProcess
from bench.link import Link
from bench.programs import WorkFailedError, rdload, run
from bench.rows import LATENCY_RECORDS_PER_S, PRODUCER_SETTINGS, percentile_rows, percentiles_ms
from bench.work import MB, Bench, Row, Work, fresh_topic

RECORD_BYTES = 100
SHARE = 2
SPARE_S = 5.0
"""What is measured takes so much longer than it counts, with the client's start."""
LOAD_LIMIT_S = 60.0
"""The load is ended when that is done; if it is not done by then, there is no figure."""
AROUND = 1.5
"""So much is written for each byte of record values, at most, and held by the client."""
BEGIN_TIMEOUT_S = 10.0
POLL_INTERVAL_S = 0.01


def latency_beside_half_load(records_per_s: int, bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """The 50th, 99th and 99.9th percentile in ms, and the MB/s that the other client produced meanwhile."""
    wanted_per_s = int(_capacity_per_s(bench, broker)) // SHARE
    megabytes = round(AROUND * wanted_per_s * RECORD_BYTES * (bench.scale.latency_s + SPARE_S) / MB)
    with fresh_topic(bench, broker, megabytes) as topic, Link(broker.port) as link:
        tail = f"tail-{topic}"
        link.create_topic(tail)
        with _load(bench, broker, topic, wanted_per_s) as load:
            _wait_for_records(link, topic)
            end_before, started = link.end_offset(topic), time.monotonic()
            percentiles = percentiles_ms(tail, "1", records_per_s, bench, broker)
            load_per_s = (link.end_offset(topic) - end_before) / (time.monotonic() - started)
            if load.poll() is not None:
                raise WorkFailedError("the load ended before what was measured beside it")
        link.delete_topic(tail)
    return *percentiles, load_per_s * RECORD_BYTES / MB


def _capacity_per_s(bench: Bench, broker: BrokerProcess) -> float:
    """Records of RECORD_BYTES that the broker takes in a second from one client in a hurry."""
    records = bench.records(RECORD_BYTES)
    with fresh_topic(bench, broker, bench.megabytes_to_write(RECORD_BYTES)) as topic:
        return records / float(run(_producer(bench, broker, topic, records)))


def _producer(bench: Bench, broker: BrokerProcess, topic: str, records: int, *settings: str) -> list[str]:
    payloads = str(bench.payload_file(RECORD_BYTES))
    return [
        rdload(), "produce", broker.bootstrap, topic, payloads, str(records), "acks=1", *PRODUCER_SETTINGS, *settings
    ]  # fmt: skip


@contextmanager
def _load(bench: Bench, broker: BrokerProcess, topic: str, records_per_s: int) -> Generator[subprocess.Popen[bytes]]:
    records = round(records_per_s * LOAD_LIMIT_S)
    command = _producer(bench, broker, topic, records, f"rate={records_per_s}")
    producer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield producer
    finally:
        producer.kill()
        producer.wait()


def _wait_for_records(link: Link, topic: str) -> None:
    deadline = time.monotonic() + BEGIN_TIMEOUT_S
    while not link.end_offset(topic):
        if time.monotonic() > deadline:
            raise WorkFailedError(f"the load does not begin within {BEGIN_TIMEOUT_S:.0f} s")
        time.sleep(POLL_INTERVAL_S)


def _work(records_per_s: int) -> Work:
    what = f"end to end, {records_per_s} records/s, acks=1, beside half load"
    rows = (*percentile_rows(what), Row(f"{what}: the load", "MB/s", "higher"))
    return Work(rows, partial(latency_beside_half_load, records_per_s), in_quick=False)


HALF_LOAD_WORKS: tuple[Work, ...] = tuple(map(_work, (LATENCY_RECORDS_PER_S, 10 * LATENCY_RECORDS_PER_S)))
