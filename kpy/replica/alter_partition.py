"""Proposals for another ISR, on their way to the controller (Kafka class DefaultAlterPartitionManager).

One request is in flight at a time, with one proposal for each partition; what comes up meanwhile goes with the next. A
request that fails as a whole is sent again, to whoever is the controller by then, after a pause that grows from
RETRY_MS to MAX_RETRY_MS: a broker that has to register anew is refused until it has. A proposal is sent only while this
broker leads the partition in the epoch that it was made in: the controller does not check who asks.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from kpy.errors import ErrorCode
from kpy.log_repetition import Repetition
from kpy.peers import PeerError
from kpy.replica.leader import IsrChange
from kpy.replica.membership import Membership
from kpy.replica.partition import Partition
from kpy.wire.alter_partition import (
    AlterPartitionRequest,
    AlterPartitionResponse,
    BrokerState,
    RequestPartitionData,
    RequestTopicData,
    ResponsePartitionData,
)
from kpy.wire.primitives import Message

log = logging.getLogger("kpy.replica")

ALTER_PARTITION = 56
VERSION = 3
RETRY_MS = 50
MAX_RETRY_MS = 1_000
NO_REPLICA_EPOCH = -1
"""A controller with ZooKeeper knows replicas by their ids alone."""

AskController = Callable[[int, Message, int], Awaitable[Any]]
"""Asks whoever is the controller now. Raises PeerError, also while nobody is known to be."""

Key = tuple[bytes, int]


class AlterPartitionSender:
    """`propose` takes a proposal; `run` sends until cancelled."""

    def __init__(self, broker_id: int, membership: Membership, ask_controller: AskController) -> None:
        self._broker_id = broker_id
        self._membership = membership
        self._ask_controller = ask_controller
        self._unsent: dict[Key, tuple[Partition, IsrChange]] = {}
        self._work = trio.Event()
        self._problem = Repetition(log, logging.WARNING)

    def propose(self, partition: Partition, change: IsrChange) -> None:
        """Takes the proposal's place in the next request; a partition has one at a time."""
        self._unsent[partition.log.topic_id, partition.partition] = partition, change
        self._work.set()

    async def run(self) -> None:
        retry_ms = RETRY_MS
        while True:
            await self._work.wait()
            self._work = trio.Event()
            sent = {key: each for key, each in self._unsent.items() if _is_current(*each)}
            self._unsent.clear()
            if sent and not await self._send(sent):
                for key, each in sent.items():
                    self._unsent.setdefault(key, each)
                await trio.sleep(retry_ms / 1000)
                retry_ms = min(2 * retry_ms, MAX_RETRY_MS)
            elif sent:
                retry_ms = RETRY_MS
            if self._unsent:
                self._work.set()

    async def _send(self, sent: dict[Key, tuple[Partition, IsrChange]]) -> bool:
        """Whether the request need not be repeated as a whole."""
        try:
            request = self._request(sent)
            response: AlterPartitionResponse = await self._ask_controller(ALTER_PARTITION, request, VERSION)
        except PeerError as error:
            self._problem.say(f"the controller cannot be asked for another ISR: {error}")
            return False
        if response.error_code != ErrorCode.NONE:
            self._problem.say(f"the controller refuses AlterPartition: {ErrorCode(response.error_code).name}")
            return False
        self._problem.over()
        answers = {
            (topic.topic_id, answer.partition_index): answer for topic in response.topics for answer in topic.partitions
        }
        for key, (partition, change) in sent.items():
            if self._must_repeat(partition, change, answers.get(key)):
                self._unsent.setdefault(key, (partition, change))
        return True

    def _must_repeat(self, partition: Partition, change: IsrChange, answer: ResponsePartitionData | None) -> bool:
        name = f"{partition.topic}-{partition.partition}"
        if answer is None:
            return partition.isr_refused(change, ErrorCode.UNKNOWN_SERVER_ERROR)
        error = ErrorCode(answer.error_code)
        if error != ErrorCode.NONE:
            log.info("%s: the controller refuses the ISR %s: %s", name, list(change.isr), error.name)
            return partition.isr_refused(change, error)
        log.info("%s: the ISR is %s by now", name, answer.isr)
        partition.isr_settled(change, answer.leader_epoch, tuple(answer.isr), answer.partition_epoch)
        return False

    def _request(self, sent: dict[Key, tuple[Partition, IsrChange]]) -> AlterPartitionRequest:
        topics: dict[bytes, RequestTopicData] = {}
        for (topic_id, index), (_, change) in sent.items():
            topic = topics.setdefault(topic_id, RequestTopicData(topic_id=topic_id))
            topic.partitions.append(
                RequestPartitionData(
                    partition_index=index,
                    leader_epoch=change.leader_epoch,
                    new_isr_with_epochs=[BrokerState(replica, NO_REPLICA_EPOCH) for replica in change.isr],
                    partition_epoch=change.partition_epoch,
                )
            )
        return AlterPartitionRequest(self._broker_id, self._membership.broker_epoch, list(topics.values()))


def _is_current(partition: Partition, change: IsrChange) -> bool:
    return partition.leadership is not None and partition.leadership.pending is change
