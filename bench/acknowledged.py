"""A producer of single records that is interested in nothing but when they are acknowledged.

It is the same for both clusters and hides nothing: a connection to the leader, one record of 100 bytes in flight with
acks=all, and after an error or a lost connection it asks the brokers in turn, every RETRY_S, who leads now, and sends
again. Clients with a back-off of their own (librdkafka 100 ms to 1 s, Java the same) take that much longer.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from bench.cluster import UNREACHABLE, described
from bench.link import Link
from bench.programs import WorkFailedError
from bench.requests import produce_request

ACKS_ALL = -1
RETRY_S = 0.01
PATIENCE_S = 60.0


def longest_gap(times: Sequence[float]) -> float:
    """The longest time between two that follow one another. Raises WorkFailedError for fewer than two."""
    if len(times) < 2:
        raise WorkFailedError(f"{len(times)} records were acknowledged")
    return max(later - earlier for earlier, later in itertools.pairwise(times))


class AcknowledgedProducer:
    """Writes to partition 0 of a topic. `ports` are those of all brokers, by id."""

    def __init__(self, ports: Mapping[int, int], topic: str) -> None:
        self._ports = ports
        self._topic = topic
        self._to_be_asked = itertools.cycle(ports.values())
        self._request = produce_request(topic, ACKS_ALL)
        self._link: Link | None = None

    def __enter__(self) -> "AcknowledgedProducer":
        return self

    def __exit__(self, *_: object) -> None:
        self._hang_up()

    def write(self) -> float:
        """Returns when a record has been acknowledged: the time of it, by time.monotonic."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(*UNREACHABLE):
                if self._attempt():
                    return time.monotonic()
            self._hang_up()
            if time.monotonic() > deadline:
                raise WorkFailedError(f"no record of {self._topic} is acknowledged within {PATIENCE_S:.0f} s")
            time.sleep(RETRY_S)

    def write_until(self, is_over: Callable[[], bool], pause_s: float) -> list[float]:
        """The times at which records were acknowledged, one more than it took until it was over."""
        times = [self.write()]
        while not is_over():
            time.sleep(pause_s)
            times.append(self.write())
        times.append(self.write())
        return times

    def _attempt(self) -> bool:
        if self._link is None:
            leader = self._leader()
            if leader not in self._ports:
                return False
            self._link = Link(self._ports[leader])
        request = self._request
        answer = self._link.call(request.api, request.message, request.version)
        return not request.holder_of_error(answer).error_code

    def _leader(self) -> int:
        """As the next broker says that is asked."""
        (found,) = described(next(self._to_be_asked), [self._topic]).topics
        return next((each.leader_id for each in found.partitions if not each.error_code), -1)

    def _hang_up(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


class Load:
    """Light load in the background: a producer in a thread for each topic. `stop` tells the longest gap of any."""

    def __init__(self, ports: Mapping[int, int], topics: Sequence[str], pause_s: float) -> None:
        self._over = threading.Event()
        self._times: dict[str, list[float]] = {}
        self._threads = [threading.Thread(target=self._write, args=(ports, topic, pause_s)) for topic in topics]
        for thread in self._threads:
            thread.start()

    def _write(self, ports: Mapping[int, int], topic: str, pause_s: float) -> None:
        with AcknowledgedProducer(ports, topic) as producer, contextlib.suppress(WorkFailedError):
            self._times[topic] = producer.write_until(self._over.is_set, pause_s)

    def stop(self) -> float:
        """Raises WorkFailedError where a producer has given up."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        if len(self._times) < len(self._threads):
            raise WorkFailedError(f"{len(self._threads) - len(self._times)} producers have given up")
        return max(longest_gap(times) for times in self._times.values())
