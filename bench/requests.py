"""Small requests, each sent over and over by loadgen.c: how many a second a broker answers, and what one costs it."""

from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

from bench import groups
from bench.brokers import BrokerProcess
from bench.link import Link, frame
from bench.proc import require_descriptors
from bench.programs import WorkFailedError, loadgen, talking
from bench.work import MB, Bench, Row, Work, fresh_topic
from kpy.cli.bench_client import BenchError, error_position
from kpy.records.batch import NewRecord, build_batch
from kpy.wire import api_versions, fetch, metadata, offset_commit, produce

# The newest versions that both serve and that name topics by name, so that a request can be made before its topic is.
PRODUCE_VERSION = 9
FETCH_VERSION = 12
METADATA_VERSION = 12
API_VERSIONS_VERSION = 3
SPARE_DESCRIPTORS = 200
"""What a broker and its clients have open besides the connections that are counted."""


class Request(NamedTuple):
    """A request to be sent over and over. `holder_of_error` finds, in an answer, what has the `error_code` to be 0."""

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


NewRequest = Callable[[str], Request]


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


def all_topics_metadata_request() -> Request:
    return Request(metadata, metadata.MetadataRequest(None), METADATA_VERSION, lambda answer: answer.topics[0])


def api_versions_request(_topic: str) -> Request:
    message = api_versions.ApiVersionsRequest("kpy-bench", "1")
    return Request(api_versions, message, API_VERSIONS_VERSION, lambda answer: answer)


def commit_request(topic: str) -> Request:
    """One partition's offset, of a group without members."""
    message = groups.commit_request("bench", topic, 1)
    return Request(offset_commit, message, groups.OFFSET_COMMIT_VERSION, lambda answer: answer.topics[0].partitions[0])


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
    require_descriptors(connections + SPARE_DESCRIPTORS)
    frame_file, position = prepared(bench, request, port)
    seconds = map(str, (bench.scale.warm_up_s, bench.scale.requests_s))
    load = (str(connections), str(in_flight), *seconds, str(position))
    with talking([loadgen(), "load", str(port), frame_file, *load]) as client:
        client.hear()
        cpu_before = cpu_seconds()
        client.say()
        answers, measured_s, all_answers = client.hear().split()
        cpu_s = cpu_seconds() - cpu_before
    return int(answers) / float(measured_s), 1e6 * cpu_s / int(all_answers)


def prepared(bench: Bench, request: Request, port: int) -> tuple[str, int]:
    """The file that holds the request for loadgen.c, and where its answers, with their size, have their error code."""
    frame_file = bench.home / "frame"
    request_frame = frame(request.api, request.message, request.version)
    frame_file.write_bytes(request_frame)
    with Link(port) as link:
        return str(frame_file), 4 + request.error_position(link.exchange(request_frame))


def commit_rate(connections: int, in_flight: int, bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    groups.find_coordinator_of(broker.port, "bench")
    return send_requests(bench, broker, commit_request, connections, in_flight)


def load_name(request: str, connections: int, in_flight: int) -> str:
    return f"{request}, {connections} connection{'' if connections == 1 else 's'}, {in_flight} in flight"


def load_rows(request: str, connections: int, in_flight: int) -> tuple[Row, Row]:
    what = load_name(request, connections, in_flight)
    return Row(what, "requests/s", "higher"), Row(f"{what}: broker CPU", "us/request", "lower")


LOADS = ((1, 1), (1, 5), (10, 1), (10, 5), (50, 1), (50, 5), (1000, 1), (1000, 5))
"""Connections, and requests in flight on each."""
LOADS_TO_SEE_GROWTH = ((100, 1), (10_000, 1))
"""Only done when asked for: with 10 and 1,000 of LOADS they say how cost grows."""

Quick = frozenset[tuple[int, int]]
REQUESTS: tuple[tuple[str, NewRequest, Quick], ...] = (
    ("ApiVersions", api_versions_request, frozenset()),
    ("Produce", produce_request, frozenset({(1, 1), (1, 5), (10, 1), (50, 1), (50, 5)})),
    ("empty Fetch", fetch_request, frozenset({(1, 1), (50, 5)})),
    ("Metadata", one_topic_metadata_request, frozenset({(1, 1), (50, 5)})),
)
"""With the loads that a quick run has too."""


def _request_work(name: str, new_request: NewRequest, load: tuple[int, int], quick: Quick) -> Work:
    return Work(
        load_rows(name, *load),
        partial(request_rate, new_request, *load),
        in_quick=load in quick,
        in_full=load not in LOADS_TO_SEE_GROWTH,
    )


def _commit_work(connections: int, in_flight: int, quick: bool) -> Work:
    rows = load_rows("OffsetCommit", connections, in_flight)
    return Work(rows, partial(commit_rate, connections, in_flight), in_quick=quick)


REQUEST_WORKS: tuple[Work, ...] = (
    *(
        _request_work(name, new_request, load, quick)
        for name, new_request, quick in REQUESTS
        for load in sorted((*LOADS, *LOADS_TO_SEE_GROWTH))
    ),
    _commit_work(1, 1, quick=True),
    _commit_work(50, 5, quick=False),
)
