"""Which replica a consumer is to read from, if not from the leader (KIP-392, Kafka class RackAwareReplicaSelector)."""

from collections.abc import Mapping

from kpy.replica.leader import Leadership

FROM_HERE = -1


def preferred_read_replica(
    leadership: Leadership, racks: Mapping[int, str | None], client_rack: str, fetch_offset: int
) -> int:
    """A broker id, or FROM_HERE. `racks` has the live brokers that the client can reach.

    The leader, if it stands in the client's rack. Else the in-sync follower there that has most of the log, as long as
    it holds what the client wants. Without one, the leader.
    """
    if racks.get(leadership.broker_id) == client_rack:
        return FROM_HERE
    candidates = [
        (follower.log_end_offset, replica)
        for replica, follower in leadership.followers.items()
        if racks.get(replica) == client_rack
        and replica in leadership.isr
        and follower.log_start_offset <= fetch_offset <= follower.log_end_offset
    ]
    return max(candidates)[1] if candidates else FROM_HERE
