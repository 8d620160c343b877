"""The code of readers and writers, one version of one struct at a time. `protocol.generate` makes modules of it.

A layout is code: versions whose code comes out the same share a function, named after the first of them.

The code is straight-line on purpose. Fields of fixed size that follow each other are read with one unpack, together
with the first byte of a varint behind them; varints of one byte, which nearly all are, cost a comparison. An array of
structs is read by one call for the array, not one for each element. See kpy/wire/primitives.py for what remains.
"""

import re
import struct
from collections.abc import Generator
from contextlib import contextmanager

from kpy.ids import ZERO_ID
from protocol.grammar import NO_VERSION, ZERO, Array, Field, Fixed, Sized, Struct, Type

# fmt: off
SCRATCH = frozenset({
    "after", "begin", "bool", "buf", "bytes", "chunks", "count", "dict", "each", "end", "error", "float", "int",
    "item", "items", "len", "length", "list", "marker", "message", "out", "pos", "range", "sections", "start",
    "stop", "str", "tag", "tags", "value",
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

    def __init__(self, formats: dict[str, str]) -> None:
        self.lines: list[str] = []
        self.indent = 0
        self.run: list[tuple[str, str]] = []
        self.formats = formats
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

    def format(self, codes: list[str]) -> str:
        """The name of the precompiled struct for these values."""
        name = "_" + "".join(STRUCT_CODES.get(code, code) for code in codes)
        self.formats[name] = ">" + "".join(codes)
        return name


class ReadBlock(Block):
    """Reads `buf` at `pos`. Expressions are the variables to fill."""

    def __init__(self, formats: dict[str, str]) -> None:
        super().__init__(formats)
        self.end = "end"
        """The variable that holds where the bytes end."""

    def write_run(self, codes: list[str], expressions: list[str]) -> None:
        if codes == ["B"]:
            self.line(f"{expressions[0]} = buf[pos]")
        elif len(codes) == 1:
            self.line(f"({expressions[0]},) = {self.format(codes)}.unpack_from(buf, pos)")
        else:
            self.line(f"{', '.join(expressions)} = {self.format(codes)}.unpack_from(buf, pos)")
        self.line(f"pos += {struct.calcsize('>' + ''.join(codes))}")

    def uvarint(self, variable: str) -> None:
        """Reads a varint; its first byte is part of the run before it."""
        self.fixed("B", variable)
        with self.inside(f"if {variable} >= 0x80:"):
            self.line(f"{variable}, pos = long_uvarint(buf, pos, {variable})")


class WriteBlock(Block):
    """Appends to the bytearray `out`. Expressions are the values to write."""

    def __init__(self, formats: dict[str, str]) -> None:
        super().__init__(formats)
        self.out = "out"
        """The variable that holds the bytearray."""

    def write_run(self, codes: list[str], expressions: list[str]) -> None:
        if codes == ["x"]:
            self.line(f"{self.out}.append(0)")
        else:
            values = ", ".join(expression for expression in expressions if expression)
            self.line(f"{self.out} += {self.format(codes)}.pack({values})")


# One version of one struct --------------------------------------------------------------------------------------------


def codec_name(type_: Sized, version: int, flexible: bool) -> str:
    """The part of the name that says which of the string and bytes functions of kpy.wire.primitives is meant."""
    compact = "compact_" if flexible and type_.compact else ""
    nullable = "nullable_" if type_.is_null_in(version) else ""
    return compact + nullable + {"str": "string", "bytes": "bytes"}[type_.python]


class Codec:
    """The code of one module, as it comes together: functions by their text, so that equal layouts meet."""

    def __init__(self) -> None:
        self.formats: dict[str, str] = {}
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
        block = ReadBlock(self.formats)
        self.read_fields(block, type_, version, flexible)
        block.line(f"return {construction(type_, version)}, pos")
        stem = f"_read_{snake(type_.name)}"
        signature = f"(buf: memoryview, pos: int, end: int) -> tuple[{type_.name}, int]"
        return self.add(stem, version, signature, block)

    def read_array(self, type_: Struct, version: int, flexible: bool) -> str:
        """The function that reads an array of these structs, of which the count is known."""
        block = ReadBlock(self.formats)
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
        target, nullable = local(declared.name), declared.type.is_null_in(version)
        match declared.type:
            case Fixed(code=code):
                block.fixed(code, target)
                return
            case Sized(python="records"):
                self.read_records(block, declared, version, flexible)
                return
            case Sized() as type_:
                call, present = f"read_{codec_name(type_, version, flexible)}(buf, pos, {block.end})", ""
            case Array() as type_ if flexible:
                block.uvarint("count")
                call = self.array_call("count - 1", block.end, type_.element, version, flexible)
                present = "count" if nullable else ""
            case Array() as type_:
                block.fixed("i", "count")
                call = self.array_call("count", block.end, type_.element, version, flexible)
                present = "count != -1" if nullable else ""
            case Struct() as type_:
                call, present = f"{self.read_struct(type_, version, flexible)}(buf, pos, {block.end})", ""
                if nullable:
                    block.fixed("b", "marker")
                    present = "marker >= 0" if declared.tag is None else "marker > 0"
            case _:
                raise TypeError(declared.type)
        if present:
            block.line(f"{target}: {plain_annotation(type_)} | None = None")
            with block.inside(f"if {present}:"):
                block.line(f"{target}, pos = {call}")
        else:
            block.line(f"{target}, pos = {call}")

    def array_call(self, count: str, end: str, element: Type, version: int, flexible: bool) -> str:
        """The call that reads the elements of an array, given the expressions for their count and for the end."""
        where = f"buf, pos, {end}, {count}"
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
        with block.inside(f"if 0 <= length <= {block.end} - pos:"):
            block.line("stop = pos + length")
            block.line(f"{target} = buf[pos:stop]")
            block.line("pos = stop")
        if declared.type.is_null_in(version):
            with block.inside("elif length == -1:"):
                block.line(f"{target} = None")
        with block.inside("else:"):
            block.line(f'raise bad_length("{declared.name}", length, {block.end} - pos)')

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
        block = WriteBlock(self.formats)
        self.write_fields(block, type_, "item", version, flexible)
        return self.add(f"_write_{snake(type_.name)}", version, f"(item: {type_.name}, out: bytearray) -> None", block)

    def write_array(self, type_: Struct, version: int, flexible: bool) -> str:
        """The function that writes an array's elements. With record batches it returns the bytearray to go on in."""
        block = WriteBlock(self.formats)
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
        type_, value = declared.type, f"{owner}.{declared.name}"
        # A tagged field is written only if it is not null.
        nullable = type_.is_null_in(version) and declared.tag is None
        if holds_none(declared) and not nullable and declared.tag is None:
            block.line(f'{local(declared.name)} = not_null({value}, "{declared.name}")')
            value = local(declared.name)
        match type_:
            case Fixed(code=code):
                block.fixed(code, value)
            case Sized(python="records"):
                self.write_records(block, declared, value, flexible)
            case Sized():
                block.line(f"write_{codec_name(type_, version, flexible)}({block.out}, {value})")
            case Array(element=element) if nullable:
                with block.inside(f"if {value} is None:"):
                    block.line(f"{block.out}.append(0)" if flexible else f'{block.out} += b"\\xff\\xff\\xff\\xff"')
                with block.inside("else:"):
                    self.write_elements(block, element, value, version, flexible)
            case Array(element=element):
                self.write_elements(block, element, value, version, flexible)
            case Struct() if nullable:
                with block.inside(f"if {value} is None:"):
                    block.line(f"{block.out}.append(0xFF)")
                with block.inside("else:"):
                    block.line(f"{block.out}.append(1)")
                    block.line(f"{self.write_struct(type_, version, flexible)}({value}, {block.out})")
            case Struct():
                if type_.is_null_in(version):
                    block.line(f"{block.out}.append(1)")
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

    def write_records(self, block: WriteBlock, declared: Field, value: str, flexible: bool) -> None:
        records = local(declared.name)
        if value != records:
            block.line(f"{records} = {value}")
        if flexible:
            block.line(f"{block.out} += uvarint(0 if {records} is None else len({records}) + 1)")
        else:
            block.fixed("i", f"-1 if {records} is None else len({records})")
        with block.inside(f"if {records}:"):
            block.line(f"chunks.append({records})")
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
