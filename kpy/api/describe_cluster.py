"""DescribeCluster (60), versions 0-2.

The brokers as the client's listener reaches them, the controller and the cluster id (KIP-700). A client that wants a
controller's endpoints (KIP-919) is told that this is a broker. Version 2 asks for fenced brokers too (KIP-1073):
there are none here.
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ErrorCode
from kpy.wire.describe_cluster import DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse

BROKERS = 1
CONTROLLERS = 2

CLUSTER_OPERATIONS = 0b1_1111_1010_0000
"""Bits of the operations (AclOperation) that a cluster knows: all are allowed while there is no authorizer."""


def describe_cluster(request: DescribeClusterRequest, client: Client, broker: Broker) -> DescribeClusterResponse:
    if request.endpoint_type == CONTROLLERS:
        return DescribeClusterResponse(
            error_code=ErrorCode.MISMATCHED_ENDPOINT_TYPE,
            error_message="The request was sent to an endpoint of type BROKER,"
            " but we wanted an endpoint of type CONTROLLER",
        )
    if request.endpoint_type != BROKERS:
        return DescribeClusterResponse(
            error_code=ErrorCode.UNSUPPORTED_ENDPOINT_TYPE,
            error_message=f"Unsupported endpoint type {request.endpoint_type}",
        )
    image = broker.cluster.image
    brokers = [
        DescribeClusterBroker(known.broker_id, *known.endpoints[client.listener], known.rack)
        for known in image.brokers.values()
        if client.listener in known.endpoints
    ]
    response = DescribeClusterResponse(
        endpoint_type=BROKERS, cluster_id=image.cluster_id, controller_id=image.controller_id, brokers=brokers
    )
    if request.include_cluster_authorized_operations:
        response.cluster_authorized_operations = CLUSTER_OPERATIONS
    return response
