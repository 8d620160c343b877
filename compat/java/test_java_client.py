"""The Java clients: what ClientTour.java has seen of the broker, with two versions of kafka-clients."""

import json
import subprocess
from typing import Any

import pytest

from compat.harness import BrokerProcess, unique
from compat.java.kafka_tools import HERE, TOOL_TIMEOUT_S, java

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
RECORDS_PER_CODEC = 10
FIRST_TIMESTAMP_MS = 1_600_000_000_000


@pytest.fixture(scope="module", params=["3.9.1", "4.3.1"])
def tour(request: pytest.FixtureRequest, broker: BrokerProcess) -> dict[str, Any]:
    """Scene -> what the client has seen; see ClientTour.java for what each scene does."""
    command = java(request.param, str(HERE / "ClientTour.java"), broker.bootstrap, unique("tour"))
    result = subprocess.run(command, capture_output=True, text=True, timeout=TOOL_TIMEOUT_S, check=False)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    scenes = [json.loads(line) for line in result.stdout.splitlines()]
    return {"version": request.param, **{scene["scene"]: scene["result"] for scene in scenes}}


def test_cluster_is_described(tour: dict[str, Any], broker: BrokerProcess) -> None:
    assert len(tour["cluster"]["id"]) == 22
    assert tour["cluster"]["nodes"] == [broker.bootstrap]
    assert tour["cluster"]["controllerIsListed"]


def test_topics_are_created_described_and_deleted(tour: dict[str, Any]) -> None:
    assert tour["topics"] == {
        "createdPartitions": 4,
        "createdReplicationFactor": 1,
        "createdRetention": "-1",
        "describedPartitions": 4,
        "sameTopicId": True,
        "createdTwice": "TopicExistsException",
    }
    assert tour["deletedTopics"] == {"deletedTwice": "UnknownTopicOrPartitionException"}


def test_records_of_every_codec_come_back_whole_and_in_order(tour: dict[str, Any]) -> None:
    expected = [
        {
            "offset": index * RECORDS_PER_CODEC + n,
            "timestamp": FIRST_TIMESTAMP_MS + index * RECORDS_PER_CODEC + n,
            "key": f"{codec} key {n}",
            "value": f"{codec} value {n}",
            "headers": {"codec": codec, "none": None},
        }
        for index, codec in enumerate(CODECS)
        for n in range(RECORDS_PER_CODEC)
    ]
    assert tour["consumed"] == expected
    acked = {
        codec: [record["offset"] for record in expected if record["headers"]["codec"] == codec] for codec in CODECS
    }
    assert tour["produced"] == acked


def test_places_in_the_log_are_found(tour: dict[str, Any]) -> None:
    assert tour["places"] == {
        "firstAfterSeek": 23,
        "position": 24,
        "beginning": 0,
        "end": 50,
        "atTime": [31, FIRST_TIMESTAMP_MS + 31],
        "afterTheLast": "none",
    }
    assert tour["listedOffsets"] == {
        "earliest": [0, -1],
        "latest": [50, -1],
        "maxTimestamp": [49, FIRST_TIMESTAMP_MS + 49],
        "forTimestamp": [12, FIRST_TIMESTAMP_MS + 12],
    }


def test_configs_change_by_increments(tour: dict[str, Any]) -> None:
    topic, default = "DYNAMIC_TOPIC_CONFIG", "DEFAULT_CONFIG"
    assert tour["configs"] == {
        "changed": {
            "cleanup.policy": ["delete,compact", topic],
            "max.message.bytes": ["2000000", topic],
            "retention.ms": ["-1", topic],
        },
        "restored": {
            "cleanup.policy": ["delete", topic],
            "max.message.bytes": ["1048588", default],
            "retention.ms": ["-1", topic],
        },
        "refused": "InvalidConfigurationException",
    }


def test_second_cooperative_consumer_takes_half(tour: dict[str, Any]) -> None:
    assert tour["group"] == {
        "firstAlone": 4,
        "together": [0, 1, 2, 3],
        "revokedCount": 2,
        "lostCount": 0,
        "read": {str(partition): list(range(20)) for partition in range(4)},
        "members": 2,
        "assignor": "cooperative-sticky",
        "state": "Stable",
        "deletedWhileAlive": "GroupNotEmptyException",
    }


def test_empty_group_keeps_its_offsets_until_it_is_deleted(tour: dict[str, Any]) -> None:
    assert tour["emptyGroup"] == {
        "state": "Empty",
        "listed": True,
        "committed": {"0": 20, "1": 20, "2": 20, "3": 20},
        "altered": {"0": 20, "1": 20, "2": 5, "3": 20},
        "committedAfterDeletion": {},
        "deletedTwice": "GroupIdNotFoundException",
    }


def test_transactions_are_committed_aborted_described_and_fenced(tour: dict[str, Any]) -> None:
    seen = dict(tour["transactions"])
    # The client of 4.x works with transaction version 2 (KIP-890), which raises the epoch at the end of each.
    assert seen.pop("epoch") == {"3.9.1": 0, "4.3.1": 3}[tour["version"]]
    assert seen == {
        "committed": ["kept", "kept too"],
        "uncommitted": ["kept", "dropped", "kept too"],
        "offset": len("kept too"),
        "stateAfter": "CompleteCommit",
        "open": ["Ongoing", True],
        "listed": True,
        "startOffset": 6,
        "stableEnd": 6,
        "fenced": "fenced",
        "inTheEnd": ["kept", "kept too", "heir"],
        "tooSlow": "KafkaException",
    }
