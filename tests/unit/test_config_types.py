"""Text becomes values, and values text, as in Apache Kafka's ConfigDef."""

import pytest

from kpy.config_types import (
    MAX_DOUBLE,
    READ_ONLY,
    Check,
    ConfigError,
    Key,
    Type,
    Value,
    anything,
    at_least,
    between,
    each_of,
    gzip_level,
    kafka_version,
    not_empty,
    one_of,
    pool_size,
    throttled_replicas,
    to_text,
)


def key(of_type: Type, check: Check = anything) -> Key:
    return Key("some.key", of_type, None, check, READ_ONLY, "")


def refusal(of_type: Type, text: str, check: Check = anything) -> tuple[str, str]:
    with pytest.raises(ConfigError) as caught:
        key(of_type, check).parse(text)
    assert caught.value.key == "some.key"
    return caught.value.value, caught.value.allowed


@pytest.mark.parametrize(
    ("of_type", "text", "value"),
    [
        (Type.BOOLEAN, " TRUE ", True),
        (Type.BOOLEAN, "false", False),
        (Type.INT, "+5", 5),
        (Type.INT, " -2147483648\t", -(2**31)),
        (Type.SHORT, "32767", 32767),
        (Type.LONG, "9223372036854775807", 2**63 - 1),
        (Type.DOUBLE, "1e-1", 0.1),
        (Type.DOUBLE, ".5", 0.5),
        (Type.LIST, "", ()),
        (Type.LIST, " a , b,c ", ("a", "b", "c")),
        (Type.LIST, "a,", ("a", "")),
        (Type.STRING, "  x y  ", "x y"),
        (Type.PASSWORD, "p w", "p w"),
        (Type.CLASS, "org.example.Thing", "org.example.Thing"),
    ],
)
def test_text_is_parsed_by_type(of_type: Type, text: str, value: Value):
    assert key(of_type).parse(text) == value


@pytest.mark.parametrize(
    ("of_type", "text"),
    [
        (Type.INT, "2147483648"),
        (Type.INT, "1_000"),
        (Type.INT, "0x10"),
        (Type.INT, ""),
        (Type.INT, "5.0"),
        (Type.SHORT, "32768"),
        (Type.LONG, "-9223372036854775809"),
        (Type.LONG, "1" * 100_000),
        (Type.DOUBLE, "nan"),
        (Type.DOUBLE, "1_0.5"),
    ],
)
def test_what_java_does_not_take_as_a_number_is_refused(of_type: Type, text: str):
    assert refusal(of_type, text) == (text, f"Not a number of type {of_type.name}")


def test_a_boolean_is_true_or_false_and_nothing_else():
    assert refusal(Type.BOOLEAN, "yes") == ("yes", "Expected value to be either true or false")


@pytest.mark.parametrize(
    ("of_type", "check", "text", "blamed", "sentence"),
    [
        (Type.LONG, at_least(-1), "-9", "-9", "Value must be at least -1"),
        (Type.DOUBLE, between(0, 1), "2", "2.0", "Value must be no more than 1"),
        (Type.STRING, one_of("a", "b"), "A", "A", "String must be one of: a, b"),
        (Type.STRING, one_of("A", ignore_case=True), "b", "b", "String must be one of (case insensitive): A"),
        (Type.LIST, each_of("compact", "delete"), "delete,foo", "foo", "String must be one of: compact, delete"),
        (Type.STRING, not_empty, " ", "", "String must be non-empty"),
        (Type.INT, gzip_level, "0", "0", "Value must be between 1 and 9 or equal to -1"),
        (Type.INT, pool_size, "0", "0", "Value can be -1 or greater than 0"),
        (Type.STRING, kafka_version, "7.7", "7.7", "Version 7.7 is not a valid version"),
    ],
)
def test_invalid_values_are_refused_in_kafkas_words(of_type: Type, check: Check, text: str, blamed: str, sentence: str):
    assert refusal(of_type, text, check) == (blamed, sentence)


@pytest.mark.parametrize("version", ["3.9", "3.9-IV0", "3.9.1", "0.10.2", "0.10.2.1", "2.8-IV1"])
def test_kafka_versions_are_known_by_release_and_by_bug_fix_number(version: str):
    assert key(Type.STRING, kafka_version).parse(version) == version


@pytest.mark.parametrize("replicas", ["", "*", "0:1,1:2"])
def test_throttled_replicas_are_pairs_or_a_star(replicas: str):
    assert to_text(key(Type.LIST, throttled_replicas("k")).parse(replicas)) == replicas


def test_malformed_throttled_replicas_are_refused_naming_the_key():
    blamed, sentence = refusal(Type.LIST, "a:b", throttled_replicas("the.key"))
    assert blamed == "[a:b]"
    assert sentence.startswith("the.key must be the literal '*' or a list of replicas")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        (True, "true"),
        (False, "false"),
        (("a", "b"), "a,b"),
        ((), ""),
        (7, "7"),
        (0.5, "0.5"),
        (0.0, "0.0"),
        (1.0, "1.0"),
        (10485760.0, "1.048576E7"),
        (1e10, "1.0E10"),
        (0.0001, "1.0E-4"),
        (123456789.125, "1.23456789125E8"),
        (MAX_DOUBLE, "1.7976931348623157E308"),
    ],
)
def test_values_are_written_as_java_writes_them(value: Value, text: str | None):
    assert to_text(value) == text


def test_an_error_is_one_line_that_names_the_place():
    error = ConfigError("retention.ms", "-9", "Value must be at least -1", "server.properties:3")
    assert str(error) == "retention.ms=-9: value must be at least -1 (server.properties:3)"
