"""DescribeCluster: brokers, or since v1 controllers (KIP-700, KIP-919)."""

from protocol.grammar import (
    Bool,
    BrokerId,
    ErrorCode,
    Int8,
    Int32,
    String,
    array,
    default,
    nullable,
    request,
    response,
    since,
    struct,
    versions,
)

DescribeClusterRequest = request(
    60,
    versions("0-2", flexible="0+"),
    "include_cluster_authorized_operations" / Bool,
    since(1, default(1, "endpoint_type" / Int8)),  # 1 brokers, 2 controllers
    since(2, "include_fenced_brokers" / Bool),
)

DescribeClusterBroker = struct(
    "DescribeClusterBroker",
    "broker_id" / BrokerId,
    "host" / String,
    "port" / Int32,
    default(None, "rack" / nullable(String)),
    since(2, "is_fenced" / Bool),
)

DescribeClusterResponse = response(
    60,
    versions("0-2", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    default(None, "error_message" / nullable(String)),
    since(1, default(1, "endpoint_type" / Int8)),  # 1 brokers, 2 controllers
    "cluster_id" / String,
    default(-1, "controller_id" / BrokerId),
    "brokers" / array(DescribeClusterBroker),
    # a bit for each ACL operation; INT32_MIN when not asked for
    default(-2_147_483_648, "cluster_authorized_operations" / Int32),
)
