"""The words a message is declared with, and what they mean.

A message is a list of fields, each declared once for all versions:

    HeartbeatRequest = request(
        12,
        versions("0-4", flexible="4+"),
        "group_id" / GroupId,
        "generation_id" / Int32,
        since(3, default(None, "group_instance_id" / nullable(String))),
    )

`"name" / Type` makes a field. `since`, `until`, `tagged` and `default` wrap a field; `nullable`, `array`, `struct` and
`inflexible` make types of types. That is the whole vocabulary, and it says all that Apache Kafka's JSON descriptions
say about bytes. (Their `mapKey`, `ignorable` and `about` shape Java classes and are left out; their entity types are
kept as names of types, such as `TopicName`.)

Two readers use a declaration. `protocol.generate` writes straight-line Python from it. `Message.at(version)` interprets
it with construct, as a plain `construct.Struct` for each version; the tests hold the generated code against that. In a
flexible version (KIP-482) such a struct ends in a `tagged_fields` entry: a dict of the tagged fields that were sent, by
name.
"""

from dataclasses import dataclass, replace
from enum import Enum
from functools import cached_property
from typing import Any, TypeVar, cast

from protocol import interpret

FIRST_VERSION = 0
LAST_VERSION = 32767
"""Versions are int16 on the wire."""


@dataclass(frozen=True, slots=True)
class Range:
    """Versions from `first` to `last`, both inside."""

    first: int
    last: int

    def __contains__(self, version: int) -> bool:
        return self.first <= version <= self.last


EVERY_VERSION = Range(FIRST_VERSION, LAST_VERSION)
NO_VERSION = Range(LAST_VERSION + 1, LAST_VERSION + 1)


# Types ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Type:
    """What a field holds. `"name" / Type` makes a field of it."""

    def __rtruediv__(self, name: str) -> "Field":
        return Field(name, self)

    def construct_at(self, version: int, flexible: bool) -> Any:
        """This type in one version, as construct sees it."""
        raise NotImplementedError

    def is_null_in(self, version: int) -> bool:
        """Whether null may be sent for it in this version."""
        return False


@dataclass(frozen=True, slots=True)
class Fixed(Type):
    """A value of fixed size. `code` is its character in the struct module."""

    code: str
    size_bytes: int
    python: str
    zero: Any
    entity: str = ""

    def construct_at(self, version: int, flexible: bool) -> Any:
        return interpret.FIXED[self.code]


@dataclass(frozen=True, slots=True)
class Sized(Type):
    """Bytes behind their length: an int16 for strings, an int32 for the rest, a varint of length + 1 once flexible."""

    python: str
    length_code: str
    compact: bool = True
    nulls: Range = NO_VERSION
    entity: str = ""

    def construct_at(self, version: int, flexible: bool) -> Any:
        length = interpret.CompactLength if flexible and self.compact else interpret.FIXED[self.length_code]
        return interpret.LengthPrefixed(length, text=self.python == "str", nullable=version in self.nulls)

    def is_null_in(self, version: int) -> bool:
        return version in self.nulls


@dataclass(frozen=True, slots=True)
class Array(Type):
    """Elements of one type behind their count: an int32, or a varint of count + 1 once flexible."""

    element: Type
    nulls: Range = NO_VERSION

    def construct_at(self, version: int, flexible: bool) -> Any:
        count = interpret.CompactLength if flexible else interpret.FIXED["i"]
        return interpret.Counted(count, self.element.construct_at(version, flexible), nullable=version in self.nulls)

    def is_null_in(self, version: int) -> bool:
        return version in self.nulls


@dataclass(frozen=True, slots=True)
class Struct(Type):
    """Fields in order, and in flexible versions the tagged ones behind them. A marker byte tells null where allowed."""

    name: str
    fields: tuple["Field", ...]
    nulls: Range = NO_VERSION

    def fields_at(self, version: int) -> list["Field"]:
        """The fields that are always sent in this version, in order."""
        return [field for field in self.fields if version in field.versions and field.tag is None]

    def tagged_at(self, version: int) -> list["Field"]:
        """The fields that are sent in this version only when they differ from their default, by tag."""
        tagged = [field for field in self.fields if version in field.versions and field.tag is not None]
        return sorted(tagged, key=lambda field: cast(int, field.tag))

    def construct_at(self, version: int, flexible: bool) -> Any:
        entries = {field.name: field.type.construct_at(version, flexible) for field in self.fields_at(version)}
        if flexible:
            entries["tagged_fields"] = interpret.TagSection(
                {
                    cast(int, field.tag): (field.name, field.type.construct_at(version, flexible))
                    for field in self.tagged_at(version)
                }
            )
        return interpret.structure(entries, nullable=version in self.nulls)

    def is_null_in(self, version: int) -> bool:
        return version in self.nulls


Bool = Fixed("?", 1, "bool", False)
Int8 = Fixed("b", 1, "int", 0)
Int16 = Fixed("h", 2, "int", 0)
UInt16 = Fixed("H", 2, "int", 0)
Int32 = Fixed("i", 4, "int", 0)
Int64 = Fixed("q", 8, "int", 0)
Float64 = Fixed("d", 8, "float", 0.0)
Uuid = Fixed("16s", 16, "bytes", bytes(16))
String = Sized("str", "h")
Bytes = Sized("bytes", "i")
Records = Sized("records", "i")
"""Record batches. They are never copied: decoded as a view of the frame, encoded as a buffer of their own."""

# What a value stands for, where it has a name of its own: an entity, by Apache Kafka's name. Bytes do not differ.
BrokerId = replace(Int32, entity="brokerId")
ErrorCode = replace(Int16, entity="errorCode")
GroupId = replace(String, entity="groupId")
ProducerId = replace(Int64, entity="producerId")
TopicName = replace(String, entity="topicName")
TransactionalId = replace(String, entity="transactionalId")


Nullable = TypeVar("Nullable", Sized, Array, Struct)


def nullable(type_: Nullable, since: int = FIRST_VERSION, until: int = LAST_VERSION) -> Nullable:
    """The same type, but null may be sent for it in these versions."""
    return replace(type_, nulls=Range(since, until))


def inflexible(type_: Sized) -> Sized:
    """The same type, but keeping its plain length in flexible versions too."""
    return replace(type_, compact=False)


def array(element: Type) -> Array:
    """Any number of elements."""
    return Array(element)


def struct(name: str, *fields: "Field") -> Struct:
    """Fields under a name, which is Apache Kafka's name of the generated class."""
    return Struct(name, fields)


# Fields ---------------------------------------------------------------------------------------------------------------


class Zero(Enum):
    """Stands for "the zero of its type" where a field names no default of its own."""

    ZERO = 0


ZERO = Zero.ZERO


@dataclass(frozen=True, slots=True)
class Field:
    """One field in all versions. A tagged one is sent behind the others, and only when it differs from its default."""

    name: str
    type: Type
    versions: Range = EVERY_VERSION
    tag: int | None = None
    declared_default: Any = ZERO

    @property
    def default(self) -> Any:
        """What the field holds when nothing was sent: a value, None, or ZERO for arrays and structs (a fresh one)."""
        if self.declared_default is not ZERO:
            return self.declared_default
        match self.type:
            case Fixed(zero=zero):
                return zero
            case Sized(python="str"):
                return ""
            case Sized(python="bytes"):
                return b""
            case Sized():
                return None
            case _:
                return ZERO


def since(version: int, field: Field) -> Field:
    """The field exists from this version on."""
    return replace(field, versions=Range(version, field.versions.last))


def until(version: int, field: Field) -> Field:
    """The field exists up to this version, inclusive."""
    return replace(field, versions=Range(field.versions.first, version))


def tagged(tag: int, field: Field) -> Field:
    """The field travels in the tagged section, under this tag."""
    return replace(field, tag=tag)


def default(value: Any, field: Field) -> Field:
    """The field holds this value where it was not sent, instead of the zero of its type."""
    return replace(field, declared_default=value)


# Messages -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Versions:
    """The versions that a message is declared for, and those of them that are flexible (KIP-482)."""

    valid: Range
    flexible: Range


def versions(valid: str, flexible: str = "none") -> Versions:
    """`versions("0-4", flexible="4+")`, in the notation of Apache Kafka's JSON."""
    return Versions(_range(valid), _range(flexible))


def _range(text: str) -> Range:
    if text == "none":
        return NO_VERSION
    if text.endswith("+"):
        return Range(int(text[:-1]), LAST_VERSION)
    first, _, last = text.partition("-")
    return Range(int(first), int(last or first))


class Kind(Enum):
    """Where a message stands on the wire."""

    REQUEST = "request"
    RESPONSE = "response"
    HEADER = "header"
    RECORD = "record"
    """A key or value inside a record or inside another message: its version travels in front, as an int16."""


@dataclass(frozen=True)
class Message:
    """One message in all its versions. Its name is that of the module variable that holds it."""

    kind: Kind
    api_key: int | None
    versions: Versions
    fields: tuple[Field, ...]

    @cached_property
    def all_versions(self) -> range:
        """Every version that is declared."""
        return range(self.versions.valid.first, self.versions.valid.last + 1)

    def is_flexible(self, version: int) -> bool:
        """Whether this version has compact lengths and tagged fields."""
        return version in self.versions.flexible

    def at(self, version: int) -> Any:
        """The body in one version, as a `construct.Struct`."""
        return Struct("", self.fields).construct_at(version, self.is_flexible(version))


def request(api_key: int, versions: Versions, *fields: Field) -> Message:
    """The body of a request."""
    return Message(Kind.REQUEST, api_key, versions, fields)


def response(api_key: int, versions: Versions, *fields: Field) -> Message:
    """The body of a response."""
    return Message(Kind.RESPONSE, api_key, versions, fields)


def header(versions: Versions, *fields: Field) -> Message:
    """What stands in front of every request or response."""
    return Message(Kind.HEADER, None, versions, fields)


def record(versions: Versions, *fields: Field) -> Message:
    """A key or value that carries its own version."""
    return Message(Kind.RECORD, None, versions, fields)
