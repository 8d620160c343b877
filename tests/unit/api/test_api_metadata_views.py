"""Encoded Metadata: what is kept of an image, what a change takes away, and that the bytes are those of the codec."""

import sys
from dataclasses import replace

import pytest

from kpy.api.metadata_views import MAX_VIEWS, View, ViewKey, view_of
from kpy.metadata.image import BrokerImage, MetadataImage, PartitionImage, TopicImage
from kpy.wire.metadata import (
    MetadataResponse,
    MetadataResponseBroker,
    MetadataResponseTopic,
    decode_response,
    encode_response,
)

VERSIONS = range(14)
BROKERS = {1: BrokerImage(1, "rack", {"PLAINTEXT": ("one", 9092)}), 2: BrokerImage(2, None, {"PLAINTEXT": ("two", 1)})}


def topic(name: str, partitions: int = 1) -> TopicImage:
    states = tuple(PartitionImage(index, 1, 5, (1, 2), (1,)) for index in range(partitions))
    return TopicImage(name, name.encode().ljust(16, b"."), states)


def image_of(*topics: TopicImage) -> MetadataImage:
    ids = {each.topic_id: each.name for each in topics}
    return MetadataImage("a cluster's id", 2, BROKERS, {each.name: each for each in topics}, ids, {})


def key(version: int, *, with_operations: bool = False, listener: str = "PLAINTEXT") -> ViewKey:
    return ViewKey(listener, version, with_operations, with_operations)


@pytest.mark.parametrize("with_operations", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_answers_are_the_bytes_that_the_codec_writes(version: int, with_operations: bool) -> None:
    # 126 is the last count that a varint says in one byte.
    for count in (0, 1, 126, 127, 300):
        image = image_of(*(topic(f"t{number}", number % 3) for number in range(count)))
        view = View(image, key(version, with_operations=with_operations))
        body = view.answer([view.topic(each) for each in image.topics.values()]).body
        response = decode_response(memoryview(body), version, exact=True)
        assert body == b"".join(encode_response(response, version))
        assert [each.name for each in response.topics] == list(image.topics)
        assert [each.node_id for each in response.brokers] == [1, 2]
        if version >= 8:
            assert all((each.topic_authorized_operations > 0) == with_operations for each in response.topics)


def test_a_topic_that_does_not_change_is_encoded_once() -> None:
    before, changed = topic("same"), topic("changed")
    views: dict[ViewKey, View] = {}
    view = view_of(image_of(before, changed), key(12), views)
    kept, replaced = view.topic(before), view.topic(changed)
    more = topic("changed", 2)
    view = view_of(image_of(before, more), key(12), views)
    assert view.topic(before) is kept
    assert view.topic(more) != replaced


@pytest.mark.parametrize("listener", ["PLAINTEXT", "a listener that nobody has come in on yet"])
def test_nothing_of_an_older_image_is_kept_by_any_view(listener: str) -> None:
    gone, changed = topic("gone"), topic("changed")
    held = [sys.getrefcount(gone), sys.getrefcount(changed)]
    views: dict[ViewKey, View] = {}
    for version in VERSIONS:
        image = image_of(gone, changed)
        view = view_of(image, key(version), views)
        view.topic(gone)
        view.topic(changed)
    image = image_of(topic("changed", 2))
    view_of(image, key(12, listener=listener), views)
    assert [sys.getrefcount(gone), sys.getrefcount(changed)] == held


def test_topics_are_encoded_anew_when_the_brokers_change() -> None:
    image = image_of(topic("t"))
    views: dict[ViewKey, View] = {}
    for version, is_there in ((12, True), (12, False), (12, True)):
        image = replace(image, brokers=BROKERS if is_there else {2: BROKERS[2]})
        view = view_of(image, key(version), views)
        body = view.answer([view.topic(image.topics["t"])]).body
        response = decode_response(memoryview(body), version)
        (partition,) = response.topics[0].partitions
        assert (partition.leader_id, partition.offline_replicas) == ((1, []) if is_there else (-1, [1]))
        assert MetadataResponseBroker(2, "two", 1, None) in response.brokers
        assert len(response.brokers) == 1 + is_there


def test_the_controller_is_that_of_the_current_image() -> None:
    views: dict[ViewKey, View] = {}
    for controller_id in (1, 2, -1):
        view = view_of(replace(image_of(), controller_id=controller_id), key(3), views)
        assert decode_response(memoryview(view.answer([]).body), 3).controller_id == controller_id


def test_what_is_not_in_the_image_is_not_kept() -> None:
    view = View(image_of(), key(12))
    unknown = MetadataResponseTopic(error_code=3, name="unknown")
    body = view.answer([view.encoded_topic(unknown)]).body
    expected = MetadataResponse(
        brokers=[MetadataResponseBroker(1, "one", 9092, "rack"), MetadataResponseBroker(2, "two", 1)],
        cluster_id="a cluster's id",
        controller_id=2,
        topics=[unknown],
    )
    assert body == b"".join(encode_response(expected, 12))


def test_views_are_bounded_and_the_oldest_goes_first() -> None:
    views: dict[ViewKey, View] = {}
    image = image_of(topic("t"))
    for number in range(MAX_VIEWS + 3):
        view_of(image, key(12, listener=f"L{number}"), views)
    assert [each.listener for each in views] == [f"L{number}" for number in range(3, MAX_VIEWS + 3)]
