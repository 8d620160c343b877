"""This broker's place in a cluster whose controller speaks to it: the epochs that fence messages from the past.

A controller of an earlier time has a lower controller epoch, and what it still sends is refused. A request for an
earlier registration of this broker carries a lower broker epoch. Both are checked in the same way for LeaderAndIsr,
UpdateMetadata and StopReplica (KIP-380, KafkaApis.isBrokerEpochStale, ReplicaManager).
"""

from typing import Protocol

from kpy.errors import ErrorCode

NO_BROKER_EPOCH = -1


class ControlRequest(Protocol):
    """The fields that all requests of a controller have."""

    controller_id: int
    controller_epoch: int
    broker_epoch: int


class Membership:
    """`broker_epoch` is the czxid of this broker's node in ZooKeeper; whoever registers sets it."""

    def __init__(self, broker_epoch: int = NO_BROKER_EPOCH) -> None:
        self.broker_epoch = broker_epoch
        self.controller_epoch = 0

    def registered(self, broker_epoch: int) -> None:
        """This broker has a node of that epoch now."""
        self.broker_epoch = broker_epoch

    def admit(self, request: ControlRequest) -> ErrorCode:
        """STALE_BROKER_EPOCH or STALE_CONTROLLER_EPOCH for a request from the past; else the epoch is remembered."""
        # A greater broker epoch is fine: the controller may know of this registration before this broker does.
        if request.broker_epoch != NO_BROKER_EPOCH and request.broker_epoch < self.broker_epoch:
            return ErrorCode.STALE_BROKER_EPOCH
        if request.controller_epoch < self.controller_epoch:
            return ErrorCode.STALE_CONTROLLER_EPOCH
        self.controller_epoch = request.controller_epoch
        return ErrorCode.NONE
