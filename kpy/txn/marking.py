"""The end of one transaction on its way to its partitions, and what their leaders' answers mean for it.

A partition is `left` until its leader is asked for the marker, `under_way` until that has answered, and `failed` if it
has to be asked again. When none is in either place, all are marked. Which errors end what is Apache Kafka's table
(class TransactionMarkerRequestCompletionHandler); where that stops at an error that cannot be, this goes on asking.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from enum import Enum, auto
from typing import Any

from kpy.errors import ErrorCode
from kpy.txn.records import by_topic
from kpy.txn.shard import TxnMarkers
from kpy.txn.transaction import TopicPartition
from kpy.wire.write_txn_markers import (
    WritableTxnMarker,
    WritableTxnMarkerTopic,
    WriteTxnMarkersRequest,
    WriteTxnMarkersResponse,
)

MAX_MARKERS_A_REQUEST = 2_000
"""What is more waits for the next request, so that none grows without bound or keeps a leader busy for long."""


class Verdict(Enum):
    DONE = auto()
    ASK_AGAIN = auto()
    GIVE_UP = auto()
    """The whole transaction: its leader knows of a later end, so another coordinator has taken over."""


VERDICTS: Mapping[int, Verdict] = {
    ErrorCode.NONE: Verdict.DONE,
    # Such a partition cannot have taken records of a transaction either.
    ErrorCode.UNSUPPORTED_FOR_MESSAGE_FORMAT: Verdict.DONE,
    ErrorCode.UNSUPPORTED_VERSION: Verdict.DONE,
    ErrorCode.UNKNOWN_TOPIC_OR_PARTITION: Verdict.ASK_AGAIN,
    ErrorCode.NOT_LEADER_OR_FOLLOWER: Verdict.ASK_AGAIN,
    ErrorCode.NOT_ENOUGH_REPLICAS: Verdict.ASK_AGAIN,
    ErrorCode.NOT_ENOUGH_REPLICAS_AFTER_APPEND: Verdict.ASK_AGAIN,
    ErrorCode.REQUEST_TIMED_OUT: Verdict.ASK_AGAIN,
    ErrorCode.KAFKA_STORAGE_ERROR: Verdict.ASK_AGAIN,
    ErrorCode.NETWORK_EXCEPTION: Verdict.ASK_AGAIN,
    ErrorCode.INVALID_PRODUCER_EPOCH: Verdict.GIVE_UP,
    ErrorCode.TRANSACTION_COORDINATOR_FENCED: Verdict.GIVE_UP,
}
"""By the error that a leader answers for a partition; UNKNOWN_TOPIC_OR_PARTITION, because a deleted partition is not
asked for: it is the leader that does not know of a new one yet.
"""


class Marking:
    """`term` stands for the time in office of the coordinator that has decided, and is its own to know."""

    __slots__ = ("coordinator_epoch", "failed", "is_given_up", "left", "markers", "term", "under_way")

    def __init__(self, markers: TxnMarkers, coordinator_epoch: int, term: Any) -> None:
        self.markers = markers
        self.coordinator_epoch = coordinator_epoch
        self.term = term
        self.left = deque(sorted(markers.partitions))
        self.under_way: set[TopicPartition] = set()
        self.failed: list[TopicPartition] = []
        self.is_given_up = False

    @property
    def is_done(self) -> bool:
        """Every partition has its marker, or needs none."""
        return not (self.left or self.under_way or self.failed or self.is_given_up)

    def take(self, count: int) -> list[TopicPartition]:
        """The next partitions, which are under way from now on. Each is to be settled."""
        taken = [self.left.popleft() for _ in range(min(count, len(self.left)))]
        self.under_way.update(taken)
        return taken

    def settle(self, partition: TopicPartition, error: int) -> Verdict:
        """Take note of the answer for one partition."""
        verdict = VERDICTS.get(error, Verdict.ASK_AGAIN)
        self.under_way.discard(partition)
        if verdict is Verdict.GIVE_UP:
            self.is_given_up = True
            self.left.clear()
            self.failed.clear()
        elif verdict is Verdict.ASK_AGAIN and not self.is_given_up:
            self.failed.append(partition)
        return verdict

    def retry(self) -> None:
        """What has failed may be asked again now."""
        self.left += self.failed
        self.failed.clear()


MarkerOf = tuple[Marking, TopicPartition]


def take_markers(waiting: deque[MarkerOf], is_current: Callable[[Marking], bool]) -> list[MarkerOf]:
    """What goes with the next request to one broker. What nobody waits for any more is dropped."""
    taken: list[MarkerOf] = []
    while waiting and len(taken) < MAX_MARKERS_A_REQUEST:
        item = waiting.popleft()
        if is_current(item[0]):
            taken.append(item)
    return taken


def markers_request(items: Collection[MarkerOf]) -> WriteTxnMarkersRequest:
    """One marker for each transaction, with the partitions that it is asked for here."""
    partitions: dict[Marking, list[TopicPartition]] = {}
    for marking, partition in items:
        partitions.setdefault(marking, []).append(partition)
    return WriteTxnMarkersRequest(
        [
            WritableTxnMarker(
                marking.markers.producer_id,
                marking.markers.producer_epoch,
                marking.markers.commits,
                [WritableTxnMarkerTopic(topic, indexes) for topic, indexes in by_topic(each).items()],
                marking.coordinator_epoch,
            )
            for marking, each in partitions.items()
        ]
    )


def markers_errors(items: Collection[MarkerOf], response: WriteTxnMarkersResponse) -> Iterator[tuple[MarkerOf, int]]:
    """The error code for each. An answer says nothing of epochs: a producer has one transaction at a time.

    UNKNOWN_SERVER_ERROR for what the answer leaves out.
    """
    errors = {
        (marker.producer_id, topic.name, each.partition_index): each.error_code
        for marker in response.markers
        for topic in marker.topics
        for each in topic.partitions
    }
    for item in items:
        marking, (topic, index) = item
        yield item, errors.get((marking.markers.producer_id, topic, index), ErrorCode.UNKNOWN_SERVER_ERROR)
