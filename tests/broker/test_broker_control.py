"""A broker of a cluster, with the test as its controller, as a follower and as a client: byte by byte over sockets."""

import json
import re
from pathlib import Path
from typing import Any

import trio

from kpy.errors import ErrorCode
from kpy.ids import from_text
from kpy.replica.membership import Membership
from kpy.wire.controlled_shutdown import ControlledShutdownRequest
from kpy.wire.fetch import FetchPartition, FetchRequest, FetchTopic, ReplicaState
from kpy.wire.leader_and_isr import LeaderAndIsrPartitionState, LeaderAndIsrRequest, LeaderAndIsrTopicState
from kpy.wire.list_offsets import ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic
from kpy.wire.metadata import MetadataRequest, MetadataRequestTopic
from kpy.wire.stop_replica import StopReplicaPartitionState, StopReplicaRequest, StopReplicaTopicState
from kpy.wire.update_metadata import (
    UpdateMetadataBroker,
    UpdateMetadataEndpoint,
    UpdateMetadataPartitionState,
    UpdateMetadataRequest,
    UpdateMetadataTopicState,
)
from tests.broker.raw_client import Connect, RawClient, batch, codec_of, frame, produce_request, run_with_broker

GOLDEN = Path(__file__).parents[1] / "golden" / "controller-requests-3.9.1.jsonl"
TOPIC, TOPIC_ID = "t", b"0123456789abcdef"
SELF, OTHER = 1, 2
EPOCH = 25
PRODUCE, FETCH, LIST_OFFSETS, METADATA, LEADER_AND_ISR, STOP_REPLICA, UPDATE_METADATA, CONTROLLED_SHUTDOWN = range(8)
SETTINGS = {"broker.id": str(SELF), "min.insync.replicas": "1", "controlled.shutdown.enable": "false"}


def roles(leader: int, leader_epoch: int, *, isr: tuple[int, ...] = (1, 2), **fields: Any) -> LeaderAndIsrRequest:
    state = LeaderAndIsrPartitionState(
        leader=leader, leader_epoch=leader_epoch, isr=list(isr), replicas=[1, 2], is_new=True, partition_epoch=3
    )
    return LeaderAndIsrRequest(
        **{"controller_id": 9, "controller_epoch": 1, "broker_epoch": EPOCH, **fields},
        topic_states=[LeaderAndIsrTopicState(TOPIC, TOPIC_ID, [state])],
    )


def metadata_update(leader: int, leader_epoch: int, **fields: Any) -> UpdateMetadataRequest:
    state = UpdateMetadataPartitionState(leader=leader, leader_epoch=leader_epoch, isr=[1, 2], replicas=[1, 2])
    brokers = [
        UpdateMetadataBroker(id=each, endpoints=[UpdateMetadataEndpoint(1, "127.0.0.1", "PLAINTEXT", 0)])
        for each in (SELF, OTHER)
    ]
    return UpdateMetadataRequest(
        **{"controller_id": 9, "controller_epoch": 1, "broker_epoch": EPOCH, **fields},
        topic_states=[UpdateMetadataTopicState(TOPIC, TOPIC_ID, [state])],
        live_brokers=brokers,
    )


def stop(leader_epoch: int, *, delete: bool) -> StopReplicaRequest:
    topic = StopReplicaTopicState(TOPIC, [StopReplicaPartitionState(0, leader_epoch, delete)])
    return StopReplicaRequest(controller_id=9, controller_epoch=1, broker_epoch=EPOCH, topic_states=[topic])


def fetch_as(replica: int, offset: int, *, epoch: int = 0, last_epoch: int = -1, wait_ms: int = 0) -> FetchRequest:
    position = FetchPartition(0, epoch, offset, last_epoch, 0, 1 << 20)
    return FetchRequest(
        replica_state=ReplicaState(replica, EPOCH),
        max_wait_ms=wait_ms,
        min_bytes=1,
        max_bytes=1 << 20,
        topics=[FetchTopic("", TOPIC_ID, [position])],
    )


async def fetched(client: RawClient, request: FetchRequest) -> Any:
    return (await client.ask(FETCH, request, 17)).responses[0].partitions[0]


async def lead(client: RawClient, leader: int = SELF, epoch: int = 0) -> int:
    """Tells the broker who leads; its answer for the partition."""
    assert (await client.ask(UPDATE_METADATA, metadata_update(leader, epoch), 8)).error_code == ErrorCode.NONE
    response = await client.ask(LEADER_AND_ISR, roles(leader, epoch), 7)
    assert response.error_code == ErrorCode.NONE
    return response.topics[0].partition_errors[0].error_code


def run(tmp_path: Path, test: Any, **settings: str) -> None:
    run_with_broker(tmp_path, test, {**SETTINGS, **settings}, membership=Membership(EPOCH))


def test_acks_all_is_answered_when_the_followers_have_fetched_past_the_records(tmp_path: Path) -> None:
    async def scenario(connect: Connect) -> None:
        async with await connect() as producer, await connect() as follower:
            assert await lead(follower) == ErrorCode.NONE
            await producer.send(frame(PRODUCE, produce_request(TOPIC, batch(b"a"), acks=-1), 9, 1))
            await producer.send(frame(PRODUCE, produce_request(TOPIC, batch(b"b"), acks=-1), 9, 2))
            first = await fetched(follower, fetch_as(OTHER, 0, wait_ms=5_000))
            assert (first.error_code, first.high_watermark) == (0, 0)
            with trio.move_on_after(0.05) as no_answer:
                await producer.receive_frame()
            assert no_answer.cancelled_caught, "the follower has nothing yet"
            second = await fetched(follower, fetch_as(OTHER, 2))
            assert second.high_watermark == 0
            for correlation_id in (1, 2):
                answer = await producer.receive_frame()
                assert answer is not None
                assert answer[:4] == correlation_id.to_bytes(4, "big")
            assert (await fetched(follower, fetch_as(OTHER, 2))).high_watermark == 2

    run(tmp_path, scenario)


def test_acks_all_tells_when_the_followers_are_late_or_another_leads(tmp_path: Path) -> None:
    async def scenario(connect: Connect) -> None:
        async with await connect() as producer, await connect() as controller:
            await lead(controller)
            request = produce_request(TOPIC, batch(b"a"), acks=-1)
            request.timeout_ms = 50
            answer = (await producer.ask(PRODUCE, request, 9)).responses[0].partition_responses[0]
            assert answer.error_code == ErrorCode.REQUEST_TIMED_OUT
            await producer.send(frame(PRODUCE, produce_request(TOPIC, batch(b"b"), acks=-1), 9, 1))
            await fetched(controller, fetch_as(OTHER, 1, wait_ms=5_000))
            assert await lead(controller, OTHER, 1) == ErrorCode.NONE
            frame_of_answer = await producer.receive_frame()
            assert frame_of_answer is not None
            response = codec_of(PRODUCE).decode_response(memoryview(frame_of_answer), 9, 5)
            answer = response.responses[0].partition_responses[0]
            assert answer.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER

    run(tmp_path, scenario)


def test_followers_are_fenced_by_leader_epoch_assignment_and_history(tmp_path: Path) -> None:
    async def scenario(connect: Connect) -> None:
        async with await connect() as client:
            await lead(client, epoch=4)
            assert (await client.produce(TOPIC, batch(b"a"), acks=1)).error_code == 0
            older = await fetched(client, fetch_as(OTHER, 0, epoch=3))
            assert older.error_code == ErrorCode.FENCED_LEADER_EPOCH
            assert (older.current_leader.leader_id, older.current_leader.leader_epoch) == (SELF, 4)
            assert (await fetched(client, fetch_as(OTHER, 0, epoch=5))).error_code == ErrorCode.UNKNOWN_LEADER_EPOCH
            assert (await fetched(client, fetch_as(7, 0, epoch=4))).error_code == ErrorCode.UNKNOWN_LEADER_EPOCH
            ahead = await fetched(client, fetch_as(OTHER, 3, epoch=4, last_epoch=4))
            assert (ahead.diverging_epoch.epoch, ahead.diverging_epoch.end_offset) == (4, 1)
            unknown = await fetched(client, fetch_as(OTHER, 1, epoch=4, last_epoch=9))
            assert unknown.error_code == ErrorCode.OFFSET_OUT_OF_RANGE

    run(tmp_path, scenario)


def test_requests_from_the_past_are_refused_as_a_whole(tmp_path: Path) -> None:
    async def scenario(connect: Connect) -> None:
        async with await connect() as client:
            stale = [({"broker_epoch": EPOCH - 1}, ErrorCode.STALE_BROKER_EPOCH)]
            await client.ask(UPDATE_METADATA, metadata_update(SELF, 0, controller_epoch=5), 8)
            stale.append(({"controller_epoch": 4}, ErrorCode.STALE_CONTROLLER_EPOCH))
            for fields, error in stale:
                assert (await client.ask(UPDATE_METADATA, metadata_update(SELF, 0, **fields), 8)).error_code == error
                response = await client.ask(LEADER_AND_ISR, roles(SELF, 0, **fields), 7)
                assert response.error_code == error
                assert response.topics[0].partition_errors[0].error_code == error
                request = stop(0, delete=True)
                for name, value in fields.items():
                    setattr(request, name, value)
                assert (await client.ask(STOP_REPLICA, request, 4)).error_code == error
            again = roles(SELF, 0, controller_epoch=5, broker_epoch=EPOCH + 1)
            assert (await client.ask(LEADER_AND_ISR, again, 7)).topics[0].partition_errors[0].error_code == 0
            repeated = await client.ask(LEADER_AND_ISR, again, 7)
            assert repeated.topics[0].partition_errors[0].error_code == ErrorCode.STALE_CONTROLLER_EPOCH

    run(tmp_path, scenario)


def test_a_stopped_replica_is_deleted_when_the_controller_says_so(tmp_path: Path) -> None:
    async def scenario(connect: Connect) -> None:
        async with await connect() as client:
            await lead(client, epoch=4)
            for leader_epoch, delete, error in (
                (3, True, ErrorCode.FENCED_LEADER_EPOCH),
                (4, False, ErrorCode.NONE),
                (-2, True, ErrorCode.NONE),
                (-2, True, ErrorCode.NONE),
            ):
                response = await client.ask(STOP_REPLICA, stop(leader_epoch, delete=delete), 4)
                assert response.partition_errors[0].error_code == error
                assert (tmp_path / f"{TOPIC}-0").exists() == (leader_epoch != -2)

    run(tmp_path, scenario)


def test_metadata_is_what_the_controller_tells(tmp_path: Path) -> None:
    async def scenario(connect: Connect) -> None:
        async with await connect() as client:
            await lead(client, OTHER, 3)
            asked = MetadataRequest([MetadataRequestTopic(name=TOPIC)], allow_auto_topic_creation=False)
            response = await client.ask(METADATA, asked, 12)
            assert response.controller_id == 9
            assert [broker.node_id for broker in response.brokers] == [SELF, OTHER]
            partition = response.topics[0].partitions[0]
            assert (partition.leader_id, partition.leader_epoch, partition.isr_nodes) == (OTHER, 3, [1, 2])
            await client.ask(UPDATE_METADATA, metadata_update(-2, -2), 8)
            response = await client.ask(METADATA, asked, 12)
            assert response.topics[0].error_code == ErrorCode.UNKNOWN_TOPIC_OR_PARTITION

    run(tmp_path, scenario)


def test_consumers_read_from_a_follower_and_followers_only_from_the_leader(tmp_path: Path) -> None:
    async def scenario(connect: Connect) -> None:
        async with await connect() as client:
            await lead(client, OTHER)
            consumer = await fetched(client, fetch_as(-1, 0))
            assert (consumer.error_code, consumer.high_watermark) == (0, 0)
            follower = await fetched(client, fetch_as(OTHER, 0))
            assert follower.error_code == ErrorCode.NOT_LEADER_OR_FOLLOWER
            assert follower.current_leader.leader_id == OTHER

    run(tmp_path, scenario)


def test_a_new_leader_does_not_say_where_the_end_is_before_it_knows(tmp_path: Path) -> None:
    async def scenario(connect: Connect) -> None:
        async with await connect() as client:
            await lead(client)
            await client.produce(TOPIC, batch(b"a"), acks=1)
            await lead(client, SELF, 1)
            for replica, error in ((-1, ErrorCode.OFFSET_NOT_AVAILABLE), (OTHER, ErrorCode.NONE)):
                wanted = ListOffsetsPartition(0, -1, -1)
                request = ListOffsetsRequest(replica, 0, [ListOffsetsTopic(TOPIC, [wanted])])
                answer = (await client.ask(LIST_OFFSETS, request, 9)).topics[0].partitions[0]
                assert answer.error_code == error
            assert answer.offset == 1

    run(tmp_path, scenario)


def test_a_single_broker_does_not_serve_what_controllers_say(tmp_path: Path) -> None:
    async def scenario(connect: Connect) -> None:
        async with await connect() as client:
            await client.send(frame(UPDATE_METADATA, metadata_update(SELF, 0), 8))
            assert await client.receive_frame() is None

    run_with_broker(tmp_path, scenario, SETTINGS)


def test_a_broker_that_stops_is_told_that_this_is_no_controller(tmp_path: Path) -> None:
    async def scenario(connect: Connect) -> None:
        async with await connect() as client:
            response = await client.ask(CONTROLLED_SHUTDOWN, ControlledShutdownRequest(OTHER, EPOCH), 3)
            assert response.error_code == ErrorCode.NOT_CONTROLLER

    run(tmp_path, scenario)


def test_the_requests_of_a_real_controller_are_answered_as_a_real_broker_did(tmp_path: Path) -> None:
    rows = [json.loads(line) for line in GOLDEN.read_text().splitlines()]
    # A live broker has heard of the others before it hears whom to follow.
    rows.sort(key=lambda row: row["key"] != UPDATE_METADATA)

    async def scenario(connect: Connect) -> None:
        async with await connect() as client:
            for row in rows:
                request = message_of(row["key"], row["request"])
                response = await client.ask(row["key"], request, row["version"])
                assert errors_in(response) == sorted(errors_of(row["response"]))

    run(tmp_path, scenario)


def message_of(key: int, value: dict[str, Any]) -> Any:
    """A request from Apache Kafka's JSON."""
    codec = codec_of(key)
    names = {LEADER_AND_ISR: "LeaderAndIsr", STOP_REPLICA: "StopReplica", UPDATE_METADATA: "UpdateMetadata"}
    parts = {
        "topicStates": names[key] + "TopicState",
        "partitionStates": names[key] + "PartitionState",
        "liveLeaders": "LeaderAndIsrLiveLeader",
        "liveBrokers": "UpdateMetadataBroker",
        "endpoints": "UpdateMetadataEndpoint",
    }

    def build(kind: str, fields: dict[str, Any]) -> Any:
        arguments: dict[str, Any] = {}
        for name, item in fields.items():
            attribute = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.replace("KRaft", "Kraft")).lower()
            if name in parts:
                arguments[attribute] = [build(parts[name], each) for each in item]
            else:
                arguments[attribute] = from_text(item) if name == "topicId" else item
        return getattr(codec, kind)(**arguments)

    return build(names[key] + "Request", value)


def errors_of(value: Any) -> list[int]:
    """Every error code in Apache Kafka's JSON of a response."""
    if isinstance(value, dict):
        return [each for name, item in value.items() for each in ([item] if name == "errorCode" else errors_of(item))]
    return [each for item in value for each in errors_of(item)] if isinstance(value, list) else []


def errors_in(response: Any) -> list[int]:
    """Every error code in one of kpy's responses, sorted."""
    found = [response.error_code]
    for topic in getattr(response, "topics", ()):
        found += [each.error_code for each in topic.partition_errors]
    return sorted(found + [each.error_code for each in getattr(response, "partition_errors", ())])
