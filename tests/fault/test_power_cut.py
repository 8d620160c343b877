"""A broker whose disk loses its power under load, some times over: a real ext4, cut off by FS_IOC_SHUTDOWN.

With flush.messages=1 every record that was acknowledged is at its offset afterwards. Without, as in Apache Kafka, the
newest may be gone: then what is left is what was written first, without a gap.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from compat.harness import BrokerProcess, unique, wait_until
from tests.fault.loop_disk import LoopDisk, loop_disk
from tests.fault.segment_files import check_directory
from tests.fault.test_kill9 import PARTITIONS, Load, read_everything

CUTS = 8 if os.environ.get("CI") == "true" else 3
RECORDS_A_CUT = 300

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[LoopDisk]:
    with loop_disk(tmp_path) as mounted:
        yield mounted


@pytest.fixture
def broker(disk: LoopDisk) -> Iterator[BrokerProcess]:
    # Small segments, so that the cuts hit rolls.
    started = BrokerProcess(disk.path, {"log.segment.bytes": "50000", "log.index.interval.bytes": "500"})
    started.start()
    try:
        yield started
    finally:
        started.close()


def create_topic(broker: BrokerProcess, configs: dict[str, str]) -> str:
    topic = unique("cut")
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    admin.create_topics([NewTopic(topic, PARTITIONS, 1, config=configs)])[topic].result(10)
    return topic


def cut_power(broker: BrokerProcess, disk: LoopDisk) -> None:
    """The machine is gone, and comes back."""
    disk.cut_power()
    broker.kill()
    disk.unmount()
    disk.mount()
    broker.start()


def check_files(broker: BrokerProcess, topic: str) -> None:
    """The broker has been stopped; what it left is sound."""
    for partition in range(PARTITIONS):
        check_directory(broker.data_dir / f"{topic}-{partition}")


def test_power_cuts_take_nothing_acknowledged_with_flush_messages_1(broker: BrokerProcess, disk: LoopDisk) -> None:
    topic = create_topic(broker, {"flush.messages": "1"})
    load = Load(broker.bootstrap, topic, "load", {"acks": "all"})
    for cuts in range(1, CUTS + 1):
        wanted = cuts * RECORDS_A_CUT
        wait_until(lambda wanted=wanted: len(load.acknowledged) >= wanted, f"{wanted} records acknowledged", 60)
        cut_power(broker, disk)
    load.stop()

    stored = read_everything(broker, topic)
    assert len(load.acknowledged) >= CUTS * RECORDS_A_CUT
    for partition, offset, value in load.acknowledged:
        assert stored[partition][offset] == value
    broker.stop()
    check_files(broker, topic)


def test_a_power_cut_leaves_what_was_written_first_without_flushes(broker: BrokerProcess, disk: LoopDisk) -> None:
    topic = create_topic(broker, {})
    load = Load(broker.bootstrap, topic, "load", {"acks": "all", "max.in.flight": 1})
    wait_until(lambda: len(load.acknowledged) >= 5 * RECORDS_A_CUT, "records acknowledged", 60)
    disk.cut_power()
    before = list(load.acknowledged)
    broker.kill()
    disk.unmount()
    disk.mount()
    broker.start()
    load.stop()

    stored = read_everything(broker, topic)
    for partition in range(PARTITIONS):
        values = [value for index, _, value in before if index == partition]
        kept = 0
        while kept < len(values) and kept < len(stored[partition]) and stored[partition][kept] == values[kept]:
            kept += 1
        # Behind the prefix that survived come records that were sent again or for the first time, none of the old.
        assert not set(values[:kept]) & set(stored[partition][kept:])
        assert set(stored[partition][kept:]).isdisjoint(values[kept:])
    broker.stop()
    check_files(broker, topic)
