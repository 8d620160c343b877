"""Produce (0), versions 0-13.

Appends one batch a partition and answers when it is in the log: at once for acks=1, and for acks=all too while a
partition has a single replica. acks=0 gets no answer; an error then closes the connection, which is how its client
learns of it. Versions 0-2 carry message sets of the old formats, which are converted (records/validate.py). Version
13 names topics by id.

The request's records lie in the connection's receive buffer: they are in the log when this returns, and nothing keeps
them.

Deviations: records that are null are refused with INVALID_RECORD, where Apache Kafka never answers. Transactions are
not served yet: a transactional batch is refused. KIP-98 (idempotence), KIP-467 (record errors), KIP-516 (topic ids).
"""

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.controller.topics import INTERNAL_TOPICS
from kpy.errors import ApiError, ErrorCode, WireError
from kpy.records.validate import InvalidRecords, validate_produced
from kpy.wire.produce import (
    BatchIndexAndErrorMessage,
    PartitionProduceData,
    PartitionProduceResponse,
    ProduceRequest,
    ProduceResponse,
    TopicProduceResponse,
)

FIRST_VERSION_WITH_TOPIC_IDS = 13
TOOL_CLIENT_ID = "__admin_client"
"""The one client id that may write to internal topics, as in Apache Kafka."""


def produce(request: ProduceRequest, client: Client, broker: Broker) -> ProduceResponse | None:
    acks = request.acks
    refused = None
    if acks not in (-1, 0, 1):
        refused = ErrorCode.INVALID_REQUIRED_ACKS
    elif request.transactional_id is not None:
        refused = ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED
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
            if error is None:
                answer = _append(name, data, acks, client.version, broker, now_ms)
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
    topic: str, data: PartitionProduceData, acks: int, version: int, broker: Broker, now_ms: int
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
        if batch.header.is_transactional:
            raise ApiError(
                ErrorCode.TRANSACTIONAL_ID_AUTHORIZATION_FAILED, "Transactions are not served by this broker."
            )
        info = partition.append(batch, acks, now_ms)
    except InvalidRecords as error:
        wrong = [BatchIndexAndErrorMessage(index, text) for index, text in error.record_errors]
        return PartitionProduceResponse(data.index, error.code, -1, -1, log_start_offset, wrong, error.message)
    except ApiError as error:
        return PartitionProduceResponse(data.index, error.code, -1, -1, log_start_offset, [], error.message)
    return PartitionProduceResponse(
        data.index, ErrorCode.NONE, info.base_offset, info.log_append_time_ms, info.log_start_offset
    )
