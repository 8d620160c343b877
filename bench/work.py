"""What a work is: something that is done on one broker and gives one number for each of its rows. And what it needs."""

import random
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from bench.brokers import BrokerProcess
from bench.link import Link
from bench.memory import warm_memory
from bench.payloads import web_shop_events
from bench.programs import Java

MB = 1_000_000
GB = 1_000_000_000
SMALL_MEGABYTES = 100  # More than the small requests of one number write.
PAYLOADS = 1000
"""Different values of one size, sent in turn; fewer of large ones."""
PAYLOADS_BYTES = 10_000_000

Better = Literal["higher", "lower"]


class Row(NamedTuple):
    """A row's name is its key in results/runs.jsonl, so it changes only when what it means does."""

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
    in_full: bool = True
    """Whether it is done when nothing is asked for by name; without `in_quick` not in a quick run."""
    settings: Mapping[str, str] | None = None
    """Of the new broker, beside those that all have."""
    over_tls: bool = False
    """Whether the broker that all share must have a listener for it."""


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
