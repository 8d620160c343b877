"""JAAS login configurations: the files in which programs on the JVM keep their credentials (JDK class ConfigFile).

    Client {
        org.apache.zookeeper.server.auth.DigestLoginModule required
        username="kafka"
        password="secret";
    };

Comments are those of Java. `${...}`, where the JVM would put a system property, is refused, since there are none here.
No error repeats what the file says: that may be a password.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_FILE_BYTES = 1024 * 1024

_FLAGS = frozenset({"required", "requisite", "sufficient", "optional"})
_TOKEN = re.compile(
    r"""(?P<blank>\s+|//[^\n]*|/\*.*?\*/)
    |"(?P<quoted>(?:[^"\\\n]|\\[^\n])*)"
    |(?P<word>[^\s"{};=]+)
    |(?P<sign>[{};=])""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\([0-3]?[0-7]{1,2}|.)")
_ESCAPED = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


@dataclass(frozen=True, slots=True)
class LoginModule:
    class_name: str
    options: Mapping[str, str] = field(repr=False)


class _Token(NamedTuple):
    text: str
    line: int
    is_sign: bool = False


def parse(text: str) -> dict[str, tuple[LoginModule, ...]]:
    """The login modules of each section, by its name. Raises ValueError, which tells the line."""
    tokens = list(_tokens(text))
    sections: dict[str, tuple[LoginModule, ...]] = {}
    tokens.reverse()
    while tokens:
        name = _take_word(tokens, "the name of a section")
        if name.text in sections:
            raise ValueError(f"line {name.line}: a section that is there twice")
        _take_sign(tokens, "{")
        modules: list[LoginModule] = []
        while not _is_next(tokens, "}"):
            modules.append(_take_module(tokens))
        _take_sign(tokens, "}")
        _take_sign(tokens, ";")
        sections[name.text] = tuple(modules)
    return sections


def _take_module(tokens: list[_Token]) -> LoginModule:
    class_name = _take_word(tokens, "the class of a login module")
    flag = _take_word(tokens, "required or another flag")
    if flag.text.lower() not in _FLAGS:
        raise ValueError(f"line {flag.line}: the flag is none of {', '.join(sorted(_FLAGS))}")
    options: dict[str, str] = {}
    while not _is_next(tokens, ";"):
        key = _take_word(tokens, "an option or ;")
        _take_sign(tokens, "=")
        value = _take_word(tokens, "the value of an option")
        if "${" in value.text:
            raise ValueError(f"line {value.line}: kpy does not expand ${{...}}")
        options[key.text] = value.text
    _take_sign(tokens, ";")
    return LoginModule(class_name.text, options)


def _tokens(text: str) -> Iterator[_Token]:
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise ValueError(f"line {line}: a quotation mark without its counterpart")
        if match["quoted"] is not None:
            yield _Token(_ESCAPE.sub(_unescaped, match["quoted"]), line)
        elif match["blank"] is None:
            yield _Token(match[0], line, is_sign=match["sign"] is not None)
        line += match[0].count("\n")
        position = match.end()


def _unescaped(match: re.Match[str]) -> str:
    escaped = match[1]
    return chr(int(escaped, 8)) if escaped[0].isdigit() and escaped[0] < "8" else _ESCAPED.get(escaped, escaped)


def _is_next(tokens: list[_Token], sign: str) -> bool:
    return bool(tokens) and tokens[-1].is_sign and tokens[-1].text == sign


def _take_word(tokens: list[_Token], what: str) -> _Token:
    if not tokens:
        raise ValueError(f"it ends where there should be {what}")
    token = tokens.pop()
    if token.is_sign:
        raise ValueError(f"line {token.line}: {token.text} where there should be {what}")
    return token


def _take_sign(tokens: list[_Token], sign: str) -> None:
    if not tokens:
        raise ValueError(f"it ends where there should be {sign}")
    if not _is_next(tokens, sign):
        raise ValueError(f"line {tokens[-1].line}: no {sign} where there should be one")
    tokens.pop()
