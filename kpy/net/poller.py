"""Drives all client connections of the broker from one trio task, and what reads answers of other brokers.

One task waits on an epoll descriptor of its own and serves every ready connection synchronously: beside a task per
connection this answers a third more requests at 50 connections and twice as many at 500, since a wake-up of trio's
scheduler costs as much as a small request.

A client that reads in bulk makes it wait for room in a socket again and again. As long as that is all there is to do, C
waits and sends (`send_while_alone`), and no round is made of it.
"""

import select
import socket
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING

import trio

from kpy.net.channel import Channel
from kpy.net.connection import Dispatch
from kpy.net.sender import BUSY_ROUND, new_sender
from kpy.net.trio_loop import Events, WaitInPlaceOfTrio

if TYPE_CHECKING:
    # Not at run time: without a listener of security protocol SSL there is none.
    from kpy.net.tls_channel import Tls

SHARED_BUFFER_BYTES = 256 * 1024
MAX_EVENTS = 256
SLEEPLESS_SECONDS = 60e-6
"""How long it goes on asking when one connection alone is talking: a client that waits for its answer sends the next
request at once, and falling asleep and waking up costs more than its pause, half of its rate. With several talking it
is better to sleep, since more of them are ready at each wake-up."""

NOBODY = -1

TURNS_BETWEEN_CHECKPOINTS = 16
"""Other tasks of the broker wait at most this many rounds of ready connections; only one, when somebody connects: the
system holds few connections that are not accepted (socket.listen.backlog.size), and lets the others try again after a
second.
"""

READ = select.EPOLLIN | select.EPOLLRDHUP
WRITE = select.EPOLLOUT
GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
ARRIVAL = select.EPOLLIN | select.EPOLLET
"""Told once of what arrives, not as long as something is there: when it is accepted is not the poller's affair."""


class Poller:
    """Owns the sockets of all connections. `add` takes one over, `run` serves them until cancelled.

    `begin_round` and `end_round` are called around each round of ready connections.
    """

    def __init__(self, max_request_bytes: int, begin_round: Callable[[], None], end_round: Callable[[], None]) -> None:
        self._begin_round = begin_round
        self._end_round = end_round
        self._epoll = select.epoll()
        self._channels: dict[int, Channel] = {}
        self._hosts: Counter[str] = Counter()
        self._readers: dict[int, Callable[[], None]] = {}
        self._answered: dict[Channel, None] = {}
        self._full_reader: Channel | None = None
        """Whose socket was full last. It may have room by now, or be closed."""
        # Bound once, not for each of ten thousand connections.
        self._on_change = self._watch
        self._on_answer = self._answer_has_come
        self._in_round = False
        self._turns_left = TURNS_BETWEEN_CHECKPOINTS
        self._somebody_connects = False
        self._max_request_bytes = max_request_bytes
        self._shared = memoryview(bytearray(SHARED_BUFFER_BYTES))
        self._sender = new_sender(self._was_cut_short)
        if self._sender is not None:
            self._epoll.register(self._sender.alarm_fd, ARRIVAL)

    def __len__(self) -> int:
        return len(self._channels)

    def add(self, sock: socket.socket, peer_host: str, dispatch: Dispatch, tls: "Tls | None" = None) -> Channel:
        """Serves `sock`, a connected non-blocking socket, from now on."""
        channel = self._new_channel(sock, peer_host, dispatch, tls)
        channel.last_active = trio.current_time()
        self._channels[channel.fd] = channel
        self._hosts[peer_host] += 1
        channel.watched_for = READ
        self._epoll.register(channel.fd, READ)
        return channel

    def _new_channel(self, sock: socket.socket, peer_host: str, dispatch: Dispatch, tls: "Tls | None") -> Channel:
        limit, shared, sender = self._max_request_bytes, self._shared, self._sender
        if tls is None:
            return Channel(sock, peer_host, dispatch, limit, shared, self._on_change, self._on_answer, sender)
        from kpy.net.tls_channel import TlsChannel

        return TlsChannel(sock, peer_host, dispatch, limit, shared, self._on_change, self._on_answer, sender, tls)

    def give_way_to(self, listening: socket.socket) -> None:
        """Lets the task that accepts its connections run soon after each that arrives."""
        self._epoll.register(listening.fileno(), ARRIVAL)

    def watch(self, fd: int, on_readable: Callable[[], None]) -> None:
        """Calls `on_readable` in each round in which there is something to read, until `unwatch`."""
        self._readers[fd] = on_readable
        self._epoll.register(fd, READ)

    def unwatch(self, fd: int) -> None:
        """To be called before the descriptor is closed."""
        del self._readers[fd]
        if not self._epoll.closed:
            self._epoll.unregister(fd)

    def connections_of(self, host: str) -> int:
        return self._hosts[host]

    async def run(self) -> None:
        """Serves every connection until cancelled, then closes them all."""
        try:
            async with WaitInPlaceOfTrio(self._epoll.fileno()) as waiting:
                await self._serve_rounds(waiting)
        finally:
            for channel in list(self._channels.values()):
                channel.close()
            if self._sender is not None:
                self._sender.close()
            self._epoll.close()

    async def _serve_rounds(self, waiting: WaitInPlaceOfTrio) -> None:
        epoll, sender = self._epoll, self._sender
        sleepless_until = 0.0
        last_lone_talker = NOBODY
        while True:
            events = epoll.poll(0, MAX_EVENTS)
            if not events:
                if time.perf_counter() <= sleepless_until:
                    continue
                if self._full_reader is not None:
                    events = self._send_while_alone(self._full_reader, waiting)
                if not events:
                    await waiting.until_readable()
                    continue
            self._in_round = True
            self._begin_round()
            if sender is not None and len(events) >= BUSY_ROUND:
                sender.open()
            self._serve(events, trio.current_time())
            self._end_round()
            self._send_answers()
            if sender is not None and sender.is_open:
                sender.publish()
            self._in_round = False
            lone_talker = events[0][0] if len(events) == 1 else NOBODY
            if lone_talker != NOBODY and lone_talker == last_lone_talker and self._asks_again_soon(lone_talker):
                sleepless_until = time.perf_counter() + SLEEPLESS_SECONDS
            last_lone_talker = lone_talker
            self._turns_left -= 1
            if self._turns_left <= 0:
                self._turns_left = TURNS_BETWEEN_CHECKPOINTS
                await trio.lowlevel.checkpoint()
                if self._somebody_connects:
                    # At the first checkpoint the task that accepts is woken, but this one may be the next to run.
                    self._somebody_connects = False
                    await trio.lowlevel.checkpoint()

    def _send_while_alone(self, reader: Channel, waiting: WaitInPlaceOfTrio) -> Events:
        """Goes on with what a reader's socket had no room for, until there is something to do: that is returned."""
        region = reader.region_to_send()
        if region is None:
            self._full_reader = None
            return []
        sent, events = waiting.send_while_alone(reader.fd, region)
        if sent:
            reader.region_was_sent(sent)
        return events

    def close_idle(self, idle_seconds: float) -> None:
        """Closes what was silent for `idle_seconds` and waits for nothing; the others give spare memory back."""
        now = trio.current_time()
        for channel in list(self._channels.values()):
            if now - channel.last_active > idle_seconds and channel.connection.waiting_for is None:
                channel.close()
            else:
                channel.connection.trim()

    def _serve(self, events: Events, now: float) -> None:
        for fd, mask in events:
            channel = self._channels.get(fd)
            if channel is None:
                self._serve_other(fd)
                continue
            if mask & WRITE:
                channel.on_writable()
            if channel.closed:
                continue
            if channel.connection.waiting_for is not None or channel.wants_writable:
                # Muted: a client that is gone is let go, bytes that come early stay in the kernel.
                if mask & GONE:
                    channel.close()
                elif mask & select.EPOLLIN:
                    self._watch(channel)
            elif mask & (READ | GONE):
                channel.on_readable(now)
            if self._answered:
                self._send_answers()

    def _serve_other(self, fd: int) -> None:
        on_readable = self._readers.get(fd)
        if on_readable is not None:
            on_readable()
        elif self._sender is not None and fd == self._sender.alarm_fd:
            self._sender.take_back()
        else:
            # A listening socket, or a connection that was closed earlier in this round.
            self._turns_left, self._somebody_connects = 0, True

    def _asks_again_soon(self, fd: int) -> bool:
        """Not a client that reads in bulk: sleepless waiting for it was a tenth of what a gigabyte cost."""
        channel = self._channels.get(fd)
        if channel is None:
            return False
        if channel.sent_long_answer:
            channel.sent_long_answer = channel.wants_writable
            return False
        return True

    def _answer_has_come(self, channel: Channel) -> None:
        """One request may bring answers to many others, several of one connection: these leave in one send."""
        if self._in_round:
            self._answered[channel] = None
        else:
            channel.send_answers()

    def _send_answers(self) -> None:
        while self._answered:
            answered, self._answered = self._answered, {}
            for channel in answered:
                channel.send_answers()

    def _was_cut_short(self, fd: int, rest: memoryview, error: int) -> None:
        channel = self._channels.get(fd)
        if channel is not None:  # It may be closing, and wait for this.
            channel.was_cut_short(rest, error)

    def _watch(self, channel: Channel) -> None:
        """Tells epoll what this channel waits for."""
        fd = channel.fd
        if self._channels.get(fd) is not channel:
            return  # Closed already, and the number may be another connection's by now.
        if channel.closed:
            self._forget(channel)
            return
        if channel.wants_writable:
            wanted = select.EPOLLRDHUP | WRITE
            self._full_reader = channel
        elif channel.connection.waiting_for is not None:
            wanted = select.EPOLLRDHUP
        else:
            wanted = READ
        if channel.watched_for != wanted:
            channel.watched_for = wanted
            self._epoll.modify(fd, wanted)

    def _forget(self, channel: Channel) -> None:
        del self._channels[channel.fd]
        self._hosts[channel.peer_host] -= 1
        if not self._hosts[channel.peer_host]:
            del self._hosts[channel.peer_host]
        self._epoll.unregister(channel.fd)
