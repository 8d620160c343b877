"""Writes kpy/wire from the declarations: `python -m protocol.generate`, and `--check` to see that nothing is stale.

For each module in protocol/api this writes one in kpy/wire: a slotted class for each message and struct, a reader and a
writer for each distinct layout of each, and the tables that find them by version. A layout is code: versions whose code
comes out the same share it, and the function is named after the first of them.

The code is straight-line on purpose. Fields of fixed size that follow each other are read with one unpack, together
with the first byte of a varint behind them; varints of one byte, which nearly all are, cost a comparison. An array of
structs is read by one call for the array, not one for each element. See kpy/wire/primitives.py for what remains.
"""

import argparse
import difflib
import importlib
import pkgutil
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import protocol.api
from kpy.ids import ZERO_ID
from protocol.grammar import NO_VERSION, ZERO, Array, Field, Fixed, Kind, Message, Sized, Struct, Type

WIRE = Path(__file__).resolve().parent.parent / "kpy" / "wire"
PRIMITIVES = WIRE / "primitives.py"

# fmt: off
SCRATCH = frozenset({
    "after", "bool", "buf", "bytes", "chunks", "count", "dict", "each", "end", "error", "float", "int", "item", "items",
    "len", "length", "list", "marker", "message", "out", "pos", "range", "sections", "start", "stop", "str", "tag",
    "tags", "value",
})
# fmt: on
"""Names that generated functions use themselves. A field of such a name becomes a local with a trailing underscore."""


# Types and defaults, as Python source ---------------------------------------------------------------------------------


def snake(name: str) -> str:
    """TopicProduceData -> topic_produce_data."""
    spaced = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name.replace("KRaft", "Kraft"))
    return re.sub(r"([A-Z])([A-Z][a-z])", r"\1_\2", spaced).lower()


def local(name: str) -> str:
    """The local variable that holds a field while its struct is read."""
    return name + "_" if name in SCRATCH else name


def plain_annotation(type_: Type) -> str:
    """The Python type, without regard to null."""
    match type_:
        case Fixed(python=python):
            return python
        case Sized(python=python):
            return "Records" if python == "records" else python
        case Array(element=element):
            return f"list[{plain_annotation(element)}]"
        case Struct(name=name):
            return name
        case _:
            raise TypeError(type_)


def holds_none(declared: Field) -> bool:
    """Whether the attribute can be None: where null may be sent, and for a tagged struct that was not sent."""
    has_nulls = isinstance(declared.type, Sized | Array | Struct) and declared.type.nulls != NO_VERSION
    unsent_struct = isinstance(declared.type, Struct) and declared.tag is not None
    return has_nulls or unsent_struct or declared.default is None


def annotation(declared: Field) -> str:
    """The type of the attribute."""
    plain = plain_annotation(declared.type)
    return f"{plain} | None" if holds_none(declared) and plain != "Records" else plain


def is_fresh(declared: Field) -> bool:
    """Whether the default is an object of its own for each message, so that it cannot be a default argument."""
    return declared.default is ZERO and not (isinstance(declared.type, Struct) and holds_none(declared))


def default_argument(declared: Field) -> str:
    """The default in the signature of the constructor."""
    if is_fresh(declared):
        return "EMPTY"
    if isinstance(declared.type, Struct):
        return "None"
    if declared.default == ZERO_ID:
        return "ZERO_ID"
    value = declared.default
    return f'"{value}"' if isinstance(value, str) else repr(value)


def fresh_value(declared: Field) -> str:
    """An expression for the default, fresh where it has to be."""
    if not is_fresh(declared):
        return default_argument(declared)
    return "[]" if isinstance(declared.type, Array) else f"{plain_annotation(declared.type)}()"


def smallest_size(type_: Type, version: int, flexible: bool) -> int:
    """The least number of bytes a value of this type can take: what an array of it is checked against."""
    match type_:
        case Fixed(size_bytes=size_bytes):
            return size_bytes
        case Sized(length_code=code, compact=compact):
            return 1 if flexible and compact else {"h": 2, "i": 4}[code]
        case Array():
            return 1 if flexible else 4
        case Struct():
            if type_.is_null_in(version):
                return 1
            always = sum(smallest_size(each.type, version, flexible) for each in type_.fields_at(version))
            return always + flexible
        case _:
            raise TypeError(type_)


def structs_in(fields: tuple[Field, ...]) -> Iterator[Struct]:
    """The structs below these fields, inner ones first."""
    for each in fields:
        type_ = each.type.element if isinstance(each.type, Array) else each.type
        if isinstance(type_, Struct):
            yield from structs_in(type_.fields)
            yield type_


def carries_records(fields: tuple[Field, ...], version: int) -> bool:
    """Whether a struct of these fields holds record batches. Its writer passes them through as buffers of their own."""
    for each in fields:
        type_ = each.type.element if isinstance(each.type, Array) else each.type
        if isinstance(type_, Sized) and type_.python == "records" and version in each.versions:
            return True
        if isinstance(type_, Struct) and version in each.versions and carries_records(type_.fields, version):
            return True
    return False


# Blocks of code -------------------------------------------------------------------------------------------------------

STRUCT_CODES = {"16s": "u", "?": "z"}
"""Struct characters that need another one to be part of a name."""


class Block:
    """Lines of one function, and the run of fixed-size values that is not yet a line of its own."""

    def __init__(self, layouts: dict[str, str]) -> None:
        self.lines: list[str] = []
        self.indent = 0
        self.run: list[tuple[str, str]] = []
        self.layouts = layouts
        """The precompiled structs of the module: name to format."""

    def line(self, text: str) -> None:
        self.flush()
        self.lines.append("    " * self.indent + text)

    @contextmanager
    def inside(self, opening: str) -> Generator[None]:
        """The lines written meanwhile are the body of this statement."""
        self.line(opening)
        self.indent += 1
        yield
        self.flush()
        self.indent -= 1

    def fixed(self, code: str, expression: str) -> None:
        """Appends a value to the run."""
        self.run.append((code, expression))

    def flush(self) -> None:
        """Turns the run into lines."""
        if self.run:
            run, self.run = self.run, []
            self.write_run([code for code, _ in run], [expression for _, expression in run])

    def write_run(self, codes: list[str], expressions: list[str]) -> None:
        raise NotImplementedError

    def layout(self, codes: list[str]) -> str:
        """The name of the precompiled struct for these values."""
        name = "_" + "".join(STRUCT_CODES.get(code, code) for code in codes)
        self.layouts[name] = ">" + "".join(codes)
        return name


class ReadBlock(Block):
    """Reads `buf` at `pos`. Expressions are the variables to fill."""

    def __init__(self, layouts: dict[str, str]) -> None:
        super().__init__(layouts)
        self.end = "end"
        """The variable that holds where the bytes end."""

    def write_run(self, codes: list[str], expressions: list[str]) -> None:
        if codes == ["B"]:
            self.line(f"{expressions[0]} = buf[pos]")
        elif len(codes) == 1:
            self.line(f"({expressions[0]},) = {self.layout(codes)}.unpack_from(buf, pos)")
        else:
            self.line(f"{', '.join(expressions)} = {self.layout(codes)}.unpack_from(buf, pos)")
        self.line(f"pos += {struct.calcsize('>' + ''.join(codes))}")

    def uvarint(self, variable: str) -> None:
        """Reads a varint; its first byte is part of the run before it."""
        self.fixed("B", variable)
        with self.inside(f"if {variable} >= 0x80:"):
            self.line(f"{variable}, pos = long_uvarint(buf, pos, {variable})")


class WriteBlock(Block):
    """Appends to the bytearray `out`. Expressions are the values to write."""

    def __init__(self, layouts: dict[str, str]) -> None:
        super().__init__(layouts)
        self.out = "out"
        """The variable that holds the bytearray."""

    def write_run(self, codes: list[str], expressions: list[str]) -> None:
        if codes == ["x"]:
            self.line(f"{self.out}.append(0)")
        else:
            values = ", ".join(expression for expression in expressions if expression)
            self.line(f"{self.out} += {self.layout(codes)}.pack({values})")


# One version of one struct --------------------------------------------------------------------------------------------


def codec_name(type_: Sized, version: int, flexible: bool) -> str:
    """The part of the name that says which of the string and bytes functions of kpy.wire.primitives is meant."""
    compact = "compact_" if flexible and type_.compact else ""
    nullable = "nullable_" if type_.is_null_in(version) else ""
    return compact + nullable + {"str": "string", "bytes": "bytes"}[type_.python]


class Codec:
    """The code of one module, as it comes together: functions by their text, so that equal layouts meet."""

    def __init__(self) -> None:
        self.layouts: dict[str, str] = {}
        self.functions: dict[str, str] = {}
        """Signature and body with a placeholder for the name, to the name."""

    def add(self, stem: str, version: int, signature: str, block: Block) -> str:
        """The name of the function with this code: an old one if there is one."""
        block.flush()
        text = f"def {stem}%s{signature}:\n" + "\n".join("    " + line for line in block.lines)
        return self.functions.setdefault(text, f"{stem}_v{version}")

    def source(self) -> str:
        """All functions, inner ones first."""
        texts: list[str] = []
        for text, name in self.functions.items():
            texts.append(text.replace("%s", name[name.rindex("_v") :], 1))
        return "\n\n\n".join(texts)

    # Reading

    def read_struct(self, type_: Struct, version: int, flexible: bool) -> str:
        """The function that reads one of these structs."""
        block = ReadBlock(self.layouts)
        self.read_fields(block, type_, version, flexible)
        block.line(f"return {construction(type_, version)}, pos")
        stem = f"_read_{snake(type_.name)}"
        signature = f"(buf: memoryview, pos: int, end: int) -> tuple[{type_.name}, int]"
        return self.add(stem, version, signature, block)

    def read_array(self, type_: Struct, version: int, flexible: bool) -> str:
        """The function that reads an array of these structs, of which the count is known."""
        block = ReadBlock(self.layouts)
        smallest = smallest_size(type_, version, flexible)
        with block.inside(f"if count < 0 or count * {smallest} > end - pos:"):
            block.line("raise bad_count(count, end - pos)")
        block.line(f"items: list[{type_.name}] = []")
        with block.inside("for _ in range(count):"):
            self.read_fields(block, type_, version, flexible)
            block.line(f"items.append({construction(type_, version)})")
        block.line("return items, pos")
        stem = f"_read_{snake(type_.name)}_array"
        signature = f"(buf: memoryview, pos: int, end: int, count: int) -> tuple[list[{type_.name}], int]"
        return self.add(stem, version, signature, block)

    def read_fields(self, block: ReadBlock, type_: Struct, version: int, flexible: bool) -> None:
        for each in type_.fields_at(version):
            self.read_field(block, each, version, flexible)
        if flexible:
            self.read_tagged(block, type_.tagged_at(version), version)

    def read_field(self, block: ReadBlock, declared: Field, version: int, flexible: bool) -> None:
        target = local(declared.name)
        match declared.type:
            case Fixed(code=code):
                block.fixed(code, target)
            case Sized(python="records"):
                self.read_records(block, declared, version, flexible)
            case Sized() as type_:
                block.line(f"{target}, pos = read_{codec_name(type_, version, flexible)}(buf, pos, {block.end})")
            case Array() as type_:
                if flexible:
                    block.uvarint("count")
                else:
                    block.fixed("i", "count")
                read = self.array_call(block.end, type_.element, version, flexible)
                if type_.is_null_in(version):
                    block.line(f"{target}: {plain_annotation(type_)} | None = None")
                    with block.inside("if count:" if flexible else "if count != -1:"):
                        block.line(f"{target}, pos = {read}")
                else:
                    block.line(f"{target}, pos = {read}")
            case Struct() as type_:
                if type_.is_null_in(version):
                    block.fixed("b", "marker")
                    block.line(f"{target}: {type_.name} | None = None")
                    with block.inside("if marker >= 0:" if declared.tag is None else "if marker > 0:"):
                        block.line(
                            f"{target}, pos = {self.read_struct(type_, version, flexible)}(buf, pos, {block.end})"
                        )
                else:
                    block.line(f"{target}, pos = {self.read_struct(type_, version, flexible)}(buf, pos, {block.end})")
            case _:
                raise TypeError(declared.type)

    def array_call(self, end: str, element: Type, version: int, flexible: bool) -> str:
        """The call that reads the elements of an array, whose count has been read into `count`."""
        where = f"buf, pos, {end}, " + ("count - 1" if flexible else "count")
        match element:
            case Fixed(code="16s"):
                return f"read_uuids({where})"
            case Fixed(code=code):
                return f'read_numbers({where}, "{code}")'
            case Sized():
                return f"read_many({where}, read_{codec_name(element, version, flexible)})"
            case Struct():
                return f"{self.read_array(element, version, flexible)}({where})"
            case _:
                raise TypeError(element)

    def read_records(self, block: ReadBlock, declared: Field, version: int, flexible: bool) -> None:
        target = local(declared.name)
        if flexible:
            block.uvarint("length")
            block.line("length -= 1")
        else:
            block.fixed("i", "length")
        block.line("stop = pos + length")
        if declared.type.is_null_in(version):
            with block.inside("if length == -1:"):
                block.line(f"{target} = None")
            opening = "elif"
        else:
            opening = "if"
        with block.inside(f"{opening} length < 0 or stop > {block.end}:"):
            block.line(f'raise bad_length("{declared.name}", length, {block.end} - pos)')
        if declared.type.is_null_in(version):
            with block.inside("else:"):
                block.line(f"{target} = buf[pos:stop]")
                block.line("pos = stop")
        else:
            block.line(f"{target} = buf[pos:stop]")
            block.line("pos = stop")

    def read_tagged(self, block: ReadBlock, known: list[Field], version: int) -> None:
        block.fixed("B", "tags")
        for each in known:
            block.line(f"{local(each.name)}: {annotation(each)} = {fresh_value(each)}")
        with block.inside("if tags:"):
            if not known:
                block.line("pos = skip_tags(buf, pos, end, tags)")
                return
            block.line("sections, after = read_tags(buf, pos, end, tags)")
            with block.inside("for tag, start, stop in sections:"):
                block.line("pos = start")
                block.end = "stop"
                for i, each in enumerate(known):
                    with block.inside(f"{'elif' if i else 'if'} tag == {each.tag}:"):
                        self.read_field(block, each, version, flexible=True)
                block.end = "end"
                with block.inside("else:"):
                    block.line("pos = stop")
                with block.inside("if pos != stop:"):
                    block.line("raise bad_tag(tag, stop - start, pos - start)")
            block.line("pos = after")

    # Writing

    def write_struct(self, type_: Struct, version: int, flexible: bool) -> str:
        """The function that writes one of these structs."""
        block = WriteBlock(self.layouts)
        self.write_fields(block, type_, "item", version, flexible)
        return self.add(f"_write_{snake(type_.name)}", version, f"(item: {type_.name}, out: bytearray) -> None", block)

    def write_array(self, type_: Struct, version: int, flexible: bool) -> str:
        """The function that writes an array's elements. With record batches it returns the bytearray to go on in."""
        block = WriteBlock(self.layouts)
        with block.inside("for item in items:"):
            self.write_fields(block, type_, "item", version, flexible)
        if carries_records(type_.fields, version):
            block.line("return out")
            signature = f"(items: list[{type_.name}], chunks: list[Buffer], out: bytearray) -> bytearray"
        else:
            signature = f"(items: list[{type_.name}], out: bytearray) -> None"
        return self.add(f"_write_{snake(type_.name)}_array", version, signature, block)

    def write_fields(self, block: WriteBlock, type_: Struct, owner: str, version: int, flexible: bool) -> None:
        for each in type_.fields_at(version):
            self.write_field(block, each, owner, version, flexible)
        if flexible:
            self.write_tagged(block, type_.tagged_at(version), owner, version)

    def write_field(self, block: WriteBlock, declared: Field, owner: str, version: int, flexible: bool) -> None:
        value = f"{owner}.{declared.name}"
        type_ = declared.type
        nullable = type_.is_null_in(version)
        if holds_none(declared) and not nullable and declared.tag is None and not is_records(type_):
            block.line(f'{local(declared.name)} = not_null({value}, "{declared.name}")')
            value = local(declared.name)
        match type_:
            case Fixed(code=code):
                block.fixed(code, value)
            case Sized(python="records"):
                self.write_records(block, declared, value, version, flexible)
            case Sized():
                block.line(f"write_{codec_name(type_, version, flexible)}({block.out}, {value})")
            case Array(element=element) if nullable and declared.tag is None:
                with block.inside(f"if {value} is None:"):
                    block.line(f"{block.out}.append(0)" if flexible else f'{block.out} += b"\\xff\\xff\\xff\\xff"')
                with block.inside("else:"):
                    self.write_elements(block, element, value, version, flexible)
            case Array(element=element):
                self.write_elements(block, element, value, version, flexible)
            case Struct() if nullable and declared.tag is not None:
                block.line(f"{block.out}.append(1)")
                block.line(f"{self.write_struct(type_, version, flexible)}({value}, {block.out})")
            case Struct() if nullable:
                with block.inside(f"if {value} is None:"):
                    block.line(f"{block.out}.append(0xFF)")
                with block.inside("else:"):
                    block.line(f"{block.out}.append(1)")
                    block.line(f"{self.write_struct(type_, version, flexible)}({value}, {block.out})")
            case Struct():
                block.line(f"{self.write_struct(type_, version, flexible)}({value}, {block.out})")
            case _:
                raise TypeError(type_)

    def write_elements(self, block: WriteBlock, element: Type, value: str, version: int, flexible: bool) -> None:
        out = block.out
        if flexible:
            block.line(f"{out} += uvarint(len({value}) + 1)")
        else:
            block.fixed("i", f"len({value})")
        match element:
            case Fixed(code="16s"):
                block.line(f'{out} += b"".join({value})')
            case Fixed(code=code):
                block.line(f'write_numbers({out}, {value}, "{code}")')
            case Sized():
                with block.inside(f"for each in {value}:"):
                    block.line(f"write_{codec_name(element, version, flexible)}({out}, each)")
            case Struct() if carries_records(element.fields, version):
                block.line(f"{out} = {self.write_array(element, version, flexible)}({value}, chunks, {out})")
            case Struct():
                block.line(f"{self.write_array(element, version, flexible)}({value}, {out})")
            case _:
                raise TypeError(element)

    def write_records(self, block: WriteBlock, declared: Field, value: str, version: int, flexible: bool) -> None:
        block.line(f"{local(declared.name)} = {value}")
        value = local(declared.name)
        if not declared.type.is_null_in(version):
            value = f'not_null({value}, "{declared.name}")'
            block.line(f"{local(declared.name)} = {value}")
            value = local(declared.name)
        if flexible:
            block.line(f"{block.out} += uvarint(0 if {value} is None else len({value}) + 1)")
        else:
            block.fixed("i", f"-1 if {value} is None else len({value})")
        with block.inside(f"if {value}:"):
            block.line(f"chunks.append({value})")
            block.line(f"{block.out} = bytearray()")
            block.line(f"chunks.append({block.out})")

    def write_tagged(self, block: WriteBlock, known: list[Field], owner: str, version: int) -> None:
        if not known:
            block.fixed("x", "")
            return
        block.line("tags: dict[int, bytearray] = {}")
        for each in known:
            with block.inside(f"if {is_set(each, owner)}:"):
                block.line(f"tags[{each.tag}] = value = bytearray()")
                block.out = "value"
                self.write_field(block, each, owner, version, flexible=True)
                block.flush()
                block.out = "out"
        with block.inside("if tags:"):
            block.line("write_tags(out, tags)")
        with block.inside("else:"):
            block.line("out.append(0)")


def is_records(type_: Type) -> bool:
    """Whether these are record batches."""
    return isinstance(type_, Sized) and type_.python == "records"


def is_set(declared: Field, owner: str) -> str:
    """The condition for sending a tagged field: that it differs from its default."""
    value = f"{owner}.{declared.name}"
    if declared.default is None:
        return f"{value} is not None"
    if isinstance(declared.type, Struct):
        return f"{value} is not None and {value} != {declared.type.name}()"
    if isinstance(declared.type, Array) or declared.default is False:
        return value
    return f"{value} != {default_argument(declared)}"


def construction(type_: Struct, version: int) -> str:
    """The call of the constructor with the fields of this version. Those behind an absent one are named."""
    arguments: list[str] = []
    gap = False
    for each in type_.fields:
        if version not in each.versions:
            gap = True
        elif gap:
            arguments.append(f"{each.name}={local(each.name)}")
        else:
            arguments.append(local(each.name))
    return f"{type_.name}({', '.join(arguments)})"


# Modules --------------------------------------------------------------------------------------------------------------


def class_source(name: str, fields: tuple[Field, ...], doc: str) -> str:
    """The class of a message or struct, all versions in one."""
    slots = "".join(f'"{each.name}", ' for each in fields)
    lines = [f"class {name}(Message):", f'    """{doc}"""', "", f"    __slots__ = ({slots})"]
    if fields:
        parameters = ", ".join(f"{each.name}: {annotation(each)} = {default_argument(each)}" for each in fields)
        lines += ["", f"    def __init__(self, {parameters}) -> None:"]
    for each in fields:
        if is_fresh(each):
            fresh = f"{fresh_value(each)} if {each.name} is EMPTY else {each.name}"
            lines.append(f"        self.{each.name}: {annotation(each)} = {fresh}")
        else:
            lines.append(f"        self.{each.name} = {each.name}")
    return "\n".join(lines)


def spans(versions: list[int]) -> str:
    """v0-v3, v5"""
    parts: list[str] = []
    start = last = versions[0]
    for version in [*versions[1:], -1]:
        if version != last + 1:
            parts.append(f"v{start}" if start == last else f"v{start}-v{last}")
            start = version
        last = version
    return ", ".join(parts)


@dataclass
class Names:
    """What the generated code calls one message."""

    name: str
    """Of the class."""
    word: str
    """In the names of functions: read_<word>_v1."""
    title: str
    """In texts."""


def names_of(name: str, message: Message) -> Names:
    if message.kind in (Kind.REQUEST, Kind.RESPONSE):
        word = message.kind.value
        return Names(name, word, f"{name[: -len(word)]} {word}")
    return Names(name, snake(name), name)


def message_source(codec: Codec, names: Names, message: Message) -> list[str]:
    """The outermost functions and the tables of one message. Functions for its structs go to the codec."""
    body = Struct(names.name, message.fields)
    readers: dict[str, list[int]] = {}
    writers: dict[str, list[int]] = {}
    for version in message.all_versions:
        flexible = message.is_flexible(version)
        block = ReadBlock(codec.layouts)
        codec.read_fields(block, body, version, flexible)
        with block.inside("if pos > end:"):
            block.line("raise bad_end(pos - end)")
        block.line(f"return {construction(body, version)}, pos")
        readers.setdefault("\n".join("        " + line for line in block.lines), []).append(version)
        block = WriteBlock(codec.layouts)
        codec.write_fields(block, body, "message", version, flexible)
        block.flush()
        writers.setdefault("\n".join("    " + line for line in block.lines), []).append(version)
    sources: list[str] = []
    for text, versions in readers.items():
        sources.append(
            f"def read_{names.word}_v{versions[0]}(buf: memoryview, pos: int, end: int) -> tuple[{names.name}, int]:\n"
            f"    try:\n{text}\n    except MALFORMED as error:\n"
            f'        raise explained(error, "{names.title} {spans(versions)}") from error'
        )
    for text, versions in writers.items():
        sources.append(
            f"def write_{names.word}_v{versions[0]}(message: {names.name}, chunks: list[Buffer]) -> None:\n"
            f"    out = bytearray()\n    chunks.append(out)\n{text}"
        )
    table = names.word.upper()
    for what, verb, found in (("Reader", "read", readers), ("Writer", "write", writers)):
        entries = ["None"] * (message.all_versions[-1] + 1)
        for versions in found.values():
            for version in versions:
                entries[version] = f"{verb}_{names.word}_v{versions[0]}"
        sources.append(f"{table}_{what.upper()}S: tuple[{what}[{names.name}] | None, ...] = ({', '.join(entries)},)")
    return sources


def entry_points(names: Names, message: Message) -> list[str]:
    """decode_<word> and encode_<word>."""
    word, table = names.word, names.word.upper()
    decoded = f'decode({table}_READERS, "{names.title}", '
    encoded = f'encode({table}_WRITERS, "{names.title}", message, version)'
    match message.kind:
        case Kind.RECORD:
            return [
                f"def decode_{word}(data: bytes | bytearray | memoryview) -> {names.name}:\n"
                f'    """The version is the int16 in front."""\n'
                f'    version, pos = read_version(data, "{names.title}")\n'
                f"    return {decoded}memoryview(data), version, pos)[0]",
                f"def encode_{word}(message: {names.name}, version: int) -> bytes:\n"
                f'    """With the version as an int16 in front."""\n'
                f"    return with_version(version, {encoded})",
            ]
        case Kind.HEADER:
            return [
                f"def decode_{word}(buf: memoryview, version: int, pos: int = 0) -> tuple[{names.name}, int]:\n"
                f'    """The header, and the position of the body."""\n'
                f"    return {decoded}buf, version, pos)",
                f"def encode_{word}(message: {names.name}, version: int) -> list[Buffer]:\n    return {encoded}",
            ]
        case _:
            return [
                f"def decode_{word}(buf: memoryview, version: int, pos: int = 0) -> {names.name}:\n"
                f"    return {decoded}buf, version, pos)[0]",
                f"def encode_{word}(message: {names.name}, version: int) -> list[Buffer]:\n    return {encoded}",
            ]


def messages_in(module: ModuleType) -> dict[str, Message]:
    """The messages that a module declares, by name."""
    return {name: value for name, value in vars(module).items() if isinstance(value, Message)}


def flexible_since(message: Message) -> int | None:
    """The first flexible version, if any is declared."""
    return next((version for version in message.all_versions if message.is_flexible(version)), None)


def module_source(module: ModuleType) -> str:
    """The whole of kpy/wire/<module>.py, unformatted."""
    messages = messages_in(module)
    sources: list[str] = []
    request = next((each for each in messages.values() if each.kind is Kind.REQUEST), None)
    if request:
        sources.append(
            f"API_KEY = {request.api_key}\nMIN_VERSION = {request.all_versions[0]}\n"
            f"MAX_VERSION = {request.all_versions[-1]}\nFLEXIBLE_SINCE: int | None = {flexible_since(request)}"
        )
    structs: dict[str, Struct] = {}
    codec = Codec()
    classes: list[str] = []
    functions: list[str] = []
    for name, message in messages.items():
        for each in structs_in(message.fields):
            if each.name not in structs:
                structs[each.name] = each
                classes.append(class_source(each.name, each.fields, f"Part of {name}."))
            elif structs[each.name].fields != each.fields:
                raise ValueError(f"{module.__name__} has two different structs of the name {each.name}")
        names = names_of(name, message)
        valid = spans(list(message.all_versions))
        key = f" ({message.api_key})" if message.api_key is not None else ""
        classes.append(class_source(name, message.fields, f"{names.title}{key}, {valid}."))
        functions += message_source(codec, names, message)
        functions += entry_points(names, message)
    layouts = "\n".join(f'{name} = Struct("{format_}")' for name, format_ in sorted(codec.layouts.items()))
    sources += [*classes, layouts, codec.source(), *functions]
    body = "\n\n\n".join(source for source in sources if source)
    title = (module.__doc__ or "").strip()
    ending = "\n" if "\n" in title else ""
    return (
        f"# Generated by python -m protocol.generate from protocol/api/{short_name(module)}.py. Do not edit.\n"
        "# ruff: noqa: RUF023, RUF100\n"
        "# (Fields stand in the order of the wire, so that is the order of __slots__ too.)\n"
        f'"""{title}{ending}"""\n\n{imports(body)}\n\n{body}\n'
    )


def short_name(module: ModuleType) -> str:
    """heartbeat"""
    return module.__name__.rpartition(".")[2]


def imports(body: str) -> str:
    """The imports of what the body mentions."""
    used = set(re.findall(r"\b[A-Za-z_]\w*", body))
    lines = ["from struct import Struct"] if "Struct" in used else []
    if "ZERO_ID" in used:
        lines.append("from kpy.ids import ZERO_ID")
    shared = sorted(name for name in used if name in SHARED)
    return "\n".join([*lines, f"from kpy.wire.primitives import {', '.join(shared)}"])


SHARED = frozenset(re.findall(r"^(?:def |class )?([A-Za-z]\w*)(?:\(|:| =)", PRIMITIVES.read_text(), re.MULTILINE))
"""What kpy/wire/primitives.py defines, and a generated module can import."""


# The table of all APIs ------------------------------------------------------------------------------------------------


def apis_source(modules: list[ModuleType]) -> str:
    """kpy/wire/apis.py: what there is, without importing a codec."""
    rows: list[tuple[int, str]] = []
    for module in modules:
        for name, message in messages_in(module).items():
            if message.kind is Kind.REQUEST:
                versions = message.all_versions
                row = f'"{name[: -len("Request")]}", "{short_name(module)}", {versions[0]}, {versions[-1]}'
                rows.append((message.api_key or 0, f"{row}, {flexible_since(message)}"))
    table = "\n".join(f"    {key}: Api({key}, {row})," for key, row in sorted(rows))
    return f'''# Generated by python -m protocol.generate from protocol/api. Do not edit.
"""Every declared API, by key: its name, the module of its codec, its versions. Importing this imports no codec."""

from typing import NamedTuple


class Api(NamedTuple):
    key: int
    name: str
    module: str
    """In kpy.wire."""
    min_version: int
    max_version: int
    flexible_since: int | None


APIS: dict[int, Api] = {{
{table}
}}
'''


# Files ----------------------------------------------------------------------------------------------------------------


def declaration_modules() -> list[ModuleType]:
    """Every module of protocol/api."""
    names = sorted(info.name for info in pkgutil.iter_modules(protocol.api.__path__))
    return [importlib.import_module(f"protocol.api.{name}") for name in names]


def generate() -> dict[str, str]:
    """The formatted text of every generated file, by file name."""
    modules = declaration_modules()
    sources = {f"{short_name(module)}.py": module_source(module) for module in modules}
    sources["apis.py"] = apis_source(modules)
    with tempfile.TemporaryDirectory() as scratch:
        for name, source in sources.items():
            Path(scratch, name).write_text(source)
        config = str(WIRE.parent.parent / "pyproject.toml")
        ruff = [sys.executable, "-m", "ruff"]
        subprocess.run([*ruff, "check", "--quiet", "--select=I", "--fix", "--config", config, scratch], check=True)
        subprocess.run([*ruff, "format", "--quiet", "--config", config, scratch], check=True)
        return {name: Path(scratch, name).read_text() for name in sources}


def on_disk() -> dict[str, str]:
    """The text of every generated file that is there."""
    texts = {path.name: path.read_text() for path in sorted(WIRE.glob("*.py"))}
    return {name: text for name, text in texts.items() if text.startswith("# Generated by")}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m protocol.generate", description="Writes kpy/wire from protocol/api."
    )
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 and say what is stale")
    check = parser.parse_args().check
    wanted, found = generate(), on_disk()
    stale = [name for name in sorted(wanted | found) if wanted.get(name) != found.get(name)]
    for name in stale:
        if check:
            print_difference(name, found.get(name, ""), wanted.get(name, ""))
        elif name in wanted:
            (WIRE / name).write_text(wanted[name])
        else:
            (WIRE / name).unlink()
    print(f"{len(stale)} of {len(wanted)} files {'are stale' if check else 'written'}")
    return 1 if check and stale else 0


def print_difference(name: str, found: str, wanted: str) -> None:
    """The size of the difference, and its beginning."""
    lines = list(difflib.unified_diff(found.splitlines(), wanted.splitlines(), f"kpy/wire/{name}", "generated", n=1))
    print("\n".join(lines[:DIFFERENCE_LINES]))
    if len(lines) > DIFFERENCE_LINES:
        print(f"... and {len(lines) - DIFFERENCE_LINES} more lines of difference in {name}")


DIFFERENCE_LINES = 20

if __name__ == "__main__":
    sys.exit(main())
