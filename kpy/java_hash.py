"""Java's hashes, by which Apache Kafka places names: every broker and client has to come to the same."""

from functools import lru_cache

REMEMBERED_NAMES = 1_000
"""A group commits offsets under the same name all its life. A name may have 32 KiB."""


@lru_cache(REMEMBERED_NAMES)
def string_hash(text: str) -> int:
    """String.hashCode: 0 to 2^32 - 1, which Java takes for an int with a sign."""
    value = 0
    units = text.encode("utf-16-be", "surrogatepass")
    for high, low in zip(units[::2], units[1::2], strict=True):
        value = (31 * value + (high << 8 | low)) & 0xFFFFFFFF
    return value


def without_sign(value: int) -> int:
    """The absolute value of such an int, and 0 for the one that has none (Kafka's Utils.abs)."""
    signed = value - 0x1_0000_0000 if value & 0x8000_0000 else value
    return 0 if signed == -0x8000_0000 else abs(signed)
