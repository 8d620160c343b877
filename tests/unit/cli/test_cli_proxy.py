"""`kpy proxy`: what passes through it, what it replaces, and that showing never holds up what it shows."""

import io
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
import trio

from kpy.__main__ import main
from kpy.cli import frames
from kpy.cli import proxy as proxy_module
from kpy.cli.proxy import Address, Display, Proxy, Relay, structs_with_addresses, tells_addresses
from kpy.cli.style import Style
from kpy.cli.tree import Printer
from kpy.net.listener import listen
from kpy.wire import describe_cluster, fetch, find_coordinator, header, heartbeat, metadata, produce
from kpy.wire.apis import APIS, Api


def framed(*chunks: Any) -> bytes:
    data = b"".join(chunks)
    return struct.pack(">i", len(data)) + data


def request(module: Any, message: Any, version: int, correlation_id: int = 7) -> bytes:
    head_version = frames.request_header_version(APIS[module.API_KEY], version)
    head = header.RequestHeader(module.API_KEY, version, correlation_id, "me")
    return framed(*header.encode_request_header(head, head_version), *module.encode_request(message, version))


def response(module: Any, message: Any, version: int, correlation_id: int = 7) -> bytes:
    head_version = frames.response_header_version(APIS[module.API_KEY], version)
    head = header.ResponseHeader(correlation_id)
    return framed(*header.encode_response_header(head, head_version), *module.encode_response(message, version))


HEARTBEAT = request(heartbeat, heartbeat.HeartbeatRequest("a-group", 3, "member"), 4)
HEARTBEAT_ANSWER = response(heartbeat, heartbeat.HeartbeatResponse(0, 27), 4)
METADATA = request(metadata, metadata.MetadataRequest(None), 12)


async def receive_frame(stream: trio.SocketStream) -> bytes:
    """The next frame, with its size. Empty at the end."""
    data = bytearray()
    while len(data) < 4 or len(data) < 4 + int.from_bytes(data[:4]):
        more = await stream.receive_some(4 - len(data) if len(data) < 4 else 4 + int.from_bytes(data[:4]) - len(data))
        if not more:
            return b""
        data += more
    return bytes(data)


class World:
    """A proxy in front of brokers that answer every request with what they are told to."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.nursery = nursery
        self.out = io.StringIO()
        self.display = Display(Printer(Style(in_colour=False)), self.out)
        self.proxy = Proxy("127.0.0.1", self.display)
        self.port = 0
        self.clients: list[trio.SocketStream] = []

    async def broker(self, answer: Callable[[bytes], bytes]) -> Address:
        async def serve(stream: trio.SocketStream) -> None:
            while frame := await receive_frame(stream):
                await stream.send_all(answer(frame))

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self.nursery.start_soon(trio.serve_listeners, serve, listeners)
        return Address("127.0.0.1", listeners[0].socket.getsockname()[1])

    def start(self, upstream: Address) -> None:
        sockets = listen("127.0.0.1", 0, 5)
        self.port = sockets[0].getsockname()[1]
        self.nursery.start_soon(self.proxy.run, sockets, upstream)

    async def connect(self, port: int | None = None) -> trio.SocketStream:
        self.clients.append(await trio.open_tcp_stream("127.0.0.1", port or self.port))
        return self.clients[-1]

    def shown(self) -> str:
        self.display.close()
        return self.out.getvalue()


def in_world(test: Callable[[World], Awaitable[None]]) -> None:
    async def run() -> None:
        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                world = World(nursery)
                await test(world)
                for client in world.clients:
                    await client.aclose()
                world.display.close()
                nursery.cancel_scope.cancel()

    trio.run(run)


# What passes through


def test_requests_and_responses_pass_unchanged_and_are_shown():
    async def test(world: World) -> None:
        world.start(await world.broker(lambda frame: HEARTBEAT_ANSWER if frame == HEARTBEAT else b""))
        client = await world.connect()
        for _ in range(2):
            await client.send_all(HEARTBEAT)
            assert await receive_frame(client) == HEARTBEAT_ANSWER
        shown = world.shown()
        assert shown.count("→ Heartbeat request v4, correlation id 7") == 2
        assert shown.count("error_code: 27 REBALANCE_IN_PROGRESS") == 2

    in_world(test)


def test_a_client_that_leaves_takes_its_connection_to_the_broker_with_it():
    async def test(world: World) -> None:
        gone = trio.Event()

        async def serve(stream: trio.SocketStream) -> None:
            assert await receive_frame(stream) == HEARTBEAT
            assert await receive_frame(stream) == b""
            gone.set()

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        world.nursery.start_soon(trio.serve_listeners, serve, listeners)
        world.start(Address("127.0.0.1", listeners[0].socket.getsockname()[1]))
        client = await world.connect()
        await client.send_all(HEARTBEAT)
        await client.aclose()
        await gone.wait()

    in_world(test)


def test_a_broker_that_leaves_ends_the_client_s_connection():
    async def test(world: World) -> None:
        async def serve(stream: trio.SocketStream) -> None:
            await receive_frame(stream)
            await stream.aclose()

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        world.nursery.start_soon(trio.serve_listeners, serve, listeners)
        world.start(Address("127.0.0.1", listeners[0].socket.getsockname()[1]))
        client = await world.connect()
        await client.send_all(HEARTBEAT)
        assert await receive_frame(client) == b""

    in_world(test)


def test_a_broker_that_cannot_be_reached_ends_the_connection_and_is_told():
    async def test(world: World) -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            port = unused.getsockname()[1]
            world.start(Address("127.0.0.1", port))
            client = await world.connect()
            assert await receive_frame(client) == b""
        assert f"cannot connect a client to 127.0.0.1:{port}" in world.shown()

    in_world(test)


# Addresses


def test_a_client_finds_every_broker_through_the_proxy():
    async def test(world: World) -> None:
        second = await world.broker(lambda _frame: HEARTBEAT_ANSWER)

        def answer(_frame: bytes) -> bytes:
            brokers = [
                metadata.MetadataResponseBroker(1, first.host, first.port),
                metadata.MetadataResponseBroker(2, second.host, second.port),
            ]
            return response(metadata, metadata.MetadataResponse(brokers=brokers, cluster_id="c"), 12)

        first = await world.broker(answer)
        world.start(first)
        client = await world.connect()
        ports: list[list[int]] = []
        for _ in range(2):
            await client.send_all(METADATA)
            frame = await receive_frame(client)
            told = metadata.decode_response(memoryview(frame), 12, 9, exact=True)
            assert (told.cluster_id, [each.host for each in told.brokers]) == ("c", ["127.0.0.1"] * 2)
            ports.append([each.port for each in told.brokers])
        assert ports[0] == ports[1]
        assert ports[0][0] == world.port
        assert ports[0][1] not in (world.port, first.port, second.port)
        other = await world.connect(ports[0][1])
        await other.send_all(HEARTBEAT)
        assert await receive_frame(other) == HEARTBEAT_ANSWER
        shown = world.shown()
        assert f"127.0.0.1:{ports[0][1]} stands for {second}" in shown
        # What is shown is what the broker said.
        assert f"port={second.port}" in shown

    in_world(test)


ENDPOINT = ("broker", 9092)


@pytest.mark.parametrize(
    ("module", "message", "version"),
    [
        (metadata, metadata.MetadataResponse(brokers=[metadata.MetadataResponseBroker(1, *ENDPOINT)]), 0),
        (metadata, metadata.MetadataResponse(brokers=[metadata.MetadataResponseBroker(1, *ENDPOINT)]), 13),
        (find_coordinator, find_coordinator.FindCoordinatorResponse(node_id=1, host="broker", port=9092), 0),
        (
            find_coordinator,
            find_coordinator.FindCoordinatorResponse(coordinators=[find_coordinator.Coordinator("g", 1, *ENDPOINT)]),
            4,
        ),
        (
            describe_cluster,
            describe_cluster.DescribeClusterResponse(brokers=[describe_cluster.DescribeClusterBroker(1, *ENDPOINT)]),
            0,
        ),
        (produce, produce.ProduceResponse(node_endpoints=[produce.NodeEndpoint(1, *ENDPOINT)]), 10),
        (fetch, fetch.FetchResponse(node_endpoints=[fetch.NodeEndpoint(1, *ENDPOINT)]), 16),
    ],
)
def test_every_response_that_tells_an_address_is_held_back_for_it(module: Any, message: Any, version: int):
    assert tells_addresses(APIS[module.API_KEY], version)
    decoded = module.decode_response(memoryview(b"".join(module.encode_response(message, version))), version)
    assert [(each.host, each.port) for each in structs_with_addresses(decoded)][-1] == ENDPOINT


def tells_host_and_port(codec: Any, reference: str) -> bool:
    """Whether this layout, or one below it, is of a struct with a host and a port."""
    layout = codec.LAYOUTS.by_version[reference]
    if {"host", "port"} <= set(getattr(codec, layout.name).__slots__):
        return True
    return any(tells_host_and_port(codec, form.struct) for form in layout.forms if form.struct)


NOT_BROKERS = {"DescribeQuorum", "StreamsGroupHeartbeat", "StreamsGroupDescribe"}
"""The addresses in their responses are those of controllers and of applications."""


@pytest.mark.parametrize("api", [api for api in APIS.values() if api.name not in NOT_BROKERS], ids=lambda api: api.name)
def test_the_table_of_responses_with_addresses_is_complete(api: Api):
    codec = frames.codec_of(api)
    for version in range(api.min_version, api.max_version + 1):
        if f"{api.name}Response.{version}" in codec.LAYOUTS.by_version:
            assert tells_host_and_port(codec, f"{api.name}Response.{version}") == tells_addresses(api, version)


def test_a_coordinator_that_is_not_there_has_no_address():
    async def test(world: World) -> None:
        missing = find_coordinator.FindCoordinatorResponse(error_code=15, node_id=-1, host="", port=-1)
        answer = response(find_coordinator, missing, 1)
        world.start(await world.broker(lambda _frame: answer))
        client = await world.connect()
        await client.send_all(request(find_coordinator, find_coordinator.FindCoordinatorRequest("g"), 1))
        assert await receive_frame(client) == answer

    in_world(test)


def test_a_response_that_does_not_decode_is_passed_on_as_it_is():
    async def test(world: World) -> None:
        broken = framed(struct.pack(">i", 7), b"\0nonsense")
        world.start(await world.broker(lambda _frame: broken))
        client = await world.connect()
        await client.send_all(METADATA)
        assert await receive_frame(client) == broken

    in_world(test)


def test_there_is_an_end_to_ports(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(proxy_module, "MAX_BROKERS", 1)

    async def test(world: World) -> None:
        far = metadata.MetadataResponse(brokers=[metadata.MetadataResponseBroker(2, "192.0.2.1", 9092)])
        answer = response(metadata, far, 12)
        world.start(await world.broker(lambda _frame: answer))
        client = await world.connect()
        await client.send_all(METADATA)
        assert await receive_frame(client) == answer

    in_world(test)


# Relays


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_frames_arrive_in_any_pieces(size: int):
    seen: list[bytes] = []
    relay = Relay(lambda frame: seen.append(bytes(frame)))
    data = HEARTBEAT * 3 + framed() + framed(b"ab") + HEARTBEAT
    assert b"".join(relay.feed(piece) for piece in pieces(data, size)) == data
    assert [framed(frame) for frame in seen] == [HEARTBEAT] * 3 + [framed(), framed(b"ab"), HEARTBEAT]


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_only_held_frames_are_replaced(size: int):
    relay = Relay(lambda _frame: None, lambda head: head == b"held", lambda frame: bytes(frame) + b"!")
    data = framed(b"free frame") + framed(b"held frame") + framed(b"free")
    passed = b"".join(relay.feed(piece) for piece in pieces(data, size))
    assert passed == framed(b"free frame") + framed(b"held frame!") + framed(b"free")


def test_a_frame_that_is_not_held_is_passed_on_before_it_is_complete():
    relay = Relay(lambda _frame: None)
    assert relay.feed(framed(bytes(1000))[:500]) == framed(bytes(1000))[:500]


def test_of_a_large_frame_only_the_beginning_is_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(proxy_module, "MAX_SHOWN_BYTES", 10)
    seen: list[bytes] = []
    relay = Relay(lambda frame: seen.append(bytes(frame)))
    assert relay.feed(framed(b"x" * 100)) == framed(b"x" * 100)
    assert seen == [b"x" * 6]


def test_bytes_that_are_no_frames_pass_unread():
    seen: list[bytes] = []
    relay = Relay(lambda frame: seen.append(bytes(frame)))
    hello = b"\x16\x03\x01\x02\x00\x01"
    assert relay.feed(hello) + relay.feed(HEARTBEAT) == hello + HEARTBEAT
    assert seen == []


# The display


class Stalled(io.StringIO):
    """An output that nobody reads until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = threading.Event()
        self.free = threading.Event()

    def write(self, text: str) -> int:
        self.reached.set()
        self.free.wait()
        return super().write(text)


def test_a_stalled_output_holds_nothing_up_and_what_is_left_out_is_counted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(proxy_module, "MAX_QUEUED_FRAMES", 5)
    out = Stalled()
    display = Display(Printer(Style(in_colour=False)), out)
    frame = frames.read_request(memoryview(HEARTBEAT)[4:])
    display.frame(frame, "a > b")
    out.reached.wait()
    for _ in range(12):
        display.frame(frame, "a > b")
    out.free.set()
    display.close()
    assert out.getvalue().count("→ Heartbeat") == 6
    assert "7 frames are not shown" in out.getvalue()


def test_the_queue_is_bounded_in_bytes_too(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(proxy_module, "MAX_QUEUED_BYTES", 2 * len(HEARTBEAT))
    out = Stalled()
    display = Display(Printer(Style(in_colour=False)), out)
    frame = frames.read_request(memoryview(HEARTBEAT)[4:])
    display.frame(frame, "a > b")
    out.reached.wait()
    for _ in range(4):
        display.frame(frame, "a > b")
    out.free.set()
    display.close()
    assert out.getvalue().count("→ Heartbeat") == 3


def test_the_proxy_ends_when_nobody_reads_its_output():
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    async def test() -> None:
        with trio.fail_after(20):
            proxy = Proxy("127.0.0.1", Display(Printer(Style(in_colour=False)), Closed()))
            await proxy.run(listen("127.0.0.1", 0, 5), Address("127.0.0.1", 1))

    trio.run(test)


# The command


def test_a_port_in_use_is_one_line_and_1(capsys: pytest.CaptureFixture[str]):
    [taken] = listen("127.0.0.1", 0, 1)
    with taken:
        port = taken.getsockname()[1]
        assert main(["proxy", "--listen", f"127.0.0.1:{port}", "--upstream", "localhost:9092"]) == 1
    assert capsys.readouterr().err == f"kpy: error: cannot listen on 127.0.0.1:{port}: it is in use\n"


def test_an_address_that_is_none_is_a_usage_error(capsys: pytest.CaptureFixture[str]):
    assert main(["proxy", "--listen", "a:b:c", "--upstream", "localhost:9092"]) == 2
    assert capsys.readouterr().err.startswith("kpy: error: --listen=a:b:c")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_it_while_a_client_is_connected(number: signal.Signals, code: int):
    [upstream] = listen("127.0.0.1", 0, 1)
    command = [sys.executable, "-m", "kpy", "proxy", "--listen", "127.0.0.1:0"]
    with upstream:
        command += ["--upstream", f"127.0.0.1:{upstream.getsockname()[1]}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            address = process.stdout.readline().split()[1]
            with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as client:
                client.sendall(HEARTBEAT)
                assert "Heartbeat request" in process.stdout.readline()
                process.send_signal(number)
                _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (code, "")
