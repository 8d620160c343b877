"""The last offset of each key in the dirty part of a log, and what stays by it (Kafka class SkimpyOffsetMap).

It is there twice: as a dict of Python, and as a flat table in C (protocol/native_offset_map.c) where the accelerator is
compiled. Both say the same of the same records, and each keeps to its buffer; but the table has room for six times as
many keys, and takes whole runs of batches at once while others run.

Neither keeps long keys. What stands for them must not be the same for two keys, or the records of one would be lost, so
it is a hash that is wide enough and cannot be steered: blake2b in the dict, SipHash with a random key in the table.
"""

import hashlib
import secrets
from typing import Any, Final, NamedTuple

from kpy.errors import ApiError
from kpy.native import NATIVE
from kpy.records.batch import invalid_record, iter_keys
from kpy.storage.log_config import LONG_MAX

LOAD_FACTOR: Final = 0.9
"""How much of a table is filled by default."""
DICT_ENTRY_BYTES: Final = 200
"""What a key costs in the dict, at its worst moment. The table, as Apache Kafka's, needs 24."""
HASH_SIZE: Final = 31
"""In the dict a hash stands for each key that is not shorter, so no key can be taken for a hash. Fewer bytes would not
take less memory.
"""
TABLE_KEY_BYTES: Final = 16


class Staying(NamedTuple):
    """The records of a batch that stay: how many, the largest of their timestamp deltas (0 for none), whether all of
    them have values, and their bytes, as they were.
    """

    records_count: int
    newest_timestamp_delta: int
    have_values: bool
    data: bytes


class Kept(NamedTuple):
    """What stays of a run of batches: how many bytes the run had, the least offset of what follows it, its records, and
    those that stay; then what stays, and the stretches of it that the indexes are to know.

    A stretch is its size, last offset, largest timestamp, and the last offset of the batch that has that.
    """

    size_bytes: int
    next_offset: int
    read_records: int
    kept_records: int
    data: bytes
    stretches: list[tuple[int, int, int, int]]


NOTHING: Final = Staying(0, 0, True, b"")


class OffsetMap:
    """`latest_offset` is how far the log has been read. `max_entries` keys fit in `buffer_bytes`."""

    def __init__(self, buffer_bytes: int, load_factor: float = LOAD_FACTOR) -> None:
        if NATIVE:
            self._table: Any = NATIVE.OffsetTable(buffer_bytes, load_factor, secrets.token_bytes(TABLE_KEY_BYTES))
        else:
            self._table = _OffsetDict(buffer_bytes)
        self.max_entries: int = self._table.max_entries
        self.latest_offset = -1

    def __len__(self) -> int:
        return len(self._table)

    def put(self, data: bytes, records_count: int, base_offset: int, first_offset: int) -> int | None:
        """The keys of a batch's records from `first_offset` on. Returns the offset of the first one that there was no
        room for; None if there was. Raises INVALID_RECORD for malformed records.
        """
        refused = self._table.put(data, records_count, base_offset, first_offset)
        if refused is None:
            raise _malformed(data, records_count)
        return None if refused == LONG_MAX else refused

    def put_run(self, batches: memoryview, next_offset: int, first_offset: int) -> tuple[int, int]:
        """The same for whole batches, as many as are plain and fit. Returns how many bytes these have, and the least
        offset of what follows.
        """
        return self._table.put_batches(batches, next_offset, first_offset)

    def staying(
        self, data: bytes, records_count: int, base_offset: int, latest_offset: int, without_tombstones: bool
    ) -> Staying:
        """Which records of a batch stay: those behind `latest_offset`, and of the others those that have a key that
        no later record has, and perhaps a value. Raises INVALID_RECORD for malformed records.
        """
        found = self._table.staying(data, records_count, base_offset, latest_offset, without_tombstones)
        if found is None:
            raise _malformed(data, records_count)
        return Staying._make(found)

    def keep_run(
        self, batches: memoryview, next_offset: int, until_offset: int, now_ms: int, index_interval_bytes: int
    ) -> Kept:
        """What stays of whole batches, as many as are plain and end below `until_offset`. `now_ms` is what horizons are
        compared with.
        """
        latest_offset = self.latest_offset
        found = self._table.keep_batches(
            batches, next_offset, latest_offset, until_offset, now_ms, index_interval_bytes
        )
        return Kept._make(found)


def _malformed(data: bytes, records_count: int) -> ApiError:
    """What is wrong with records that one of the two has refused."""
    try:
        for _ in iter_keys(data, records_count):
            pass
    except ApiError as error:
        return error
    return invalid_record("A record's offset is larger than any that can be")


class _OffsetDict:
    """The same as the table, in Python; it takes no runs."""

    def __init__(self, buffer_bytes: int) -> None:
        self._offsets: dict[bytes, int] = {}
        self.max_entries = max(1, buffer_bytes // DICT_ENTRY_BYTES)

    def __len__(self) -> int:
        return len(self._offsets)

    def put(self, data: bytes, records_count: int, base_offset: int, first_offset: int) -> int:
        offsets = self._offsets
        room = self.max_entries - len(offsets)
        first_delta, last_delta = first_offset - base_offset, LONG_MAX - base_offset
        # Names for all six cost less than a list of those that are not asked for.
        for _timestamp, delta, key, _has_value, _start, _end in iter_keys(data, records_count):
            if delta > last_delta:
                raise _malformed(data, records_count)
            if key is not None and delta >= first_delta:
                mapped = key if len(key) < HASH_SIZE else digest(key)
                if mapped not in offsets:
                    if not room:
                        return base_offset + delta
                    room -= 1
                offsets[mapped] = base_offset + delta
        return LONG_MAX

    def put_batches(self, batches: memoryview, next_offset: int, first_offset: int) -> tuple[int, int]:
        return 0, next_offset

    def staying(
        self, data: bytes, records_count: int, base_offset: int, latest_offset: int, without_tombstones: bool
    ) -> Staying:
        last_offset_of, latest_delta, last_delta = (
            self._offsets.get,
            latest_offset - base_offset,
            LONG_MAX - base_offset,
        )
        spans: list[bytes] = []
        newest, have_values = 0, True
        for timestamp, delta, key, has_value, start, end in iter_keys(data, records_count):
            if delta > last_delta:
                raise _malformed(data, records_count)
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

    def keep_batches(self, batches: memoryview, next_offset: int, *_: int) -> Kept:
        return Kept(0, next_offset, 0, 0, b"", [])


def digest(key: bytes) -> bytes:
    """What stands for a long key in the dict."""
    return hashlib.blake2b(key, digest_size=HASH_SIZE).digest()
