"""DescribeCluster: brokers by the client's listener, and endpoint types. Compared with Apache Kafka 3.9.1."""

import pytest
from admin_broker import CLUSTER_ID, call, make_broker

from kpy.errors import ErrorCode
from kpy.wire import describe_cluster
from kpy.wire.describe_cluster import DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse

NOT_REQUESTED = -(2**31)


def ask(request: DescribeClusterRequest, version: int = 2, listener: str = "PLAINTEXT") -> DescribeClusterResponse:
    response: DescribeClusterResponse = call(make_broker(), describe_cluster, request, version, listener)
    return response


@pytest.mark.parametrize("version", range(3))
def test_each_version_describes_the_cluster(version: int) -> None:
    response = ask(DescribeClusterRequest(), version)
    assert (response.error_code, response.error_message) == (0, None)
    assert (response.cluster_id, response.controller_id) == (CLUSTER_ID, 1)
    assert response.brokers == [DescribeClusterBroker(1, "localhost", 9092, None)]
    assert response.cluster_authorized_operations == NOT_REQUESTED


def test_authorized_operations_are_told_when_asked_for() -> None:
    response = ask(DescribeClusterRequest(include_cluster_authorized_operations=True))
    assert response.cluster_authorized_operations == 8096


def test_brokers_without_the_clients_listener_are_left_out() -> None:
    assert ask(DescribeClusterRequest(), listener="OTHER").brokers == []


@pytest.mark.parametrize(
    ("endpoint_type", "code", "message"),
    [
        (
            2,
            ErrorCode.MISMATCHED_ENDPOINT_TYPE,
            "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER",
        ),
        (9, ErrorCode.UNSUPPORTED_ENDPOINT_TYPE, "Unsupported endpoint type 9"),
    ],
)
def test_other_endpoint_types_are_refused(endpoint_type: int, code: ErrorCode, message: str) -> None:
    response = ask(DescribeClusterRequest(endpoint_type=endpoint_type))
    assert (response.error_code, response.error_message) == (code, message)
    assert (response.cluster_id, response.controller_id, response.brokers) == ("", -1, [])
