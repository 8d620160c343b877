"""ControlledShutdown: a broker asks the controller to move its leaderships before it stops.

Requests of v0 have request header v0, which has no client id.
"""

from protocol.grammar import (
    BrokerId,
    ErrorCode,
    Int32,
    Int64,
    TopicName,
    array,
    default,
    request,
    response,
    since,
    struct,
    versions,
)

ControlledShutdownRequest = request(
    7,
    versions("0-3", flexible="3+"),
    "broker_id" / BrokerId,
    # changes at each registration of the broker; tells an old incarnation from a new one
    since(2, default(-1, "broker_epoch" / Int64)),
)

RemainingPartition = struct(
    "RemainingPartition",
    "topic_name" / TopicName,
    "partition_index" / Int32,
)

ControlledShutdownResponse = response(
    7,
    versions("0-3", flexible="3+"),
    "error_code" / ErrorCode,
    "remaining_partitions" / array(RemainingPartition),  # still led by the broker that wants to go
)
