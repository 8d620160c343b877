"""ElectLeaders (43), versions 0-2: preferred leaders, or unclean ones where nobody leads.

Without partitions it is about all, and those that need no election are not answered. What was elected is known here
before this answers, else REQUEST_TIMED_OUT. Only the controller elects; other brokers answer NOT_CONTROLLER for each
partition. KIP-183, KIP-460 (unclean elections).
"""

from collections.abc import Mapping, Sequence

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.errors import ApiError, ErrorCode
from kpy.metadata.image import MetadataImage
from kpy.metadata.leader_elections import elect_leaders as elect
from kpy.metadata.state_changes import Verdict
from kpy.wire.elect_leaders import (
    ElectLeadersRequest,
    ElectLeadersResponse,
    PartitionResult,
    ReplicaElectionResult,
)

PREFERRED, UNCLEAN = 0, 1


async def elect_leaders(request: ElectLeadersRequest, client: Client, broker: Broker) -> ElectLeadersResponse:
    if request.election_type not in (PREFERRED, UNCLEAN):
        return ElectLeadersResponse(error_code=ErrorCode.INVALID_REQUEST)
    asked_for_all = request.topic_partitions is None
    partitions = _asked(request, broker.cluster.image)
    verdicts: Mapping[str, Mapping[int, Verdict]]
    try:
        verdicts = await elect(broker.cluster, partitions, unclean=request.election_type == UNCLEAN)
    except ApiError as error:
        verdicts = {topic: dict.fromkeys(indexes, error) for topic, indexes in partitions.items()}
    await broker.cluster.wait_until(lambda image: _has(image, verdicts), request.timeout_ms)
    results: list[ReplicaElectionResult] = []
    for topic, judged in verdicts.items():
        answers = [
            _answer(topic, index, verdict, broker.cluster.image)
            for index, verdict in judged.items()
            if not (asked_for_all and isinstance(verdict, ApiError) and verdict.code == ErrorCode.ELECTION_NOT_NEEDED)
        ]
        if answers:
            results.append(ReplicaElectionResult(topic, answers))
    return ElectLeadersResponse(replica_election_results=results)


def _asked(request: ElectLeadersRequest, image: MetadataImage) -> dict[str, Sequence[int]]:
    if request.topic_partitions is None:
        return {name: range(len(topic.partitions)) for name, topic in image.topics.items()}
    return {topic.topic: list(dict.fromkeys(topic.partitions)) for topic in request.topic_partitions}


def _has(image: MetadataImage, verdicts: Mapping[str, Mapping[int, Verdict]]) -> bool:
    return all(
        isinstance(verdict, ApiError) or _leader(image, topic, index) == verdict.leader
        for topic, judged in verdicts.items()
        for index, verdict in judged.items()
    )


def _leader(image: MetadataImage, topic: str, index: int) -> int | None:
    known = image.topics.get(topic)
    return known.partitions[index].leader if known is not None and index < len(known.partitions) else None


def _answer(topic: str, index: int, verdict: Verdict, image: MetadataImage) -> PartitionResult:
    if isinstance(verdict, ApiError):
        return PartitionResult(index, verdict.code, verdict.message)
    is_known = _leader(image, topic, index) == verdict.leader
    return PartitionResult(index, ErrorCode.NONE if is_known else ErrorCode.REQUEST_TIMED_OUT, None)
