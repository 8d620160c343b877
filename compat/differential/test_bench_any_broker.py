"""`kpy bench` measures Apache Kafka as it measures kpy: every row, and no topic is left behind."""

import json

import pytest

from compat.differential.runner import Pair
from kpy.__main__ import main


def test_kpy_bench_measures_apache_kafka_and_kpy_alike(pair: Pair, capsys: pytest.CaptureFixture[str]) -> None:
    names: list[list[str]] = []
    for port in pair.ports:
        arguments = [
            "--bootstrap",
            f"127.0.0.1:{port}",
            "--seconds",
            "0.3",
            "--load",
            "2x3",
            "--max-mb",
            "50",
            "--json",
        ]
        exit_code = main(["bench", *arguments])
        printed = capsys.readouterr()
        assert (exit_code, printed.err) == (0, ""), printed.out
        run, *figures = [json.loads(line) for line in printed.out.splitlines()]
        assert all(figure["type"] == "figure" and figure["value"] > 0 for figure in figures)
        names.append([figure["name"] for figure in figures])
        # A topic that is gone cannot be measured in.
        assert main(["bench", *arguments, "--topic", run["topic"]]) == 1
        assert "UNKNOWN_TOPIC_OR_PARTITION" in capsys.readouterr().err
    assert names[0] == names[1]
    assert len(names[0]) == 8
