"""Settings are read from files, the environment and flags, and remember where they were made."""

from pathlib import Path

import pytest

from kpy.config_sources import (
    Setting,
    default_data_dir,
    from_assignments,
    from_environment,
    parse_properties,
    read_properties_file,
)
from kpy.config_types import ConfigError


def parsed(text: str) -> dict[str, str]:
    return {key: value for key, value, _ in parse_properties(text)}


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        ("a=1\nb:2\nc 3\nd\t=\t4", {"a": "1", "b": "2", "c": "3", "d": "4"}),
        ("  # comment\n! another\n\n a = 1 # not a comment ", {"a": "1 # not a comment "}),
        ("a=1\ra=2\r\nb=3", {"a": "2", "b": "3"}),
        ("list=x,\\\n   y,\\\n\tz\nb=1", {"list": "x,y,z", "b": "1"}),
        ("a=x\\\n# still the value", {"a": "x# still the value"}),
        ("a=ends in a backslash\\\\\nb=1", {"a": "ends in a backslash\\", "b": "1"}),
        ("a=x\\", {"a": "x"}),
        ("key\\ with\\=signs=v", {"key with=signs": "v"}),
        ("a=\\u0041\\t\\z", {"a": "A\tz"}),
        ("a=b=c:d", {"a": "b=c:d"}),
        ("empty=\nalone", {"empty": "", "alone": ""}),
        ("a=form\ffeed", {"a": "form\ffeed"}),
    ],
)
def test_properties_are_read_by_javas_rules(text: str, settings: dict[str, str]):
    assert parsed(text) == settings


def test_a_broken_unicode_escape_is_an_error_with_its_line():
    with pytest.raises(ConfigError, match=r"four hexadecimal digits must follow \(my.properties:2\)"):
        list(parse_properties("a=1\nb=\\u12", "my.properties"))


def test_a_setting_of_a_file_knows_its_first_line(tmp_path: Path):
    path = tmp_path / "server.properties"
    path.write_text("# head\nnum.partitions=1,\\\n 2\nlog.dirs=/d\n")
    assert read_properties_file(path) == {
        "num.partitions": Setting("1,2", f"{path}:2"),
        "log.dirs": Setting("/d", f"{path}:4"),
    }


def test_a_file_in_latin_1_is_read_as_java_would(tmp_path: Path):
    path = tmp_path / "server.properties"
    path.write_bytes("# für alle\nbroker.rack=Zürich".encode("latin-1"))
    assert read_properties_file(path)["broker.rack"].text == "Zürich"


def test_a_missing_file_is_one_clear_line(tmp_path: Path):
    with pytest.raises(ConfigError, match="cannot be read: No such file or directory"):
        read_properties_file(tmp_path / "absent")


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("KAFKA_ADVERTISED_LISTENERS", "advertised.listeners"),
        ("KAFKA_NODE_ID", "node.id"),
        ("KAFKA_LISTENER_NAME_INTERNAL_SCRAM___SHA___256_SASL_JAAS_CONFIG",
         "listener.name.internal.scram-sha-256.sasl.jaas.config"),
        ("KAFKA_SOME__KEY", "some_key"),
        ("KAFKA_CFG_NUM_PARTITIONS", "num.partitions"),
    ],
)  # fmt: skip
def test_variables_become_keys_by_the_rule_of_the_container_image(name: str, key: str):
    assert from_environment({name: "v"}) == {key: Setting("v", name)}


@pytest.mark.parametrize(
    "name",
    ["KAFKA_OPTS", "KAFKA_HEAP_OPTS", "KAFKA_LOG4J_LOGGERS", "KAFKA_LOG4J_ROOT_LOGLEVEL", "KAFKA_VERSION",
     "KAFKA_JMX_OPTS", "KAFKA_JMX_HOSTNAME", "PATH", "MY_KAFKA_NODE_ID"],
)  # fmt: skip
def test_other_variables_are_no_settings(name: str):
    assert from_environment({name: "v"}) == {}


def test_the_official_prefix_wins_over_the_older_one():
    environ = {"KAFKA_NUM_PARTITIONS": "1", "KAFKA_CFG_NUM_PARTITIONS": "2"}
    assert from_environment(environ) == {"num.partitions": Setting("1", "KAFKA_NUM_PARTITIONS")}


def test_a_variables_value_is_read_as_a_line_of_the_file():
    environ = {"KAFKA_SASL_JAAS_CONFIG": 'Module required \\\n  password="a\\\\b";'}
    assert from_environment(environ)["sasl.jaas.config"].text == 'Module required password="a\\b";'


def test_the_cluster_id_comes_bare_or_with_the_prefix():
    assert from_environment({"CLUSTER_ID": "x"}) == {"cluster.id": Setting("x", "CLUSTER_ID")}
    assert from_environment({"CLUSTER_ID": "x", "KAFKA_CLUSTER_ID": "y"})["cluster.id"].text == "y"
    assert from_environment({"CLUSTER_ID": ""}) == {}


def test_an_assignment_may_have_equals_signs_in_its_value():
    assert from_assignments(["a=b=c"], "--set") == {"a": Setting("b=c", "--set")}


@pytest.mark.parametrize("assignment", ["", "a", "=1"])
def test_an_assignment_without_key_or_sign_is_refused(assignment: str):
    with pytest.raises(ConfigError, match=f"--set={assignment}: must be key=value"):
        from_assignments([assignment], "--set")


@pytest.mark.parametrize(
    ("environ", "platform", "expected"),
    [
        ({}, "linux", "/home/u/.local/state/kpy"),
        ({"XDG_STATE_HOME": "/state"}, "linux", "/state/kpy"),
        ({"XDG_STATE_HOME": "relative"}, "linux", "/home/u/.local/state/kpy"),
        ({"XDG_STATE_HOME": "/state"}, "darwin", "/home/u/Library/Application Support/kpy"),
    ],
)
def test_data_lies_in_the_platforms_state_directory(environ: dict[str, str], platform: str, expected: str):
    assert default_data_dir(environ, Path("/home/u"), platform) == Path(expected)
