"""Runs a scenario against both brokers at once and lists what their answers differ in."""

import importlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from compat.differential.comparison import differences, plain
from compat.differential.connection import API_VERSIONS, Connection, Silence, decode, encode, frame
from compat.differential.scenario import Ask, Built, Saved, Scenario, Send, Step, Taken
from kpy.wire.api_versions import ApiVersionsRequest
from kpy.wire.apis import APIS
from kpy.wire.find_coordinator import FindCoordinatorRequest
from kpy.wire.init_producer_id import InitProducerIdRequest
from kpy.wire.metadata import MetadataRequest
from kpy.wire.primitives import Message

POLL_INTERVAL_S = 0.02
POLL_TIMEOUT_S = 60.0


class Difference(NamedTuple):
    """One field of one answer."""

    scenario: str
    version: int
    step: int
    api: str
    path: str
    ours: Any
    theirs: Any


def report(found: Sequence[Difference]) -> str:
    """One paragraph for each difference, with all the versions that have it."""
    versions: dict[str, list[str]] = {}
    for each in found:
        where = f"step {each.step} {each.api} {each.path or 'answer'}"
        text = f"{where}\n    kpy:          {each.ours!r}\n    Apache Kafka: {each.theirs!r}"
        versions.setdefault(text, []).append(f"v{each.version}")
    return "\n".join(f"{' '.join(having)} {text}" for text, having in versions.items())


class Side:
    """One of the two brokers, during one run of a scenario."""

    def __init__(self, port: int, run: str) -> None:
        self._port = port
        self._run = run
        self._connections: dict[str, Connection] = {}
        self._waiting: dict[str, list[tuple[int, int, int]]] = {}
        self._correlation_id = 0
        self.saved: dict[str, Any] = {}

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def send(self, name: str, key: int, version: int, request: Any) -> None:
        self._correlation_id += 1
        body = encode(key, version, self._filled(request))
        self._connection(name).send(frame(key, version, body, self._correlation_id))
        self._waiting.setdefault(name, []).append((key, version, self._correlation_id))

    def receive(self, name: str) -> Any:
        """The decoded answer to the oldest request that waits for one, or the silence."""
        key, version, correlation_id = self._waiting[name].pop(0)
        response = self._connection(name).receive()
        if isinstance(response, Silence):
            self._waiting[name].clear()
            return response
        return decode(key, version, response, correlation_id)

    def expect_no_answer(self, name: str) -> None:
        self._waiting[name].pop()

    def exchange_bytes(self, name: str, data: bytes) -> bytes | Silence:
        connection = self._connection(name)
        connection.send(data)
        return connection.receive()

    def save(self, paths: Mapping[str, str], answer: Any) -> None:
        for name, path in paths.items():
            value = answer
            for part in path.split("."):
                value = value[int(part)] if part.isdigit() else getattr(value, part, None)
                if value is None or (isinstance(value, list) and not value):
                    break
            self.saved[name] = value

    def plain(self, answer: Any) -> Any:
        symbols: dict[Any, str] = {value: f"<{name}>" for name, value in self.saved.items() if value}
        symbols[self._port] = "<port>"
        symbols[self._run] = "<run>"
        return plain(answer, symbols)

    def _connection(self, name: str) -> Connection:
        return self._connections.setdefault(name, Connection(self._port))

    def _filled(self, value: Any) -> Any:
        """A copy of a request in which names and placeholders are what they stand for."""
        if isinstance(value, Saved):
            return self.saved[value.name]
        if isinstance(value, Built):
            return value.build(self.saved)
        if isinstance(value, str) and "{" in value:
            return value.format_map(_Names(self.saved, self._run))
        if isinstance(value, Message):
            copy = type(value)()
            for name in type(value).__slots__:
                setattr(copy, name, self._filled(getattr(value, name)))
            return copy
        if isinstance(value, list | tuple):
            return [self._filled(item) for item in value]
        return value


class _Names(dict[str, Any]):
    """What was saved; any other name becomes one that is new in this run."""

    def __init__(self, saved: Mapping[str, Any], run: str) -> None:
        super().__init__(saved)
        self._run = run

    def __missing__(self, name: str) -> str:
        return f"{name}-{self._run}"


class Pair:
    """kpy and Apache Kafka, started and ready."""

    def __init__(self, our_port: int, their_port: int) -> None:
        self.ports = (our_port, their_port)
        ours, theirs = served_versions(our_port), served_versions(their_port)
        self.versions = {
            key: range(max(ours[key][0], theirs[key][0]), min(ours[key][1], theirs[key][1]) + 1)
            for key in ours.keys() & theirs.keys()
        }

    def versions_of(self, scenario: Scenario) -> list[int]:
        if scenario.api is None:
            return [0]
        return [version for version in self.versions[scenario.api] if version in scenario.versions]

    def warm_up(self) -> None:
        """Waits for what a broker does only when it is first asked, or a while after its start."""
        asked: list[tuple[Any, Callable[[Any], bool]]] = [
            (MetadataRequest(None), lambda answer: answer.controller_id == 1 and len(answer.brokers) == 1),
            (FindCoordinatorRequest(coordinator_keys=["g"]), lambda answer: answer.coordinators[0].error_code == 0),
            (FindCoordinatorRequest("", 1, ["id"]), lambda answer: answer.coordinators[0].error_code == 0),
            (InitProducerIdRequest(None, 60_000), lambda answer: answer.error_code == 0),
        ]
        for port in self.ports:
            side = Side(port, "warm-up")
            for request, is_ready in asked:
                version = self.versions[key_of(request)][-1]
                side.send("main", key_of(request), version, request)
                answer = ask_until(side, Ask(request, until=is_ready), version, side.receive("main"))
                assert is_ready(answer), answer
            side.close()

    def run(self, scenario: Scenario, version: int, run: str) -> Iterator[Difference]:
        ours, theirs = (Side(port, run) for port in self.ports)
        try:
            for number, step in enumerate(scenario.steps):
                for path, our, their in self._step(step, scenario, version, ours, theirs):
                    api = type(step.request).__name__ if isinstance(step, Ask) else type(step).__name__
                    yield Difference(scenario.name, version, number, api, path, our, their)
        finally:
            ours.close()
            theirs.close()

    def _step(
        self, step: Step, scenario: Scenario, version: int, ours: Side, theirs: Side
    ) -> Iterator[tuple[str, Any, Any]]:
        if isinstance(step, Send):
            yield from differences(
                *(plain(side.exchange_bytes(step.connection, step.data), {}) for side in (ours, theirs))
            )
            return
        if isinstance(step, Ask):
            key = key_of(step.request)
            if step.version is not None:
                version = step.version
            elif key != scenario.api:
                version = self.versions[key][-1]
            for side in (ours, theirs):
                side.send(step.connection, key, version, step.request)
            if step.taken is not Taken.AT_ONCE:
                if step.taken is Taken.NEVER:
                    for side in (ours, theirs):
                        side.expect_no_answer(step.connection)
                return
        answers = []
        for side in (ours, theirs):
            answer = side.receive(step.connection)
            if isinstance(step, Ask) and step.until is not None:
                answer = ask_until(side, step, version, answer)
            side.save(step.save, answer)
            answers.append(side.plain(answer))
        yield from differences(*answers)


def ask_until(side: Side, step: Ask, version: int, answer: Any) -> Any:
    assert step.until is not None
    deadline = time.monotonic() + POLL_TIMEOUT_S
    while isinstance(answer, Silence) or not step.until(answer):
        if time.monotonic() > deadline:
            break  # The comparison, or a later step, tells that the two are not alike.
        time.sleep(POLL_INTERVAL_S)
        side.send(step.connection, key_of(step.request), version, step.request)
        answer = side.receive(step.connection)
    return answer


def key_of(request: Any) -> int:
    key: int = importlib.import_module(type(request).__module__).API_KEY
    return key


def served_versions(port: int) -> dict[int, tuple[int, int]]:
    """API key -> lowest and highest version, of those that kpy's codec knows."""
    connection = Connection(port)
    connection.send(frame(API_VERSIONS, 3, encode(API_VERSIONS, 3, ApiVersionsRequest("differential", "1")), 1))
    response = connection.receive()
    connection.close()
    assert isinstance(response, bytes), response
    served = decode(API_VERSIONS, 3, response, 1).api_keys
    return {entry.api_key: (entry.min_version, entry.max_version) for entry in served if entry.api_key in APIS}
