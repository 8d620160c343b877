"""Whether a leader may have the ISR that it asks for (AlterPartition, KafkaController.processAlterPartition)."""

from collections.abc import Set
from dataclasses import replace
from typing import NamedTuple

from kpy.errors import ApiError, ErrorCode
from kpy.metadata.image import PartitionImage


class Proposal(NamedTuple):
    """The ISR that a leader wants, in its leader epoch and on top of a partition epoch."""

    leader_epoch: int
    partition_epoch: int
    isr: tuple[int, ...]
    recovering: bool = False
    """True while the followers of a leader that was elected uncleanly are not in step with it."""


def judged(partition: PartitionImage | None, proposal: Proposal, eligible: Set[int]) -> PartitionImage | ApiError:
    """The partition as it is to be: the one that is given if it is so already; or why not.

    NOT_CONTROLLER for epochs that only a later controller can have given, FENCED_LEADER_EPOCH and
    INVALID_UPDATE_VERSION for older ones, INVALID_REQUEST for a leader that would recover with others in the ISR,
    INELIGIBLE_REPLICA for a broker that is away or about to stop.
    """
    if partition is None:
        return ApiError(ErrorCode.UNKNOWN_TOPIC_OR_PARTITION)
    if proposal.partition_epoch > partition.partition_epoch or proposal.leader_epoch > partition.leader_epoch:
        return ApiError(ErrorCode.NOT_CONTROLLER)
    if proposal.leader_epoch < partition.leader_epoch:
        return ApiError(ErrorCode.FENCED_LEADER_EPOCH)
    if proposal.isr == partition.isr and proposal.recovering == partition.recovering:
        return partition
    if proposal.partition_epoch < partition.partition_epoch:
        return ApiError(ErrorCode.INVALID_UPDATE_VERSION)
    if proposal.recovering and (len(proposal.isr) > 1 or not partition.recovering):
        return ApiError(ErrorCode.INVALID_REQUEST)
    if not proposal.isr or not set(proposal.isr) <= set(partition.replicas):
        return ApiError(ErrorCode.INVALID_REQUEST)
    if not eligible >= set(proposal.isr):
        return ApiError(ErrorCode.INELIGIBLE_REPLICA)
    return replace(
        partition,
        isr=proposal.isr,
        recovering=proposal.recovering,
        partition_epoch=partition.partition_epoch + 1,
    )
