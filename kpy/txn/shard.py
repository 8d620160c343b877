"""One partition of __transaction_state as a state machine: the transactional ids that live in it.

Theory of operation. `handle` judges an event by the table of kpy/txn/transaction.py and says what should follow: the
record of the next state, and once that is committed the markers that the end of a transaction sends to its partitions
(`TxnMarkers`). The shell tells when they are written (`MarkersWritten`), which makes the last record. `replay` makes
records count, and nothing else does: loading after a restart or an election is the same replay over the whole
partition, then `loaded`, which sends the markers of every decided transaction again. Twice is as good as once.

Where Apache Kafka keeps a pending state between the append of a record and its commit, here the record counts as soon
as it is appended, and every answer waits until it is committed. So a second request meets the state that the first one
has led to, and a failed append leaves the state before.

All that is not in the log is the epoch before the present one, for a producer that asks again because it never got
the answer (KIP-360). It is forgotten with the coordinator, as in Apache Kafka; such a producer is fenced then.

A shard without open transactions and without ids arms no deadline. Kafka classes TransactionCoordinator and
TransactionStateManager.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

from kpy.errors import ApiError, ErrorCode
from kpy.machine import NO_PRODUCER_EPOCH, NO_PRODUCER_ID, Effects, Request, Tick, Waiting
from kpy.timers import Timers
from kpy.txn.answers import partition_results, refusal
from kpy.txn.config import TV_2, TransactionConfig
from kpy.txn.records import by_topic, read_key, read_value, transaction_record, transaction_tombstone
from kpy.txn.transaction import (
    TRANSITIONS,
    Happens,
    TopicPartition,
    Transaction,
    TransactionState,
    completed,
    end_of_transaction,
    is_epoch_exhausted,
    new_transaction,
    prepared,
    told_to_producer,
)
from kpy.wire.add_partitions_to_txn import AddPartitionsToTxnTransaction
from kpy.wire.describe_transactions import DescribeTransactionsRequest, DescribeTransactionsResponse, TopicData
from kpy.wire.describe_transactions import TransactionState as DescribedTransaction
from kpy.wire.end_txn import EndTxnRequest, EndTxnResponse
from kpy.wire.init_producer_id import InitProducerIdRequest, InitProducerIdResponse
from kpy.wire.list_transactions import TransactionState as ListedTransaction

MAX_TRANSACTIONAL_IDS = 1_000_000
"""How many ids one partition of __transaction_state may hold. Kafka sets no bound."""
MAX_PARTITIONS_A_TRANSACTION = 10_000
"""Each costs a marker, written one after the other. Kafka sets no bound."""
TOMBSTONES_A_SWEEP = 1_000
"""A sweep that has this many goes on a moment later, so that other work is not held up."""
END_TXN_V2_SINCE = 5
ADDED_BY_BROKER_SINCE = 4
"""AddPartitionsToTxn from here on comes from a broker, for a producer that adds partitions by writing to them."""

TIMEOUT_SWEEP = "timeouts"
EXPIRY_SWEEP = "expiry"


class TxnMarkers(NamedTuple):
    """An action: every partition is to get the marker of this end."""

    transactional_id: str
    producer_id: int
    producer_epoch: int
    commits: bool
    partitions: frozenset[TopicPartition]


class MarkersWritten(NamedTuple):
    """An event: every partition has the marker, or is gone."""

    markers: TxnMarkers


Event = Request | Tick | MarkersWritten


class TransactionShard:
    """The transactional ids of one partition of __transaction_state."""

    def __init__(self, config: TransactionConfig, new_producer_id: Callable[[], int]) -> None:
        self.config = config
        self.transactions: dict[str, Transaction] = {}
        self._new_producer_id = new_producer_id
        self._ongoing: dict[str, None] = {}
        """Whose time may run out; a set that keeps its order."""
        self._last_epochs: dict[str, tuple[int, int, int]] = {}
        """Transactional id -> a producer id and epoch, and the epoch before. It says nothing once these are others."""
        self._timers: Timers[str] = Timers()

    def __len__(self) -> int:
        return len(self.transactions)

    def next_deadline_ms(self) -> int | None:
        """When to hand over the next Tick, at the latest; None when nothing is due of itself."""
        return self._timers.next_deadline_ms()

    def handle(self, event: Event, now_ms: int) -> Effects:
        effects = Effects()
        if isinstance(event, Tick):
            self._time_has_passed(effects, now_ms)
        elif isinstance(event, MarkersWritten):
            self._markers_written(effects, event.markers, now_ms)
        else:
            HANDLERS[type(event.message)](self, effects, event, now_ms)
        self._arm_sweeps(effects, now_ms)
        return effects

    # -- InitProducerId ----------------------------------------------------------------------------------------------

    def init_producer_id(self, effects: Effects, request: Request, now_ms: int) -> None:
        message: InitProducerIdRequest = request.message
        transactional_id = message.transactional_id or ""
        if not 0 < message.transaction_timeout_ms <= self.config.transaction_max_timeout_ms:
            self._refuse(effects, request, ErrorCode.INVALID_TRANSACTION_TIMEOUT)
            return
        try:
            found = self.transactions.get(transactional_id)
            if found is None:
                if len(self.transactions) >= MAX_TRANSACTIONAL_IDS:
                    raise ApiError(ErrorCode.POLICY_VIOLATION)
                producer_id = self._new_producer_id()
                found = new_transaction(transactional_id, producer_id, message.transaction_timeout_ms, now_ms)
            follows = TRANSITIONS[found.state][Happens.INIT_PRODUCER_ID]
            if not self._may_init(found, message):
                raise ApiError(ErrorCode.PRODUCER_FENCED)
            if isinstance(follows, ErrorCode):
                raise ApiError(follows)
            if follows is TransactionState.PREPARE_ABORT:
                # The transaction of the producer before is aborted first; this one asks again meanwhile.
                self._fence(effects, found, now_ms)
                self._refuse(effects, request, ErrorCode.CONCURRENT_TRANSACTIONS)
                return
            following = self._with_next_epoch(found, message, now_ms)
        except ApiError as error:
            self._refuse(effects, request, error.code)
            return
        self._write(effects, following)
        effects.reply(
            request.token,
            InitProducerIdResponse(producer_id=following.producer_id, producer_epoch=following.producer_epoch),
        )

    def _may_init(self, transaction: Transaction, message: InitProducerIdRequest) -> bool:
        """Whether the producer that asks, if it says which one it is, is the one that has the id (KIP-360)."""
        return (
            message.producer_id == NO_PRODUCER_ID
            or transaction.producer_epoch == NO_PRODUCER_EPOCH
            or message.producer_id == transaction.producer_id
            # It may ask again because it never learnt that its epochs were used up and that it has another id.
            or (message.producer_id == transaction.previous_producer_id and is_epoch_exhausted(message.producer_epoch))
        )

    def _with_next_epoch(self, found: Transaction, message: InitProducerIdRequest, now_ms: int) -> Transaction:
        """The id in the hands of whoever asks. Raises ApiError PRODUCER_FENCED, or what hinders a new producer id."""
        resumes = message.producer_id != NO_PRODUCER_ID
        expected = message.producer_epoch
        producer_id, epoch, previous_producer_id = found.producer_id, found.producer_epoch, found.previous_producer_id
        last_epoch = NO_PRODUCER_EPOCH
        if found.is_epoch_exhausted and (not resumes or expected == epoch):
            producer_id, previous_producer_id = self._new_producer_id(), found.producer_id
            last_epoch, epoch = epoch if resumes else NO_PRODUCER_EPOCH, 0
        elif not resumes:
            epoch += 1
        elif epoch in (NO_PRODUCER_EPOCH, expected):
            last_epoch, epoch = epoch, epoch + 1
        elif expected == self._last_epoch(found):
            # It asks again, for an answer that it never got. A newer producer would have made the last epoch unknown.
            last_epoch = expected
        else:
            raise ApiError(ErrorCode.PRODUCER_FENCED)
        if last_epoch != NO_PRODUCER_EPOCH:
            self._last_epochs[found.transactional_id] = (producer_id, epoch, last_epoch)
        return found._replace(
            producer_id=producer_id,
            producer_epoch=epoch,
            previous_producer_id=previous_producer_id,
            timeout_ms=message.transaction_timeout_ms,
            state=TransactionState.EMPTY,
            partitions=frozenset(),
            start_timestamp_ms=-1,
            last_update_timestamp_ms=now_ms,
        )

    def _last_epoch(self, transaction: Transaction) -> int:
        producer_id, epoch, last_epoch = self._last_epochs.get(transaction.transactional_id, (-1, -1, -1))
        is_of_this = (producer_id, epoch) == (transaction.producer_id, transaction.producer_epoch)
        return last_epoch if is_of_this else NO_PRODUCER_EPOCH

    # -- AddPartitionsToTxn ------------------------------------------------------------------------------------------

    def add_partitions(self, effects: Effects, request: Request, now_ms: int) -> None:
        message: AddPartitionsToTxnTransaction = request.message
        partitions = frozenset((topic.name, index) for topic in message.topics for index in topic.partitions)
        found = self.transactions.get(message.transactional_id)
        error = ErrorCode.NONE
        if found is None or found.producer_id != message.producer_id:
            error = ErrorCode.INVALID_PRODUCER_ID_MAPPING
        elif found.producer_epoch != message.producer_epoch:
            error = ErrorCode.PRODUCER_FENCED
        elif not isinstance(follows := TRANSITIONS[found.state][Happens.ADD_PARTITIONS], TransactionState):
            error = follows or ErrorCode.NONE
        if error or found is None:
            self._refuse(effects, request, error)
            return
        # Whether it was just added or long ago: the answer tells of the log, so it waits for the commit.
        effects.reads_state = True
        if message.verify_only:
            # An abort is all that is left to a producer that writes where it has not told the coordinator of.
            unknown = ErrorCode.TRANSACTION_ABORTABLE
            errors = {each: ErrorCode.NONE if each in found.partitions else unknown for each in partitions}
            effects.reply(request.token, partition_results(message, errors))
            return
        is_ongoing = found.state is TransactionState.ONGOING
        if not is_ongoing or not partitions <= found.partitions:
            all_partitions = found.partitions | partitions
            if len(all_partitions) > MAX_PARTITIONS_A_TRANSACTION:
                self._refuse(effects, request, ErrorCode.POLICY_VIOLATION)
                return
            following = found._replace(
                state=TransactionState.ONGOING,
                partitions=all_partitions,
                start_timestamp_ms=found.start_timestamp_ms if is_ongoing else now_ms,
                last_update_timestamp_ms=now_ms,
                client_transaction_version=TV_2 if request.version >= ADDED_BY_BROKER_SINCE else 0,
            )
            self._write(effects, following)
        effects.reply(request.token, partition_results(message, ErrorCode.NONE))

    # -- EndTxn ------------------------------------------------------------------------------------------------------

    def end(self, effects: Effects, request: Request, now_ms: int) -> None:
        message: EndTxnRequest = request.message
        version = TV_2 if request.version >= END_TXN_V2_SINCE else 0
        found = self.transactions.get(message.transactional_id)
        if found is None:
            self._refuse(effects, request, ErrorCode.INVALID_PRODUCER_ID_MAPPING)
            return
        happens = end_of_transaction(
            found, message.producer_id, message.producer_epoch, commits=message.committed, version=version
        )
        follows = TRANSITIONS[found.state][happens] if isinstance(happens, Happens) else happens
        if not isinstance(follows, TransactionState):
            effects.reads_state = True
            if follows:
                self._refuse(effects, request, follows)
            else:
                self._reply_to_end(effects, request, found, version)
            return
        next_producer_id = NO_PRODUCER_ID
        if version >= TV_2 and found.is_epoch_exhausted:
            try:
                next_producer_id = self._new_producer_id()
            except ApiError as error:
                self._refuse(effects, request, error.code)
                return
        following = prepared(found, follows, now_ms, version=version, next_producer_id=next_producer_id)
        if version >= TV_2:
            producer_id, epoch = told_to_producer(following)
            self._last_epochs[found.transactional_id] = (producer_id, epoch, found.producer_epoch)
        self._decide(effects, following)
        self._reply_to_end(effects, request, following, version)

    def _reply_to_end(self, effects: Effects, request: Request, transaction: Transaction, version: int) -> None:
        producer_id, epoch = told_to_producer(transaction) if version >= TV_2 else (NO_PRODUCER_ID, NO_PRODUCER_EPOCH)
        effects.reply(request.token, EndTxnResponse(producer_id=producer_id, producer_epoch=epoch))

    def _fence(self, effects: Effects, transaction: Transaction, now_ms: int) -> None:
        """Abort an open transaction over the head of its producer, which learns of it by its epoch."""
        version = self.config.transaction_version
        self._decide(
            effects, prepared(transaction, TransactionState.PREPARE_ABORT, now_ms, version=version, fences=True)
        )

    def _decide(self, effects: Effects, transaction: Transaction) -> None:
        self._write(effects, transaction)
        effects.actions.append(markers_of(transaction))

    def _markers_written(self, effects: Effects, markers: TxnMarkers, now_ms: int) -> None:
        found = self.transactions.get(markers.transactional_id)
        if found is None or (found.producer_id, found.producer_epoch) != (markers.producer_id, markers.producer_epoch):
            return
        follows = TRANSITIONS[found.state].get(Happens.MARKERS_WRITTEN)
        if isinstance(follows, TransactionState):
            self._write(effects, completed(found, follows, now_ms))

    # -- reading -----------------------------------------------------------------------------------------------------

    def describe(self, effects: Effects, request: Request, now_ms: int) -> None:
        message: DescribeTransactionsRequest = request.message
        described = [self._described(transactional_id) for transactional_id in message.transactional_ids]
        effects.reply(request.token, DescribeTransactionsResponse(transaction_states=described))

    def _described(self, transactional_id: str) -> DescribedTransaction:
        found = self.transactions.get(transactional_id)
        if found is None:
            return DescribedTransaction(
                error_code=ErrorCode.TRANSACTIONAL_ID_NOT_FOUND, transactional_id=transactional_id
            )
        return DescribedTransaction(
            transactional_id=transactional_id,
            transaction_state=found.state.shown,
            transaction_timeout_ms=found.timeout_ms,
            transaction_start_time_ms=found.start_timestamp_ms,
            producer_id=found.producer_id,
            producer_epoch=found.producer_epoch,
            topics=[TopicData(topic, indexes) for topic, indexes in by_topic(found.partitions).items()],
        )

    def listed(self, wanted: Callable[[Transaction], bool]) -> list[ListedTransaction]:
        return [
            ListedTransaction(each.transactional_id, each.producer_id, each.state.shown)
            for each in self.transactions.values()
            if wanted(each)
        ]

    def waiting(self) -> Iterator[Waiting]:
        """Nothing is ever parked here."""
        return iter(())

    # -- time --------------------------------------------------------------------------------------------------------

    def _time_has_passed(self, effects: Effects, now_ms: int) -> None:
        while (due := self._timers.pop_due(now_ms)) is not None:
            if due == TIMEOUT_SWEEP:
                for transactional_id in list(self._ongoing):
                    found = self.transactions[transactional_id]
                    if found.start_timestamp_ms + found.timeout_ms < now_ms:
                        self._fence(effects, found, now_ms)
            else:
                self._expire(effects, now_ms)

    def _expire(self, effects: Effects, now_ms: int) -> None:
        """Forget the ids that nobody has used for long. Whoever comes back under one starts with a new producer id."""
        last_ms = now_ms - self.config.transactional_id_expiration_ms
        for each in self.transactions.values():
            if Happens.EXPIRE in TRANSITIONS[each.state] and each.last_update_timestamp_ms <= last_ms:
                effects.append([transaction_tombstone(each.transactional_id)])
                if len(effects.records) >= TOMBSTONES_A_SWEEP:
                    self._timers.arm(EXPIRY_SWEEP, now_ms + 1)
                    return

    def _arm_sweeps(self, effects: Effects, now_ms: int) -> None:
        """Records that are about to be replayed may make the first id, or open the first transaction, of this shard."""
        config = self.config
        if (self._ongoing or effects.records) and self._timers.deadline_ms(TIMEOUT_SWEEP) is None:
            interval_ms = config.transaction_abort_timed_out_transaction_cleanup_interval_ms
            self._timers.arm(TIMEOUT_SWEEP, now_ms + interval_ms)
        if (self.transactions or effects.records) and self._timers.deadline_ms(EXPIRY_SWEEP) is None:
            interval_ms = config.transaction_remove_expired_transaction_cleanup_interval_ms
            self._timers.arm(EXPIRY_SWEEP, now_ms + interval_ms)

    # -- replay ------------------------------------------------------------------------------------------------------

    def replay(self, key: bytes, value: bytes | None, producer_id: int = NO_PRODUCER_ID) -> None:
        """Make one record of the log count. Records of kinds that kpy does not know are passed over.

        Raises WireError for a record that is not what its version says.
        """
        transactional_id = read_key(key)
        if transactional_id is None:
            return
        if value is None:
            self.transactions.pop(transactional_id, None)
            self._ongoing.pop(transactional_id, None)
            self._last_epochs.pop(transactional_id, None)
            return
        transaction = read_value(transactional_id, value)
        self.transactions[transactional_id] = transaction
        if transaction.state is TransactionState.ONGOING:
            self._ongoing[transactional_id] = None
        else:
            self._ongoing.pop(transactional_id, None)

    def replay_end_of_transaction(self, producer_id: int, *, committed: bool) -> None:
        """Nobody writes to __transaction_state in a transaction."""

    def loaded(self, now_ms: int) -> Effects:
        """The whole log has been replayed: what was decided is carried out, whether or not it was before."""
        effects = Effects()
        effects.actions += [markers_of(each) for each in self.transactions.values() if each.state.is_prepared]
        self._arm_sweeps(effects, now_ms)
        return effects

    # -- words they share --------------------------------------------------------------------------------------------

    def _write(self, effects: Effects, transaction: Transaction) -> None:
        effects.append([transaction_record(transaction, flexible=self.config.transaction_version >= TV_2)])

    def _refuse(self, effects: Effects, request: Request, error: ErrorCode) -> None:
        effects.reply(request.token, refusal(request.message, request.version, error))


def markers_of(transaction: Transaction) -> TxnMarkers:
    return TxnMarkers(
        transactional_id=transaction.transactional_id,
        producer_id=transaction.producer_id,
        producer_epoch=transaction.producer_epoch,
        commits=transaction.state is TransactionState.PREPARE_COMMIT,
        partitions=transaction.partitions,
    )


HANDLERS: dict[type, Callable[[TransactionShard, Effects, Request, int], None]] = {
    InitProducerIdRequest: TransactionShard.init_producer_id,
    AddPartitionsToTxnTransaction: TransactionShard.add_partitions,
    EndTxnRequest: TransactionShard.end,
    DescribeTransactionsRequest: TransactionShard.describe,
}
