"""AllocateProducerIds: a broker asks the controller for a block of producer ids (KIP-730)."""

from protocol.grammar import BrokerId, ErrorCode, Int32, Int64, ProducerId, default, request, response, versions

AllocateProducerIdsRequest = request(
    67,
    versions("0", flexible="0+"),
    "broker_id" / BrokerId,
    # changes at each registration of the broker; tells an old incarnation from a new one
    default(-1, "broker_epoch" / Int64),
)

AllocateProducerIdsResponse = response(
    67,
    versions("0", flexible="0+"),
    "throttle_time_ms" / Int32,
    "error_code" / ErrorCode,
    "producer_id_start" / ProducerId,  # first of the block
    "producer_id_len" / Int32,  # size of the block
)
