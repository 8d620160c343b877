"""The language of the transaction transcripts: runs one against a TransactionShard and writes down what happens.

Actors stand for producers of one transactional id; an actor remembers the producer id and epoch it was told. Markers
are sent and stay unwritten until `marked` says that every partition has its own. Beside what transcript.py knows:

    init <actor> [v=5] [timeout=60000] [resume] [id=tx] [producer=7] [epoch=0]
    add <actor> t-0 t-1 [v=3] [verify] [id=tx] [epoch=0] [producer=7]
    commit <actor> [v=4]     abort <actor> [v=4]         [id=tx] [epoch=0] [producer=7]
    marked [id=tx]           marked-late <producer id> <epoch> [id=tx]
    describe [id=tx]         list
    set <actor> epoch=32766                              (as if so many transactions had been)
    no-producer-ids
"""

import sys
from dataclasses import dataclass
from typing import Any

from kpy.errors import ApiError, ErrorCode
from kpy.machine import NO_PRODUCER_ID, Request
from kpy.txn.answers import append_refusal
from kpy.txn.config import TransactionConfig
from kpy.txn.records import read_key, read_value, transaction_record
from kpy.txn.shard import MarkersWritten, TransactionShard, TxnMarkers
from kpy.txn.transaction import Transaction
from kpy.wire.add_partitions_to_txn import (
    AddPartitionsToTxnRequest,
    AddPartitionsToTxnResponse,
    AddPartitionsToTxnResult,
    AddPartitionsToTxnTopic,
    AddPartitionsToTxnTransaction,
)
from kpy.wire.describe_transactions import DescribeTransactionsRequest, DescribeTransactionsResponse
from kpy.wire.end_txn import EndTxnRequest
from kpy.wire.init_producer_id import InitProducerIdRequest
from tests.transcripts.transcript import Call, Transcript, Words, over_the_wire

ID = "tx"
FIRST_PRODUCER_ID = 7


@dataclass(eq=False)
class Actor:
    name: str
    producer_id: int = -1
    epoch: int = -1


class TransactionTranscript(Transcript[TransactionShard]):
    """One run, of producers with transactional ids."""

    command_columns = 58

    def __init__(self) -> None:
        super().__init__()
        self.given_out = FIRST_PRODUCER_ID
        self.has_producer_ids = True
        self.log: list[tuple[bytes, bytes | None]] = []
        self.actors: dict[str, Actor] = {}
        self.sent: dict[str, TxnMarkers] = {}

    def new_machine(self) -> TransactionShard:
        return TransactionShard(TransactionConfig(**self.config), self.new_producer_id)

    def new_producer_id(self) -> int:
        if not self.has_producer_ids:
            raise ApiError(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        self.given_out += 1
        return self.given_out - 1

    def write(self, key: bytes, value: bytes | None, producer_id: int) -> None:
        self.log.append((key, value))
        self.machine().replay(key, value)

    def acted(self, action: Any) -> str:
        assert isinstance(action, TxnMarkers)
        self.sent[action.transactional_id] = action
        partitions = " ".join(f"{topic}-{index}" for topic, index in sorted(action.partitions)) or "nowhere"
        kind = "commit" if action.commits else "abort"
        return f"{kind} markers of {action.producer_id}/{action.producer_epoch} to {partitions}"

    def append_refusal(self, call: Call, error: ErrorCode) -> Any:
        return append_refusal(call.message, call.version, error)

    # -- commands ----------------------------------------------------------------------------------------------------

    def carry_out(self, verb: str, words: Words) -> list[str]:  # A table of commands.
        transactional_id = words.options.get("id", ID)
        if verb == "no-producer-ids":
            self.has_producer_ids = False
            return []
        if verb == "set":
            actor = self.actors[words.flags[0]]
            actor.epoch = words.number("epoch", actor.epoch)
            before = self.machine().transactions[transactional_id]
            return self.append(before._replace(producer_epoch=actor.epoch))
        if verb == "marked":
            return self.apply(self.handled(MarkersWritten(self.sent.pop(transactional_id))))
        if verb == "marked-late":
            producer_id, epoch = (int(each) for each in words.flags)
            markers = TxnMarkers(transactional_id, producer_id, epoch, True, frozenset())
            return self.apply(self.handled(MarkersWritten(markers)))
        if verb == "list":
            listed = self.machine().listed(lambda each: True)
            return [f"{each.transactional_id} {each.producer_id} {each.transaction_state}" for each in listed] or [
                "no ids"
            ]
        if verb == "describe":
            return self.ask(None, DescribeTransactionsRequest([transactional_id]), 0)
        name = words.flags.pop(0)
        actor = self.actors.setdefault(name, Actor(name))
        return getattr(self, "ask_" + verb)(actor, transactional_id, words)

    def append(self, transaction: Transaction) -> list[str]:
        self.write(*transaction_record(transaction, flexible=True), NO_PRODUCER_ID)
        return []

    def ask_init(self, actor: Actor, transactional_id: str, words: Words) -> list[str]:
        resumes = "resume" in words.flags
        message = InitProducerIdRequest(
            transactional_id,
            words.number("timeout", 60_000),
            words.number("producer", actor.producer_id if resumes else -1),
            words.number("epoch", actor.epoch if resumes else -1),
        )
        return self.ask(actor, message, words.number("v", 5))

    def ask_add(self, actor: Actor, transactional_id: str, words: Words) -> list[str]:
        topics: dict[str, list[int]] = {}
        for flag in words.flags:
            if "-" in flag:
                topic, index = flag.rsplit("-", 1)
                topics.setdefault(topic, []).append(int(index))
        message = AddPartitionsToTxnTransaction(
            transactional_id,
            words.number("producer", actor.producer_id),
            words.number("epoch", actor.epoch),
            "verify" in words.flags,
            [AddPartitionsToTxnTopic(topic, indexes) for topic, indexes in topics.items()],
        )
        return self.ask(actor, message, words.number("v", 5 if "verify" in words.flags else 3))

    def ask_commit(self, actor: Actor, transactional_id: str, words: Words, *, committed: bool = True) -> list[str]:
        message = EndTxnRequest(
            transactional_id,
            words.number("producer", actor.producer_id),
            words.number("epoch", actor.epoch),
            committed,
        )
        return self.ask(actor, message, words.number("v", 4))

    def ask_abort(self, actor: Actor, transactional_id: str, words: Words) -> list[str]:
        return self.ask_commit(actor, transactional_id, words, committed=False)

    def ask(self, actor: Actor | None, message: Any, version: int) -> list[str]:
        call = Call(actor, message, version)
        request = Request(message, version, "client", "/127.0.0.1", call)
        return self.apply(self.handled(request))

    def restart(self) -> list[str]:
        """A new machine replays the log. What the old one had written it must know, no more and no less."""
        before = self.machine().transactions
        self.shard = self.new_machine()
        for key, value in self.log:
            self.shard.replay(key, value)
        assert self.shard.transactions == before
        self.sent.clear()
        listed = [f"{each.transactional_id} is {each.state.shown}" for each in before.values()] or ["no ids"]
        return [*listed, *self.apply(self.shard.loaded(self.now_ms))]

    # -- words for what happened -------------------------------------------------------------------------------------

    def answered(self, call: Call, response: Any) -> str:
        """What the producer gets: the response after a trip over the wire in the version of its request."""
        if isinstance(response, AddPartitionsToTxnResult):
            codec = sys.modules[AddPartitionsToTxnRequest.__module__]
            if call.version >= 4:
                response = AddPartitionsToTxnResponse(results_by_transaction=[response])
            else:
                response = AddPartitionsToTxnResponse(results_by_topic_v3_and_below=response.topic_results)
        else:
            codec = sys.modules[type(response).__module__]
        return f"{call.name}: {self.told(call, over_the_wire(codec, response, call.version))}"

    def told(self, call: Call, response: Any) -> str:
        if isinstance(response, DescribeTransactionsResponse):
            (state,) = response.transaction_states
            if state.error_code:
                return ErrorCode(state.error_code).name
            partitions = " ".join(f"{each.topic}-{index}" for each in state.topics for index in each.partitions)
            since = f" since {state.transaction_start_time_ms}" if state.transaction_start_time_ms >= 0 else ""
            text = f"{state.transaction_state} of {state.producer_id}/{state.producer_epoch}{since}"
            return text + (f": {partitions}" if partitions else "")
        if isinstance(response, AddPartitionsToTxnResponse):
            topics = response.results_by_topic_v3_and_below or response.results_by_transaction[0].topic_results
            each = [
                (f"{topic.name}-{one.partition_index}", ErrorCode(one.partition_error_code).name)
                for topic in topics
                for one in topic.results_by_partition
            ]
            errors = {error for _, error in each}
            return errors.pop() if len(errors) == 1 else " ".join(f"{name} {error}" for name, error in each)
        if response.error_code:
            return ErrorCode(response.error_code).name
        if response.producer_id == -1:
            return "NONE"
        assert call.actor is not None
        call.actor.producer_id, call.actor.epoch = response.producer_id, response.producer_epoch
        return f"is {response.producer_id}/{response.producer_epoch}"

    def record(self, key: bytes, value: bytes | None, producer_id: int) -> str:
        transactional_id = read_key(key)
        assert transactional_id is not None
        if value is None:
            return f"tombstone of {transactional_id}"
        read = read_value(transactional_id, value)
        partitions = " ".join(f"{topic}-{index}" for topic, index in sorted(read.partitions))
        following = f", next {read.next_producer_id}" if read.next_producer_id != -1 else ""
        text = f"{transactional_id}: {read.state.shown} of {read.producer_id}/{read.producer_epoch}{following}"
        return text + (f", {partitions}" if partitions else "")
