"""Makes captures for tests: packets of every link type, in pcap and pcapng files."""

import struct
from ipaddress import ip_address
from typing import NamedTuple

ETHERNET, NULL, LOOP, RAW, SLL, SLL2 = 1, 0, 108, 101, 113, 276
FIN, SYN, ACK = 0x01, 0x02, 0x10


class Side(NamedTuple):
    host: str
    port: int


CLIENT = Side("10.0.0.1", 50_000)
BROKER = Side("10.0.0.2", 9092)


def tcp(source: Side, destination: Side, sequence: int, data: bytes = b"", flags: int = ACK) -> bytes:
    """An IP packet, of version 6 if the addresses are."""
    segment = struct.pack(">HHIIBBHHH", source.port, destination.port, sequence, 0, 5 << 4, flags, 65535, 0, 0) + data
    addresses = ip_address(source.host).packed + ip_address(destination.host).packed
    if ip_address(source.host).version == 6:
        return struct.pack(">IHBB", 6 << 28, len(segment), 6, 64) + addresses + segment
    return struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0) + addresses + segment


def framed(link_type: int, packet: bytes) -> bytes:
    """The packet in the frame of a link."""
    ether_type = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    match link_type:
        case 1:
            return bytes(12) + struct.pack(">H", ether_type) + packet
        case 0:
            return struct.pack("<I", 2) + packet
        case 108:
            return struct.pack(">I", 2) + packet
        case 113:
            return bytes(14) + struct.pack(">H", ether_type) + packet
        case 276:
            return struct.pack(">H", ether_type) + bytes(18) + packet
        case _:
            return packet


def pcap(packets: list[bytes], link_type: int = ETHERNET, order: str = "<") -> bytes:
    """A pcap file, one packet a second since 1970-01-01T00:00:01."""
    out = struct.pack(order + "IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262_144, link_type)
    for second, packet in enumerate(packets, 1):
        data = framed(link_type, packet)
        out += struct.pack(order + "IIII", second, 500_000, len(data), len(data)) + data
    return out


def pcapng(packets: list[bytes], link_type: int = ETHERNET, order: str = "<") -> bytes:
    """A pcapng file with one interface that counts nanoseconds."""

    def block(type_: int, body: bytes) -> bytes:
        body += bytes(-len(body) % 4)
        size = len(body) + 12
        return struct.pack(order + "II", type_, size) + body + struct.pack(order + "I", size)

    out = block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1))
    resolution = struct.pack(order + "HHB3xHH", 9, 1, 9, 0, 0)
    out += block(1, struct.pack(order + "HHI", link_type, 0, 262_144) + resolution)
    for second, packet in enumerate(packets, 1):
        data = framed(link_type, packet)
        time = second * 10**9 + 500_000_000
        out += block(6, struct.pack(order + "IIIII", 0, time >> 32, time & 0xFFFFFFFF, len(data), len(data)) + data)
    return out


def connection(requests: bytes, responses: bytes, client: Side = CLIENT, broker: Side = BROKER) -> list[bytes]:
    """A whole connection: handshake, one segment each way, goodbye."""
    return [
        tcp(client, broker, 99, flags=SYN),
        tcp(broker, client, 999, flags=SYN | ACK),
        tcp(client, broker, 100, requests),
        tcp(broker, client, 1000, responses),
        tcp(client, broker, 100 + len(requests), flags=FIN | ACK),
        tcp(broker, client, 1000 + len(responses), flags=FIN | ACK),
    ]
