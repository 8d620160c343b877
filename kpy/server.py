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
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio

from kpy.api.broker import Broker
from kpy.api.client import Client
from kpy.api.fetch_sessions import FetchSessions
from kpy.api.registry import Dispatcher, Spawn
from kpy.config import BrokerConfig
from kpy.config_checks import parse_connection_overrides
from kpy.dynamic_configs import DynamicConfigs
from kpy.errors import ApiError, StorageError
from kpy.group.turn import GroupConfig
from kpy.group_coordinator import GroupCoordinator, GroupCoordinatorConfig
from kpy.metadata.cluster import Cluster
from kpy.metadata.embedded import EmbeddedStore
from kpy.metadata.image import MetadataImage
from kpy.metadata.leader_elections import even_out, start_leader_epochs
from kpy.metadata.office import Candidature, Policy
from kpy.metadata.store import MetadataStore
from kpy.metadata.znodes import CONSUMERS, SENSITIVE_PATHS
from kpy.net.connection import Dispatch
from kpy.net.listener import SocketBuffers, accept_connections, listen
from kpy.net.poller import Poller
from kpy.replica.disk_threads import run_in_thread
from kpy.replica.manager import ReplicaManager
from kpy.replica.membership import Membership
from kpy.replica.partition import Partition
from kpy.replication_quota import ReplicationQuota
from kpy.storage.cleaner_manager import CleanerConfig
from kpy.storage.fs import Fs
from kpy.storage.log_config import LogConfig
from kpy.storage.log_dirs import LogDirs
from kpy.topic_config import topic_config, topic_config_problem
from kpy.transaction_coordinator import TransactionCoordinator, TransactionCoordinatorConfig
from kpy.txn.config import TV_2, TransactionConfig

if TYPE_CHECKING:
    # Not at run time: a single broker has none.
    from kpy.member import Member
    from kpy.net.tls_channel import Tls

log = logging.getLogger("kpy.server")

METADATA_FILE = "kpy-metadata.sqlite"
"""In the first data directory, beside the partitions: without that one a broker does not start, without others it does.
"""

SYNCING_THREADS = 8
"""A stop syncs half a dozen files of each log that was written to: on ext4 fourteen times as fast as in one thread. A
start after a crash syncs their directories."""

MOVE_CHECK_MS = 200
IDLE_CHECK_MS = 10_000
MINUTE_MS = 60_000

Started = Callable[[list[tuple[str, str, int]]], None]
"""Told, for each listener, its name and the host and port that clients are to use."""


async def serve(
    config: BrokerConfig, *, started: Started, fs: Fs | None = None, membership: Membership | None = None
) -> None:
    """Runs a broker until cancelled. Raises StorageError for data it cannot use, OSError for an address in use,
    ConfigError for a certificate it cannot use.

    `fs` stands in for the disk under the logs. With a `membership` the controller is somebody whom the store does not
    know, and whoever made it gives it its broker epoch.
    """
    async with opened(config, now_ms, fs, membership) as opened_broker:
        await _serve_opened(config, opened_broker, started)


@asynccontextmanager
async def _stopped_in_order(member: "Member | None") -> AsyncGenerator[None]:
    """What runs inside is cancelled from outside only once this broker has handed over: until then it answers."""
    serving = trio.CancelScope(shield=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_in_order, member, serving)
        try:
            with serving:
                yield
        finally:
            serving.cancel()
            nursery.cancel_scope.cancel()


async def _stop_in_order(member: "Member | None", serving: trio.CancelScope) -> None:
    """When this is cancelled, so is what serves; one of several brokers hands over first, and serves meanwhile."""
    try:
        await trio.sleep_forever()
    finally:
        if member is not None and not serving.cancel_called:
            with trio.CancelScope(shield=True):
                await member.leave()
        serving.cancel()


@dataclass(frozen=True, slots=True)
class Opened:
    """A broker with its metadata and logs open, but no sockets."""

    broker: Broker
    log_dirs: LogDirs
    member: "Member | None"
    """None for a single broker."""


async def _serve_opened(config: BrokerConfig, opened_broker: Opened, started: Started) -> None:
    broker, log_dirs, member = opened_broker.broker, opened_broker.log_dirs, opened_broker.member
    purgatory = broker.replicas.purgatory
    poller = Poller(config.socket_request_max_bytes, purgatory.begin_round, purgatory.end_round)
    if member is not None:
        member.readers = poller
    tls = _new_tls(config, broker) if "SSL" in config.security_protocols.values() else {}
    backlog = config.socket_listen_backlog_size
    buffers = SocketBuffers(config.socket_send_buffer_bytes, config.socket_receive_buffer_bytes)
    with ExitStack() as sockets:
        listening = {
            each.name: [sockets.enter_context(sock) for sock in listen(each.host, each.port, backlog, buffers)]
            for each in config.endpoints
        }
        bound_ports = {name: socks[0].getsockname()[1] for name, socks in listening.items()}
        advertised = config.advertised(bound_ports, socket.gethostname())
        await broker.cluster.register(
            advertised,
            {name: config.security_protocols[name] for name in advertised},
            config.broker_rack,
            patience_ms=2 * config.zookeeper_session_timeout_ms,
        )
        if not log_dirs.was_clean:
            await start_leader_epochs(broker.cluster, config.broker_id)
        async with _stopped_in_order(member), trio.open_nursery() as nursery:
            nursery.start_soon(poller.run)
            nursery.start_soon(purgatory.run)
            nursery.start_soon(broker.groups.run)
            nursery.start_soon(broker.transactions.run)
            nursery.start_soon(broker.cluster.run)
            for task in [*broker.replicas.tasks(), *(member.tasks if member is not None else ())]:
                nursery.start_soon(task)
            for chore in _chores(broker, log_dirs, poller):
                nursery.start_soon(chore.run)
            nursery.start_soon(_watch_disks, log_dirs, member, nursery.cancel_scope)
            may_connect = partial(_may_connect, broker, poller)
            for name, socks in listening.items():
                new_dispatch = partial(_new_dispatch, name, broker, nursery.start_soon)
                for sock in socks:
                    poller.give_way_to(sock)
                    nursery.start_soon(accept_connections, sock, poller, new_dispatch, may_connect, tls.get(name))
            started([(name, host, port) for name, (host, port) in advertised.items()])
        if not log_dirs.online():
            raise StorageError(f"every data directory has failed: {', '.join(log_dirs.offline_paths())}")


def _new_tls(config: BrokerConfig, broker: Broker) -> "dict[str, Tls]":
    """By listener. What the broker was started with must be right; dynamic configs may only replace it if they are."""
    # Imported here because OpenSSL takes time, at the start, that most do not need.
    from kpy.net.tls_channel import Tls
    from kpy.tls_context import TlsContexts

    contexts = broker.tls = TlsContexts(config)
    if broker.config is not config:
        contexts.reload(broker.config)
    return {
        name: Tls(partial(contexts.of, name)) for name, spoken in config.security_protocols.items() if spoken == "SSL"
    }


async def _watch_disks(log_dirs: LogDirs, member: "Member | None", serving: trio.CancelScope) -> None:
    """Tells the controller of data directories that fail, and ends the broker with the last one, as Apache Kafka does.

    It could only refuse, and would go on refusing with a mended disk; whoever watches over the process can start it
    again. Those who asked are answered first, in the round of the poller in which the disk failed.
    """
    all_failed = trio.Event()

    def on_offline(path: str, partitions: object) -> None:
        if not log_dirs.online():
            all_failed.set()
        elif member is not None:
            member.disk_failed()

    log_dirs.on_offline = on_offline
    if not log_dirs.online():
        all_failed.set()
    await all_failed.wait()
    serving.cancel()


def now_ms() -> int:
    """The wall clock, in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def opened(
    config: BrokerConfig, clock: Callable[[], int], fs: Fs | None = None, membership: Membership | None = None
) -> AsyncGenerator[Opened]:
    """Closed cleanly at the end."""
    rng = random.SystemRandom()
    _make_directory(config.data_dirs[0])
    store = await _open_store(config, clock)
    try:
        cluster = await Cluster.open(
            store,
            broker_id=config.broker_id,
            rng=rng,
            now_ms=clock,
            cluster_id=config.cluster_id,
            candidature=Candidature(
                stands=membership is None, listener=config.inter_broker_listener if config.on_zookeeper else None
            ),
            topic_config_problem=partial(topic_config_problem, broker=config),
        )
        if membership is None and config.on_zookeeper:
            membership = Membership()
            cluster.on_registered = membership.registered
        configs = DynamicConfigs(config)
        configs.follow(cluster.image)

        @cache
        def config_for(topic: str) -> LogConfig:
            known = cluster.image.topics.get(topic)
            return topic_config({} if known is None else known.configs, configs.current)

        log_dirs = LogDirs.open(
            config.data_dirs,
            broker_id=config.broker_id,
            cluster_id=cluster.image.cluster_id,
            now_ms=clock(),
            config_for=config_for,
            rng=rng,
            fs=fs,
            producer_expiration_ms=config.producer_id_expiration_ms,
            syncing_threads=SYNCING_THREADS,
        )
        try:
            member = None if membership is None else _new_member(configs.current, cluster, membership, clock)
            yield Opened(_assemble(configs, cluster, log_dirs, rng, clock, membership, member), log_dirs, member)
        finally:
            log_dirs.close()
    finally:
        # Also when this is cancelled: the session is to end now, and not by silence.
        with trio.CancelScope(shield=True):
            await store.close()


def _new_member(config: BrokerConfig, cluster: Cluster, membership: Membership, clock: Callable[[], int]) -> "Member":
    from kpy.member import Member

    return Member(config, cluster, membership, clock)


async def _open_store(config: BrokerConfig, clock: Callable[[], int]) -> MetadataStore:
    if not config.on_zookeeper:
        return EmbeddedStore(config.data_dirs[0] / METADATA_FILE, clock)
    if importlib.util.find_spec("kazoo") is None:
        raise StorageError("zookeeper.connect is set, which needs kazoo: pip install 'kpy-broker[zookeeper]'.")
    # Imported here because a broker without ZooKeeper does not need it, and may not have it.
    from kpy.metadata.zookeeper import ZookeeperStore
    from kpy.metadata.zookeeper_config import ZookeeperConfig, read_login

    assert config.zookeeper_connect is not None
    login_file, section = config.java_security_auth_login_config, config.zookeeper_sasl_clientconfig
    login = read_login(login_file, section, allowed=config.zookeeper_sasl_client)
    has_certificate = config.zookeeper_ssl_client_enable and config.zookeeper_ssl_keystore_location
    if config.zookeeper_set_acl and login is None and not has_certificate:
        raise StorageError(f"zookeeper.set.acl=true needs a section {section} in {login_file}, which has none.")
    if login is not None and importlib.util.find_spec("puresasl") is None:
        raise StorageError("A login to ZooKeeper needs pure-sasl: pip install 'kpy-broker[zookeeper]'.")
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
            login=login,
            secret_paths=SENSITIVE_PATHS,
            open_paths=(CONSUMERS,),
        )
    )


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"Cannot make the data directory {path}: {error.strerror}") from error


def _assemble(
    configs: DynamicConfigs,
    cluster: Cluster,
    log_dirs: LogDirs,
    rng: random.Random,
    clock: Callable[[], int],
    membership: Membership | None,
    member: "Member | None",
) -> Broker:
    config = configs.current
    replicas = ReplicaManager(
        log_dirs, config.broker_id, lambda overrides: topic_config(overrides, broker.config), clock, run_in_thread
    )
    groups = GroupCoordinator(replicas, cluster, _group_config(config), rng, clock)
    groups.after_round = replicas.purgatory.after_round
    sessions = FetchSessions(config.max_incremental_fetch_session_cache_slots, rng)
    transactions = TransactionCoordinator(
        replicas, cluster, groups, _transaction_config(config), cluster.producer_ids.take, clock
    )
    broker = Broker(config, cluster, replicas, groups, transactions, sessions, clock, rng, membership)
    if member is not None:
        replicas.cooperate(member.cooperation)
        transactions.cooperate(config.broker_id, member.open_peer)

    def committed(partition: Partition) -> None:
        groups.committed_in(partition.topic, partition.partition)
        transactions.committed_in(partition.topic, partition.partition)

    replicas.on_commit = committed
    log_dirs.mover.quota = ReplicationQuota(
        config.alter_log_dirs_replication_quota_window_num,
        1000 * config.alter_log_dirs_replication_quota_window_size_seconds,
    )

    def configure_rates(config: BrokerConfig) -> None:
        log_dirs.cleaner.configure(_cleaner_config(config))
        log_dirs.mover.quota.bytes_per_second = config.replica_alter_log_dirs_io_max_bytes_per_second
        replicas.throttles.limit(config.leader_replication_throttled_rate, config.follower_replication_throttled_rate)

    def follow(image: MetadataImage) -> None:
        has_changed = configs.follow(image)
        replicas.apply(image)
        if has_changed:
            broker.config = configs.current
            cluster.office.policy = _policy(configs.current)
            replicas.reconfigure()
            configure_rates(configs.current)
            if broker.tls is not None:
                broker.tls.reload(configs.current)
        groups.apply(image)
        transactions.apply(image)

    log_dirs.cleaner.check_cancelled = trio.from_thread.check_cancelled
    configure_rates(config)
    cluster.office.policy = _policy(config)
    cluster.on_change = follow
    follow(cluster.image)
    return broker


def _cleaner_config(config: BrokerConfig) -> CleanerConfig:
    return CleanerConfig(
        config.log_cleaner_dedupe_buffer_size,
        config.log_cleaner_io_max_bytes_per_second,
        config.log_cleaner_io_buffer_load_factor,
    )


def _policy(config: BrokerConfig) -> Policy:
    return Policy(config.unclean_leader_election_enable, config.delete_topic_enable)


def _group_config(config: BrokerConfig) -> GroupCoordinatorConfig:
    return GroupCoordinatorConfig(
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


def _transaction_config(config: BrokerConfig) -> TransactionCoordinatorConfig:
    return TransactionCoordinatorConfig(
        TransactionConfig(
            # Other brokers of the cluster may be Apache Kafka 3.9 with ZooKeeper, which has no features.
            transaction_version=0 if config.on_zookeeper else TV_2,
            transaction_max_timeout_ms=config.transaction_max_timeout_ms,
            transactional_id_expiration_ms=config.transactional_id_expiration_ms,
            transaction_abort_timed_out_transaction_cleanup_interval_ms=(
                config.transaction_abort_timed_out_transaction_cleanup_interval_ms
            ),
            transaction_remove_expired_transaction_cleanup_interval_ms=(
                config.transaction_remove_expired_transaction_cleanup_interval_ms
            ),
        ),
        transaction_state_log_num_partitions=config.transaction_state_log_num_partitions,
        transaction_state_log_replication_factor=config.transaction_state_log_replication_factor,
        transaction_state_log_min_isr=config.transaction_state_log_min_isr,
        transaction_state_log_segment_bytes=config.transaction_state_log_segment_bytes,
    )


def _new_dispatch(listener: str, broker: Broker, spawn: Spawn, host: str) -> Dispatch:
    return Dispatcher(Client(host, listener), broker, spawn)


def _may_connect(broker: Broker, poller: Poller, host: str) -> bool:
    config = broker.config
    overrides = parse_connection_overrides(config.max_connections_per_ip_overrides)
    limit = overrides.get(host, config.max_connections_per_ip)
    return len(poller) < config.max_connections and poller.connections_of(host) < limit


@dataclass(frozen=True, slots=True)
class Chore:
    """Something to be done every so often. The interval is asked for anew each time."""

    interval_ms: Callable[[], int]
    do: Callable[[], Coroutine[Any, Any, None]]

    async def run(self) -> None:
        while True:
            interval_ms = self.interval_ms()
            await trio.sleep(interval_ms / 1000)
            try:
                await self.do()
            except Exception:  # A fault in a chore must not take the clients' broker away.
                log.exception("%s met a fault in kpy; trying again in %d ms", self.do.__name__, interval_ms)


def _chores(broker: Broker, log_dirs: LogDirs, poller: Poller) -> list[Chore]:
    """What a broker does besides answering. Disk work that may take long goes to a thread."""
    config = broker.config

    async def retention() -> None:
        log_dirs.retention(broker.now_ms())

    async def checkpoints() -> None:
        await broker.replicas.carry_out(log_dirs.flush_jobs(broker.now_ms()))
        await broker.replicas.carry_out(log_dirs.checkpoint_jobs())
        await broker.replicas.carry_out(log_dirs.removal_jobs(broker.now_ms()))

    async def compaction() -> None:
        if broker.config.log_cleaner_threads:
            await broker.replicas.carry_out(log_dirs.clean_jobs(broker.now_ms))

    async def moves() -> None:
        while (job := log_dirs.mover.job(broker.now_ms())) is not None:
            await broker.replicas.carry_out([job])

    async def leader_rebalance() -> None:
        try:
            await even_out(broker.cluster, config.leader_imbalance_per_broker_percentage)
        except ApiError as error:
            log.warning("leaders have not been evened out: %s", error)

    async def idle_connections() -> None:
        poller.close_idle(broker.config.connections_max_idle_ms / 1000)

    def every(interval_ms: int) -> Callable[[], int]:
        return lambda: interval_ms

    checkpoint_ms = min(config.replica_high_watermark_checkpoint_interval_ms, config.log_flush_scheduler_interval_ms)
    chores = [
        Chore(every(config.log_retention_check_interval_ms), retention),
        Chore(every(checkpoint_ms), checkpoints),
        Chore(every(MOVE_CHECK_MS), moves),
        Chore(every(min(IDLE_CHECK_MS, config.connections_max_idle_ms)), idle_connections),
    ]
    if config.auto_leader_rebalance_enable and broker.membership is not None:
        chores.append(Chore(every(1000 * config.leader_imbalance_check_interval_seconds), leader_rebalance))
    if config.log_cleaner_enable:
        chores.append(Chore(lambda: broker.config.log_cleaner_backoff_ms, compaction))
    return chores
