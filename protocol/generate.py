"""Writes kpy/wire from the declarations: `python -m protocol.generate`, and `--check` to see that nothing is stale.

For each module in protocol/api this writes one in kpy/wire: a slotted class for each message and struct, a reader and a
writer for each distinct layout of each (see protocol.codec), and the tables that find them by version.
"""

import argparse
import difflib
import importlib
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import protocol.api
from protocol.codec import (
    Codec,
    ReadBlock,
    WriteBlock,
    annotation,
    construction,
    default_argument,
    fresh_value,
    is_fresh,
    snake,
)
from protocol.grammar import Array, Field, Kind, Message, Struct
from protocol.layouts import LINE_LENGTH, Layouts
from protocol.meanings import meaning

ROOT = Path(__file__).resolve().parent.parent
WIRE = ROOT / "kpy" / "wire"
PRIMITIVES = WIRE / "primitives.py"
SETTINGS = ROOT / "pyproject.toml"
"""Generated files are formatted as all others are."""

# Modules --------------------------------------------------------------------------------------------------------------


def structs_in(fields: tuple[Field, ...]) -> Iterator[Struct]:
    """The structs below these fields, inner ones first."""
    for each in fields:
        type_ = each.type.element if isinstance(each.type, Array) else each.type
        if isinstance(type_, Struct):
            yield from structs_in(type_.fields)
            yield type_


def class_source(module: ModuleType, name: str, fields: tuple[Field, ...], doc: str) -> str:
    """The class of a message or struct, all versions in one, with what each field means."""
    slots = "".join(f'"{each.name}", ' for each in fields)
    lines = [f"class {name}(Message):", f'    """{doc}"""', "", f"    __slots__ = ({slots})"]
    if fields:
        parameters = ", ".join(f"{each.name}: {annotation(each)} = {default_argument(each)}" for each in fields)
        lines += ["", f"    def __init__(self, {parameters}) -> None:"]
    for each in fields:
        line = f"        self.{each.name} = {each.name}"
        if is_fresh(each):
            fresh = f"{fresh_value(each)} if {each.name} is EMPTY else {each.name}"
            line = f"        self.{each.name}: {annotation(each)} = {fresh}"
        says = meaning(module, name, each.name)
        fits = len(f"{line}  # {says}") <= LINE_LENGTH
        lines += [line] if not says else [f"{line}  # {says}"] if fits else [f"        # {says}", line]
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
        block = ReadBlock(codec.formats)
        codec.read_fields(block, body, version, flexible)
        with block.inside("if pos > end:"):
            block.line("raise bad_end()")
        block.line(f"return {construction(body, version)}, pos")
        readers.setdefault("\n".join("        " + line for line in block.lines), []).append(version)
        block = WriteBlock(codec.formats)
        codec.write_fields(block, body, "message", version, flexible)
        block.flush()
        writers.setdefault("\n".join("    " + line for line in block.lines), []).append(version)
    sources: list[str] = []
    for text, versions in readers.items():
        sources.append(
            f"def read_{names.word}_v{versions[0]}(buf: memoryview, pos: int, end: int) -> tuple[{names.name}, int]:\n"
            f"    begin = pos\n    try:\n{text}\n    except MALFORMED as error:\n"
            f'        raise explained(error, "{names.title} {spans(versions)}", begin) from error'
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
        functions = f"({', '.join(entries)},)"
        if message.kind is not Kind.HEADER:
            functions = f"LAYOUTS.{what.lower()}s({names.name}, {functions})"
        sources.append(f"{table}_{what.upper()}S: tuple[{what}[{names.name}] | None, ...] = {functions}")
    return sources


def layouts_source(messages: dict[str, Message], structs: Iterable[str]) -> str:
    """LAYOUTS: what the versions of the messages are like. Headers have none; nobody reads them by table."""
    layouts = Layouts()
    names = [*structs]
    for name, message in messages.items():
        if message.kind is not Kind.HEADER:
            names.append(name)
            for version in message.all_versions:
                layouts.add(Struct(name, message.fields), version, message.is_flexible(version))
    return f'LAYOUTS = Layouts("""\\\n{layouts.source()}\n""", {", ".join(names)})' if names else ""


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
                f"def decode_{word}(buf: memoryview, version: int, pos: int = 0, exact: bool = False)"
                f" -> {names.name}:\n    return {decoded}buf, version, pos, exact)[0]",
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
                classes.append(class_source(module, each.name, each.fields, f"Part of {name}."))
            elif structs[each.name].fields != each.fields:
                raise ValueError(f"{module.__name__} has two different structs of the name {each.name}")
        names = names_of(name, message)
        valid = spans(list(message.all_versions))
        key = f" ({message.api_key})" if message.api_key is not None else ""
        classes.append(class_source(module, name, message.fields, f"{names.title}{key}, {valid}."))
        functions += message_source(codec, names, message)
        functions += entry_points(names, message)
    formats = "\n".join(f'{name} = Struct("{format_}")' for name, format_ in sorted(codec.formats.items()))
    sources += [*classes, layouts_source(messages, structs), formats, codec.source(), *functions]
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
    if "Layouts" in used:
        lines.append("from kpy.wire.layouts import Layouts")
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
        ruff, options = [sys.executable, "-m", "ruff"], ["--quiet", "--config", str(SETTINGS), scratch]
        subprocess.run([*ruff, "check", "--select=I", "--fix", *options], check=True)
        subprocess.run([*ruff, "format", *options], check=True)
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
    texts = found.splitlines(), wanted.splitlines()
    lines = list(difflib.unified_diff(*texts, f"kpy/wire/{name}", "generated", n=1, lineterm=""))
    print("\n".join(lines[:DIFFERENCE_LINES]))
    if len(lines) > DIFFERENCE_LINES:
        print(f"... and {len(lines) - DIFFERENCE_LINES} more lines of difference in {name}")


DIFFERENCE_LINES = 20

if __name__ == "__main__":
    sys.exit(main())
