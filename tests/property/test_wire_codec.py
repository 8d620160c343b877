"""The generated codecs against construct, which interprets the same declarations: every message, every version.

What this finds is mistakes of the generator. Wrong declarations are found by the golden frames (tests/unit/wire).
"""

import importlib
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocol import generate, grammar
from protocol.grammar import Array, Field, Fixed, Message, Sized, Struct, Type

NUMBERS = {"b": (-(2**7), 2**7 - 1), "h": (-(2**15), 2**15 - 1), "H": (0, 2**16 - 1), "i": (-(2**31), 2**31 - 1)}
LONG_NUMBERS = {"q": (-(2**63), 2**63 - 1)}
BOUNDS = NUMBERS | LONG_NUMBERS

TEXT = st.text(st.characters(codec="utf-8"), max_size=4) | st.sampled_from(["x" * 126, "x" * 127, "é" * 200])
BYTES = st.binary(max_size=4) | st.sampled_from([bytes(126), bytes(127), bytes(20_000)])


class Case:
    """The versions of one message that share both their reader and their writer."""

    def __init__(self, module: ModuleType, name: str, message: Message, versions: list[int]) -> None:
        self.module, self.name, self.message, self.versions = module, name, message, versions
        self.body = Struct(name, message.fields)
        self.table = generate.names_of(name, message).word.upper()

    def read(self, data: bytes, version: int) -> tuple[Any, int]:
        return getattr(self.module, f"{self.table}_READERS")[version](memoryview(data), 0, len(data))

    def write(self, value: Any, version: int) -> bytes:
        chunks: list[Any] = []
        getattr(self.module, f"{self.table}_WRITERS")[version](value, chunks)
        return b"".join(chunks)


def cases() -> Iterator[Any]:
    for declaration in generate.declaration_modules():
        module = importlib.import_module(f"kpy.wire.{generate.short_name(declaration)}")
        for name, message in generate.messages_in(declaration).items():
            table = generate.names_of(name, message).word.upper()
            readers, writers = getattr(module, f"{table}_READERS"), getattr(module, f"{table}_WRITERS")
            groups: dict[Any, list[int]] = {}
            for version in message.all_versions:
                groups.setdefault((readers[version], writers[version]), []).append(version)
            for versions in groups.values():
                yield pytest.param(Case(module, name, message, versions), id=f"{name}-v{versions[0]}")


@cache
def interpreted(message: Message, version: int) -> Any:
    return message.at(version)


def values(module: ModuleType, type_: Type, version: int) -> st.SearchStrategy[Any]:
    """Values of a type in a version, null among them where it may be sent."""
    match type_:
        case Fixed(code="?"):
            found: st.SearchStrategy[Any] = st.booleans()
        case Fixed(code="d"):
            found = st.floats(allow_nan=False)
        case Fixed(code="16s"):
            found = st.binary(min_size=16, max_size=16)
        case Fixed(code=code):
            found = st.integers(*BOUNDS[code])
        case Sized(python="str"):
            found = TEXT
        case Sized():
            found = BYTES
        case Array(element=element):
            found = st.lists(values(module, element, version), max_size=2)
        case Struct():
            fields = {
                each.name: field_values(module, each, version) for each in type_.fields if version in each.versions
            }
            found = st.builds(getattr(module, type_.name), **fields)
        case _:
            raise TypeError(type_)
    return st.none() | found if type_.is_null_in(version) else found


def field_values(module: ModuleType, field: Field, version: int) -> st.SearchStrategy[Any]:
    """Values of a field. A tagged one has its default often; a tagged struct is None then."""
    found = values(module, field.type, version)
    if field.tag is None:
        return found
    if isinstance(field.type, Struct):
        return st.none() | found.filter(lambda value: value != getattr(module, field.type.name)())
    if field.default is grammar.ZERO:
        return st.just([]) | found
    return st.just(field.default) | found


def plain(value: Any, type_: Type, version: int, flexible: bool) -> Any:
    """What construct builds from and parses to."""
    if value is None or isinstance(type_, Fixed):
        return value
    if isinstance(type_, Sized):
        return value if type_.python == "str" else bytes(value)
    if isinstance(type_, Array):
        return [plain(each, type_.element, version, flexible) for each in value]
    assert isinstance(type_, Struct)
    fields = {
        each.name: plain(getattr(value, each.name), each.type, version, flexible) for each in type_.fields_at(version)
    }
    if flexible:
        fields["tagged_fields"] = {
            each.name: plain(getattr(value, each.name), each.type, version, flexible)
            for each in type_.tagged_at(version)
            if not is_default(getattr(value, each.name), each)
        }
    return fields


def is_default(value: Any, field: Field) -> bool:
    if field.default is grammar.ZERO:
        return value == [] if isinstance(field.type, Array) else value is None
    return value == field.default


def without_construct(value: Any) -> Any:
    """Plain dicts and lists of what construct parsed."""
    if isinstance(value, dict):
        return {key: without_construct(each) for key, each in value.items() if key != "_io"}
    if isinstance(value, list):
        return [without_construct(each) for each in value]
    return value


@pytest.mark.parametrize("case", list(cases()))
@given(data=st.data())
@settings(max_examples=10, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_generated_code_does_as_construct(case: Case, data: st.DataObject) -> None:
    value = data.draw(values(case.module, case.body, case.versions[0]))
    for version in case.versions:
        wanted = plain(value, case.body, version, case.message.is_flexible(version))
        encoded = case.write(value, version)
        assert encoded == interpreted(case.message, version).build(wanted)
        assert without_construct(interpreted(case.message, version).parse(encoded)) == wanted
        decoded, end = case.read(encoded, version)
        assert end == len(encoded)
        assert decoded == value
