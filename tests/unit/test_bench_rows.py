"""How the benchmark finds an error in an answer, and what it reads from the output of Java's tools."""

import random

import pytest

from bench.acknowledged import longest_gap
from bench.link import CORRELATION_ID, frame
from bench.payloads import web_shop_events
from bench.programs import WorkFailedError
from bench.requests import fetch_request, produce_request
from bench.rows import consumed_per_second, produced_per_second
from bench.work import PAYLOADS
from kpy.wire import produce

PRODUCED = """\
90000 records sent, 18000.0 records/sec (17.17 MB/sec), 1 ms avg latency.
100000 records sent, 20000.0 records/sec (19.07 MB/sec), 2 ms avg latency, 9 ms 99.9th.
"""
CONSUMED = (
    "start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms,"
    " fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec\n"
    "2025-01-01 10:00:00:000, 2025-01-01 10:00:01:000, 95.3, 95.3, 100000, 100000.0, 500, 500, 190.7, 200000.0\n"
)


def answer_to_produce(error_code: int) -> bytes:
    partition = produce.PartitionProduceResponse(0, error_code, base_offset=5)
    message = produce.ProduceResponse([produce.TopicProduceResponse("t", partition_responses=[partition])])
    body = b"".join(produce.encode_response(message, produce_request("t").version))
    return CORRELATION_ID.to_bytes(4) + b"\0" + body


def test_the_error_position_is_where_an_error_shows() -> None:
    position = produce_request("t").error_position(answer_to_produce(0))
    assert answer_to_produce(0x1234)[position : position + 2] == b"\x12\x34"


def test_a_sample_answer_with_an_error_is_refused() -> None:
    with pytest.raises(WorkFailedError, match="NOT_LEADER_OR_FOLLOWER"):
        produce_request("t").error_position(answer_to_produce(6))


def test_a_frame_has_its_size_in_front() -> None:
    request = fetch_request("t")
    data = frame(request.api, request.message, request.version)
    assert int.from_bytes(data[:4]) == len(data) - 4


@pytest.mark.parametrize("size", [100, 1000])
def test_payloads_have_their_size_and_fit_a_line(size: int) -> None:
    rng = random.Random(1)
    made = [web_shop_events(size, rng) for _ in range(PAYLOADS)]
    assert {len(text.encode()) for text in made} == {size}
    assert not any("\n" in text for text in made)


def test_the_longest_gap_is_between_neighbours() -> None:
    assert longest_gap([1.0, 2.0, 5.0, 6.0]) == 3.0


def test_one_acknowledged_record_has_no_gap() -> None:
    with pytest.raises(WorkFailedError):
        longest_gap([1.0])


def test_the_producer_rate_is_that_of_the_whole_run() -> None:
    assert produced_per_second(PRODUCED, 100_000) == 20_000.0


def test_a_producer_that_sent_less_has_failed() -> None:
    with pytest.raises(WorkFailedError):
        produced_per_second(PRODUCED, 200_000)


def test_the_consumer_rate_is_that_of_its_fetches() -> None:
    assert consumed_per_second(CONSUMED, 100_000) == 200_000.0


def test_a_consumer_that_got_less_has_failed() -> None:
    with pytest.raises(WorkFailedError):
        consumed_per_second(CONSUMED, 100_001)
