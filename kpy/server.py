"""The composition root: the only file that builds everything, and the order in which a broker starts and stops.

Start: the metadata store (on ZooKeeper a session with it), the logs (recovered if the last stop was not clean), the
partitions that the metadata gives this broker, the listening sockets, then the tasks: one that serves all connections,
one for parked fetches, one for groups, and one for each chore. Stop, in reverse: the sockets close first, so nothing is
acknowledged any more, then the logs are flushed, and last the marker of a clean stop is written.
"""

import importlib.util
import logging
import random
import socket
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.fetch_sessions import FetchSessions
from kpy.api.registry import Dispatcher
from kpy.config import BrokerConfig
from kpy.config_checks import parse_connection_overrides
from kpy.coordinator import CoordinatorConfig, GroupCoordinator
from kpy.errors import StorageError
from kpy.group.turn import GroupConfig
from kpy.metadata.cluster import Cluster
from kpy.metadata.embedded import EmbeddedStore
from kpy.metadata.image import MetadataImage
from kpy.metadata.office import Policy
from kpy.metadata.store import MetadataStore
from kpy.metadata.znodes import SENSITIVE_PATHS
from kpy.net.connection import Dispatch
from kpy.net.listener import accept_connections, listen
from kpy.net.poller import Poller
from kpy.replica.manager import ReplicaManager
from kpy.storage.log_dirs import DiskJob, LogDirs
from kpy.topic_config import topic_config

log = logging.getLogger("kpy.server")

METADATA_FILE = "kpy-metadata.sqlite"
"""In the first data directory, beside the partitions."""

IDLE_CHECK_MS = 10_000
MINUTE_MS = 60_000

Started = Callable[[list[tuple[str, str, int]]], None]
"""Told, for each listener, its name and the host and port that clients are to use."""


async def serve(config: BrokerConfig, *, started: Started) -> None:
    """Runs a broker until cancelled. Raises StorageError for data it cannot use, OSError for an address in use."""
    async with opened(config, now_ms) as (broker, log_dirs):
        await _serve_opened(config, broker, log_dirs, started)


async def _serve_opened(config: BrokerConfig, broker: Broker, log_dirs: LogDirs, started: Started) -> None:
    with ExitStack() as sockets:
        listening = {
            endpoint.name: [
                sockets.enter_context(sock)
                for sock in listen(endpoint.host, endpoint.port, config.socket_listen_backlog_size)
            ]
            for endpoint in config.endpoints
        }
        bound_ports = {name: socks[0].getsockname()[1] for name, socks in listening.items()}
        advertised = config.advertised(bound_ports, socket.gethostname())
        await broker.cluster.register(
            advertised,
            dict.fromkeys(advertised, "PLAINTEXT"),
            config.broker_rack,
            patience_ms=2 * config.zookeeper_session_timeout_ms,
        )
        if not log_dirs.was_clean:
            await broker.cluster.start_leader_epochs()
        purgatory = broker.replicas.purgatory
        poller = Poller(config.socket_request_max_bytes, purgatory.begin_round, purgatory.end_round)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(poller.run)
            nursery.start_soon(purgatory.run)
            nursery.start_soon(broker.groups.run)
            nursery.start_soon(broker.cluster.run)
            for chore in _chores(broker, log_dirs, poller):
                nursery.start_soon(chore.run)
            may_connect = partial(_may_connect, broker, poller)
            for name, socks in listening.items():
                new_dispatch = partial(_new_dispatch, name, broker, nursery)
                for sock in socks:
                    nursery.start_soon(accept_connections, sock, poller, new_dispatch, may_connect)
            started([(name, host, port) for name, (host, port) in advertised.items()])


def now_ms() -> int:
    """The wall clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def opened(config: BrokerConfig, clock: Callable[[], int]) -> AsyncGenerator[tuple[Broker, LogDirs]]:
    """A broker with its metadata and logs open, but no sockets; closed cleanly at the end."""
    rng = random.SystemRandom()
    for directory in config.data_dirs:
        _make_directory(directory)
    store = await _open_store(config, clock)
    try:
        cluster = await Cluster.open(
            store, broker_id=config.broker_id, rng=rng, now_ms=clock, cluster_id=config.cluster_id
        )
        current = _with_dynamic_configs(config, cluster.image)
        log_dirs = LogDirs.open(
            config.data_dirs,
            broker_id=config.broker_id,
            cluster_id=cluster.image.cluster_id,
            now_ms=clock(),
            config_for=lambda topic: topic_config(
                cluster.image.topics[topic].configs if topic in cluster.image.topics else {}, current
            ),
            rng=rng,
            producer_expiration_ms=config.producer_id_expiration_ms,
        )
        try:
            broker = _assemble(current, cluster, log_dirs, rng, clock)
            yield broker, log_dirs
        finally:
            log_dirs.close()
    finally:
        # Also when this is cancelled: the session is to end now, and not by silence.
        with trio.CancelScope(shield=True):
            await store.close()


async def _open_store(config: BrokerConfig, clock: Callable[[], int]) -> MetadataStore:
    if not config.on_zookeeper:
        return EmbeddedStore(config.data_dirs[0] / METADATA_FILE, clock)
    if importlib.util.find_spec("kazoo") is None:
        raise StorageError("zookeeper.connect is set, which needs kazoo: pip install 'kpy-broker[zookeeper]'.")
    # Imported here because a broker without ZooKeeper does not need it, and may not have it.
    from kpy.metadata.zookeeper import ZookeeperConfig, ZookeeperStore

    assert config.zookeeper_connect is not None
    session_timeout_ms = config.zookeeper_session_timeout_ms
    log.info("waiting for ZooKeeper at %s", config.zookeeper_connect)
    return await ZookeeperStore.connect(
        ZookeeperConfig(
            config.zookeeper_connect.replace(" ", ""),
            session_timeout_ms,
            config.zookeeper_connection_timeout_ms or session_timeout_ms,
            config.zookeeper_max_in_flight_requests,
            set_acl=config.zookeeper_set_acl,
            tls=config.zookeeper_ssl_client_enable,
            certificate_file=config.zookeeper_ssl_keystore_location,
            key_password=config.zookeeper_ssl_keystore_password,
            trusted_file=config.zookeeper_ssl_truststore_location,
            check_hostname=bool(config.zookeeper_ssl_endpoint_identification_algorithm),
            secret_paths=SENSITIVE_PATHS,
        )
    )


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"Cannot make the data directory {path}: {error.strerror}") from error


def _assemble(
    config: BrokerConfig, cluster: Cluster, log_dirs: LogDirs, rng: random.Random, clock: Callable[[], int]
) -> Broker:
    replicas = ReplicaManager(
        log_dirs, config.broker_id, lambda overrides: topic_config(overrides, broker.config), clock
    )
    groups = GroupCoordinator(replicas, cluster, _coordinator_config(config), rng, clock)
    sessions = FetchSessions(config.max_incremental_fetch_session_cache_slots, rng)
    broker = Broker(config, cluster, replicas, groups, sessions, clock, rng)

    def follow(image: MetadataImage) -> None:
        changed = _with_dynamic_configs(broker.config, image)
        replicas.apply(image)
        if changed is not broker.config:
            broker.config = changed
            cluster.office.policy = _policy(changed)
            replicas.reconfigure()
        groups.apply(image)

    cluster.office.policy = _policy(config)
    cluster.on_change = follow
    follow(cluster.image)
    return broker


def _with_dynamic_configs(config: BrokerConfig, image: MetadataImage) -> BrokerConfig:
    """The configuration with the dynamic configs of all brokers and of this one; the same object if none is new."""
    for_all: Mapping[str, str] = image.broker_configs.get("", {})
    for_this: Mapping[str, str] = image.broker_configs.get(str(config.broker_id), {})
    if for_all == config.cluster_overrides and for_this == config.broker_overrides:
        return config
    return config.with_overrides(for_all, for_this)


def _policy(config: BrokerConfig) -> Policy:
    return Policy(config.unclean_leader_election_enable, config.delete_topic_enable)


def _coordinator_config(config: BrokerConfig) -> CoordinatorConfig:
    return CoordinatorConfig(
        GroupConfig(
            group_min_session_timeout_ms=config.group_min_session_timeout_ms,
            group_max_session_timeout_ms=config.group_max_session_timeout_ms,
            group_initial_rebalance_delay_ms=config.group_initial_rebalance_delay_ms,
            group_max_size=config.group_max_size,
            offset_metadata_max_bytes=config.offset_metadata_max_bytes,
            offsets_retention_ms=config.offsets_retention_minutes * MINUTE_MS,
            offsets_retention_check_interval_ms=config.offsets_retention_check_interval_ms,
        ),
        offsets_topic_num_partitions=config.offsets_topic_num_partitions,
        offsets_topic_replication_factor=config.offsets_topic_replication_factor,
        offsets_topic_segment_bytes=config.offsets_topic_segment_bytes,
        offsets_topic_compression_codec=config.offsets_topic_compression_codec,
        offsets_commit_timeout_ms=config.offsets_commit_timeout_ms,
    )


def _new_dispatch(listener: str, broker: Broker, nursery: trio.Nursery, host: str) -> Dispatch:
    return Dispatcher(Client(host, listener), broker, nursery.start_soon)


def _may_connect(broker: Broker, poller: Poller, host: str) -> bool:
    config = broker.config
    overrides = parse_connection_overrides(config.max_connections_per_ip_overrides)
    limit = overrides.get(host, config.max_connections_per_ip)
    return len(poller) < config.max_connections and poller.connections_of(host) < limit


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to be done every so often."""

    interval_ms: int
    do: Callable[[], Coroutine[Any, Any, None]]

    async def run(self) -> None:
        while True:
            await trio.sleep(self.interval_ms / 1000)
            try:
                await self.do()
            except Exception:  # A fault in a chore must not take the clients' broker away.
                log.exception("%s met a fault in kpy; trying again in %d ms", self.do.__name__, self.interval_ms)


def _chores(broker: Broker, log_dirs: LogDirs, poller: Poller) -> list[Chore]:
    """What a broker does besides answering. Disk work that may take long goes to a thread."""
    config = broker.config

    async def retention() -> None:
        log_dirs.retention(broker.now_ms())

    async def checkpoints() -> None:
        await _carry_out(log_dirs, log_dirs.flush_jobs(broker.now_ms()))
        await _carry_out(log_dirs, log_dirs.checkpoint_jobs())
        await _carry_out(log_dirs, log_dirs.removal_jobs(broker.now_ms()))

    async def compaction() -> None:
        await _carry_out(log_dirs, iter(lambda: log_dirs.clean_job(broker.now_ms()), None))

    async def idle_connections() -> None:
        poller.close_idle(broker.config.connections_max_idle_ms / 1000)

    checkpoint_ms = min(config.replica_high_watermark_checkpoint_interval_ms, config.log_flush_scheduler_interval_ms)
    chores = [
        Chore(config.log_retention_check_interval_ms, retention),
        Chore(checkpoint_ms, checkpoints),
        Chore(min(IDLE_CHECK_MS, config.connections_max_idle_ms), idle_connections),
    ]
    if config.log_cleaner_enable:
        chores.append(Chore(config.log_cleaner_backoff_ms, compaction))
    return chores


async def _carry_out(log_dirs: LogDirs, jobs: Iterator[DiskJob]) -> None:
    """Runs the jobs one by one, each in a thread, and finishes each in this one."""
    for job in jobs:
        try:
            await trio.to_thread.run_sync(job.run)
        except OSError as error:
            log_dirs.fail(job.path, error)
        else:
            job.done()
