"""The command line, the environment and a file come together as one configuration."""

import importlib.util
from pathlib import Path

import pytest

import kpy
from kpy import native
from kpy.cli.arguments import broker_config, parse
from kpy.config import BrokerConfig, ConfigError
from kpy.listeners import Endpoint

HOME = Path("/home/u")


def configured(
    *arguments: str, environ: dict[str, str] | None = None, ephemeral_dir: Path | None = None
) -> BrokerConfig:
    return broker_config(parse(["start", *arguments]), environ or {}, HOME, ephemeral_dir)


def test_without_arguments_data_lies_in_the_state_directory():
    assert configured().data_dirs == (HOME / ".local/state/kpy",)


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path):
    path = tmp_path / "server.properties"
    path.write_text("num.partitions=1\nmessage.max.bytes=10\nbroker.rack=file\n")
    environ = {"KAFKA_NUM_PARTITIONS": "2", "KAFKA_MESSAGE_MAX_BYTES": "20"}
    config = configured(str(path), "--set", "num.partitions=3", environ=environ)
    assert (config.num_partitions, config.message_max_bytes, config.broker_rack) == (3, 20, "file")
    assert config.origins["num.partitions"] == "--set"
    assert config.origins["message.max.bytes"] == "KAFKA_MESSAGE_MAX_BYTES"
    assert config.origins["broker.rack"] == f"{path}:3"


def test_listen_and_advertise_are_short_for_listeners():
    config = configured("--listen", "0.0.0.0:9092", "--advertise", "broker.example.com:19092")
    assert config.endpoints == (Endpoint("PLAINTEXT", "0.0.0.0", 9092),)
    assert config.advertised_endpoints == (Endpoint("PLAINTEXT", "broker.example.com", 19092),)


def test_listening_everywhere_without_saying_where_clients_connect_is_refused():
    with pytest.raises(ConfigError, match=r"--advertise localhost:9092 \(--listen\)|clients cannot connect to 0.0.0.0"):
        configured("--listen", "0.0.0.0:9092")


def test_the_data_directory_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert configured("--data-dir", "data").data_dirs == (tmp_path / "data",)


def test_a_data_directory_with_a_comma_is_refused_and_not_split():
    with pytest.raises(ConfigError, match="must not contain a comma"):
        configured("--data-dir", "/a,b")


def test_ephemeral_data_wins_over_what_the_file_says(tmp_path: Path):
    config = configured("--ephemeral", "--set", "log.dirs=/precious", ephemeral_dir=tmp_path)
    assert config.data_dirs == (tmp_path,)


def test_override_is_another_name_of_set_and_both_may_be_repeated():
    config = configured("--override", "num.partitions=3", "--set", "broker.rack=r", "--set", "num.partitions=4")
    assert (config.num_partitions, config.broker_rack) == (4, "r")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: command"),
        (["start", "--ephemeral", "--data-dir", "d"], "not allowed with argument --ephemeral"),
        (["start", "a.properties", "--config", "b.properties"], "give one configuration file, not two"),
        (["start", "--data", "d"], "unrecognized arguments: --data"),
        (["stop"], "invalid choice: 'stop'"),
        (["start", "--log-format", "xml"], "invalid choice: 'xml'"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_reason(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        parse(arguments)
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("accelerator", "compiled", "how"),
    [
        (None, None, "in Python alone"),
        (object(), None, "with the accelerator in C"),
        (object(), object(), "with the accelerator in C and compiled modules"),
    ],
)
def test_the_version_is_told_and_what_of_it_is_compiled(
    accelerator: object, compiled: object, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(native, "NATIVE", accelerator)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: compiled)
    with pytest.raises(SystemExit) as caught:
        parse(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"kpy {kpy.__version__}, {how}\n"


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        parse(["start", "--help"])
    assert caught.value.code == 0
    assert "kpy start --ephemeral --listen localhost:0" in capsys.readouterr().out
