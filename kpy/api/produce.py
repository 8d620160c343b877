"""Produce (0), versions 0-13.

Appends one batch a partition and answers when it is in the log: at once for acks=1, and for acks=all too while a
partition has a single replica. acks=0 gets no answer; an error then closes the connection, which is how its client
learns of it. Versions 0-2 carry message sets of the old formats, which are converted (records/validate.py). Version
13 names topics by id.

The request's records lie in the connection's receive buffer: they are in the log when this returns, and nothing keeps
them. Records of a transaction may have to wait until its coordinator knows of their partitions
(api/transactional_writes.py): these are copied.

Deviations: records that are null are refused with INVALID_RECORD, where Apache Kafka never answers. A transaction's
records need acks=all, which every client sends; others are INVALID_REQUIRED_ACKS. KIP-98 (idempotence, transactions),
KIP-467 (record errors), KIP-516 (topic ids), KIP-890 (version 12 adds partitions to the transaction).
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.transactional_writes import Refused, when_admitted
from kpy.controller.topics import INTERNAL_TOPICS
from kpy.errors import ApiError, ErrorCode, WireError
from kpy.pending import Pending
from kpy.records.validate import InvalidRecords, validate_produced
from kpy.replica.partition import ACKS_ALL
from kpy.wire.produce import (
    BatchIndexAndErrorMessage,
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)

FIRST_VERSION_WITH_TOPIC_IDS = 13
NOTHING_REFUSED: Refused = {}
TOOL_CLIENT_ID = "__admin_client"
"""The one client id that may write to internal topics, as in Apache Kafka."""


def produce(
    request: ProduceRequest, client: Client, broker: Broker
) -> ProduceResponse | Pending[ProduceResponse | None] | None:
    acks = request.acks
    if request.transactional_id is None:
        return _produce(request, client, broker, None if acks in (-1, 0, 1) else ErrorCode.INVALID_REQUIRED_ACKS)
    if acks != ACKS_ALL:
        return _produce(request, client, broker, ErrorCode.INVALID_REQUIRED_ACKS)
    try:
        return when_admitted(
            request, client.version, broker, lambda refused: _produce(request, client, broker, None, refused)
        )
    except ApiError as error:
        return _produce(request, client, broker, error.code)


def _produce(
    request: ProduceRequest,
    client: Client,
    broker: Broker,
    refused: ErrorCode | None,
    refused_partitions: Refused = NOTHING_REFUSED,
) -> ProduceResponse | None:
    """The whole request is `refused`, or some of its partitions are, or none."""
    acks = request.acks
    in_transaction = request.transactional_id is not None
    now_ms = broker.now_ms()
    failed: ErrorCode | None = None
    answers: list[TopicProduceResponse] = []
    for topic in request.topic_data:
        name = topic.name
        error = refused
        if client.version >= FIRST_VERSION_WITH_TOPIC_IDS:
            name = broker.cluster.image.topic_names.get(topic.topic_id, "")
            error = error or (None if name else ErrorCode.UNKNOWN_TOPIC_ID)
        if name in INTERNAL_TOPICS and client.client_id != TOOL_CLIENT_ID:
            error = error or ErrorCode.INVALID_TOPIC_EXCEPTION
        partitions: list[PartitionProduceResponse] = []
        for data in topic.partition_data:
            if error is None and (name, data.index) in refused_partitions:
                why = refused_partitions[name, data.index]
                answer = PartitionProduceResponse(data.index, why.code, -1, -1, -1, [], why.message)
            elif error is None:
                answer = _append(name, data, acks, client.version, broker, now_ms, in_transaction=in_transaction)
            else:
                answer = PartitionProduceResponse(data.index, error, -1)
            if answer.error_code:
                failed = ErrorCode(answer.error_code)
            partitions.append(answer)
        answers.append(TopicProduceResponse(topic.name, topic.topic_id, partitions))
    if acks == 0:
        if failed is not None:
            raise WireError(f"produce with acks=0 of {client.client_id!r} failed: {failed.name}")
        return None
    return ProduceResponse(answers)


def _append(
    topic: str,
    data: PartitionProduceData,
    acks: int,
    version: int,
    broker: Broker,
    now_ms: int,
    *,
    in_transaction: bool,
) -> PartitionProduceResponse:
    """Validates and appends one partition's records. Errors found in them name the real log start offset, others -1."""
    records = data.records
    log_start_offset = -1
    try:
        partition = broker.replicas.partition(topic, data.index)
        if records is None:
            raise ApiError(ErrorCode.INVALID_RECORD, "Records are null.")
        log_start_offset = partition.log.log_start_offset
        batch = validate_produced(records, partition.log.config.produce_rules, version, now_ms)
        if batch.header.is_transactional and not in_transaction:
            raise ApiError(ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED)
        info = partition.append(batch, acks, now_ms)
    except InvalidRecords as error:
        wrong = [BatchIndexAndErrorMessage(index, text) for index, text in error.record_errors]
        return PartitionProduceResponse(data.index, error.code, -1, -1, log_start_offset, wrong, error.message)
    except ApiError as error:
        return PartitionProduceResponse(data.index, error.code, -1, -1, log_start_offset, [], error.message)
    return PartitionProduceResponse(
        data.index, ErrorCode.NONE, info.base_offset, info.log_append_time_ms, info.log_start_offset
    )
