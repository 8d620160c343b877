"""Bytes that no client should send, and ApiVersions (18): what is answered, and what closes the connection."""

import struct

from compat.differential.connection import encode, frame, sized
from compat.differential.scenario import Ask, Scenario, Send
from compat.differential.steps import API_VERSIONS, METADATA
from kpy.wire.api_versions import ApiVersionsRequest
from kpy.wire.metadata import MetadataRequest

ALIVE = Ask(MetadataRequest([], False))


def api_versions(name: str, version: str) -> Ask:
    return Ask(ApiVersionsRequest(name, version))


METADATA_BODY = encode(METADATA, 1, MetadataRequest([], False))

BYTES: dict[str, bytes] = {
    "size -1": struct.pack(">i", -1) + bytes(16),
    "size 0": struct.pack(">i", 0),
    "size 3": struct.pack(">i", 3) + bytes(3),
    "size above the limit": struct.pack(">i", 100 * 1024 * 1024 + 1) + bytes(16),
    "an http request": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "header only": frame(METADATA, 1, b"", 7),
    "half a header": sized(struct.pack(">hh", METADATA, 1)),
    "unknown api key": frame(1000, 0, b"", 7),
    "api key -1": frame(-1, 0, b"", 7),
    "an api that only a controller serves": frame(55, 0, b"\0\0", 7),
    "produce version 99": frame(0, 99, bytes(30), 7),
    "metadata version -1": frame(METADATA, -1, METADATA_BODY, 7),
    "truncated body": frame(METADATA, 1, b"\0\0", 7),
    "array longer than the request": frame(METADATA, 1, struct.pack(">i", 2**31 - 1), 7),
    "array of -5": frame(METADATA, 1, struct.pack(">i", -5), 7),
    "client id longer than the request": sized(struct.pack(">hhih", METADATA, 1, 7, 30_000) + b"short"),
    "client id not in utf-8": sized(struct.pack(">hhih", METADATA, 1, 7, 2) + b"\xff\xfe" + METADATA_BODY),
}
ANSWERED: dict[str, bytes] = {
    "api versions 5": frame(API_VERSIONS, 5, b"garbage", 7),
    "api versions 99": frame(API_VERSIONS, 99, b"", 7),
    "api versions -1": frame(API_VERSIONS, -1, b"", 7),
    "api versions 5 with half a header": sized(struct.pack(">hhi", API_VERSIONS, 5, 7)),
}

SCENARIOS = [
    *(Scenario(f"connection: {name}", None, [Send(data), ALIVE]) for name, data in BYTES.items()),
    *(Scenario(f"connection: {name}", None, [Send(data), ALIVE]) for name, data in ANSWERED.items()),
    Scenario("api versions", API_VERSIONS, [api_versions("differential", "1.0")]),
    Scenario(
        "api versions: software names",
        API_VERSIONS,
        [
            api_versions(name, version)
            for name, version in [
                ("", "1"),
                ("a", ""),
                ("-a", "1"),
                ("a", "1 2"),
                ("a\n", "1"),
                ("a-", "1"),
                ("ü", "1"),
            ]
        ],
        range(3, 100),
    ),
]
