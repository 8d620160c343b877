"""The language of the transaction transcripts: runs one against a TransactionShard and writes down what happens.

Each line is `at <ms>  <command>`, and after `->` what followed: the records appended, the markers sent, and who was
answered what. Actors stand for producers of one transactional id; an actor remembers the producer id and epoch it was
told. Lines without a command are time passing: they appear where a deadline did something. Markers are sent and stay
unwritten until `marked` says that every partition has its own. `#` begins a comment.

    config transaction_version=0                         (first lines only)
    init <actor> [v=5] [timeout=60000] [resume] [id=tx] [producer=7] [epoch=0]
    add <actor> t-0 t-1 [v=3] [verify] [id=tx] [epoch=0] [producer=7]
    commit <actor> [v=4]     abort <actor> [v=4]         [id=tx] [epoch=0] [producer=7]
    marked [id=tx]           marked-late <producer id> <epoch> [id=tx]
    describe [id=tx]         list
    set <actor> epoch=32766                              (as if so many transactions had been)
    no-producer-ids          fail-append <error>         restart         wait
"""

import re
import sys
from dataclasses import dataclass, field
from typing import Any

from kpy.errors import ApiError, ErrorCode
from kpy.machine import Effects, Request, Tick
from kpy.txn.answers import append_refusal
from kpy.txn.records import read_key, read_value, transaction_record
from kpy.txn.shard import MarkersWritten, TransactionConfig, TransactionShard, TxnMarkers
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

ID = "tx"
COMMAND_COLUMNS = 58
FIRST_PRODUCER_ID = 7


@dataclass(eq=False)
class Actor:
    name: str
    producer_id: int = -1
    epoch: int = -1


@dataclass(eq=False)
class Call:
    """The token of a request: whose it is."""

    actor: Actor | None
    message: Any
    version: int


@dataclass
class Words:
    """A command's words: those with an equals sign are options."""

    flags: list[str] = field(default_factory=list)
    options: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, words: list[str]) -> "Words":
        found = cls()
        for word in words:
            name, equals, value = word.partition("=")
            if equals:
                found.options[name] = value
            else:
                found.flags.append(name)
        return found

    def number(self, name: str, default: int) -> int:
        return int(self.options.get(name, default))


class Transcript:
    """One run. `lines` is the transcript as it turned out."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.config: dict[str, int] = {}
        self.given_out = FIRST_PRODUCER_ID
        self.has_producer_ids = True
        self.shard: TransactionShard | None = None
        self.log: list[tuple[bytes, bytes | None]] = []
        self.actors: dict[str, Actor] = {}
        self.sent: dict[str, TxnMarkers] = {}
        self.failing: ErrorCode | None = None
        self.lines: list[str] = []

    def run(self, text: str) -> str:
        for line in text.splitlines():
            match = re.match(r"at (\d+) +(.*?) *(?:->.*)?$", line)
            if line.startswith("#") or not line.strip():
                self.lines.append(line)
            elif line.startswith("config "):
                self.lines.append(line)
                self.config |= {name: int(value) for name, value in Words.of(line.split()[1:]).options.items()}
            elif match is not None and match[2]:
                self.until(int(match[1]))
                self.note(match[2], self.carry_out(match[2]))
        return "\n".join(self.lines) + "\n"

    def machine(self) -> TransactionShard:
        if self.shard is None:
            self.shard = self.new_machine()
        return self.shard

    def new_machine(self) -> TransactionShard:
        return TransactionShard(TransactionConfig(**self.config), self.new_producer_id)

    def new_producer_id(self) -> int:
        if not self.has_producer_ids:
            raise ApiError(ErrorCode.COORDINATOR_NOT_AVAILABLE)
        self.given_out += 1
        return self.given_out - 1

    def until(self, now_ms: int) -> None:
        """Let deadlines pass one by one, and show those that do something."""
        while (deadline_ms := self.machine().next_deadline_ms()) is not None and deadline_ms <= now_ms:
            self.now_ms = deadline_ms
            happened = self.apply(self.machine().handle(Tick(), deadline_ms))
            if happened:
                self.note("", happened)
        self.now_ms = now_ms

    def note(self, command: str, happened: list[str]) -> None:
        left = f"at {self.now_ms:<8}{command}"
        if not happened:
            self.lines.append(left)
        for text in happened:
            self.lines.append(f"{left:<{COMMAND_COLUMNS}} -> {text}")
            left = ""

    def apply(self, effects: Effects) -> list[str]:
        happened: list[str] = []
        failing, self.failing = (self.failing, None) if effects.records else (None, self.failing)
        if failing is not None:
            happened.append(f"append fails: {failing.name}")
            for reply in effects.replies:
                call = reply.token
                assert isinstance(call, Call)
                happened.append(self.answered(call, append_refusal(call.message, call.version, failing)))
            return happened
        for key, value in effects.records:
            self.log.append((key, value))
            self.machine().replay(key, value)
            happened.append("append " + self.record(key, value))
        for action in effects.actions:
            assert isinstance(action, TxnMarkers)
            self.sent[action.transactional_id] = action
            partitions = " ".join(f"{topic}-{index}" for topic, index in sorted(action.partitions)) or "nowhere"
            kind = "commit" if action.commits else "abort"
            happened.append(f"{kind} markers of {action.producer_id}/{action.producer_epoch} to {partitions}")
        for reply in effects.replies:
            assert isinstance(reply.token, Call)
            happened.append(self.answered(reply.token, reply.response))
        return happened

    # -- commands ----------------------------------------------------------------------------------------------------

    def carry_out(self, command: str) -> list[str]:  # A table of commands.
        verb, *rest = command.split()
        words = Words.of(rest)
        transactional_id = words.options.get("id", ID)
        if verb == "wait":
            return []
        if verb == "restart":
            return self.restart()
        if verb == "fail-append":
            self.failing = ErrorCode[words.flags[0]]
            return []
        if verb == "no-producer-ids":
            self.has_producer_ids = False
            return []
        if verb == "set":
            actor = self.actors[words.flags[0]]
            actor.epoch = words.number("epoch", actor.epoch)
            before = self.machine().transactions[transactional_id]
            return self.append(before._replace(producer_epoch=actor.epoch))
        if verb == "marked":
            return self.apply(self.machine().handle(MarkersWritten(self.sent.pop(transactional_id)), self.now_ms))
        if verb == "marked-late":
            producer_id, epoch = (int(each) for each in words.flags)
            markers = TxnMarkers(transactional_id, producer_id, epoch, True, frozenset())
            return self.apply(self.machine().handle(MarkersWritten(markers), self.now_ms))
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
        key, value = transaction_record(transaction, flexible=True)
        self.log.append((key, value))
        self.machine().replay(key, value)
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
        return self.apply(self.machine().handle(request, self.now_ms))

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
        sent = b"".join(bytes(each) for each in codec.encode_response(response, call.version))
        told = self.told(call, codec.decode_response(memoryview(sent), call.version))
        return f"{call.actor.name if call.actor else 'admin'}: {told}"

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

    def record(self, key: bytes, value: bytes | None) -> str:
        transactional_id = read_key(key)
        assert transactional_id is not None
        if value is None:
            return f"tombstone of {transactional_id}"
        read = read_value(transactional_id, value)
        partitions = " ".join(f"{topic}-{index}" for topic, index in sorted(read.partitions))
        following = f", next {read.next_producer_id}" if read.next_producer_id != -1 else ""
        text = f"{transactional_id}: {read.state.shown} of {read.producer_id}/{read.producer_epoch}{following}"
        return text + (f", {partitions}" if partitions else "")
