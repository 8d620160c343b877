"""Followers that have everything for a long time are not read at each fetch: they must be in sync all the same."""

from collections.abc import Awaitable, Callable

import trio
from trio.testing import MockClock

from kpy.records.batch import NewRecord, build_batch
from kpy.replica.partition import Partition
from kpy.wire.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from tests.sim.replicated_cluster import BROKERS, LAG_MS, PARTITIONS, PRODUCE, TOPIC, Simulation, now_ms

LONG_S = 20 * LAG_MS / 1000


def run(scenario: Callable[[Simulation], Awaitable[None]]) -> None:
    """With three brokers that are in sync everywhere and have not been written to for long."""
    simulation = Simulation(1)

    async def main() -> None:
        with trio.fail_after(300):
            async with trio.open_nursery() as simulation.nursery:
                for broker_id in BROKERS:
                    await simulation.start(broker_id)
                await trio.sleep(LONG_S)
                assert is_whole(simulation)
                await scenario(simulation)
                simulation.nursery.cancel_scope.cancel()

    trio.run(main, clock=MockClock(autojump_threshold=0))


def is_whole(simulation: Simulation) -> bool:
    return all(sorted(state.isr) == list(BROKERS) for state in simulation.controller.states)


async def produce(simulation: Simulation, index: int) -> int:
    """With acks=1; the error."""
    batch = memoryview(build_batch([NewRecord(now_ms(), None, b"value")]))
    data = [TopicProduceData(TOPIC, partition_data=[PartitionProduceData(index, batch)])]
    leader = simulation.controller.states[index].leader
    response = await simulation.ask(-1, leader, PRODUCE, ProduceRequest(None, 1, 10_000, data))
    error: int = response.responses[0].partition_responses[0].error_code
    return error


def led(simulation: Simulation, index: int) -> Partition:
    leader = simulation.nodes[simulation.controller.states[index].leader]
    return leader.broker.replicas.partition(TOPIC, index)


def test_who_had_all_until_a_record_came_stays_in_sync() -> None:
    async def scenario(simulation: Simulation) -> None:
        for index in range(PARTITIONS):
            partition = led(simulation, index)
            assert partition.resting_followers, "nothing was idle, so nothing is tested"
            assert await produce(simulation, index) == 0
            partition.shrink_isr()
            assert partition.led().pending is None

    run(scenario)


def test_who_had_all_and_is_cut_off_leaves_the_isr_in_the_lag_time_after_a_record_came() -> None:
    async def scenario(simulation: Simulation) -> None:
        leader = simulation.controller.states[0].leader
        lost = next(broker_id for broker_id in BROKERS if broker_id != leader)
        simulation.cut.add(frozenset((leader, lost)))
        await trio.sleep(LONG_S)
        assert is_whole(simulation), "it has everything still"
        assert await produce(simulation, 0) == 0
        await trio.sleep(2 * LAG_MS / 1000)
        assert sorted(simulation.controller.states[0].isr) == [each for each in BROKERS if each != lost]

    run(scenario)
