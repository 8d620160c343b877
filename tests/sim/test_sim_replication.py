"""Replication under faults, from seeds; and bugs that Kafka once had, put back, which the simulation must find.

What holds for each seed, whatever is killed, cut off or elected: a record acknowledged with acks=all is never lost, and
neither is one that a consumer has read; an offset never holds two values; the high watermark of a broker does not go
back while it lives; when the faults are over the in-sync replicas are whole again, and all logs the same byte for byte.

    KPY_SIM_SEEDS=1000-3000 pytest tests/sim/test_sim_replication.py        runs other seeds; a failure names its own
"""

import os
from collections.abc import Callable
from typing import Any

import pytest

from kpy.replica import follower as follower_module
from kpy.replica.follower import Following, ReplicaLog, Truncate
from kpy.replica.leader import IsrChange, Leadership
from kpy.replica.partition import Partition
from kpy.replica.throttles import Throttles
from tests.sim.replicated_cluster import Simulation, Violation

FIRST_SEED, LAST_SEED = (int(each) for each in os.environ.get("KPY_SIM_SEEDS", "0-100").split("-"))
SEEDS_A_TEST = 10
SECONDS = 5.0
"""Of simulated trouble."""
SEEDS_A_BUG = 100
THROTTLED_SEEDS, THROTTLED_RATE = 10, 3_000
"""Bytes a second: less than is produced."""


def run(seed: int, throttled_rate: int | None = None) -> None:
    simulation = Simulation(seed, throttled_rate)
    try:
        simulation.run(SECONDS)
    except BaseException:
        print(f"seed {seed}, min.insync.replicas {simulation.min_isr}")
        print("\n".join(simulation.trace))
        raise


@pytest.mark.parametrize("first", range(FIRST_SEED, LAST_SEED, SEEDS_A_TEST))
def test_nothing_acknowledged_or_read_is_lost(first: int) -> None:
    for seed in range(first, min(first + SEEDS_A_TEST, LAST_SEED)):
        run(seed)


def test_a_seed_runs_the_same_way_twice() -> None:
    traces: list[list[str]] = []
    for _ in range(2):
        simulation = Simulation(7)
        simulation.run(SECONDS)
        traces.append(simulation.trace)
    assert traces[0] == traces[1]


def test_throttled_replicas_lose_nothing_and_catch_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """KIP-73: what is held back are only replicas outside the ISR, on which nothing depends."""
    held_back: list[bool] = []
    genuine = Throttles.holds_back

    def holds_back(self: Throttles, partition: Partition, replica: int) -> bool:
        held_back.append(genuine(self, partition, replica))
        return held_back[-1]

    monkeypatch.setattr(Throttles, "holds_back", holds_back)
    for seed in range(THROTTLED_SEEDS):
        run(seed, THROTTLED_RATE)
    assert held_back.count(True) > THROTTLED_SEEDS


# -- known bugs ------------------------------------------------------------------------------------------------------


def truncate_to_high_watermark(patch: pytest.MonkeyPatch) -> None:
    """KIP-101: a follower goes by its high watermark, which lags, and not by leader epochs."""

    def follow(self: Any, key: Any, log: ReplicaLog, leader_epoch: int) -> Any:
        genuine(self, key, log, leader_epoch)
        return [Truncate(key, log.high_watermark)]

    genuine = Following.follow
    patch.setattr(Following, "follow", follow)


def trust_the_leaders_offset(patch: pytest.MonkeyPatch) -> None:
    """KIP-279: after two quick elections a follower cuts where the leader says, though it never knew that epoch."""
    patch.setattr(
        follower_module,
        "truncation_offset",
        lambda log, epoch, end_offset: min(end_offset, log.log_end_offset),
    )


def ignore_the_diverging_epoch(patch: pytest.MonkeyPatch) -> None:
    """KAFKA-1211: a follower goes on from its log end whatever the leader's history is."""
    patch.setattr("kpy.api.fetch._diverging_epoch", lambda *_: None)


def acknowledge_before_commit(patch: pytest.MonkeyPatch) -> None:
    """acks=all answers when the leader alone has the record."""

    patch.setattr("kpy.api.produce.ACKS_ALL", None)


def count_a_shrink_before_it_is_written(patch: pytest.MonkeyPatch) -> None:
    """KIP-497: the high watermark passes a follower that the controller still takes for in sync."""

    def propose(self: Leadership, isr: tuple[int, ...]) -> IsrChange:
        change = genuine(self, isr)
        self.maximal_isr = frozenset(isr)
        return change

    genuine = Leadership._propose
    patch.setattr(Leadership, "_propose", propose)


def expose_all_on_election(patch: pytest.MonkeyPatch) -> None:
    """A new leader takes its log end for committed."""

    def lead_or_follow(self: Partition, image: Any) -> None:
        genuine(self, image)
        if self.is_leader:
            self._commit(self.log.log_end_offset)

    genuine = Partition.lead_or_follow
    patch.setattr(Partition, "lead_or_follow", lead_or_follow)


def take_anybody_into_the_isr(patch: pytest.MonkeyPatch) -> None:
    """A follower is in sync as soon as it fetches, wherever it is."""

    def expand(self: Leadership, replica: int, high_watermark: int, is_alive: Any) -> IsrChange | None:
        if self.pending is None and replica not in self.isr and is_alive(replica):
            return self._propose((*self.isr, replica))
        return None

    patch.setattr(Leadership, "expand", expand)


BUGS = [
    truncate_to_high_watermark,
    trust_the_leaders_offset,
    ignore_the_diverging_epoch,
    acknowledge_before_commit,
    count_a_shrink_before_it_is_written,
    expose_all_on_election,
    take_anybody_into_the_isr,
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_known_bug_is_found(bug: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    bug(monkeypatch)
    assert any(breaks(seed) for seed in range(SEEDS_A_BUG)), "no seed has found it"


def breaks(seed: int) -> bool:
    """Whether a promise is broken, or a broken invariant has stopped a broker."""
    found = False
    try:
        Simulation(seed).run(SECONDS)
    except* (Violation, AssertionError) as broken:
        print(f"seed {seed}: {broken.exceptions}")
        found = True
    return found
