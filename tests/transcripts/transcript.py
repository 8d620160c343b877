"""Reading and writing transcripts of a coordinator's machine: what is the same whatever the machine coordinates.

Each line is `at <ms>  <command>`, and after `->` what followed: the records appended, the actions, and who was answered
what. Lines without a command are time passing: they appear where a deadline did something. `#` begins a comment, and
`config name=number ...` sets the machine's keys, in the first lines. Every language knows:

    fail-append <error>         the next records cannot be written
    restart                     a new machine replays the log; it must know what the old one had written
    wait                        until that time, and see
"""

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from kpy.errors import ErrorCode
from kpy.machine import Effects, Machine, Tick

M = TypeVar("M", bound=Machine)


@dataclass
class Words:
    """A command's words: those with an equals sign are options, the others flags."""

    flags: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, words: list[str]) -> "Words":
        found = cls()
        for word in words:
            name, equals, value = word.partition("=")
            if equals:
                found.options[name] = value
            else:
                found.flags.append(name)
        return found

    def number(self, name: str, default: int) -> int:
        return int(self.options.get(name, default))

    def names(self, name: str) -> list[str]:
        return [each for each in self.options.get(name, "").split(",") if each]


@dataclass(eq=False)
class Call:
    """The token of a request: whose it is, None for a tool's."""

    actor: Any
    message: Any
    version: int

    @property
    def name(self) -> str:
        return self.actor.name if self.actor is not None else "admin"


class Transcript(ABC, Generic[M]):
    """One run against a machine. `lines` is the transcript as it turned out."""

    command_columns: int
    """Where the arrows stand."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.config: dict[str, int] = {}
        self.shard: M | None = None
        self.failing: ErrorCode | None = None
        self.lines: list[str] = []

    def run(self, text: str) -> str:
        """The transcript as it is now; what `text` says of what followed counts for nothing."""
        for line in text.splitlines():
            match = re.match(r"at (\d+) +(.*?) *(?:->.*)?$", line)
            if line.startswith("#") or not line.strip():
                self.lines.append(line)
            elif line.startswith("config "):
                self.lines.append(line)
                self.config |= {name: int(value) for name, value in Words.of(line.split()[1:]).options.items()}
            elif match is not None and match[2]:
                self._until(int(match[1]))
                self._note(match[2], self._carried_out(match[2]))
        return "\n".join(self.lines) + "\n"

    def machine(self) -> M:
        """The one that runs now. The first is made when it is first asked for, which is behind the configuration."""
        if self.shard is None:
            self.shard = self.new_machine()
        return self.shard

    def _until(self, now_ms: int) -> None:
        """Let deadlines pass one by one, and show those that do something."""
        while (deadline_ms := self.machine().next_deadline_ms()) is not None and deadline_ms <= now_ms:
            self.now_ms = deadline_ms
            happened = self.apply(self.handled(Tick()))
            if happened:
                self._note("", happened)
        self.now_ms = now_ms

    def _note(self, command: str, happened: list[str]) -> None:
        left = f"at {self.now_ms:<8}{command}"
        if not happened:
            self.lines.append(left)
        for text in happened:
            self.lines.append(f"{left:<{self.command_columns}} -> {text}")
            left = ""

    def _carried_out(self, command: str) -> list[str]:
        verb, *rest = command.split()
        words = Words.of(rest)
        if verb == "wait":
            return []
        if verb == "restart":
            return self.restart()
        if verb == "fail-append":
            self.failing = ErrorCode[words.flags[0]]
            return []
        return self.carry_out(verb, words)

    def apply(self, effects: Effects) -> list[str]:
        """Do what the shell does: append, replay, act, reply; or refuse, if the append is to fail."""
        happened: list[str] = []
        failing, self.failing = (self.failing, None) if effects.records else (None, self.failing)
        if failing is not None:
            happened.append(f"append fails: {failing.name}")
            for token, response in effects.replies:
                assert isinstance(token, Call)
                refused = self.append_refusal(token, failing)
                happened.append(self.answered(token, response if effects.replies_stand else refused))
            return happened
        for key, value in effects.records:
            self.write(key, value, effects.producer_id)
            happened.append("append " + self.record(key, value, effects.producer_id))
        happened += [self.acted(action) for action in effects.actions]
        for token, response in effects.replies:
            assert isinstance(token, Call)
            happened.append(self.answered(token, response))
        return happened

    def handled(self, event: Any) -> Effects:
        """What the machine wants done."""
        return self.machine().handle(event, self.now_ms)

    def acted(self, action: Any) -> str:
        """Carry an action out, and say so."""
        raise AssertionError(f"nobody carries out {action}")

    # What a language says itself.

    @abstractmethod
    def new_machine(self) -> M: ...

    @abstractmethod
    def carry_out(self, verb: str, words: Words) -> list[str]:
        """What follows a command of the language's own."""

    @abstractmethod
    def restart(self) -> list[str]: ...

    @abstractmethod
    def write(self, key: bytes, value: bytes | None, producer_id: int) -> None:
        """Put a record in the log, and replay it."""

    @abstractmethod
    def record(self, key: bytes, value: bytes | None, producer_id: int) -> str: ...

    @abstractmethod
    def append_refusal(self, call: Call, error: ErrorCode) -> Any:
        """What is answered to a request whose records could not be written."""

    @abstractmethod
    def answered(self, call: Call, response: Any) -> str:
        """Who is told what."""


def over_the_wire(codec: ModuleType, response: Any, version: int) -> Any:
    """The response as a client gets it that has sent its request in this version."""
    sent = b"".join(bytes(each) for each in codec.encode_response(response, version))
    return codec.decode_response(memoryview(sent), version)


def check(path: Path, happened: str, *, rewrite: bool) -> None:
    """The transcript is as it was written, or is written anew."""
    if rewrite:
        path.write_text(happened)
    assert happened == path.read_text()
