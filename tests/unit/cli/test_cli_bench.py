"""`kpy bench`: what it counts, what it says of whom, and that it leaves nothing on a broker."""

import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from compat.harness import BrokerProcess, free_port, running_broker
from kpy.__main__ import main
from kpy.cli.arguments import parse
from kpy.cli.bench import CLIENT_LIMIT, Report, load
from kpy.cli.bench_client import VERSIONS, AnswerCounter, BenchError, choose_versions, error_position
from kpy.cli.bench_works import Figure, Load, percentile, works
from kpy.wire import api_versions, produce


def answer_to_produce(error_code: int) -> bytes:
    partition = produce.PartitionProduceResponse(0, error_code, base_offset=5)
    message = produce.ProduceResponse([produce.TopicProduceResponse("t", partition_responses=[partition])])
    return b"\0\0\0\7\0" + b"".join(produce.encode_response(message, 9))


def sized(answer: bytes) -> bytes:
    return len(answer).to_bytes(4) + answer


def position() -> int:
    return error_position(0, 9, answer_to_produce(0), lambda answer: answer.responses[0].partition_responses[0])


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_answers_are_counted_however_they_are_cut(step: int) -> None:
    counter = AnswerCounter(position())
    stream = 5 * sized(answer_to_produce(0))
    assert sum(counter.feed(stream[at : at + step]) for at in range(0, len(stream), step)) == 5


def test_an_answer_with_an_error_is_no_answer() -> None:
    counter = AnswerCounter(position())
    with pytest.raises(BenchError, match="NOT_LEADER_OR_FOLLOWER"):
        counter.feed(sized(answer_to_produce(0)) + sized(answer_to_produce(6)))


def test_api_versions_is_answered_with_the_header_that_all_clients_know() -> None:
    answer = b"\0\0\0\7" + b"".join(api_versions.encode_response(api_versions.ApiVersionsResponse(), 3))
    assert error_position(18, 3, answer, lambda decoded: decoded) == 4


def test_an_answer_of_an_unlikely_size_is_refused() -> None:
    with pytest.raises(BenchError, match="not what was asked for"):
        AnswerCounter(position()).feed(b"\x7f\xff\xff\xff")


def test_the_newest_version_that_both_know_is_spoken() -> None:
    served = {key: (0, newest - 1) for key, (_, newest) in VERSIONS.items()}
    assert choose_versions(served) == {key: newest - 1 for key, (_, newest) in VERSIONS.items()}
    assert choose_versions({key: (0, 99) for key in VERSIONS}) == {key: newest for key, (_, newest) in VERSIONS.items()}


@pytest.mark.parametrize("served", [(0, 2), (10, 12)])
def test_a_broker_of_another_time_is_refused_with_its_versions(served: tuple[int, int]) -> None:
    with pytest.raises(BenchError, match=f"versions {served[0]} to {served[1]} of Produce"):
        choose_versions({key: (0, 99) for key in VERSIONS} | {0: served})


def test_percentiles_are_values_that_were_measured() -> None:
    values = [float(number) for number in range(1, 1001)]
    assert [percentile(values, share) for share in (0.5, 0.99, 0.999, 1.0)] == [500.0, 990.0, 999.0, 1000.0]
    assert percentile([3.0], 0.5) == 3.0


def test_loads_apply_to_rows_of_requests_only() -> None:
    names = [name for name, _ in works(("produce", "latency"), [Load(1, 1), Load(10, 5)])]
    assert names == ["produce", "produce", "latency"]


@pytest.mark.parametrize("text", ["10", "x", "0x1", "1x0", "1x101", "1001x1", "1x-1"])
def test_a_load_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(SystemExit):
        parse(["bench", "--load", text])


def test_a_load_is_connections_and_requests_in_flight() -> None:
    assert load("10x5") == Load(10, 5)


@pytest.mark.parametrize(("unit", "share", "expected"), [("MB/s", 0.9, True), ("MB/s", 0.5, False), ("ms", 0.9, False)])
def test_a_row_says_when_the_client_was_the_limit(unit: str, share: float, expected: bool) -> None:
    out = io.StringIO()
    Report(out, as_json=False).figure(Figure("row", 5.0, unit, 10, share))
    assert (CLIENT_LIMIT in out.getvalue()) == expected


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    with running_broker(tmp_path_factory.mktemp("bench"), {"auto.create.topics.enable": "true"}) as started:
        yield started


def topics_of(broker: BrokerProcess) -> list[Path]:
    return [path for path in broker.data_dir.glob("*-0")]


def bench(broker: BrokerProcess, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, list[Any], str]:
    """Exit code, what was printed as JSON, and what was complained about."""
    exit_code = main(["bench", "--bootstrap", broker.bootstrap, "--json", "--seconds", "0.2", *arguments])
    printed = capsys.readouterr()
    return exit_code, [json.loads(line) for line in printed.out.splitlines()], printed.err


def test_every_row_is_measured_and_nothing_is_left(broker: BrokerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, (run, *figures), complaints = bench(broker, capsys, "--load", "2x3", "--max-mb", "1")
    assert (exit_code, complaints) == (0, "")
    assert run["topic"].startswith("kpy-bench-")
    assert {figure["type"] for figure in figures} == {"figure"}
    assert [figure["unit"] for figure in figures] == 3 * ["requests/s"] + 2 * ["MB/s"] + 3 * ["ms"]
    assert all(figure["value"] > 0 and figure["samples"] > 0 for figure in figures)
    assert not topics_of(broker)


def test_a_topic_that_does_not_exist_is_not_created(broker: BrokerProcess, capsys: pytest.CaptureFixture[str]) -> None:
    exit_code, printed, complaints = bench(broker, capsys, "--topic", "nobody-made-me")
    assert (exit_code, printed) == (1, [])
    assert "topic nobody-made-me cannot be used: UNKNOWN_TOPIC_OR_PARTITION" in complaints
    assert not topics_of(broker)


def test_what_the_broker_refuses_is_told_in_its_words(
    broker: BrokerProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    exit_code, printed, complaints = bench(broker, capsys, "--replication-factor", "3")
    assert (exit_code, printed) == (1, [])
    assert "INVALID_REPLICATION_FACTOR" in complaints


def test_a_broker_that_is_not_there_is_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    port = free_port()
    assert main(["bench", "--bootstrap", f"127.0.0.1:{port}"]) == 1
    assert f"cannot connect to 127.0.0.1:{port}: Connection refused" in capsys.readouterr().err


def test_rows_that_do_not_exist_are_wrong_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--rows", "produce,tea"]) == 2
    assert "no 'tea' among" in capsys.readouterr().err


def test_interrupted_it_deletes_its_topic(broker: BrokerProcess) -> None:
    command = [sys.executable, "-m", "kpy", "bench", "--bootstrap", broker.bootstrap, "--json", "--seconds", "60"]
    with subprocess.Popen([*command, "--rows", "produce"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        run = json.loads(process.stdout.readline())
        assert [path.name for path in topics_of(broker)] == [f"{run['topic']}-0"]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert not topics_of(broker)
