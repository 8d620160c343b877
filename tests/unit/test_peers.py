"""Asking another broker, on real sockets: who is answered what, and what ends the connection."""

import random
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
import trio

from kpy.net.poller import Poller
from kpy.peers import MAX_RESPONSE_BYTES, RECEIVE_BYTES, PeerChannel, PeerError
from kpy.wire import find_coordinator
from kpy.wire.find_coordinator import Coordinator, FindCoordinatorRequest, FindCoordinatorResponse

FIND_COORDINATOR, VERSION = 10, 4
CLIENT_ID = "1"
BODY = 10 + len(CLIENT_ID) + 1
"""Where it begins: behind API key, version, correlation id, the client id with its length, and no tagged fields."""


class OtherBroker:
    """`connections` are its ends of them, the newest last."""

    def __init__(self) -> None:
        self.connections: list[trio.SocketStream] = []
        self._received = b""
        self._connected = trio.Event()

    async def connect(self) -> trio.SocketStream:
        ends = [trio.SocketStream(trio.socket.from_stdlib_socket(end)) for end in socket.socketpair()]
        self.connections.append(ends[1])
        self._received = b""
        self._connected.set()
        self._connected = trio.Event()
        return ends[0]

    async def is_connected(self, times: int) -> None:
        while len(self.connections) < times:
            await self._connected.wait()

    async def next_frame(self) -> bytes:
        """The next question on the newest connection, without its size."""
        await self.is_connected(1)
        while len(self._received) < 4 or len(self._received) < 4 + struct.unpack_from(">i", self._received)[0]:
            data = bytes(await self.connections[-1].receive_some(100_000))
            assert data
            self._received += data
        (size,) = struct.unpack_from(">i", self._received)
        frame, self._received = self._received[4 : 4 + size], self._received[4 + size :]
        return frame

    async def next_question(self) -> tuple[int, str]:
        """Its correlation id, and what is asked for."""
        question = await self.next_frame()
        _, correlation_id = struct.unpack_from(">ii", question)
        (key,) = find_coordinator.decode_request(memoryview(question), VERSION, BODY).coordinator_keys
        return correlation_id, key

    async def say(self, data: bytes) -> None:
        await self.connections[-1].send_all(data)


def answer_to(correlation_id: int, key: str) -> bytes:
    response = FindCoordinatorResponse(coordinators=[Coordinator(key)])
    body = b"".join([*find_coordinator.encode_response(response, VERSION)])
    return struct.pack(">iib", len(body) + 5, correlation_id, 0) + body


async def ask(channel: PeerChannel, key: str) -> str:
    request = FindCoordinatorRequest(coordinator_keys=[key])
    response: FindCoordinatorResponse = await channel.ask(FIND_COORDINATOR, request, VERSION)
    return response.coordinators[0].key


Asking = Callable[[PeerChannel, OtherBroker], Awaitable[None]]


def run(asking: Asking, serving: Callable[[OtherBroker], Awaitable[None]], *, timeout_ms: int = 20_000) -> OtherBroker:
    """Runs both sides until `asking` is through."""
    broker = OtherBroker()

    async def main() -> None:
        poller = Poller(1024, lambda: None, lambda: None)
        channel = PeerChannel(broker.connect, CLIENT_ID, timeout_ms, poller)
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(poller.run)
                nursery.start_soon(serving, broker)
                await asking(channel, broker)
                nursery.cancel_scope.cancel()
        channel.close()
        for connection in broker.connections:
            await connection.aclose()

    trio.run(main)
    return broker


async def answer_all(broker: OtherBroker) -> None:
    while True:
        await broker.say(answer_to(*await broker.next_question()))


@pytest.mark.parametrize("seed", range(5))
def test_several_ask_at_once_and_each_gets_its_own_answer_however_the_stream_is_cut(seed: int) -> None:
    rng = random.Random(seed)
    keys = [rng.choice("abc") * rng.choice((1, 200, 30_000)) + str(number) for number in range(30)]
    answers: dict[str, str] = {}

    async def asking(channel: PeerChannel, _: OtherBroker) -> None:
        async def asker(key: str) -> None:
            answers[key] = await ask(channel, key)

        async with trio.open_nursery() as askers:
            for key in keys:
                askers.start_soon(asker, key)

    async def serving(broker: OtherBroker) -> None:
        unsaid = b""
        for number in range(len(keys)):
            unsaid += answer_to(*await broker.next_question())
            while unsaid and (number == len(keys) - 1 or rng.random() < 0.9):
                size = rng.choice((1, 3, 60, RECEIVE_BYTES, 2 * RECEIVE_BYTES))
                await broker.say(unsaid[:size])
                unsaid = unsaid[size:]

    broker = run(asking, serving)
    assert answers == {key: key for key in keys}
    assert len(broker.connections) == 1


def test_an_answer_may_be_longer_than_what_is_read_at_once_and_a_question_than_what_the_socket_takes() -> None:
    keys = [f"{number}".zfill(30_000) for number in range(100)]

    async def asking(channel: PeerChannel, _: OtherBroker) -> None:
        request = FindCoordinatorRequest(coordinator_keys=keys)
        response: FindCoordinatorResponse = await channel.ask(FIND_COORDINATOR, request, VERSION)
        assert [each.key for each in response.coordinators] == keys

    async def serving(broker: OtherBroker) -> None:
        await broker.is_connected(1)
        question = b""
        while len(question) < sum(map(len, keys)):
            question += bytes(await broker.connections[-1].receive_some(100_000))
        response = FindCoordinatorResponse(coordinators=[Coordinator(key) for key in keys])
        body = b"".join([*find_coordinator.encode_response(response, VERSION)])
        await broker.say(struct.pack(">iib", len(body) + 5, 1, 0) + body)

    run(asking, serving)


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (answer_to(7, "x"), "an answer to request 7, not to 1"),
        (struct.pack(">i", 3), "a response of 3 bytes"),
        (struct.pack(">i", MAX_RESPONSE_BYTES + 1), "a response of 134217729 bytes"),
        (struct.pack(">iib", 5, 1, 1), "unknown tagged fields"),
        (struct.pack(">iib", 5, 1, 0), "FindCoordinator response"),
    ],
)
def test_an_answer_that_cannot_be_one_is_said_and_ends_the_connection(answer: bytes, problem: str) -> None:
    async def asking(channel: PeerChannel, _: OtherBroker) -> None:
        with pytest.raises(PeerError, match=problem):
            await ask(channel, "x")
        assert await ask(channel, "y") == "y"

    async def serving(broker: OtherBroker) -> None:
        await broker.next_question()
        await broker.say(answer)
        assert await broker.connections[0].receive_some(1) == b""
        await broker.is_connected(2)
        await answer_all(broker)

    run(asking, serving)


def test_all_who_wait_are_told_when_the_other_broker_hangs_up() -> None:
    problems: list[str] = []

    async def asking(channel: PeerChannel, broker: OtherBroker) -> None:
        async def asker(key: str) -> None:
            with pytest.raises(PeerError) as raised:
                await ask(channel, key)
            problems.append(str(raised.value))

        async with trio.open_nursery() as askers:
            for key in "abc":
                askers.start_soon(asker, key)

    async def serving(broker: OtherBroker) -> None:
        correlation_ids = [(await broker.next_question())[0] for _ in "abc"]
        await broker.say(answer_to(correlation_ids[0], "a")[:-1])
        await broker.connections[0].aclose()

    run(asking, serving)
    assert problems == 3 * ["the connection was closed"]


def test_a_question_that_is_given_up_ends_the_connection_and_those_behind_it() -> None:
    async def asking(channel: PeerChannel, broker: OtherBroker) -> None:
        async def asker() -> None:
            with pytest.raises(PeerError, match="the connection was closed"):
                await ask(channel, "behind")

        async with trio.open_nursery() as askers:
            with trio.CancelScope() as scope:
                askers.start_soon(give_up, broker, scope, askers, asker)
                await ask(channel, "given up")
            assert scope.cancelled_caught
        assert await ask(channel, "next") == "next"

    async def give_up(
        broker: OtherBroker, scope: trio.CancelScope, askers: trio.Nursery, asker: Callable[[], Awaitable[None]]
    ) -> None:
        assert (await broker.next_question())[1] == "given up"
        askers.start_soon(asker)
        assert (await broker.next_question())[1] == "behind"
        scope.cancel()

    async def serving(broker: OtherBroker) -> None:
        await broker.is_connected(2)
        await answer_all(broker)

    run(asking, serving)


class Talker:
    """Asks for one key after the other in a conversation, until there are no more or an answer is `until`."""

    def __init__(self, keys: list[str], until: str | None = None) -> None:
        self._keys = iter(keys)
        self._until = until
        self.answers: list[str] = []

    async def converse(self, channel: PeerChannel) -> None:
        await channel.converse(FIND_COORDINATOR, self._question(next(self._keys)), VERSION, self._reply)

    def _question(self, key: str) -> FindCoordinatorRequest:
        return FindCoordinatorRequest(coordinator_keys=[key])

    def _reply(self, response: FindCoordinatorResponse) -> FindCoordinatorRequest | None:
        answer = response.coordinators[0].key
        self.answers.append(answer)
        key = None if answer == self._until else next(self._keys, None)
        return None if key is None else self._question(key)


@pytest.mark.parametrize("seed", range(5))
def test_a_conversation_goes_on_until_there_is_nothing_to_ask_however_the_stream_is_cut(seed: int) -> None:
    rng = random.Random(seed)
    keys = [rng.choice("abc") * rng.choice((1, 200, 30_000)) + str(number) for number in range(30)]
    talker = Talker(keys, until=keys[-6])

    async def asking(channel: PeerChannel, _: OtherBroker) -> None:
        await talker.converse(channel)
        assert talker.answers == keys[:-5]
        assert await ask(channel, "x") == "x"
        await talker.converse(channel)

    async def serving(broker: OtherBroker) -> None:
        while True:
            unsaid = answer_to(*await broker.next_question())
            while unsaid:
                size = rng.choice((1, 3, 60, RECEIVE_BYTES, 2 * RECEIVE_BYTES))
                await broker.say(unsaid[:size])
                unsaid = unsaid[size:]

    broker = run(asking, serving)
    assert talker.answers == keys
    assert len(broker.connections) == 1


class Steps(trio.abc.Instrument):
    """How often a task has run."""

    def __init__(self, task: trio.lowlevel.Task) -> None:
        self._task = task
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self._task


def test_the_task_that_converses_does_not_run_for_each_answer() -> None:
    async def steps_for(channel: PeerChannel, answers: int) -> int:
        steps = Steps(trio.lowlevel.current_task())
        trio.lowlevel.add_instrument(steps)
        await Talker(answers * ["x"]).converse(channel)
        trio.lowlevel.remove_instrument(steps)
        return steps.count

    async def asking(channel: PeerChannel, _: OtherBroker) -> None:
        assert await ask(channel, "connects") == "connects"
        assert await steps_for(channel, 100) == await steps_for(channel, 1) > 0

    run(asking, answer_all)


def test_questions_of_a_conversation_may_be_longer_than_what_the_socket_takes() -> None:
    keys = "abc"
    received: list[int] = []

    async def asking(channel: PeerChannel, _: OtherBroker) -> None:
        questions = iter([FindCoordinatorRequest(coordinator_keys=100 * [30_000 * key]) for key in keys])
        await channel.converse(FIND_COORDINATOR, next(questions), VERSION, lambda _: next(questions, None))

    async def serving(broker: OtherBroker) -> None:
        for correlation_id, _ in enumerate(keys, 1):
            received.append(len(await broker.next_frame()))
            await broker.say(answer_to(correlation_id, "x"))

    broker = run(asking, serving)
    assert len(broker.connections) == 1
    assert len(received) == len(keys)
    assert min(received) > 100 * 30_000


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (answer_to(7, "x"), "an answer to request 7, not to 2"),
        (struct.pack(">i", 3), "a response of 3 bytes"),
        (struct.pack(">iib", 5, 2, 1), "unknown tagged fields"),
        (struct.pack(">iib", 5, 2, 0), "FindCoordinator response"),
        (None, "the connection was closed"),
    ],
)
def test_what_cannot_be_an_answer_ends_a_conversation_and_its_connection(answer: bytes | None, problem: str) -> None:
    async def asking(channel: PeerChannel, _: OtherBroker) -> None:
        talker = Talker(["a", "b", "c"])
        with pytest.raises(PeerError, match=problem):
            await talker.converse(channel)
        assert talker.answers == ["a"]
        await talker.converse(channel)
        assert talker.answers == ["a", "c"]

    async def serving(broker: OtherBroker) -> None:
        await broker.say(answer_to(*await broker.next_question()))
        assert (await broker.next_question())[1] == "b"
        if answer is None:
            await broker.connections[0].aclose()
        else:
            await broker.say(answer)
            assert await broker.connections[0].receive_some(1) == b""
        await broker.is_connected(2)
        await answer_all(broker)

    run(asking, serving)


def test_a_conversation_in_which_an_answer_takes_too_long_is_over() -> None:
    async def asking(channel: PeerChannel, _: OtherBroker) -> None:
        talker = Talker(["a", "b", "c"])
        with pytest.raises(PeerError, match="no answer within 100 ms"):
            await talker.converse(channel)
        assert talker.answers == ["a"]

    async def serving(broker: OtherBroker) -> None:
        await broker.say(answer_to(*await broker.next_question()))
        await broker.next_question()
        assert await broker.connections[0].receive_some(1) == b""

    run(asking, serving, timeout_ms=100)


def test_what_a_reply_raises_is_raised_where_the_conversation_is_waited_for() -> None:
    async def asking(channel: PeerChannel, _: OtherBroker) -> None:
        with pytest.raises(ZeroDivisionError):
            await channel.converse(
                FIND_COORDINATOR, FindCoordinatorRequest(coordinator_keys=["a"]), VERSION, lambda _: 1 / 0
            )
        assert await ask(channel, "b") == "b"

    async def serving(broker: OtherBroker) -> None:
        await broker.say(answer_to(*await broker.next_question()))
        await broker.is_connected(2)
        await answer_all(broker)

    run(asking, serving)


def test_a_conversation_that_is_given_up_ends_its_connection() -> None:
    async def asking(channel: PeerChannel, broker: OtherBroker) -> None:
        talker = Talker(["a", "b", "c"])
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(give_up, broker, scope)
                await talker.converse(channel)
        assert talker.answers == ["a"]
        await talker.converse(channel)
        assert talker.answers == ["a", "c"]

    async def give_up(broker: OtherBroker, scope: trio.CancelScope) -> None:
        await broker.say(answer_to(*await broker.next_question()))
        await broker.next_question()
        scope.cancel()

    async def serving(broker: OtherBroker) -> None:
        await broker.is_connected(2)
        await answer_all(broker)

    run(asking, serving)
