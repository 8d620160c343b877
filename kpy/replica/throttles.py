"""Replication throttles: what a reassignment may take from the other work of a broker (KIP-73).

A topic's leader.replication.throttled.replicas names the partitions whose leader counts what it sends to followers, and
follower.replication.throttled.replicas those whose followers count what they append. The broker's rates,
leader.replication.throttled.rate and follower.replication.throttled.rate, bound either sum. All bytes of these
partitions are counted, but only replicas that are not in sync wait when there were too many: the others would fall out
of the ISR. The leader answers such a follower without records (ReplicaManager.shouldLeaderThrottle); a follower leaves
such a partition out of its requests (RemoteLeaderEndPoint.shouldFollowerThrottle, here follower.py).

Apache Kafka's leader counts the fields around the records too, some fifty bytes a partition; here both sides count
records alone.
"""

from typing import TYPE_CHECKING

import trio

from kpy.replication_quota import ReplicationQuota, is_throttled

if TYPE_CHECKING:
    from kpy.replica.partition import Partition


class Throttles:
    """`leader` bounds what this broker sends, `follower` what it takes. Both begin without a limit."""

    def __init__(self, broker_id: int, window_count: int = 11, window_size_ms: int = 1_000) -> None:
        self._broker_id = broker_id
        self.leader = ReplicationQuota(window_count, window_size_ms)
        self.follower = ReplicationQuota(window_count, window_size_ms)

    def limit(self, leader_bytes_per_second: int, follower_bytes_per_second: int) -> None:
        """From now on."""
        self.leader.bytes_per_second = leader_bytes_per_second
        self.follower.bytes_per_second = follower_bytes_per_second

    def counts_sent(self, partition: "Partition") -> bool:
        """Whether what followers are sent of the partition counts."""
        replicas = partition.log.config.leader_replication_throttled_replicas
        return is_throttled(replicas, partition.partition, self._broker_id)

    def holds_back(self, partition: "Partition", replica: int) -> bool:
        """Whether a follower gets no records of the partition until less was sent."""
        return (
            self.counts_sent(partition)
            and replica not in partition.led().isr
            and self.leader.exceeded_for_ms(_clock_ms()) > 0
        )

    def sent(self, size_bytes: int) -> None:
        """Counts records for a follower, of partitions of which they count."""
        self.leader.record(size_bytes, _clock_ms())

    def taken(self, partition: "Partition", size_bytes: int) -> None:
        """Counts records that this broker has appended as a follower, if they count."""
        replicas = partition.log.config.follower_replication_throttled_replicas
        if is_throttled(replicas, partition.partition, self._broker_id):
            self.follower.record(size_bytes, _clock_ms())


def _clock_ms() -> int:
    return int(trio.current_time() * 1000)
