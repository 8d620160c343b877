"""What a controller tells by UpdateMetadata is merged into the image, whatever order it comes in."""

from kpy.metadata.image import NO_CONTROLLER, MetadataImage
from kpy.metadata.updates import updated
from kpy.wire.update_metadata import UpdateMetadataPartitionState, UpdateMetadataRequest, UpdateMetadataTopicState

EMPTY = MetadataImage("cluster", NO_CONTROLLER, {}, {}, {}, {})


def told(
    image: MetadataImage, leader: int, isr: list[int], partition_epoch: int, topic_id: bytes = b"a" * 16
) -> MetadataImage:
    """After an UpdateMetadata with the one partition of one topic."""
    state = UpdateMetadataPartitionState(
        leader=leader, leader_epoch=0, isr=isr, zk_version=partition_epoch, replicas=[1, 2, 3]
    )
    return updated(image, UpdateMetadataRequest(topic_states=[UpdateMetadataTopicState("t", topic_id, [state])]))


def isr_of(image: MetadataImage) -> tuple[int, ...]:
    return image.topics["t"].partitions[0].isr


def test_a_request_that_comes_late_does_not_bring_an_old_isr_back() -> None:
    image = told(told(EMPTY, 2, [2, 3], 4), 2, [2, 3, 1], 5)
    assert isr_of(told(image, 2, [2, 3], 4)) == (2, 3, 1)
    assert isr_of(told(image, 2, [2, 1], 6)) == (2, 1)


def test_a_topic_that_is_created_again_begins_anew() -> None:
    image = told(EMPTY, 1, [1, 2, 3], 5)
    assert isr_of(told(image, 2, [2], 0, b"b" * 16)) == (2,)
    deleted = told(image, -2, [], 0)
    assert "t" not in deleted.topics
    assert isr_of(told(deleted, 2, [2], 0)) == (2,)
