"""`kpy config print` shows each value and where it comes from, as a file that a broker can read."""

from pathlib import Path

import pytest

from kpy.__main__ import main
from kpy.config_sources import parse_properties


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.environ", {"HOME": "/home/u", "KAFKA_NUM_PARTITIONS": "3"})


def test_what_is_set_and_what_differs_from_apache_kafka_is_shown(capsys: pytest.CaptureFixture[str]):
    assert main(["config", "print", "--set", "num.io.threads=4"]) == 0
    blocks = capsys.readouterr().out.strip().split("\n\n")
    assert "# KAFKA_NUM_PARTITIONS\nnum.partitions=3" in blocks
    assert "# --set; without effect in kpy\nnum.io.threads=4" in blocks
    assert "# kpy's default; Apache Kafka's is 3000\ngroup.initial.rebalance.delay.ms=0" in blocks
    assert not any("num.network.threads" in block for block in blocks)


def test_the_output_is_a_file_that_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["config", "print", "--all"])
    first = capsys.readouterr().out
    path = tmp_path / "printed.properties"
    path.write_text(first)
    assert main(["config", "print", "--all", str(path)]) == 0
    again = capsys.readouterr().out
    pairs = [{key: value for key, value, _ in parse_properties(text)} for text in (first, again)]
    assert pairs[0] == pairs[1]
    assert len(pairs[0]) > 200


def test_secrets_are_not_shown(capsys: pytest.CaptureFixture[str]):
    main(["config", "print", "--set", "ssl.key.password=secret", "--set", "my.own.key=secret"])
    shown = capsys.readouterr()
    assert "ssl.key.password=[hidden]" in shown.out
    assert "my.own.key=[hidden]" in shown.out
    assert "secret" not in shown.out + shown.err


def test_a_wrong_configuration_is_one_line_and_2(capsys: pytest.CaptureFixture[str]):
    assert main(["config", "print", "--set", "num.partitions=0"]) == 2
    assert capsys.readouterr().err == "kpy: error: num.partitions=0: value must be at least 1 (--set)\n"
