"""One of a broker's data directories fails: others lead what was in it, and it goes on with the rest."""

from pathlib import Path

from compat.failing_disk import CALLS, failing
from compat.harness import BACKENDS, unique, wait_until
from compat.replication.cluster import Cluster, cluster_in
from compat.replication.load import Load, read_all

ASSIGNMENT = [[2, 1], [2, 3], [2, 1]]
SEGMENT = f"{0:020d}.log"


def test_others_lead_what_was_in_a_directory_that_has_failed(tmp_path: Path) -> None:
    with cluster_in(tmp_path) as cluster:
        for broker_id in (1, 2, 3):
            cluster.start(broker_id, BACKENDS["kpy"])
        broker = cluster.brokers[2]
        broker.stop()
        directories = [broker.data_dir / "first", broker.data_dir / "second"]
        broker.settings["log.dirs"] = ",".join(map(str, directories))
        cluster.start(2)
        topic = unique("failing")
        cluster.create_topic(topic, ASSIGNMENT, min_insync_replicas="1")
        cluster.wait_for_isrs(topic, ASSIGNMENT, asking=2)
        failed, sound = sorted(directories, key=lambda each: len(partitions_in(each, topic)))
        lost, kept = partitions_in(failed, topic), partitions_in(sound, topic)
        assert sorted(lost + kept) == [0, 1, 2]
        assert lost

        with Load(cluster, topic) as load:
            wait_until(lambda: len(load.acknowledged) > 300, "records are acknowledged")
            with failing(broker.pid, failed / f"{topic}-{lost[0]}" / SEGMENT, CALLS["write"]):
                wait_until(lambda: is_led(cluster, topic, lost, kept), "others lead what was lost", timeout_s=60)
            so_far = len(load.acknowledged)
            wait_until(lambda: load.failed or len(load.acknowledged) > so_far + 300, "records are acknowledged again")
        assert not load.failed, load.failed[:3]
        assert read_all(cluster, topic) == load.acknowledged

        broker.restart()
        cluster.wait_for_isrs(topic, ASSIGNMENT, asking=1)


def partitions_in(directory: Path, topic: str) -> list[int]:
    return sorted(int(path.name.rpartition("-")[2]) for path in directory.glob(f"{topic}-*"))


def is_led(cluster: Cluster, topic: str, lost: list[int], kept: list[int]) -> bool:
    leaders = cluster.leaders(topic, asking=1)
    return all(leaders.get(index) in (1, 3) for index in lost) and all(leaders.get(index) == 2 for index in kept)
