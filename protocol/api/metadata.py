"""Metadata: brokers, topics, and who leads each partition."""

from protocol.grammar import (
    Bool,
    BrokerId,
    ErrorCode,
    Int32,
    String,
    TopicName,
    Uuid,
    array,
    default,
    nullable,
    request,
    response,
    since,
    struct,
    until,
    versions,
)

MetadataRequestTopic = struct(
    "MetadataRequestTopic",
    since(10, "topic_id" / Uuid),
    "name" / nullable(TopicName, since=10),  # null where the id says which
)

MetadataRequest = request(
    3,
    versions("0-13", flexible="9+"),
    "topics" / nullable(array(MetadataRequestTopic), since=1),  # null for all; in v0 an empty array for all
    since(4, default(True, "allow_auto_topic_creation" / Bool)),
    since(8, until(10, "include_cluster_authorized_operations" / Bool)),
    since(8, "include_topic_authorized_operations" / Bool),
)

MetadataResponseBroker = struct(
    "MetadataResponseBroker",
    "node_id" / BrokerId,
    "host" / String,
    "port" / Int32,
    since(1, default(None, "rack" / nullable(String))),
)

MetadataResponsePartition = struct(
    "MetadataResponsePartition",
    "error_code" / ErrorCode,
    "partition_index" / Int32,
    "leader_id" / BrokerId,  # -1 for nobody
    since(7, default(-1, "leader_epoch" / Int32)),
    "replica_nodes" / array(BrokerId),
    "isr_nodes" / array(BrokerId),  # the replicas that are in sync
    since(5, "offline_replicas" / array(BrokerId)),  # on brokers or directories that are down
)

MetadataResponseTopic = struct(
    "MetadataResponseTopic",
    "error_code" / ErrorCode,
    "name" / nullable(TopicName, since=12),  # null where an id was asked for that is not known
    since(10, "topic_id" / Uuid),
    since(1, "is_internal" / Bool),  # whether the broker keeps its own state in it, as in __consumer_offsets
    "partitions" / array(MetadataResponsePartition),
    # a bit for each ACL operation; INT32_MIN when not asked for
    since(8, default(-2_147_483_648, "topic_authorized_operations" / Int32)),
)

MetadataResponse = response(
    3,
    versions("0-13", flexible="9+"),
    since(3, "throttle_time_ms" / Int32),
    "brokers" / array(MetadataResponseBroker),
    since(2, default(None, "cluster_id" / nullable(String))),
    since(1, default(-1, "controller_id" / BrokerId)),  # -1 if unknown
    "topics" / array(MetadataResponseTopic),
    # a bit for each ACL operation; INT32_MIN when not asked for
    since(8, until(10, default(-2_147_483_648, "cluster_authorized_operations" / Int32))),
    since(13, "error_code" / ErrorCode),
)
