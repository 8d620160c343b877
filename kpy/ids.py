"""Topic ids and cluster ids: 16 bytes inside, 22 characters of URL-safe base64 outside (Kafka class Uuid)."""

import base64
import random

ID_SIZE = 16

ZERO_ID = bytes(ID_SIZE)
"""Stands for "no id" on the wire."""

METADATA_TOPIC_ID = bytes(15) + b"\x01"
"""Reserved by Apache Kafka for its own metadata log; never given to a topic."""


def new_id(rng: random.Random) -> bytes:
    """A random version 4 UUID that is not reserved and whose text does not start with a dash."""
    while True:
        raw = bytearray(rng.randbytes(ID_SIZE))
        raw[6] = (raw[6] & 0x0F) | 0x40
        raw[8] = (raw[8] & 0x3F) | 0x80
        candidate = bytes(raw)
        if candidate not in (ZERO_ID, METADATA_TOPIC_ID) and not to_text(candidate).startswith("-"):
            return candidate


def to_text(identifier: bytes) -> str:
    """The 22 characters that partition.metadata, znodes and tools show."""
    return base64.urlsafe_b64encode(identifier).rstrip(b"=").decode("ascii")


def from_text(text: str) -> bytes:
    """The 16 bytes of a 22-character id. Raises ValueError for anything else."""
    raw = base64.b64decode(text + "==", altchars=b"-_", validate=True)
    if len(raw) != ID_SIZE:
        raise ValueError(f"{text!r} is not a 22-character id")
    return raw
