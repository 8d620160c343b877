"""The last offset of each key in the dirty part of a log, and what stays by it (Kafka class SkimpyOffsetMap).

Both loops over a batch's records are there twice: in Python, and in C (protocol/native_keys.c) where the accelerator is
compiled. They have the same outcome, and where C finds anything odd it leaves the batch to Python.
"""

import hashlib
from typing import Final, NamedTuple

from kpy.native import NATIVE
from kpy.records.batch import iter_keys

HASH_SIZE: Final = 31
"""In the map a hash stands for each key that is not shorter, so no key can be taken for a hash. Fewer bytes would not
take less memory.
"""


class Staying(NamedTuple):
    """The records of a batch that stay: how many, the largest of their timestamp deltas (0 for none), whether all of
    them have values, and their bytes, as they were.
    """

    records_count: int
    newest_timestamp_delta: int
    have_values: bool
    data: bytes


NOTHING: Final = Staying(0, 0, True, b"")


class OffsetMap:
    """`latest_offset` is how far the log has been read."""

    def __init__(self, max_entries: int) -> None:
        self._offsets: dict[bytes, int] = {}
        self._max_entries = max_entries
        self.latest_offset = -1

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def is_full(self) -> bool:
        return len(self._offsets) >= self._max_entries

    def put(self, data: bytes, records_count: int, base_offset: int, first_offset: int) -> None:
        """The keys of a batch's records from `first_offset` on. Raises INVALID_RECORD for malformed records."""
        if NATIVE and NATIVE.put_keys(self._offsets, digest, HASH_SIZE, data, records_count, base_offset, first_offset):
            return
        offsets = self._offsets
        first_delta = first_offset - base_offset
        # Names for all six cost less than a list of those that are not asked for.
        for _timestamp, delta, key, _has_value, _start, _end in iter_keys(data, records_count):
            if key is not None and delta >= first_delta:
                offsets[key if len(key) < HASH_SIZE else digest(key)] = base_offset + delta

    def staying(
        self, data: bytes, records_count: int, base_offset: int, latest_offset: int, without_tombstones: bool
    ) -> Staying:
        """Which records of a batch stay: those behind `latest_offset`, and of the others those that have a key that
        no later record has, and perhaps a value. Raises INVALID_RECORD for malformed records.
        """
        if NATIVE:
            found = NATIVE.staying_records(
                *(self._offsets, digest, HASH_SIZE, data, records_count, base_offset),
                *(latest_offset, without_tombstones),
            )
            if found:
                return Staying._make(found)
        last_offset_of, latest_delta = self._offsets.get, latest_offset - base_offset
        spans: list[bytes] = []
        newest, have_values = 0, True
        for timestamp, delta, key, has_value, start, end in iter_keys(data, records_count):
            if delta <= latest_delta:
                if key is None or (without_tombstones and not has_value):
                    continue
                offset = base_offset + delta
                if offset < last_offset_of(key if len(key) < HASH_SIZE else digest(key), offset):
                    continue
            if timestamp > newest or not spans:
                newest = timestamp
            have_values = have_values and has_value
            spans.append(data[start:end])
        return Staying(len(spans), newest, have_values, b"".join(spans))


def digest(key: bytes) -> bytes:
    """What stands for a long key in the map."""
    return hashlib.blake2b(key, digest_size=HASH_SIZE).digest()
