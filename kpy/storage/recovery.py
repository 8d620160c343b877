"""Opening a partition's directory, whatever state the last run left it in (Kafka class LogLoader).

After a clean shutdown the files are trusted: the log end is read from the tail of the active segment, the producers
from the last snapshot. After an unclean one, every segment from the one that holds the recovery point on is read batch
by batch. At the first batch that is cut short, has a bad CRC or an offset that cannot follow, the log is truncated
there and later segments are removed. Indexes, leader epochs and producer state are rebuilt on the way. A tail that is
damaged in spite of a clean shutdown is treated the same way.

Where nothing is compacted, a gap between two offsets is damage too: a power cut can take the tail of one segment and
leave the next. Leader epochs lie outside the CRC, as base offsets do, but no record is lost for a damaged one.

A compaction that was interrupted is finished or undone before anything else: `.cleaned` files are unfinished and go;
`.swap` files are complete, so the originals in their offset range go and they take their place. `.deleted` files go.
"""

import logging
import os
from dataclasses import dataclass

from kpy.errors import StorageError
from kpy.records.batch import BatchHeader, check_crc
from kpy.storage.fs import Fs, remove_if_exists
from kpy.storage.index import CorruptIndexError
from kpy.storage.leader_epochs import EpochRecovery, LeaderEpochs
from kpy.storage.log_config import LONG_MAX, LogConfig
from kpy.storage.preallocation import preallocate
from kpy.storage.producer_state import NO_PRODUCER_ID, ProducerState, parse_marker
from kpy.storage.scan import CorruptBatchError, magic_of_message
from kpy.storage.segment import Segment
from kpy.storage.segment_files import (
    CLEANED_SUFFIX,
    DELETED_SUFFIX,
    LOG_SUFFIX,
    SUFFIXES,
    SWAP_SUFFIX,
    TXN_INDEX_SUFFIX,
    parse_base_offset,
)
from kpy.storage.snapshots import Snapshots

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class LoadedLog:
    """What a directory holds."""

    segments: list[Segment]
    leader_epochs: LeaderEpochs
    producer_state: ProducerState
    snapshots: Snapshots
    log_start_offset: int
    log_end_offset: int
    recovery_point: int


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """One directory to open, with what the checkpoints say of it. `recovery_point` is None if they are lost."""

    fs: Fs
    directory: str
    config: LogConfig
    is_clean: bool
    recovery_point: int | None
    log_start_offset: int
    producer_expiration_ms: int
    now_ms: int


def load_log(request: LoadRequest) -> LoadedLog:
    """Open or recover the log in one directory. Raises StorageError for what kpy cannot read, OSError from the disk.

    Much is decided by names here, none of which may be another one after a power cut: where the last shutdown was
    unclean, the directory has been synced.
    """
    fs, directory = request.fs, request.directory
    names = _finish_interrupted_work(fs, directory, fs.list(directory))
    _remove_orphaned_indexes(fs, directory, names)
    interval = request.config.index_interval_bytes
    bases = sorted(base for name in names if (base := _base_of_log(name)) is not None)
    loaded = LoadedLog(
        segments=[Segment.attach(fs, directory, base, interval) for base in bases],
        leader_epochs=LeaderEpochs(fs, directory),
        producer_state=ProducerState(request.producer_expiration_ms),
        snapshots=Snapshots(fs, directory, names),
        log_start_offset=max(request.log_start_offset, bases[0] if bases else 0),
        log_end_offset=0,
        recovery_point=0,
    )
    first_unchecked = min(_first_unchecked(request, loaded), _first_without_txn_index(loaded, names))
    first_unchecked = _load_epochs(request, loaded, first_unchecked)
    if first_unchecked == len(loaded.segments) and loaded.segments:
        first_unchecked = _open_active(request, loaded)
    _load_producers(request, loaded, first_unchecked)
    if first_unchecked < len(loaded.segments):
        _recover_from(request, loaded, first_unchecked)
    _start_anew_if_empty(request, loaded)
    loaded.recovery_point = min(request.recovery_point or 0, loaded.log_end_offset)
    if request.is_clean and first_unchecked == len(loaded.segments):
        loaded.recovery_point = loaded.log_end_offset
    loaded.leader_epochs.forget_from(loaded.log_end_offset)
    loaded.leader_epochs.truncate_from_start(loaded.log_start_offset)
    loaded.producer_state.expire(request.now_ms)
    loaded.snapshots.keep_only(segment.base_offset for segment in loaded.segments)
    for segment in loaded.segments:
        segment.drop_idle_file()
    return loaded


def _first_unchecked(request: LoadRequest, loaded: LoadedLog) -> int:
    """The slot of the first segment whose content is not to be trusted."""
    segments = loaded.segments
    if request.is_clean:
        return len(segments)
    below = sum(1 for segment in segments if segment.base_offset <= (request.recovery_point or 0))
    return max(0, below - 1)


def _first_without_txn_index(loaded: LoadedLog, names: list[str]) -> int:
    """The slot of the first segment whose transaction index is damaged: nothing but reading the log brings it back."""
    present = {name for name in names if name.endswith(TXN_INDEX_SUFFIX)}
    for slot, segment in enumerate(loaded.segments):
        if present and os.path.basename(segment.txn_index.path) in present:
            try:
                segment.txn_index.read()
            except CorruptIndexError as error:
                _log.warning("recovering a segment: %s", error)
                return slot
    return len(loaded.segments)


def _load_epochs(request: LoadRequest, loaded: LoadedLog, first_unchecked: int) -> int:
    """Read the leader epochs. Returns 0 if they are lost and every segment must be read, else `first_unchecked`.

    A power cut can leave the file empty, which it rightly is only before the first append.
    """
    try:
        loaded.leader_epochs.load()
    except StorageError as error:
        _log.warning("rebuilding the leader epochs: %s", error)
        return 0
    has_data = any(segment.size for segment in loaded.segments[:first_unchecked])
    return 0 if has_data and not request.is_clean and not loaded.leader_epochs.entries() else first_unchecked


def _open_active(request: LoadRequest, loaded: LoadedLog) -> int:
    """Find the log end after a clean shutdown. Returns the slot of the first segment to recover, if the tail is bad.

    A clean shutdown leaves the recovery point at the log end: by that a damaged base offset of the last batch is told.
    It is 0 for a log that the checkpoint does not name.
    """
    active = loaded.segments[-1]
    try:
        active.become_active()
        loaded.log_end_offset = active.next_offset()
        if loaded.log_end_offset < active.base_offset:
            return len(loaded.segments) - 1
        if request.recovery_point and request.recovery_point != loaded.log_end_offset:
            _log.warning("%s ends at %d, not at %d", active.path(), loaded.log_end_offset, request.recovery_point)
            return len(loaded.segments) - 1
    except CorruptBatchError as error:
        _log.warning("recovering a segment that a clean shutdown left damaged: %s", error)
        return len(loaded.segments) - 1
    return len(loaded.segments)


def _load_producers(request: LoadRequest, loaded: LoadedLog, first_unchecked: int) -> None:
    """Producer state up to the first unchecked segment. No snapshot after a clean shutdown means no producers."""
    state, segments = loaded.producer_state, loaded.segments
    is_sound = first_unchecked == len(segments)
    limit = loaded.log_end_offset if is_sound else segments[first_unchecked].base_offset
    if request.is_clean and not loaded.snapshots.offsets:
        state.clear(limit)
        return
    loaded.snapshots.load_newest(state, loaded.log_start_offset, limit)
    replay_producers(state, segments, limit)


def replay_producers(state: ProducerState, segments: list[Segment], limit: int) -> None:
    """Account for the batches from the state's end up to `limit`, a segment boundary or the log end."""
    ends = [*(segment.base_offset for segment in segments[1:]), limit]
    for segment, end_offset in zip(segments, ends, strict=False):
        if segment.base_offset >= limit or end_offset <= state.map_end_offset:
            continue
        position = segment.position_of(state.map_end_offset)
        for header, batch in segment.batches(position) if position is not None else ():
            if header.producer_id != NO_PRODUCER_ID:
                account(state, header, batch, header.base_offset)
    state.map_end_offset = limit


def account(
    state: ProducerState, header: BatchHeader, batch: memoryview, base_offset: int, segment: Segment | None = None
) -> None:
    """Tell the producer state of a batch of a producer that is in the log at `base_offset`.

    With a segment, the abort that the batch may be is added to the segment's transaction index.
    """
    if not header.is_control:
        state.update(header, base_offset)
        return
    marker = parse_marker(batch)
    if marker is not None:
        aborted = state.update_marker(header, marker, base_offset)
        if aborted is not None and segment is not None:
            segment.txn_index.append(aborted)


def _recover_from(request: LoadRequest, loaded: LoadedLog, slot: int) -> None:
    """Read the segments from `slot` on, and cut the log at the first bad batch."""
    segments = loaded.segments
    end_offset = segments[slot].base_offset
    known_epochs = loaded.leader_epochs.entries()
    epochs = EpochRecovery(loaded.leader_epochs)
    loaded.leader_epochs.forget_from(end_offset)
    unread = segments[slot:]
    del segments[slot:]
    while unread and _may_follow(unread[0].base_offset, end_offset, request):
        segment = unread.pop(0)
        segments.append(segment)
        limit = unread[0].base_offset if unread else LONG_MAX
        valid_bytes, end_offset = _recover_segment(request, segment, loaded, epochs, limit)
        segment.header_order.forget(unseen_end=0)
        if valid_bytes != segment.size:
            _log.warning("%s: %d of %d bytes are valid", segment.path(), valid_bytes, segment.size)
            segment.truncate_file(valid_bytes)
            break
        if unread:
            segment.become_inactive()
    for segment in unread:
        _log.warning("removing %s, which lies behind the end of what is valid", segment.path())
        segment.remove()
    segments[-1].become_active()
    segments[-1].save_indexes()
    _sync_trusted(request, segments[slot:])
    loaded.log_end_offset = end_offset
    if loaded.leader_epochs.entries() != [(epoch, start) for epoch, start in known_epochs if start < end_offset]:
        loaded.leader_epochs.save()
    loaded.producer_state.map_end_offset = end_offset
    loaded.snapshots.remove_from(end_offset + 1)


def _sync_trusted(request: LoadRequest, rebuilt: list[Segment]) -> None:
    """Make durable again what was rebuilt below the recovery point, since the next recovery trusts it."""
    trusted = [each for each in rebuilt[:-1] if each.base_offset < (request.recovery_point or 0)]
    for segment in trusted:
        segment.flush()
    if trusted:
        request.fs.sync_dir(request.directory)


def _may_follow(base_offset: int, end_offset: int, request: LoadRequest) -> bool:
    """Whether a segment or batch can come behind `end_offset`. Only compaction leaves gaps.

    The offsets of compacted segments lie below the recovery point, unless that is lost.
    """
    may_leave_gap = request.config.is_compacted or request.recovery_point is None
    return base_offset == end_offset or (may_leave_gap and base_offset > end_offset)


def _recover_segment(
    request: LoadRequest, segment: Segment, loaded: LoadedLog, epochs: EpochRecovery, limit: int
) -> tuple[int, int]:
    """Check every batch and rebuild what is derived from them; (valid bytes, next offset). `limit` is where it ends."""
    expected_offset = segment.base_offset
    segment.reset_indexes()
    segment.txn_index.reset()
    valid_bytes = 0
    try:
        for header, batch in segment.batches(0):
            _refuse_renamed(segment, valid_bytes, header, batch)
            is_valid = segment.can_hold(header.last_offset) and header.last_offset < limit and check_crc(batch)
            if not is_valid or not _may_follow(header.base_offset, expected_offset, request):
                break
            segment.index_batch(valid_bytes, header)
            epochs.meet(header.partition_leader_epoch, header.base_offset)
            if header.producer_id != NO_PRODUCER_ID:
                account(loaded.producer_state, header, batch, header.base_offset, segment)
            valid_bytes += header.size_bytes
            expected_offset = header.last_offset + 1
    except CorruptBatchError as error:
        _refuse_legacy(segment, error.position)
        _log.warning("truncating a segment: %s", error)
    return valid_bytes, expected_offset


def _refuse_renamed(segment: Segment, position: int, header: BatchHeader, batch: memoryview) -> None:
    """Never truncate sound records because their file bears a wrong name."""
    if position == 0 and header.last_offset < segment.base_offset and check_crc(batch):
        raise StorageError(
            f"{segment.path()} holds records from offset {header.base_offset} on. Was it renamed? Give it its name back"
            " or move it away"
        )


def _refuse_legacy(segment: Segment, position: int) -> None:
    """Never truncate an intact message of a format that kpy does not keep on disk."""
    magic = magic_of_message(segment.file, position, segment.size)
    if magic is not None:
        raise StorageError(f"{segment.path()} holds messages of format v{magic}; kpy reads v2 only")


def _start_anew_if_empty(request: LoadRequest, loaded: LoadedLog) -> None:
    """Every log has a segment; one that ends below its start has lost its files and begins again there."""
    if loaded.segments and loaded.log_end_offset >= loaded.log_start_offset:
        return
    for segment in loaded.segments:
        _log.warning("%s ends below the log start offset %d and goes", segment.path(), loaded.log_start_offset)
        segment.remove()
    start = loaded.log_start_offset
    interval = request.config.index_interval_bytes
    segment = Segment.create(request.fs, request.directory, start, interval)
    preallocate(request.fs, segment.file, segment.path(), request.config.preallocated_bytes)
    loaded.segments = [segment]
    loaded.leader_epochs.clear()
    loaded.producer_state.clear(start)
    loaded.snapshots.remove_from(0)
    loaded.log_end_offset = start


# Interrupted work.


def _base_of_log(name: str) -> int | None:
    return parse_base_offset(name) if name.endswith(LOG_SUFFIX) else None


def _finish_interrupted_work(fs: Fs, directory: str, names: list[str]) -> list[str]:
    """Complete or undo an interrupted compaction and finish deletions; returns the names that are there afterwards."""
    if not any(name.endswith((DELETED_SUFFIX, CLEANED_SUFFIX, SWAP_SUFFIX)) for name in names):
        return names
    cleaned_offsets = [_offset_in(name) for name in names if name.endswith(CLEANED_SUFFIX)]
    first_cleaned = min(cleaned_offsets, default=None)
    for name in names:
        is_unfinished_swap = (
            name.endswith(SWAP_SUFFIX) and first_cleaned is not None and _offset_in(name) >= first_cleaned
        )
        if name.endswith((DELETED_SUFFIX, CLEANED_SUFFIX)) or is_unfinished_swap:
            fs.remove(f"{directory}/{name}")
    names = fs.list(directory)
    for name in names:
        if name.endswith(LOG_SUFFIX + SWAP_SUFFIX):
            _remove_originals(fs, directory, _offset_in(name), names)
    for name in names:
        if name.endswith(SWAP_SUFFIX):
            fs.rename(f"{directory}/{name}", f"{directory}/{name.removesuffix(SWAP_SUFFIX)}")
    fs.sync_dir(directory)
    return fs.list(directory)


def _offset_in(name: str) -> int:
    base_offset = parse_base_offset(name)
    return -1 if base_offset is None else base_offset


def _remove_originals(fs: Fs, directory: str, swap_base: int, names: list[str]) -> None:
    """Remove the segments that the complete swap file replaces: those that begin within its offsets."""
    swap = Segment.attach(fs, directory, swap_base, 0, SWAP_SUFFIX)
    swap_end = max(swap.next_offset(), swap_base + 1)
    for name in names:
        if name.endswith(SUFFIXES) and swap_base <= _offset_in(name) < swap_end:
            remove_if_exists(fs, f"{directory}/{name}")


def _remove_orphaned_indexes(fs: Fs, directory: str, names: list[str]) -> None:
    logs = {name.removesuffix(LOG_SUFFIX) for name in names if name.endswith(LOG_SUFFIX)}
    for name in names:
        if (
            name.endswith(SUFFIXES[1:])
            and os.path.splitext(name)[0] not in logs
            and parse_base_offset(name) is not None
        ):
            fs.remove(f"{directory}/{name}")
