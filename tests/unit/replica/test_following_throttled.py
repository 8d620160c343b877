"""A throttled partition is left out of a follower's requests, and the others are not (KIP-73)."""

from kpy.replica.follower import Following, Key, Limits
from kpy.replication_quota import ALL_REPLICAS, ReplicationQuota, ThrottledReplicas, parse_throttled_replicas
from kpy.storage.log_config import LogConfig
from kpy.wire.fetch import FetchableTopicResponse, FetchRequest, FetchResponse, PartitionData
from tests.transcripts.replica.replica_transcript import FakeLog

FREE, THROTTLED, ELSEWHERE = b"free".ljust(16), b"throttled".ljust(16), b"elsewhere".ljust(16)
FOLLOWER, RATE = 2, 100


def follow(following: Following, topic_id: bytes, replicas: ThrottledReplicas) -> Key:
    key = topic_id.decode().strip(), 0
    log = FakeLog(topic_id=topic_id, config=LogConfig(follower_replication_throttled_replicas=replicas))
    assert following.follow(key, log, 1) == []
    return key


def asked(request: FetchRequest | None) -> set[bytes]:
    return set() if request is None else {topic.topic_id for topic in request.topics}


def forgotten(request: FetchRequest | None) -> set[bytes]:
    return set() if request is None else {topic.topic_id for topic in request.forgotten_topics_data}


def answer(following: Following, *topic_ids: bytes) -> None:
    """All that was asked for is behind the leader's high watermark, of which nothing has come."""
    data = [PartitionData(0, high_watermark=500, records=b"") for _ in topic_ids]
    topics = [FetchableTopicResponse("", topic_id, [each]) for topic_id, each in zip(topic_ids, data, strict=True)]
    following.answered(FetchResponse(session_id=77, responses=topics), 0)


def test_only_the_throttled_replica_of_this_broker_is_left_out_and_comes_back() -> None:
    quota = ReplicationQuota()
    quota.bytes_per_second = RATE
    following = Following(FOLLOWER, 5, Limits(), quota)
    follow(following, FREE, frozenset())
    follow(following, THROTTLED, parse_throttled_replicas([f"0:{FOLLOWER}"]))
    follow(following, ELSEWHERE, parse_throttled_replicas([f"1:{FOLLOWER}", "0:3"]))
    assert asked(following.next_request(0)) == {FREE, THROTTLED, ELSEWHERE}
    answer(following, FREE, THROTTLED, ELSEWHERE)
    quota.record(2 * RATE, 0)
    request = following.next_request(1)
    assert (asked(request), forgotten(request)) == (set(), {THROTTLED})
    answer(following)
    assert following.next_ready_ms(2) == 2
    request = following.next_request(2_000)
    assert (asked(request), forgotten(request)) == ({THROTTLED}, set())


def test_a_fetcher_of_nothing_but_throttled_partitions_rests() -> None:
    quota = ReplicationQuota()
    quota.bytes_per_second = RATE
    following = Following(FOLLOWER, 5, Limits(backoff_ms=300), quota)
    key = follow(following, THROTTLED, ALL_REPLICAS)
    quota.record(2 * RATE, 0)
    assert following.next_request(0) is None
    assert following.next_ready_ms(0) == 300
    assert following.next_ready_ms(1_990) == 2_000
    following.rest(key, 1_990)
    assert following.next_ready_ms(1_990) == 2_290
