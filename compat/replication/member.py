"""A kpy broker that is registered in a ZooKeeper by hand: run as a process, one per broker.

    python -m compat.replication.member <zookeeper> <broker id> <port> <data directory> [key=value ...]

It registers as Apache Kafka does, in a session of its own, and serves until SIGTERM. Then it lets the session go before
it closes its logs.
"""

import json
import logging
import signal
import sys
import time

import trio
from kazoo.client import KazooClient

from kpy.config import BrokerConfig
from kpy.replica.membership import Membership
from kpy.server import serve

SESSION_TIMEOUT_S = 6.0


def register(zookeeper: KazooClient, broker_id: int, port: int) -> int:
    """Puts the broker's node there; its czxid, which is the broker epoch."""
    path = f"/brokers/ids/{broker_id}"
    data = {
        "version": 5,
        "host": "127.0.0.1",
        "port": port,
        "endpoints": [f"PLAINTEXT://127.0.0.1:{port}"],
        "listener_security_protocol_map": {"PLAINTEXT": "PLAINTEXT"},
        "rack": None,
        "jmx_port": -1,
        "timestamp": str(int(time.time() * 1000)),
        "features": {},
    }
    while zookeeper.exists(path):
        time.sleep(0.1)  # Left by the process before this one, whose session ends soon.
    zookeeper.create(path, json.dumps(data).encode(), ephemeral=True)
    return zookeeper.exists(path).czxid


async def member(hosts: str, broker_id: int, port: int, data_dir: str, settings: dict[str, str]) -> None:
    zookeeper = KazooClient(hosts, timeout=SESSION_TIMEOUT_S)
    zookeeper.start()
    cluster_id = json.loads(zookeeper.get("/cluster/id")[0])["id"]
    membership = Membership()
    config = BrokerConfig.of(
        {
            "broker.id": str(broker_id),
            "listeners": f"PLAINTEXT://127.0.0.1:{port}",
            "log.dirs": data_dir,
            "cluster.id": cluster_id,
            **settings,
        }
    )
    listening = trio.Event()

    async def stop_on_signal(scope: trio.CancelScope) -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                await trio.to_thread.run_sync(zookeeper.stop)
                scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(stop_on_signal, nursery.cancel_scope)
        nursery.start_soon(
            lambda: serve(config, started=lambda _: listening.set(), membership=membership), name="broker"
        )
        await listening.wait()
        membership.broker_epoch = await trio.to_thread.run_sync(register, zookeeper, broker_id, port)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("kazoo").setLevel(logging.WARNING)
    hosts, broker_id, port, data_dir, *rest = sys.argv[1:]
    trio.run(member, hosts, int(broker_id), int(port), data_dir, dict(each.split("=", 1) for each in rest))
