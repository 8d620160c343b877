"""Works on logs that are longer than what clients usually have in flight: written, read again from memory and from the
disk, read while others write, and compacted.
"""

import os
import random
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from bench.brokers import BrokerProcess
from bench.link import Link, frame
from bench.programs import WorkFailedError, rdload, run
from bench.requests import PRODUCE_VERSION, produce_request
from bench.rows import CONSUMER_SETTINGS, PARTITIONS_A_TOPIC, PRODUCER_SETTINGS
from bench.work import GB, MB, Bench, Row, Work, fresh_topic
from kpy.records.batch import NewRecord, build_batch
from kpy.storage.page_cache import holds
from kpy.wire import produce

RECORD_BYTES = 1000
AROUND = 1.1
"""So much is written for each byte of record values, at most."""
PRODUCED_PER_S = 250
"""Requests a second while somebody reads history."""
MIN_REQUESTS = 100
"""With fewer there is no 99th percentile."""
KEYS = 100_000
KEYED_BYTES = 500
KEYED_A_BATCH = 200
COMPACTION_TIMEOUT_S = 110.0
COMPACTED = "compacted"
COMPACTED_SETTINGS = {"log.cleaner.backoff.ms": "100"}
"""A cleaner that looks every 15 s, as both do, would measure its sleep."""


def drop_page_cache(broker: BrokerProcess, topic: str) -> None:
    """Makes the records of a topic come from the disk. Raises WorkFailedError if they stay in memory."""
    for log in broker.data_dir.glob(f"{topic}-*/*.log"):
        with log.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            size = log.stat().st_size
            if size > MB and holds(file.fileno(), 0, MB):
                raise WorkFailedError(f"{log} stays in the page cache")


def write_and_catch_up(partitions: int, bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """MB/s: written, read again from the page cache, and read from the disk; then broker CPU seconds per GB each."""
    records = bench.scale.history_megabytes * MB // RECORD_BYTES
    megabytes = round(bench.scale.history_megabytes * AROUND)
    with fresh_topic(bench, broker, megabytes, partitions) as topic:
        written_s, written_cpu_s = _write(bench, broker, topic, records, partitions)
        warm_s, warm_cpu_s = _catch_up(broker, topic, records, partitions)
        drop_page_cache(broker, topic)
        cold_s, cold_cpu_s = _catch_up(broker, topic, records, partitions)
    total = records * RECORD_BYTES
    speeds = (total / seconds / MB for seconds in (written_s, warm_s, cold_s))
    return *speeds, *(cpu_s * GB / total for cpu_s in (written_cpu_s, warm_cpu_s, cold_cpu_s))


def _write(bench: Bench, broker: BrokerProcess, topic: str, records: int, partitions: int) -> tuple[float, float]:
    payloads = str(bench.payload_file(RECORD_BYTES))
    settings = ("acks=1", *PRODUCER_SETTINGS, f"partitions={partitions}")
    cpu_before = broker.cpu_seconds()
    written = run([rdload(), "produce", broker.bootstrap, topic, payloads, str(records), *settings])
    return float(written), broker.cpu_seconds() - cpu_before


def _catch_up(broker: BrokerProcess, topic: str, records: int, partitions: int) -> tuple[float, float]:
    cpu_before = broker.cpu_seconds()
    seconds, read_bytes = run(_consumer(broker, topic, records, partitions)).split()
    if int(read_bytes) != records * RECORD_BYTES:
        raise WorkFailedError(f"{records * RECORD_BYTES} bytes were produced and {read_bytes} consumed")
    return float(seconds), broker.cpu_seconds() - cpu_before


def _consumer(broker: BrokerProcess, topic: str, records: int, partitions: int = 1) -> list[str]:
    settings = (*CONSUMER_SETTINGS, f"partitions={partitions}")
    return [rdload(), "consume", broker.bootstrap, topic, str(records), *settings]


def produce_beside_a_cold_reader(bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """Milliseconds that a producer of single records waits, p50 and p99, while another client reads from the disk, and
    the MB/s of that one.
    """
    records = bench.scale.history_megabytes * MB // RECORD_BYTES
    megabytes = round(bench.scale.history_megabytes * AROUND)
    with fresh_topic(bench, broker, megabytes) as history:
        _write(bench, broker, history, records, 1)
        drop_page_cache(broker, history)
        topic = f"beside-{history}"
        request = produce_request(topic)
        request_frame = frame(request.api, request.message, request.version)
        with Link(broker.port) as link:
            link.create_topic(topic)
            position = request.error_position(link.exchange(request_frame))
            reader = subprocess.Popen(_consumer(broker, history, records), stdout=subprocess.PIPE, text=True)
            try:
                waited_ms = sorted(_waits_ms(link, request_frame, position, lambda: reader.poll() is not None))
            finally:
                reader.kill()
                printed, _ = reader.communicate()
            link.delete_topic(topic)
    if reader.returncode or len(waited_ms) < MIN_REQUESTS:
        raise WorkFailedError(
            f"the reader ended in {reader.returncode} after {len(waited_ms)} requests of the producer"
        )
    read_s, read_bytes = map(float, printed.split())
    return statistics.median(waited_ms), waited_ms[len(waited_ms) * 99 // 100], read_bytes / read_s / MB


def _waits_ms(link: Link, request_frame: bytes, position: int, is_done: Callable[[], bool]) -> Iterator[float]:
    """How long each request waits for its answer, at a steady pace until it is done."""
    due = time.monotonic()
    while not is_done():
        due += 1 / PRODUCED_PER_S
        time.sleep(max(0.0, due - time.monotonic()))
        sent = time.perf_counter()
        answer = link.exchange(request_frame)
        yield 1000 * (time.perf_counter() - sent)
        if answer[position : position + 2] != b"\0\0":
            raise WorkFailedError("a record is answered with an error")


def compaction(bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """MB/s of a log that a topic has when it becomes a compacted one, the broker's CPU seconds per GB of it, and the
    most memory that it has meanwhile.
    """
    broker.start()
    with Link(broker.port) as link:
        log = _keyed_log(link, broker, bench.scale.history_megabytes // 10)
        broker.forget_peak()
        cpu_before, started = broker.cpu_seconds(), time.monotonic()
        link.alter_topic(COMPACTED, cleanup_policy="compact")
        deadline = started + COMPACTION_TIMEOUT_S
        while not log.is_compacted(deadline):
            time.sleep(0.01)
        seconds, cpu_s = time.monotonic() - started, broker.cpu_seconds() - cpu_before
    log.check()
    return log.size / seconds / MB, cpu_s * GB / log.size, broker.peak_rss_mb()


def produce_beside_compaction(bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """Milliseconds that a producer of single records waits meanwhile, p50 and p99."""
    broker.start()
    topic = "beside-compaction"
    request = produce_request(topic)
    request_frame = frame(request.api, request.message, request.version)
    with Link(broker.port) as link:
        log = _keyed_log(link, broker, bench.scale.history_megabytes // 10)
        link.create_topic(topic)
        position = request.error_position(link.exchange(request_frame))
        link.alter_topic(COMPACTED, cleanup_policy="compact")
        is_compacted = partial(log.is_compacted, time.monotonic() + COMPACTION_TIMEOUT_S)
        waited_ms = sorted(_waits_ms(link, request_frame, position, is_compacted))
    log.check()
    if len(waited_ms) < MIN_REQUESTS:
        raise WorkFailedError(f"the log was compacted after {len(waited_ms)} requests of the producer")
    return statistics.median(waited_ms), waited_ms[len(waited_ms) * 99 // 100]


class _KeyedLog(NamedTuple):
    """What is to be compacted: the segments below the active one, which begins at `end_offset`, in bytes."""

    directory: Path
    size: int
    end_offset: int

    def is_compacted(self, deadline: float) -> bool:
        """Whether the cleaner's checkpoint has come to its end. Raises WorkFailedError behind the deadline."""
        checkpoint = self.directory.parent / "cleaner-offset-checkpoint"
        lines = checkpoint.read_text().splitlines() if checkpoint.exists() else []
        if any(line.startswith(f"{COMPACTED} 0 ") and int(line.split()[2]) >= self.end_offset for line in lines):
            return True
        if time.monotonic() > deadline:
            raise WorkFailedError(f"the log is not compacted within {COMPACTION_TIMEOUT_S:.0f} s")
        return False

    def check(self) -> None:
        """Raises WorkFailedError where much of it is left."""
        left = sum(log.stat().st_size for log in self.directory.glob("*.log") if int(log.stem) < self.end_offset)
        if left > self.size / 2:
            raise WorkFailedError(f"of {self.size} bytes {left} are left after compaction")


def _keyed_log(link: Link, broker: BrokerProcess, megabytes: int) -> _KeyedLog:
    link.create_topic(COMPACTED, segment_bytes=str(16 * MB), min_cleanable_dirty_ratio="0.01")
    _write_keyed(link, COMPACTED, megabytes * MB // KEYED_BYTES)
    directory = broker.data_dir / f"{COMPACTED}-0"
    *inactive, active = sorted(directory.glob("*.log"))
    return _KeyedLog(directory, sum(log.stat().st_size for log in inactive), int(active.stem))


def _write_keyed(link: Link, topic: str, records: int) -> None:
    """Every key about as often, in no order."""
    rng = random.Random(1)
    now_ms = time.time_ns() // 1_000_000
    value = bytes(KEYED_BYTES - 16)
    for _ in range(records // KEYED_A_BATCH):
        keys = (b"customer-%07d" % rng.randrange(KEYS) for _ in range(KEYED_A_BATCH))
        batch = build_batch([NewRecord(now_ms, key, value) for key in keys])
        data = produce.TopicProduceData(topic, partition_data=[produce.PartitionProduceData(0, batch)])
        answer = link.call(produce, produce.ProduceRequest(None, 1, 60_000, [data]), PRODUCE_VERSION)
        if error := answer.responses[0].partition_responses[0].error_code:
            raise WorkFailedError(f"keyed records are answered with error {error}")


def _history_work(partitions: int) -> Work:
    what = f"{partitions} partition{'s' if partitions > 1 else ''}"
    rows = [
        Row(f"history, {what}: {how}", "MB/s", "higher")
        for how in ("written", "read, in memory", "read, from the disk")
    ]
    rows += [Row(f"{row.name}: broker CPU", "s/GB", "lower") for row in rows]
    return Work(tuple(rows), partial(write_and_catch_up, partitions), in_quick=False)


HISTORY_WORKS: tuple[Work, ...] = (
    _history_work(1),
    _history_work(PARTITIONS_A_TOPIC),
    Work(
        (
            Row("Produce beside a reader from the disk: p50", "ms", "lower"),
            Row("Produce beside a reader from the disk: p99", "ms", "lower"),
            Row("history, 1 partition: read, from the disk, beside Produce", "MB/s", "higher"),
        ),
        produce_beside_a_cold_reader,
        in_quick=False,
    ),
    Work(
        (
            Row("compaction", "MB/s", "higher"),
            Row("compaction: broker CPU", "s/GB", "lower"),
            Row("compaction: peak RSS", "MB", "lower"),
        ),
        compaction,
        on_new_broker=True,
        in_quick=False,
        settings=COMPACTED_SETTINGS,
    ),
    Work(
        (
            Row("compaction: Produce beside it, p50", "ms", "lower"),
            Row("compaction: Produce beside it, p99", "ms", "lower"),
        ),
        produce_beside_compaction,
        on_new_broker=True,
        in_quick=False,
        settings=COMPACTED_SETTINGS,
    ),
)
