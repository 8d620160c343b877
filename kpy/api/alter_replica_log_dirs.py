"""AlterReplicaLogDirs (34), versions 0-2.

Begins to move partitions into other data directories of this broker, and answers at once; DescribeLogDirs tells how far
the copies are. A partition that moves already changes its destination, and one that is wanted where it is stays. For a
partition that does not exist the directory is remembered until it is created. KIP-113.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ApiError, ErrorCode
from kpy.wire.alter_replica_log_dirs import (
    AlterReplicaLogDirPartitionResult,
    AlterReplicaLogDirsRequest,
    AlterReplicaLogDirsResponse,
    AlterReplicaLogDirTopicResult,
)


def alter_replica_log_dirs(
    request: AlterReplicaLogDirsRequest, client: Client, broker: Broker
) -> AlterReplicaLogDirsResponse:
    # The last one counts of what is named twice, as in Apache Kafka.
    wanted: dict[str, dict[int, str]] = {}
    for directory in request.dirs:
        for topic in directory.topics:
            wanted.setdefault(topic.name, {}).update(dict.fromkeys(topic.partitions, directory.path))
    results = [
        AlterReplicaLogDirTopicResult(
            topic,
            [
                AlterReplicaLogDirPartitionResult(index, _move(topic, index, path, broker))
                for index, path in partitions.items()
            ],
        )
        for topic, partitions in wanted.items()
        if partitions
    ]
    return AlterReplicaLogDirsResponse(results=results)


def _move(topic: str, index: int, path: str, broker: Broker) -> ErrorCode:
    try:
        broker.replicas.move(topic, index, path)
    except ApiError as error:
        # A replica that another broker has. The clients of this API know no other error for it.
        return ErrorCode.REPLICA_NOT_AVAILABLE if error.code is ErrorCode.NOT_LEADER_OR_FOLLOWER else error.code
    return ErrorCode.NONE
