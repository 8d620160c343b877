"""sarama's functional tests, from its module, against five brokers of kpy on a ZooKeeper.

They expect brokers 1 to 5, each in a rack of its own and each behind a toxiproxy on a port of theirs, 29091 to 29095;
toxiproxy is built from its own module. A few stop and start a broker, or read its log, by `docker compose`: the command
`docker` that they find asks this process to.
"""

import json
import os
import re
import socketserver
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from compat.harness import BrokerProcess, free_port, wait_until
from compat.suites.brokers import KPY_WHERE_SET
from compat.suites.expectations import Outcome
from compat.suites.go_modules import build_tests, copy_of, go, tests_in
from compat.suites.logged import run_logged
from compat.zookeeper.zookeeper_server import ZookeeperServer, listening

MODULE = "github.com/IBM/sarama"
TOXIPROXY = "github.com/Shopify/toxiproxy/v2/cmd/server"
RUN_TIMEOUT_S = 1_500.0
FIRST_PORT = 29_091
BROKER_IDS = range(1, 6)
KAFKA_VERSION = "3.9.1"
RESULT = re.compile(r"^--- (PASS|FAIL|SKIP): (\w+) ", re.MULTILINE)

# As the suite's docker-compose.yml says.
SETTINGS: Mapping[str, str] = {
    "default.replication.factor": "2",
    "offsets.topic.replication.factor": "2",
    "transaction.state.log.replication.factor": "2",
    "zookeeper.session.timeout.ms": "6000",
    "replica.selector.class": "org.apache.kafka.common.replica.RackAwareReplicaSelector",
    "auto.create.topics.enable": "false",
    "inter.broker.listener.name": "INTERNAL",
    "inter.broker.protocol.version": "3.9",
    "listener.security.protocol.map": "INTERNAL:PLAINTEXT,PROXIED:PLAINTEXT",
}


def prepare(build_dir: Path) -> Path:
    """The source; toxiproxy is built beside it."""
    go("build", "-o", str(build_dir / "toxiproxy"), TOXIPROXY)
    return copy_of(MODULE, build_dir)


class Docker(socketserver.ThreadingTCPServer):
    """Does what a `docker compose` of the tests asks for: start or stop kafka-N, or show its log."""

    def __init__(self, brokers: Mapping[str, BrokerProcess]) -> None:
        super().__init__(("127.0.0.1", 0), DockerRequest)
        self.brokers = brokers

    def script(self) -> str:
        """A program that passes on what it is called with, and prints the answer."""
        return (
            f"#!{sys.executable}\nimport socket, sys\n"
            f"connection = socket.create_connection({self.server_address!r})\n"
            "connection.sendall(' '.join(sys.argv[1:]).encode() + b'\\n')\n"
            "sys.stdout.write(connection.makefile().read())\n"
        )


class DockerRequest(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Docker)
        _, what, *_, name = self.rfile.readline().decode().split()
        broker = self.server.brokers[name]
        if what == "logs":
            self.wfile.write(broker.log_text().encode())
        elif what == "stop" and broker.is_running:
            broker.stop()
        elif what == "start" and not broker.is_running:
            broker.start()


@contextmanager
def _toxiproxy(program: Path, brokers: Mapping[str, BrokerProcess], log: Path) -> Generator[str]:
    """A running toxiproxy with the proxies kafka1 to kafka5; its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with log.open("ab") as output:
        process = subprocess.Popen([program, "-port", str(port)], stdout=output, stderr=output)
    try:
        proxies = [
            {"name": name.replace("-", ""), "listen": f"127.0.0.1:{FIRST_PORT + index}", "upstream": broker.bootstrap}
            for index, (name, broker) in enumerate(brokers.items())
        ]
        request = urllib.request.Request(f"{url}/populate", json.dumps(proxies).encode(), method="POST")

        def is_populated() -> bool:
            try:
                urllib.request.urlopen(request, timeout=5).close()
            except urllib.error.HTTPError as error:
                raise AssertionError(f"toxiproxy, on ports from {FIRST_PORT}: {error.read().decode()}") from None
            except urllib.error.URLError:
                return False
            return True

        wait_until(is_populated, "toxiproxy listens for sarama's tests")
        yield url
    finally:
        process.kill()
        process.wait()


@contextmanager
def _brokers(work_dir: Path) -> Generator[dict[str, BrokerProcess]]:
    with listening(ZookeeperServer(work_dir)) as zookeeper:
        brokers: dict[str, BrokerProcess] = {}
        try:
            for broker_id in BROKER_IDS:
                broker = BrokerProcess(work_dir / f"broker-{broker_id}", dict(SETTINGS), KPY_WHERE_SET)
                broker.settings |= {
                    "zookeeper.connect": zookeeper.address,
                    "broker.id": str(broker_id),
                    "broker.rack": str(broker_id),
                    "listeners": f"INTERNAL://127.0.0.1:{free_port()},PROXIED://127.0.0.1:{broker.port}",
                }
                internal = broker.settings["listeners"].partition(",")[0]
                proxied = f"PROXIED://127.0.0.1:{FIRST_PORT + broker_id - 1}"
                broker.settings["advertised.listeners"] = f"{internal},{proxied}"
                brokers[f"kafka-{broker_id}"] = broker
                broker.start()
            yield brokers
        finally:
            for broker in brokers.values():
                if broker.is_running:
                    broker.kill()


def run(source: Path, work_dir: Path, report: Path) -> dict[str, Outcome]:
    """Test -> how it ended. ZooKeeper and the brokers have their data and logs in `work_dir`."""
    program = build_tests(source, "-tags=functional")
    log = report.with_suffix(".log")
    with (
        _brokers(work_dir) as brokers,
        _toxiproxy(source.parent / "toxiproxy", brokers, work_dir / "toxiproxy.log") as url,
        Docker(brokers) as docker,
    ):
        thread = threading.Thread(target=docker.serve_forever)
        thread.start()
        tools = work_dir / "bin"
        tools.mkdir()
        (tools / "docker").write_text(docker.script())
        (tools / "docker").chmod(0o755)
        environment = {
            "TOXIPROXY_ADDR": url,
            "KAFKA_VERSION": KAFKA_VERSION,
            "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        }
        try:
            pattern = f"^({'|'.join(tests_in(source.glob('functional_*_test.go')))})$"
            command = [str(program), "-test.v", f"-test.timeout={RUN_TIMEOUT_S:.0f}s", f"-test.run={pattern}"]
            run_logged(command, log, source, environment, 2 * RUN_TIMEOUT_S)
        finally:
            docker.shutdown()
            thread.join()
    return {
        name: "pass" if result == "PASS" else "fail" for result, name in RESULT.findall(log.read_text(errors="replace"))
    }
