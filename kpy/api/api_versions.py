"""ApiVersions (18), versions 0-4.

The first request of nearly every client: it learns what it may send. A version that kpy does not know is answered in
version 0 with UNSUPPORTED_VERSION and the range of this API, so that the client can ask again (KIP-511). Version 3
brings the client's name and version, which must look like Kafka's pattern for them. KIP-35, KIP-511, KIP-584.

Versions 3 and up say which features the cluster works with. Of these kpy has one, transaction.version, at level 2 as
Apache Kafka 4: with it a client's late EndTxn cannot end its next transaction (KIP-890). Apache Kafka 3.9 with
ZooKeeper has no features; a client that knows none goes on as there. The range a broker supports is left out below
version 4, because its minimum 0 breaks older Java clients (KAFKA-17492).
"""

import re

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ErrorCode
from kpy.txn.config import TV_2
from kpy.wire.api_versions import (
    ApiVersion,
    ApiVersionsRequest,
    ApiVersionsResponse,
    FinalizedFeatureKey,
    SupportedFeatureKey,
)

TRANSACTION_VERSION = "transaction.version"
FEATURES_EPOCH = 0
"""They have never been changed since the cluster exists."""

SOFTWARE_NAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?")
"""What KIP-511 allows in client_software_name and client_software_version."""


def api_versions(request: ApiVersionsRequest, client: Client, broker: Broker) -> ApiVersionsResponse:
    if client.version >= 3:
        name, version = request.client_software_name, request.client_software_version
        if not (SOFTWARE_NAME.fullmatch(name) and SOFTWARE_NAME.fullmatch(version)):
            return ApiVersionsResponse(ErrorCode.INVALID_REQUEST)
        client.software_name, client.software_version = name, version
    level = broker.transactions.config.transactions.transaction_version
    return ApiVersionsResponse(
        ErrorCode.NONE,
        _served(broker.membership is not None and client.listener == broker.config.inter_broker_listener),
        supported_features=[SupportedFeatureKey(TRANSACTION_VERSION, 0, TV_2)] if client.version >= 4 else [],
        finalized_features_epoch=FEATURES_EPOCH,
        finalized_features=[FinalizedFeatureKey(TRANSACTION_VERSION, level, level)] if level else [],
    )


def unsupported_version() -> ApiVersionsResponse:
    """The answer to a version that is not served: only this API's own range, in version 0."""
    own = [entry for entry in _served(False) if entry.api_key == 18]
    return ApiVersionsResponse(ErrorCode.UNSUPPORTED_VERSION, own)


def _served(to_brokers: bool) -> list[ApiVersion]:
    from kpy.api.registry import APIS, CONTROL_APIS  # the registry imports the handlers, this one too

    rows = sorted(APIS + CONTROL_APIS) if to_brokers else APIS
    return [ApiVersion(key, lowest, highest) for key, _, lowest, highest in rows]
