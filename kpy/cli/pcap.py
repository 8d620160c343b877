"""Reads captures of network traffic, as far as TCP over them goes: pcap and pcapng, of tcpdump or Wireshark.

`read_packets` gives the packets of a file, `tcp_segment` the TCP segment in one, and a `Stream` puts the segments of
one direction in order: `Stream.add` takes each as it was captured and returns the bytes that continue what came before,
however segments were repeated, swapped or split. What is missing from the capture is passed over once so much has come
behind it that it will not come any more; `Stream.has_gap` then says that the bytes that follow begin somewhere else.

Memory is bounded: a packet by MAX_PACKET_BYTES, what waits for a missing segment by MAX_WAITING_BYTES and _SEGMENTS.
"""

import math
import struct
from collections.abc import Iterator
from typing import BinaryIO, Final, NamedTuple

MAX_PACKET_BYTES: Final = 16 * 1024 * 1024
"""Captures of offloaded segments reach 64 KiB and a few have jumbo ones; a larger one is a damaged file."""

MAX_WAITING_BYTES: Final = 4 * 1024 * 1024
MAX_WAITING_SEGMENTS: Final = 4096
MAX_INTERFACES: Final = 4096

_PCAP_MAGICS: Final = {
    b"\xa1\xb2\xc3\xd4": (">", 1e-6),
    b"\xd4\xc3\xb2\xa1": ("<", 1e-6),
    b"\xa1\xb2\x3c\x4d": (">", 1e-9),
    b"\x4d\x3c\xb2\xa1": ("<", 1e-9),
}
_PCAPNG_MAGIC: Final = b"\x0a\x0d\x0d\x0a"
_SECTION, _INTERFACE, _OLD_PACKET, _SIMPLE_PACKET, _PACKET = 0x0A0D0D0A, 1, 2, 3, 6
_BYTE_ORDER_MAGIC: Final = 0x1A2B3C4D
_TIMESTAMP_RESOLUTION: Final = 9
"""The option of an interface that says in which units its timestamps count."""

_NULL, _ETHERNET, _LOOP, _LINUX_SLL, _IPV4, _IPV6, _LINUX_SLL2 = 0, 1, 108, 113, 228, 229, 276
_RAW_IP: Final = frozenset({12, 14, 101})
_VLAN_TYPES: Final = frozenset({0x8100, 0x88A8, 0x9100})
_IP_TYPES: Final = frozenset({0x0800, 0x86DD})
_TCP: Final = 6
_EXTENSION_HEADERS: Final = frozenset({0, 43, 60})
"""IPv6 headers that stand between the first and TCP's: hop by hop, routing, destination options."""

_SEQUENCE_SPACE: Final = 1 << 32


class CaptureError(Exception):
    """The file is not a capture, or damaged."""


class Packet(NamedTuple):
    time: float
    """Seconds since 1970."""
    link_type: int
    data: bytes


class Address(NamedTuple):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Segment(NamedTuple):
    source: Address
    destination: Address
    sequence: int
    is_syn: bool
    is_ack: bool
    is_last: bool
    """FIN or RST."""
    data: bytes


# Files ----------------------------------------------------------------------------------------------------------------


def is_capture(start: bytes) -> bool:
    """Whether a file that begins so is a capture."""
    return start[:4] in _PCAP_MAGICS or start[:4] == _PCAPNG_MAGIC


def read_packets(file: BinaryIO) -> Iterator[Packet]:
    """Every packet. Raises CaptureError where the file is damaged; one that is cut off in a packet just ends."""
    magic = _read(file, 4)
    if magic == _PCAPNG_MAGIC:
        yield from _read_pcapng(file)
    elif magic in _PCAP_MAGICS:
        yield from _read_pcap(file, *_PCAP_MAGICS[magic])
    else:
        raise CaptureError("not a pcap or pcapng file")


def _read(file: BinaryIO, size: int) -> bytes:
    """Exactly so many bytes, or fewer at the end of the file."""
    data = file.read(size)
    while 0 < len(data) < size and (more := file.read(size - len(data))):
        data += more
    return data


def _read_pcap(file: BinaryIO, order: str, unit: float) -> Iterator[Packet]:
    head = _read(file, 20)
    if len(head) < 20:
        raise CaptureError("the capture ends in its header")
    # The upper bits say something about checksums.
    link_type = struct.unpack_from(order + "I", head, 16)[0] & 0x0FFFFFFF
    record = struct.Struct(order + "IIII")
    while len(head := _read(file, record.size)) == record.size:
        seconds, fraction, size, _ = record.unpack(head)
        if size > MAX_PACKET_BYTES:
            raise CaptureError(f"the capture is damaged: it has a packet of {size} bytes")
        data = _read(file, size)
        if len(data) < size:
            return
        yield Packet(seconds + fraction * unit, link_type, data)


def _read_pcapng(file: BinaryIO) -> Iterator[Packet]:
    """The magic, which is the type of the first block, has been read."""
    order = "<"
    interfaces: list[tuple[int, float]] = []
    type_bytes = _PCAPNG_MAGIC
    while len(type_bytes) == 4:
        size_bytes = _read(file, 4)
        if type_bytes == _PCAPNG_MAGIC:
            byte_order = _read(file, 4)
            order = "<" if struct.unpack("<I", byte_order.ljust(4, b"\0"))[0] == _BYTE_ORDER_MAGIC else ">"
            if struct.unpack(order + "I", byte_order.ljust(4, b"\0"))[0] != _BYTE_ORDER_MAGIC:
                raise CaptureError("the capture is damaged: a section of it has no byte order")
            interfaces, already_read = [], 12
        else:
            already_read = 8
        if len(size_bytes) < 4:
            return
        (size,) = struct.unpack(order + "I", size_bytes)
        if not already_read + 4 <= size <= MAX_PACKET_BYTES or size % 4:
            raise CaptureError(f"the capture is damaged: it has a block of {size} bytes")
        body = _read(file, size - already_read)[:-4]
        if len(body) < size - already_read - 4:
            return
        (type_,) = struct.unpack(order + "I", type_bytes)
        try:
            if type_ == _INTERFACE and len(interfaces) < MAX_INTERFACES:
                interfaces.append(_interface(body, order))
            elif type_ in (_OLD_PACKET, _SIMPLE_PACKET, _PACKET):
                yield _packet(type_, body, order, interfaces)
        except (struct.error, IndexError):
            raise CaptureError(f"the capture is damaged: a block of type {type_} makes no sense") from None
        type_bytes = _read(file, 4)


def _interface(body: bytes, order: str) -> tuple[int, float]:
    """The link type of an interface, and the unit of its timestamps in seconds."""
    link_type: int = struct.unpack_from(order + "H", body)[0]
    unit: float = 1e-6
    pos = 8
    while len(body) - pos >= 4:
        code, size = struct.unpack_from(order + "HH", body, pos)
        if code == _TIMESTAMP_RESOLUTION and size == 1:
            exponent = body[pos + 4]
            unit = math.pow(2, -(exponent & 0x7F)) if exponent & 0x80 else math.pow(10, -exponent)
        if code == 0:
            break
        pos += 4 + (size + 3) // 4 * 4
    return link_type, unit


def _packet(type_: int, body: bytes, order: str, interfaces: list[tuple[int, float]]) -> Packet:
    if type_ == _SIMPLE_PACKET:
        (size,) = struct.unpack_from(order + "I", body)
        return Packet(0.0, interfaces[0][0], body[4 : 4 + size])
    interface: int = struct.unpack_from(order + ("I" if type_ == _PACKET else "H"), body)[0]
    high, low, size = struct.unpack_from(order + "III", body, 4)
    link_type, unit = interfaces[interface]
    return Packet((high << 32 | low) * unit, link_type, body[20 : 20 + size])


# Packets --------------------------------------------------------------------------------------------------------------


def tcp_segment(packet: Packet) -> Segment | None:
    """The TCP segment in a packet, or None if there is none, or only a fragment of one."""
    try:
        ip = _ip_packet(packet.link_type, packet.data)
        if not ip:
            return None
        return _from_ipv4(ip) if ip[0] >> 4 == 4 else _from_ipv6(ip) if ip[0] >> 4 == 6 else None
    except (struct.error, IndexError):
        return None


def _ip_packet(link_type: int, data: bytes) -> bytes | None:
    """What is inside the frame of the link."""
    if link_type in _RAW_IP or link_type in (_IPV4, _IPV6):
        return data
    if link_type in (_NULL, _LOOP):
        # Four bytes of address family, in the byte order of the machine that captured. The IP version says it too.
        return data[4:]
    if link_type == _ETHERNET:
        (type_,) = struct.unpack_from(">H", data, 12)
        pos = 14
        while type_ in _VLAN_TYPES:
            (type_,) = struct.unpack_from(">H", data, pos + 2)
            pos += 4
        return data[pos:] if type_ in _IP_TYPES else None
    if link_type == _LINUX_SLL:
        return data[16:] if struct.unpack_from(">H", data, 14)[0] in _IP_TYPES else None
    if link_type == _LINUX_SLL2:
        return data[20:] if struct.unpack_from(">H", data)[0] in _IP_TYPES else None
    raise CaptureError(f"the capture has packets of link type {link_type}, which is not supported")


def _from_ipv4(ip: bytes) -> Segment | None:
    header_size = (ip[0] & 0x0F) * 4
    total, fragment = struct.unpack_from(">H2xH", ip, 2)
    if ip[9] != _TCP or fragment & 0x3FFF:
        return None
    # The size is zero where the network card does the splitting.
    end = total or len(ip)
    hosts = ".".join(map(str, ip[12:16])), ".".join(map(str, ip[16:20]))
    return _from_tcp(hosts, ip[header_size:end])


def _from_ipv6(ip: bytes) -> Segment | None:
    from ipaddress import IPv6Address

    (size,) = struct.unpack_from(">H", ip, 4)
    next_header, pos = ip[6], 40
    end = pos + size if size else len(ip)
    while next_header in _EXTENSION_HEADERS:
        next_header, pos = ip[pos], pos + (ip[pos + 1] + 1) * 8
    if next_header != _TCP:
        return None
    hosts = str(IPv6Address(ip[8:24])), str(IPv6Address(ip[24:40]))
    return _from_tcp(hosts, ip[pos:end])


def _from_tcp(hosts: tuple[str, str], tcp: bytes) -> Segment:
    source, destination, sequence = struct.unpack_from(">HHI", tcp)
    header_size, flags = (tcp[12] >> 4) * 4, tcp[13]
    return Segment(
        Address(hosts[0], source),
        Address(hosts[1], destination),
        sequence,
        is_syn=flags & 0x02 != 0,
        is_ack=flags & 0x10 != 0,
        is_last=flags & 0x05 != 0,
        data=tcp[header_size:],
    )


# Streams --------------------------------------------------------------------------------------------------------------


class Stream:
    """One direction of a TCP connection, put in order."""

    def __init__(self) -> None:
        self._next: int | None = None
        """The sequence number that continues what was returned; None before the first segment."""
        self._waiting: dict[int, bytes] = {}
        self._waiting_bytes = 0
        self.has_gap = False
        """Whether bytes are missing in front of what `add` has just returned."""

    def add(self, segment: Segment) -> bytes:
        """The bytes that can be read on with, now that this segment is there."""
        self.has_gap = False
        if segment.is_syn:
            self._next = (segment.sequence + 1) % _SEQUENCE_SPACE
            self._waiting.clear()
            self._waiting_bytes = 0
            return segment.data
        if not segment.data:
            return b""
        if self._next is None:
            # The capture began in the middle of the connection.
            self.has_gap = True
            self._next = segment.sequence
        self._keep(segment)
        ready = self._continuation()
        if self._waiting_bytes > MAX_WAITING_BYTES or len(self._waiting) > MAX_WAITING_SEGMENTS:
            return ready or self.skip_gap()
        return ready

    def skip_gap(self) -> bytes:
        """The bytes behind what is missing, which will not come any more. Empty if nothing is waiting."""
        self.has_gap = bool(self._waiting)
        if self._waiting:
            self._next = min(self._waiting, key=self._distance)
        return self._continuation()

    def _distance(self, sequence: int) -> int:
        """How far ahead a sequence number is; negative if it is behind. They wrap around."""
        half = _SEQUENCE_SPACE // 2
        return (sequence - (self._next or 0) + half) % _SEQUENCE_SPACE - half

    def _keep(self, segment: Segment) -> None:
        known = self._waiting.get(segment.sequence, b"")
        if len(segment.data) > len(known) and self._distance(segment.sequence) + len(segment.data) > 0:
            self._waiting[segment.sequence] = segment.data
            self._waiting_bytes += len(segment.data) - len(known)

    def _continuation(self) -> bytes:
        """Takes what is next out of the waiting segments, which may overlap."""
        parts: list[bytes] = []
        for sequence in sorted(self._waiting, key=self._distance):
            distance = self._distance(sequence)
            if distance > 0:
                break
            data = self._waiting.pop(sequence)
            self._waiting_bytes -= len(data)
            fresh = data[-distance:]
            parts.append(fresh)
            self._next = ((self._next or 0) + len(fresh)) % _SEQUENCE_SPACE
        return b"".join(parts)
