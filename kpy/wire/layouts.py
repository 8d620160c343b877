"""Which fields each version of a message has, and in what form: the text at the head of every codec, understood.

protocol/layouts.py writes that text and tells its grammar. It says nothing that the generated readers and writers do
not do, but it can be asked. `kpy decode` asks what was sent; and where the accelerator has been compiled (see
protocol/native.py) the tables of readers and writers are made of it, with the Python functions behind them for whatever
is not plain: then C does the work and Python the explaining.
"""

from collections.abc import Callable
from functools import cache, cached_property
from typing import Any, NamedTuple, TypeVar

from kpy.native import NATIVE
from kpy.wire.primitives import Message, Reader, Writer

T = TypeVar("T", bound=Message)
F = TypeVar("F", bound=Callable[..., Any])


class Form(NamedTuple):
    """How one field is sent."""

    code: str
    """One of z b h H i q d u s y r, T for a struct, - for a field that is not in this version."""
    struct: str
    """The reference to the layout of a struct, such as TopicProduceData.9."""
    is_array: bool
    is_nullable: bool
    tag: int
    """-1 if it is always sent."""


class Layout(NamedTuple):
    """One version of one struct: a form for each of its slots, in order."""

    name: str
    is_flexible: bool
    forms: tuple[Form, ...]


class Layouts:
    """The layouts of one module. `classes` are its messages and structs, inner ones first."""

    def __init__(self, text: str, *classes: type[Message]) -> None:
        self._text = text
        self._classes = {each.__name__: each for each in classes}

    @cached_property
    def by_version(self) -> dict[str, Layout]:
        """Every layout, under the name of its class with each of its versions, such as TopicProduceData.12."""
        found: dict[str, Layout] = {}
        for line in self._text.replace("\n    ", " ").splitlines():
            head, _, forms = line.partition(":")
            name, _, spans = head.partition(".")
            layout = _parse(name, forms.split())
            for span in spans.split(","):
                first, _, last = span.partition("-")
                for version in range(int(first), int(last or first) + 1):
                    found[f"{name}.{version}"] = layout
        return found

    def readers(self, message: type[T], functions: tuple[Reader[T] | None, ...]) -> tuple[Reader[T] | None, ...]:
        """The table of readers by version: the given functions, accelerated if that is possible."""
        return self._table(message, functions, NATIVE.Reader) if NATIVE else functions

    def writers(self, message: type[T], functions: tuple[Writer[T] | None, ...]) -> tuple[Writer[T] | None, ...]:
        """The table of writers by version: the given functions, accelerated if that is possible."""
        return self._table(message, functions, NATIVE.Writer) if NATIVE else functions

    def _table(
        self, message: type[Message], functions: tuple[F | None, ...], accelerate: Callable[[Any, F], F]
    ) -> tuple[F | None, ...]:
        table: list[F | None] = []
        for version, function in enumerate(functions):
            if function is None:
                table.append(None)
            elif function in functions[:version]:
                table.append(table[functions.index(function)])
            else:
                layout = self._compiled[self.by_version[f"{message.__name__}.{version}"]]
                table.append(accelerate(layout, function))
        return tuple(table)

    @cached_property
    def _compiled(self) -> dict[Layout, Any]:
        """Every layout in the form that C works with. Inner ones come first in the text."""
        found: dict[Layout, Any] = {}
        unsent = {name: _unsent(type_) for name, type_ in self._classes.items()}
        for layout in self.by_version.values():
            if layout in found:
                continue
            sent: list[tuple[Any, ...]] = []
            tagged: list[tuple[Any, ...]] = []
            absent: list[tuple[Any, ...]] = []
            for (name, default), form in zip(unsent[layout.name], layout.forms, strict=True):
                code, struct, is_array, is_nullable, tag = form
                inner = found[self.by_version[struct]] if struct else None
                field = name, code, is_array, is_nullable, tag, inner, default
                (absent if code == "-" else sent if tag < 0 else tagged).append(field)
            tagged.sort(key=lambda field: field[4])
            fields = *sent, *tagged, *absent
            type_ = self._classes[layout.name]
            found[layout] = NATIVE.Layout(type_, layout.is_flexible, len(sent), len(sent) + len(tagged), fields)
        return found


def _unsent(type_: type[Message]) -> list[tuple[str, Any]]:
    """What each slot holds if its field is not sent; a type is called for a fresh value."""
    defaults = type_()
    found: list[tuple[str, Any]] = []
    for name in type_.__slots__:
        default: Any = getattr(defaults, name)
        found.append((name, list if default == [] else type(default) if isinstance(default, Message) else default))
    return found


def _parse(name: str, words: list[str]) -> Layout:
    is_flexible = words[:1] == ["~"]
    return Layout(name, is_flexible, tuple(_parse_form(word) for word in words[is_flexible:]))


@cache
def _parse_form(word: str) -> Form:
    tag, _, word = word.rpartition(":")
    is_nullable = word.startswith("?")
    word = word.removeprefix("?")
    is_array = word.startswith("[")
    word = word.removeprefix("[")
    is_struct = len(word) > 1
    return Form("T" if is_struct else word, word if is_struct else "", is_array, is_nullable, int(tag or -1))
