"""The controller of a simulated cluster: who is registered, who leads, and whom it tells.

It keeps partition states as Apache Kafka's does in ZooKeeper: elections from the live in-sync replicas only, each with
a higher epoch, and AlterPartition with its checks.
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import trio

from kpy.errors import ErrorCode
from kpy.peers import PeerError
from kpy.wire.alter_partition import AlterPartitionResponse, ResponsePartitionData, ResponseTopicData
from kpy.wire.leader_and_isr import LeaderAndIsrPartitionState, LeaderAndIsrRequest, LeaderAndIsrTopicState
from kpy.wire.update_metadata import (
    UpdateMetadataBroker,
    UpdateMetadataEndpoint,
    UpdateMetadataPartitionState,
    UpdateMetadataRequest,
    UpdateMetadataTopicState,
)

if TYPE_CHECKING:
    from tests.sim.replicated_cluster import Node, Simulation

BROKERS = (1, 2, 3)
CONTROLLER = 0
TOPIC, TOPIC_ID, PARTITIONS = "t", b"simulated topic!", 2
LEADER_AND_ISR, UPDATE_METADATA = 4, 6
SESSION_S = 0.4


@dataclass
class State:
    """A partition as ZooKeeper has it."""

    leader: int
    epoch: int
    isr: tuple[int, ...]
    version: int = 0


class Controller:
    """Knows who is registered, and gives leaderships to live in-sync replicas."""

    def __init__(self, simulation: "Simulation") -> None:
        self.simulation = simulation
        self.states = [State(-1, 0, BROKERS) for _ in range(PARTITIONS)]
        self.live: dict[int, int] = {}
        """Broker id to broker epoch."""
        self.next_epoch = 100
        self.queues: dict[int, trio.MemorySendChannel[tuple[int, Any]]] = {}

    async def watch(self, broker_id: int, node: "Node") -> None:
        """Registers one life of a broker, and notices some time later when it is gone or cannot be reached."""
        simulation = self.simulation
        while simulation.nodes.get(broker_id) is node:
            await simulation.pause(0.1)
            if not simulation.is_cut(CONTROLLER, broker_id) and simulation.nodes.get(broker_id) is node:
                await self._session(broker_id, node)

    async def _session(self, broker_id: int, node: "Node") -> None:
        simulation = self.simulation
        if broker_id in self.live:
            self._gone(broker_id)
        self.next_epoch += 1
        node.membership.broker_epoch = epoch = self.next_epoch
        self.live[broker_id] = epoch
        self.queues[broker_id], queue = trio.open_memory_channel[tuple[int, Any]](math.inf)
        simulation.note(f"{broker_id} is registered")
        self._come(broker_id)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._deliver, broker_id, queue)
            silent_s = 0.0
            while silent_s < SESSION_S:
                await trio.sleep(0.1)
                reachable = simulation.nodes.get(broker_id) is node and not simulation.is_cut(CONTROLLER, broker_id)
                silent_s = 0.0 if reachable else silent_s + 0.1
            nursery.cancel_scope.cancel()
        if self.live.get(broker_id) == epoch:
            simulation.note(f"{broker_id} is gone")
            self._gone(broker_id)

    def _come(self, broker_id: int) -> None:
        self._tell_metadata(list(self.live))
        self._tell_roles(range(PARTITIONS), [broker_id])
        for index, state in enumerate(self.states):
            if state.leader < 0:
                self._elect(index)

    def _gone(self, broker_id: int) -> None:
        del self.live[broker_id]
        for index, state in enumerate(self.states):
            if state.leader == broker_id:
                self._elect(index)
            elif broker_id in state.isr and len(state.isr) > 1:
                isr = tuple(each for each in state.isr if each != broker_id)
                self._write(index, state.leader, isr)

    def _elect(self, index: int) -> None:
        state = self.states[index]
        candidates = [each for each in BROKERS if each in self.live and each in state.isr]
        if candidates:
            self._write(index, candidates[0], tuple(each for each in state.isr if each in self.live))
        else:
            self._write(index, -1, state.isr)

    def move_leader(self, index: int) -> None:
        """A preferred election: another live in-sync replica leads."""
        state = self.states[index]
        candidates = [each for each in state.isr if each in self.live and each != state.leader]
        if state.leader in self.live and candidates:
            self._write(index, self.simulation.random.choice(candidates), state.isr)

    def _write(self, index: int, leader: int, isr: tuple[int, ...]) -> None:
        state = self.states[index]
        self.states[index] = State(leader, state.epoch + 1, isr, state.version + 1)
        self.simulation.note(f"partition {index}: {self.states[index]}")
        self._tell_metadata(list(self.live))
        self._tell_roles([index], list(self.live))

    def _tell_metadata(self, targets: list[int]) -> None:
        partitions = [
            UpdateMetadataPartitionState(
                partition_index=index,
                controller_epoch=1,
                leader=state.leader,
                leader_epoch=state.epoch,
                isr=list(state.isr),
                zk_version=state.version,
                replicas=list(BROKERS),
            )
            for index, state in enumerate(self.states)
        ]
        brokers = [
            UpdateMetadataBroker(id=broker_id, endpoints=[UpdateMetadataEndpoint(1, "sim", "PLAINTEXT", 0)])
            for broker_id in self.live
        ]
        for target in targets:
            request = UpdateMetadataRequest(
                controller_id=CONTROLLER,
                controller_epoch=1,
                broker_epoch=self.live[target],
                topic_states=[UpdateMetadataTopicState(TOPIC, TOPIC_ID, partitions)],
                live_brokers=brokers,
            )
            self.queues[target].send_nowait((UPDATE_METADATA, request))

    def _tell_roles(self, indexes: Any, targets: list[int]) -> None:
        states = [
            LeaderAndIsrPartitionState(
                partition_index=index,
                controller_epoch=1,
                leader=self.states[index].leader,
                leader_epoch=self.states[index].epoch,
                isr=list(self.states[index].isr),
                partition_epoch=self.states[index].version,
                replicas=list(BROKERS),
                is_new=True,
            )
            for index in indexes
        ]
        for target in targets:
            request = LeaderAndIsrRequest(
                controller_id=CONTROLLER,
                controller_epoch=1,
                broker_epoch=self.live[target],
                topic_states=[LeaderAndIsrTopicState(TOPIC, TOPIC_ID, states)],
            )
            self.queues[target].send_nowait((LEADER_AND_ISR, request))

    async def _deliver(self, broker_id: int, queue: trio.MemoryReceiveChannel[tuple[int, Any]]) -> None:
        """In order, one in flight, again and again until it is answered."""
        async for key, request in queue:
            is_answered = False
            while not is_answered:
                await self.simulation.pause(0.03)
                try:
                    await self.simulation.ask(CONTROLLER, broker_id, key, request)
                    is_answered = True
                except PeerError:
                    await trio.sleep(0.1)

    async def ask(self, broker_id: int, request: Any) -> AlterPartitionResponse:
        """AlterPartition, with the checks of Apache Kafka's controller."""
        simulation = self.simulation
        await simulation.pause(0.02)
        if simulation.is_cut(CONTROLLER, broker_id):
            raise PeerError("cannot be reached")
        response = self._alter(broker_id, request)
        await simulation.pause(0.02)
        if simulation.is_cut(CONTROLLER, broker_id) or simulation.random.random() < 0.1:
            raise PeerError("no answer")
        return response

    def _alter(self, broker_id: int, request: Any) -> AlterPartitionResponse:
        if self.live.get(broker_id) != request.broker_epoch:
            return AlterPartitionResponse(error_code=ErrorCode.STALE_BROKER_EPOCH)
        answers = [self._alter_one(asked) for asked in request.topics[0].partitions]
        return AlterPartitionResponse(topics=[ResponseTopicData(topic_id=TOPIC_ID, partitions=answers)])

    def _alter_one(self, asked: Any) -> ResponsePartitionData:
        index = asked.partition_index
        state = self.states[index]
        isr = tuple(each.broker_id for each in asked.new_isr_with_epochs)
        error = ErrorCode.NONE
        if asked.leader_epoch < state.epoch:
            error = ErrorCode.FENCED_LEADER_EPOCH
        elif asked.partition_epoch > state.version or asked.leader_epoch > state.epoch:
            error = ErrorCode.NOT_CONTROLLER
        elif set(isr) != set(state.isr):
            if asked.partition_epoch < state.version:
                error = ErrorCode.INVALID_UPDATE_VERSION
            elif not set(isr) <= set(self.live):
                error = ErrorCode.INELIGIBLE_REPLICA
            else:
                state = replace(state, isr=isr, version=state.version + 1)
                self.states[index] = state
                self.simulation.note(f"partition {index}: {state}, as asked")
                self._tell_metadata(list(self.live))
        return ResponsePartitionData(index, error, state.leader, state.epoch, list(state.isr), 0, state.version)
