"""What a config key is: its type, what is valid, and how text becomes a value and back.

The rules are those of Apache Kafka's ConfigDef, sentences for invalid values included, because AdminClients show them.
"""

import re
import sys
from collections.abc import Callable
from enum import IntEnum
from typing import Final, NamedTuple


class Type(IntEnum):
    """The type of a key's value; the number is the one DescribeConfigs answers."""

    BOOLEAN = 1
    STRING = 2
    INT = 3
    SHORT = 4
    LONG = 5
    DOUBLE = 6
    LIST = 7
    CLASS = 8
    PASSWORD = 9


Value = bool | int | float | str | tuple[str, ...] | None
"""A parsed value: lists are tuples, passwords and class names are text, None is Kafka's null."""

Check = Callable[[Value], tuple[str, str] | None]
"""Looks at a value that is not null: None if it is valid, else what to blame and Apache Kafka's sentence for it."""

READ_ONLY: Final = "read-only"
PER_BROKER: Final = "per-broker"
CLUSTER_WIDE: Final = "cluster-wide"

MAX_INT: Final = 2**31 - 1
MAX_LONG: Final = 2**63 - 1
MAX_DOUBLE: Final = sys.float_info.max


class ConfigError(Exception):
    """A value that cannot be used, as one line for the operator: what is wrong, and where it was set."""

    def __init__(self, key: str, value: str, allowed: str, origin: str = "") -> None:
        super().__init__(key, value, allowed, origin)
        self.key = key
        self.value = value
        self.allowed = allowed
        self.origin = origin

    def __str__(self) -> str:
        where = f" ({self.origin})" if self.origin else ""
        return f"{self.key}={self.value}: {self.allowed[:1].lower()}{self.allowed[1:]}{where}"


class Key(NamedTuple):
    """One key: its type, its default, what is valid, whether it can change at run time, and what it is for."""

    name: str
    type: Type
    default: Value
    check: Check
    update: str
    doc: str

    @property
    def attribute(self) -> str:
        """The name under which `BrokerConfig` and `LogConfig` have the value."""
        return self.name.replace(".", "_")

    def parse(self, text: str) -> Value:
        """The value that `text` stands for. Raises ConfigError."""
        value = _parse(self, text.strip())
        wrong = self.check(value)
        if wrong is not None:
            raise ConfigError(self.name, *wrong)
        return value


_BITS: Final = {Type.INT: 32, Type.SHORT: 16, Type.LONG: 64}
_MAX_DIGITS: Final = 20
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_DECIMAL: Final = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_COMMA: Final = re.compile(r"\s*,\s*")


def _parse(key: Key, text: str) -> Value:
    match key.type:
        case Type.BOOLEAN:
            if text.lower() not in ("true", "false"):
                raise ConfigError(key.name, text, "Expected value to be either true or false")
            return text.lower() == "true"
        case Type.INT | Type.SHORT | Type.LONG:
            limit = 1 << (_BITS[key.type] - 1)
            # The length comes first because int() takes quadratic time.
            if len(text) > _MAX_DIGITS or not _INTEGER.fullmatch(text) or not -limit <= int(text) < limit:
                raise ConfigError(key.name, text, f"Not a number of type {key.type.name}")
            return int(text)
        case Type.DOUBLE:
            if not _DECIMAL.fullmatch(text):
                raise ConfigError(key.name, text, "Not a number of type DOUBLE")
            return float(text)
        case Type.LIST:
            return tuple(_COMMA.split(text)) if text else ()
        case Type.STRING | Type.CLASS | Type.PASSWORD:
            return text


def to_text(value: Value) -> str | None:
    """The text of a value as Apache Kafka's tools show it. The inverse of `Key.parse`."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ",".join(value)
    if isinstance(value, float):
        return _java_double(value)
    return str(value)


def _java_double(value: float) -> str:
    """Java writes 1.0E10 where Python writes 10000000000.0 or 1e+10."""
    if value == 0.0 or 1e-3 <= abs(value) < 1e7:
        return repr(value)
    # 17 significant digits tell every double apart; the fewest that do are wanted.
    candidates = (f"{value:.{digits}e}" for digits in range(1, 17))
    mantissa, _, exponent = next(text for text in candidates if float(text) == value).partition("e")
    return f"{mantissa}E{int(exponent)}"


def between(minimum: float, maximum: float | None) -> Check:
    """Numbers from `minimum` to `maximum`, both included."""

    def check(value: Value) -> tuple[str, str] | None:
        assert isinstance(value, int | float)
        if value < minimum:
            return str(value), f"Value must be at least {minimum}"
        if maximum is not None and value > maximum:
            return str(value), f"Value must be no more than {maximum}"
        return None

    return check


def at_least(minimum: float) -> Check:
    """Numbers from `minimum` up."""
    return between(minimum, None)


def one_of(*names: str, ignore_case: bool = False) -> Check:
    """One of the names, which are upper case where case is ignored."""

    def check(value: Value) -> tuple[str, str] | None:
        text = str(value)
        if (text.upper() if ignore_case else text) in names:
            return None
        return text, f"String must be one of{' (case insensitive)' if ignore_case else ''}: {', '.join(names)}"

    return check


def each_of(*names: str) -> Check:
    """A list of nothing but these names."""
    one = one_of(*names)

    def check(value: Value) -> tuple[str, str] | None:
        assert isinstance(value, tuple)
        return next((wrong for wrong in map(one, value) if wrong), None)

    return check


def anything(_value: Value) -> None:
    """Whatever the type allows."""
    return


def not_empty(value: Value) -> tuple[str, str] | None:
    """Text of at least one character."""
    return None if value else ("", "String must be non-empty")


def gzip_level(value: Value) -> tuple[str, str] | None:
    """What zlib calls a level; -1 is its default."""
    assert isinstance(value, int)
    return None if 1 <= value <= 9 or value == -1 else (str(value), "Value must be between 1 and 9 or equal to -1")


def pool_size(value: Value) -> tuple[str, str] | None:
    """A number of threads; -1 follows another key."""
    assert isinstance(value, int)
    return None if value > 0 or value == -1 else (str(value), "Value can be -1 or greater than 0")


def throttled_replicas(key: str) -> Check:
    """Replicas as partition:broker, or * for all of them."""
    form = "[partitionId]:[brokerId],[partitionId]:[brokerId],..."
    allowed = f"{key} must be the literal '*' or a list of replicas in the following format: {form}"

    def check(value: Value) -> tuple[str, str] | None:
        assert isinstance(value, tuple)
        if value == ("*",) or all(re.fullmatch(r"([0-9]+:[0-9]+)?", item) for item in value):
            return None
        return f"[{', '.join(value)}]", allowed

    return check


_VERSIONS: Final = (
    *("0.8.0", "0.8.1", "0.8.2", "0.9.0", "0.10.0-IV0", "0.10.0-IV1", "0.10.1-IV0", "0.10.1-IV1", "0.10.1-IV2"),
    *("0.10.2-IV0", "0.11.0-IV0", "0.11.0-IV1", "0.11.0-IV2", "1.0-IV0", "1.1-IV0", "2.0-IV0", "2.0-IV1", "2.1-IV0"),
    *("2.1-IV1", "2.1-IV2", "2.2-IV0", "2.2-IV1", "2.3-IV0", "2.3-IV1", "2.4-IV0", "2.4-IV1", "2.5-IV0", "2.6-IV0"),
    *("2.7-IV0", "2.7-IV1", "2.7-IV2", "2.8-IV0", "2.8-IV1", "3.0-IV0", "3.0-IV1", "3.1-IV0", "3.2-IV0", "3.3-IV0"),
    *("3.3-IV1", "3.3-IV2", "3.3-IV3", "3.4-IV0", "3.5-IV0", "3.5-IV1", "3.5-IV2", "3.6-IV0", "3.6-IV1", "3.6-IV2"),
    *("3.7-IV0", "3.7-IV1", "3.7-IV2", "3.7-IV3", "3.7-IV4", "3.8-IV0", "3.9-IV0"),
)
KAFKA_VERSIONS: Final = frozenset(_VERSIONS) | {version.split("-")[0] for version in _VERSIONS}
"""The protocol versions of Apache Kafka 3.9's ZooKeeper mode (MetadataVersion), each also by its release alone."""


def kafka_version(value: Value) -> tuple[str, str] | None:
    """A version of Apache Kafka; a bug-fix number such as the 1 of 3.9.1 does not matter."""
    text = str(value)
    kept = 3 if text.startswith("0.") else 2
    known = ".".join(text.split(".")[:kept]) in KAFKA_VERSIONS
    return None if known else (text, f"Version {text} is not a valid version")
