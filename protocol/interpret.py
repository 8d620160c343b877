"""What Kafka's wire adds to construct: lengths that may mean null, nullable structs, tagged sections.

`protocol.grammar` builds the `construct.Struct` of a message out of these. They favour plainness over speed: they are
the oracle that the generated code is tested against, and never run in the broker.
"""

# pyright: basic
# construct carries no types of its own, so strict mode would only repeat that on every line.

import io
from collections.abc import Mapping
from typing import IO, Any

import construct

VarInt: Any = construct.VarInt

FIXED: Mapping[str, Any] = {
    "?": construct.ExprAdapter(construct.Int8sb, lambda value, _: value != 0, lambda value, _: int(value)),
    "b": construct.Int8sb,
    "h": construct.Int16sb,
    "H": construct.Int16ub,
    "i": construct.Int32sb,
    "q": construct.Int64sb,
    "d": construct.Float64b,
    "16s": construct.Bytes(16),
}
"""The types of fixed size, by their character in the struct module."""

CompactLength: Any = construct.ExprAdapter(VarInt, lambda value, _: value - 1, lambda value, _: value + 1)
"""A length or count, sent plus one so that null, which is -1, is a zero."""


class LengthPrefixed(construct.Construct):
    """A string or bytes behind their length, null as the length -1."""

    def __init__(self, length: Any, *, text: bool, nullable: bool) -> None:
        super().__init__()
        self.length, self.text, self.nullable = length, text, nullable

    def _parse(self, stream: IO[bytes], context: Any, path: str) -> str | bytes | None:
        length = self.length.parse_stream(stream)
        if length < 0:
            return check_null(self.nullable, path)
        data = construct.stream_read(stream, length, path)
        return data.decode("utf-8") if self.text else data

    def _build(self, obj: str | bytes | None, stream: IO[bytes], context: Any, path: str) -> Any:
        if obj is None:
            check_null(self.nullable, path)
            self.length.build_stream(-1, stream)
        else:
            data = obj.encode("utf-8") if isinstance(obj, str) else bytes(obj)
            self.length.build_stream(len(data), stream)
            stream.write(data)
        return obj


class Counted(construct.Construct):
    """Elements behind their count, null as the count -1."""

    def __init__(self, count: Any, element: Any, *, nullable: bool) -> None:
        super().__init__()
        self.count, self.element, self.nullable = count, element, nullable

    def _parse(self, stream: IO[bytes], context: Any, path: str) -> list[Any] | None:
        count = self.count.parse_stream(stream)
        if count < 0:
            return check_null(self.nullable, path)
        return [self.element.parse_stream(stream) for _ in range(count)]

    def _build(self, obj: list[Any] | None, stream: IO[bytes], context: Any, path: str) -> Any:
        if obj is None:
            check_null(self.nullable, path)
            self.count.build_stream(-1, stream)
        else:
            self.count.build_stream(len(obj), stream)
            for element in obj:
                self.element.build_stream(element, stream)
        return obj


class NullableStruct(construct.Construct):
    """A struct behind a marker byte: 1 before a struct, -1 for null."""

    def __init__(self, layout: Any) -> None:
        super().__init__()
        self.layout = layout

    def _parse(self, stream: IO[bytes], context: Any, path: str) -> Any:
        return None if FIXED["b"].parse_stream(stream) < 0 else self.layout.parse_stream(stream)

    def _build(self, obj: Any, stream: IO[bytes], context: Any, path: str) -> Any:
        FIXED["b"].build_stream(-1 if obj is None else 1, stream)
        if obj is not None:
            self.layout.build_stream(obj, stream)
        return obj


class TagSection(construct.Construct):
    """The tagged fields that are present: their number, then tag, size and value of each, tags ascending.

    Parses to a dict of the known ones by name; unknown ones are skipped.
    """

    def __init__(self, known: Mapping[int, tuple[str, Any]]) -> None:
        super().__init__()
        self.known = known

    def _parse(self, stream: IO[bytes], context: Any, path: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        last = -1
        for _ in range(VarInt.parse_stream(stream)):
            tag = VarInt.parse_stream(stream)
            if tag <= last:
                raise construct.ValidationError("tags do not ascend", path=path)
            last = tag
            data = construct.stream_read(stream, VarInt.parse_stream(stream), path)
            if tag in self.known:
                name, layout = self.known[tag]
                values[name] = layout.parse(data)
        return values

    def _build(self, obj: dict[str, Any], stream: IO[bytes], context: Any, path: str) -> Any:
        VarInt.build_stream(len(obj), stream)
        for tag, (name, layout) in self.known.items():
            if name in obj:
                value = io.BytesIO()
                layout.build_stream(obj[name], value)
                VarInt.build_stream(tag, stream)
                VarInt.build_stream(len(value.getvalue()), stream)
                stream.write(value.getvalue())
        return obj


def structure(entries: Mapping[str, Any], *, nullable: bool) -> Any:
    """A struct of these entries, in order."""
    layout = construct.Struct(*(name / entry for name, entry in entries.items()))
    return NullableStruct(layout) if nullable else layout


def check_null(nullable: bool, path: str) -> None:
    """Passes where null is allowed."""
    if not nullable:
        raise construct.ValidationError("null in a field that is never null", path=path)
