"""A transactional id: which producer has it, and what state its transaction is in.

Theory of operation. A transactional id has at most one transaction at a time. Partitions join it (Ongoing); when it
ends, the decision is written (PrepareCommit, PrepareAbort): from there on there is no way back, whoever coordinates.
Then each partition gets a marker, and when all have one the id is free for the next transaction (CompleteCommit,
CompleteAbort). `TRANSITIONS` says for each state and each event what follows: the next state, or the error of whoever
caused it.

A producer owns the id as long as nobody raises the epoch. With transaction version 2 (KIP-890) every end of a
transaction raises it, so an EndTxn that arrives late carries an epoch that is over; a repetition of the last one is
told by exactly one epoch less. KIP-98, KIP-360, KIP-890; Kafka classes TransactionMetadata and TransactionCoordinator.
"""

from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import NamedTuple

from kpy.errors import ErrorCode
from kpy.machine import NO_PRODUCER_EPOCH, NO_PRODUCER_ID
from kpy.txn.config import TV_2

MAX_EPOCH = 32_767
"""Never given to a producer, so that there is always an epoch left to fence it with."""

TopicPartition = tuple[str, int]


class TransactionState(IntEnum):
    """The numbers are those of the records; 6 (Dead) and 7 (PrepareEpochFence) are never written."""

    EMPTY = 0
    ONGOING = 1
    PREPARE_COMMIT = 2
    PREPARE_ABORT = 3
    COMPLETE_COMMIT = 4
    COMPLETE_ABORT = 5

    @property
    def shown(self) -> str:
        """The name that tools show."""
        return self.name.title().replace("_", "")

    @property
    def is_prepared(self) -> bool:
        return self in (TransactionState.PREPARE_COMMIT, TransactionState.PREPARE_ABORT)


STATE_NAMES = {each.shown: each for each in TransactionState}
OTHER_STATE_NAMES = frozenset({"Dead", "PrepareEpochFence"})
"""States that Apache Kafka knows as names; nothing is ever seen in them."""


class Transaction(NamedTuple):
    """What one record of __transaction_state says. `partitions` are those that need a marker."""

    transactional_id: str
    producer_id: int
    producer_epoch: int
    timeout_ms: int
    state: TransactionState
    partitions: frozenset[TopicPartition]
    start_timestamp_ms: int
    last_update_timestamp_ms: int
    previous_producer_id: int = NO_PRODUCER_ID
    """The producer id before this one, after its epochs were used up."""
    next_producer_id: int = NO_PRODUCER_ID
    """What the producer has been told it is, from the markers on."""
    client_transaction_version: int = 0

    @property
    def is_epoch_exhausted(self) -> bool:
        return is_epoch_exhausted(self.producer_epoch)


def is_epoch_exhausted(epoch: int) -> bool:
    return epoch >= MAX_EPOCH - 1


class Happens(Enum):
    """What can happen to a transactional id. LATE marks an EndTxn v5 with the epoch before the present one."""

    INIT_PRODUCER_ID = "InitProducerId"
    ADD_PARTITIONS = "AddPartitionsToTxn"
    COMMIT = "EndTxn commit"
    ABORT = "EndTxn abort"
    COMMIT_V2 = "EndTxn v5 commit"
    ABORT_V2 = "EndTxn v5 abort"
    LATE_COMMIT_V2 = "EndTxn v5 commit, last epoch"
    LATE_ABORT_V2 = "EndTxn v5 abort, last epoch"
    MARKERS_WRITTEN = "markers written"
    TIMEOUT = "timeout"
    EXPIRE = "expiry"


Follows = TransactionState | ErrorCode | None
"""The next state, the error of whoever caused it (NONE: answered without a change), or None: the id is forgotten."""

_EMPTY, _ONGOING, _PREPARE_COMMIT, _PREPARE_ABORT, _COMPLETE_COMMIT, _COMPLETE_ABORT = TransactionState
_BUSY = ErrorCode.CONCURRENT_TRANSACTIONS
_INVALID = ErrorCode.INVALID_TXN_STATE
_FENCED = ErrorCode.PRODUCER_FENCED
_DONE = ErrorCode.NONE

TRANSITIONS: Mapping[TransactionState, Mapping[Happens, Follows]] = {
    _EMPTY: {
        Happens.INIT_PRODUCER_ID: _EMPTY,
        Happens.ADD_PARTITIONS: _ONGOING,
        Happens.COMMIT: _INVALID,
        Happens.ABORT: _INVALID,
        Happens.COMMIT_V2: _INVALID,
        Happens.ABORT_V2: _PREPARE_ABORT,
        Happens.LATE_COMMIT_V2: _FENCED,
        Happens.LATE_ABORT_V2: _FENCED,
        Happens.EXPIRE: None,
    },
    _ONGOING: {
        Happens.INIT_PRODUCER_ID: _PREPARE_ABORT,
        Happens.ADD_PARTITIONS: _ONGOING,
        Happens.COMMIT: _PREPARE_COMMIT,
        Happens.ABORT: _PREPARE_ABORT,
        Happens.COMMIT_V2: _PREPARE_COMMIT,
        Happens.ABORT_V2: _PREPARE_ABORT,
        Happens.LATE_COMMIT_V2: _FENCED,
        Happens.LATE_ABORT_V2: _FENCED,
        Happens.TIMEOUT: _PREPARE_ABORT,
    },
    _PREPARE_COMMIT: {
        Happens.INIT_PRODUCER_ID: _BUSY,
        Happens.ADD_PARTITIONS: _BUSY,
        Happens.COMMIT: _BUSY,
        Happens.ABORT: _INVALID,
        Happens.COMMIT_V2: _FENCED,
        Happens.ABORT_V2: _FENCED,
        Happens.LATE_COMMIT_V2: _BUSY,
        Happens.LATE_ABORT_V2: _INVALID,
        Happens.MARKERS_WRITTEN: _COMPLETE_COMMIT,
    },
    _PREPARE_ABORT: {
        Happens.INIT_PRODUCER_ID: _BUSY,
        Happens.ADD_PARTITIONS: _BUSY,
        Happens.COMMIT: _INVALID,
        Happens.ABORT: _BUSY,
        Happens.COMMIT_V2: _FENCED,
        Happens.ABORT_V2: _FENCED,
        Happens.LATE_COMMIT_V2: _INVALID,
        Happens.LATE_ABORT_V2: _BUSY,
        Happens.MARKERS_WRITTEN: _COMPLETE_ABORT,
    },
    _COMPLETE_COMMIT: {
        Happens.INIT_PRODUCER_ID: _EMPTY,
        Happens.ADD_PARTITIONS: _ONGOING,
        Happens.COMMIT: _DONE,
        Happens.ABORT: _INVALID,
        Happens.COMMIT_V2: _INVALID,
        Happens.ABORT_V2: _PREPARE_ABORT,
        Happens.LATE_COMMIT_V2: _DONE,
        Happens.LATE_ABORT_V2: _INVALID,
        Happens.EXPIRE: None,
    },
    _COMPLETE_ABORT: {
        Happens.INIT_PRODUCER_ID: _EMPTY,
        Happens.ADD_PARTITIONS: _ONGOING,
        Happens.COMMIT: _INVALID,
        Happens.ABORT: _DONE,
        Happens.COMMIT_V2: _INVALID,
        Happens.ABORT_V2: _PREPARE_ABORT,
        Happens.LATE_COMMIT_V2: _INVALID,
        Happens.LATE_ABORT_V2: _DONE,
        Happens.EXPIRE: None,
    },
}
"""What is not in a row cannot happen in that state."""


def end_of_transaction(
    transaction: Transaction, producer_id: int, producer_epoch: int, *, commits: bool, version: int
) -> Happens | ErrorCode:
    """What an EndTxn is to this transactional id, or why it is refused: it is another producer's, or was fenced."""
    if version < TV_2:
        if producer_id != transaction.producer_id:
            return ErrorCode.INVALID_PRODUCER_ID_MAPPING
        if producer_epoch != transaction.producer_epoch:
            return ErrorCode.PRODUCER_FENCED
        return Happens.COMMIT if commits else Happens.ABORT
    # The one request that may carry the producer id before the present one: the last it sent under that id, again.
    is_late_rollover = (
        producer_id == transaction.previous_producer_id
        and producer_epoch == MAX_EPOCH - 1
        and transaction.producer_epoch == 0
    )
    if producer_id != transaction.producer_id and not is_late_rollover:
        return ErrorCode.INVALID_PRODUCER_ID_MAPPING
    # MAX_EPOCH is reached by an end that changes the producer id, which may be repeated, or by fencing, which may not.
    may_be_late = transaction.producer_epoch < MAX_EPOCH or transaction.next_producer_id != NO_PRODUCER_ID
    if is_late_rollover or (may_be_late and producer_epoch + 1 == transaction.producer_epoch):
        return Happens.LATE_COMMIT_V2 if commits else Happens.LATE_ABORT_V2
    if producer_epoch != transaction.producer_epoch:
        return ErrorCode.PRODUCER_FENCED
    return Happens.COMMIT_V2 if commits else Happens.ABORT_V2


def prepared(
    transaction: Transaction,
    state: TransactionState,
    now_ms: int,
    *,
    version: int,
    fences: bool = False,
    next_producer_id: int = NO_PRODUCER_ID,
) -> Transaction:
    """The transaction with its end decided.

    Markers carry the raised epoch, so whoever writes with the old one is fenced at each partition too. When the
    coordinator ends it over the producer's head (`fences`), that raises the epoch once more: one epoch less would
    be taken for a repetition of the producer's own EndTxn.
    """
    raised_by = fences + (version >= TV_2)
    return transaction._replace(
        state=state,
        producer_epoch=min(transaction.producer_epoch + raised_by, MAX_EPOCH),
        next_producer_id=next_producer_id,
        # An abort before anything was added: when it began is not known, but tools expect a time.
        start_timestamp_ms=transaction.start_timestamp_ms if transaction.partitions else now_ms,
        last_update_timestamp_ms=now_ms,
        client_transaction_version=version,
    )


def completed(transaction: Transaction, state: TransactionState, now_ms: int) -> Transaction:
    """All markers are written. A producer whose epochs were used up goes on under its next id."""
    done = transaction._replace(state=state, partitions=frozenset(), last_update_timestamp_ms=now_ms)
    if transaction.next_producer_id == NO_PRODUCER_ID:
        return done
    return done._replace(
        producer_id=transaction.next_producer_id,
        producer_epoch=0,
        previous_producer_id=transaction.producer_id,
        next_producer_id=NO_PRODUCER_ID,
    )


def told_to_producer(transaction: Transaction) -> tuple[int, int]:
    """Producer id and epoch of the next transaction, as an EndTxn v5 is answered."""
    if transaction.next_producer_id != NO_PRODUCER_ID:
        return transaction.next_producer_id, 0
    return transaction.producer_id, transaction.producer_epoch


def new_transaction(transactional_id: str, producer_id: int, timeout_ms: int, now_ms: int) -> Transaction:
    """An id that nobody has had yet."""
    return Transaction(
        transactional_id=transactional_id,
        producer_id=producer_id,
        producer_epoch=NO_PRODUCER_EPOCH,
        timeout_ms=timeout_ms,
        state=TransactionState.EMPTY,
        partitions=frozenset(),
        start_timestamp_ms=-1,
        last_update_timestamp_ms=now_ms,
    )
