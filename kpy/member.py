"""What makes a broker one of several: a way to the controller, fetchers for what it follows, and, for when it is the
controller itself, a way to all brokers.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from kpy.config import BrokerConfig
from kpy.controller_channels import ControllerChannels
from kpy.errors import ApiError, ErrorCode
from kpy.metadata.cluster import Cluster
from kpy.peers import ControllerChannel, PeerChannel, PeerError, Readers
from kpy.replica.alter_partition import AlterPartitionSender
from kpy.replica.fetchers import Fetchers
from kpy.replica.follower import Limits
from kpy.replica.manager import Cooperation
from kpy.replica.membership import Membership
from kpy.replica.throttles import Throttles
from kpy.wire.allocate_producer_ids import AllocateProducerIdsRequest, AllocateProducerIdsResponse
from kpy.wire.controlled_shutdown import ControlledShutdownRequest, ControlledShutdownResponse

log = logging.getLogger("kpy.server")

CONTROLLED_SHUTDOWN = (7, 3)
ALLOCATE_PRODUCER_IDS = (67, 0)


class Member:
    """`cooperation` is for the replica layer; `tasks` have to run; `leave` comes before the stop."""

    def __init__(
        self, config: BrokerConfig, cluster: Cluster, membership: Membership, now_ms: Callable[[], int]
    ) -> None:
        self._config = config
        self._cluster = cluster
        self._membership = membership
        self.readers: Readers | None = None
        """To be set before the broker registers itself, since then it may have to follow others."""
        client_id = str(config.broker_id)
        self._controller = ControllerChannel(
            lambda: cluster.image.controller_id,
            lambda broker_id: self._open_peer(broker_id, client_id, config.replica_socket_timeout_ms),
        )
        self._channels = ControllerChannels(
            lambda: cluster.office.requests, cluster.decide_anew, client_id, config.controller_socket_timeout_ms
        )
        throttles = Throttles(
            config.broker_id,
            config.replication_quota_window_num,
            1000 * config.replication_quota_window_size_seconds,
        )
        fetchers = Fetchers(
            config.broker_id,
            membership,
            lambda broker_id, client_id: self._open_peer(broker_id, client_id, config.replica_socket_timeout_ms),
            now_ms=now_ms,
            fetchers_a_leader=config.num_replica_fetchers,
            limits=Limits(
                max_wait_ms=config.replica_fetch_wait_max_ms,
                min_bytes=config.replica_fetch_min_bytes,
                response_max_bytes=config.replica_fetch_response_max_bytes,
                partition_max_bytes=config.replica_fetch_max_bytes,
                backoff_ms=config.replica_fetch_backoff_ms,
            ),
            throttles=throttles,
        )
        self.cooperation = Cooperation(
            membership,
            fetchers,
            AlterPartitionSender(config.broker_id, membership, self._controller.ask),
            cluster.topic_configs,
            throttles,
            config.replica_lag_time_max_ms,
        )
        self._failed_disks = trio.Event()
        self.tasks: list[Callable[[], Awaitable[None]]] = [self._channels.run, self._tell_of_failed_disks]
        cluster.on_settled = self._channels.wake
        cluster.producer_ids.next_block = self._next_producer_ids
        cluster.begin_to_listen()

    def open_peer(self, broker_id: int) -> PeerChannel:
        """A way to another broker, for what one broker asks another."""
        return self._open_peer(broker_id, str(self._config.broker_id), self._config.request_timeout_ms)

    def _open_peer(self, broker_id: int, client_id: str, timeout_ms: int) -> PeerChannel:
        async def connect() -> trio.SocketStream:
            known = self._cluster.image.brokers.get(broker_id)
            endpoint = known.endpoints.get(self._config.inter_broker_listener) if known is not None else None
            if endpoint is None:
                raise PeerError(f"broker {broker_id} is not known to live")
            return await trio.open_tcp_stream(*endpoint)

        return PeerChannel(connect, client_id, timeout_ms, self.readers)

    async def _next_producer_ids(self) -> range:
        request = AllocateProducerIdsRequest(self._config.broker_id, self._membership.broker_epoch)
        key, version = ALLOCATE_PRODUCER_IDS
        try:
            response: AllocateProducerIdsResponse = await self._controller.ask(key, request, version)
        except PeerError as error:
            raise ApiError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, f"No producer ids: {error}.") from error
        if response.error_code:
            refusal = ErrorCode(response.error_code).name
            raise ApiError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, f"No producer ids: {refusal}.")
        return range(response.producer_id_start, response.producer_id_start + response.producer_id_len)

    def disk_failed(self) -> None:
        """A data directory has failed: others are to lead what was in it."""
        self._failed_disks.set()

    async def _tell_of_failed_disks(self) -> None:
        while True:
            await self._failed_disks.wait()
            self._failed_disks = trio.Event()
            await self._cluster.tell_of_log_dir_failure()

    async def leave(self) -> None:
        """Asks the controller to give what this broker leads to others (controlled shutdown), a few times."""
        config = self._config
        if not config.controlled_shutdown_enable:
            return
        for attempt in range(config.controlled_shutdown_max_retries):
            if attempt:
                await trio.sleep(config.controlled_shutdown_retry_backoff_ms / 1000)
            problem = await self._be_relieved()
            if not problem:
                log.info("the controller has given what this broker led to others")
                return
            log.warning("controlled shutdown has not succeeded: %s", problem)
        log.warning("stopping all the same")

    async def _be_relieved(self) -> str:
        """Why this broker cannot go yet; empty if it can."""
        request = ControlledShutdownRequest(self._config.broker_id, self._membership.broker_epoch)
        key, version = CONTROLLED_SHUTDOWN
        try:
            response: ControlledShutdownResponse = await self._controller.ask(key, request, version)
        except PeerError as error:
            return str(error)
        if response.error_code:
            return ErrorCode(response.error_code).name
        left: list[Any] = response.remaining_partitions
        return f"{len(left)} partitions have no other in-sync replica" if left else ""
