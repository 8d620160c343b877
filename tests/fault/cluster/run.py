"""One run: a cluster, clients, the faults of a seed, a last look at all that is there, and the verdict of the checker.

    python -m tests.fault.cluster.run --brokers kpy --seed 7 --seconds 60

It needs root, iproute2, nftables and, for jumping clocks, libfaketime. The plan is made before anything starts and
printed; with the same seed and length it is the same, `--faults` keeps to some kinds, `--plan` takes one from a file. A
run that fails keeps its directory: plan, history, what clients and servers have said, the brokers' data. `--directory`
keeps it in any case.

With `--unsafe` it gives up what protects acknowledged writes, and breaks what it then must: a checker that finds no
lost write in such a run is worth nothing.
"""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, NewTopic

from tests.fault.cluster.checker import check, forbidden
from tests.fault.cluster.client import (
    CONNECTION,
    STUCK_S,
    ClientSettings,
    consumer_settings,
    polled,
    topic_partition,
)
from tests.fault.cluster.faults import ALL_KINDS, Fault, Nemesis, plan
from tests.fault.cluster.history import READ_ALL, HistoryWriter, Op, Poll, merged, operations
from tests.fault.cluster.network import Network
from tests.fault.cluster.servers import BROKER_COMMANDS, BROKERS, CLIENTS, HOSTS, Cluster

TOPIC = "chaos"
KEYS = 6
# Who is transactional, and who is given keys by a group instead of choosing them.
CLIENT_KINDS = ((False, False), (False, True), (True, False), (True, True), (False, False))
START_TIMEOUT_S = 120.0
WHOLE_TIMEOUT_S = 60.0
WRITE_TIMEOUT_S = 60.0
FINAL_READS_TIMEOUT_S = 60.0
SAME_TIMEOUT_S = 20.0
READER_TIMEOUT_S = 20.0
STEP_S = 0.05
LEAST_ACKNOWLEDGED = 100
SHOWN_ANOMALIES = 3


class Unsafe(NamedTuple):
    """How to lose acknowledged writes."""

    acks: str
    settings: Mapping[str, str]
    faults: Sequence[Fault]


UNSAFE: Mapping[str, Unsafe] = {
    # A leader that is cut off acknowledges by itself, until it learns that it is none any more.
    "acks-1": Unsafe("1", {}, [Fault("isolate-from-cluster", 3.0, 12.0, BROKERS[:1])]),
    # The last one in sync dies when the others come back without what was written meanwhile.
    "unclean-election": Unsafe(
        "all",
        {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"},
        [Fault("kill", 3.0, 20.0, BROKERS[1:]), Fault("kill", 21.0, 20.0, BROKERS[:1])],
    ),
}


@dataclass
class Verdict:
    """What came of a run; `failures` is empty if it was good. `stuck` are clients whose library never came back."""

    brokers: str
    seed: int
    seconds: float
    faults: int = 0
    restarts: int = 0
    stuck: list[int] = field(default_factory=list[int])
    operations: dict[str, int] = field(default_factory=dict[str, int])
    whole_after_s: float | None = None
    anomalies: dict[str, int] = field(default_factory=dict[str, int])
    failures: list[str] = field(default_factory=list[str])


class Run:
    """Everything of one run, in one directory."""

    def __init__(
        self,
        brokers: str,
        seed: int,
        faults: Sequence[Fault],
        seconds: float,
        directory: Path,
        with_transactions: bool = True,
    ) -> None:
        self.verdict = Verdict(brokers, seed, seconds, len(faults))
        self._silent: list[int] = []
        self._faults = faults
        self._with_transactions = with_transactions
        self._directory = directory
        self._history_files: list[Path] = []

    def run(self, acks: str, settings: Mapping[str, str]) -> Verdict:
        """TimeoutError where the cluster does not even start."""
        (self._directory / "plan.json").write_text(json.dumps([fault._asdict() for fault in self._faults], indent=1))
        with_clocks = any(fault.kind == "clock" for fault in self._faults)
        with ExitStack() as stack:
            network = Network(HOSTS)
            stack.callback(network.close)
            network.enter(CLIENTS)
            cluster = Cluster(network, self.verdict.brokers, self._directory, settings, with_clocks)
            stack.callback(cluster.close)
            self._start(cluster)
            self._break_and_heal(cluster, acks)
            self._read_everything(cluster.bootstrap)
            self._compare_replicas(cluster)
        self._judge()
        (self._directory / "verdict.json").write_text(json.dumps(asdict(self.verdict), indent=1))
        return self.verdict

    def _start(self, cluster: Cluster) -> None:
        for server in cluster.servers.values():
            server.start()
        cluster.wait_until_whole(START_TIMEOUT_S)
        admin = AdminClient({**CONNECTION, "bootstrap.servers": cluster.bootstrap})
        assignments: dict[str, list[list[int]]] = {}
        for key in range(KEYS):
            # Each broker leads as many keys as the others, whoever chooses replicas.
            replicas = [(key + turn) % len(BROKERS) + 1 for turn in range(len(BROKERS))]
            assignments.setdefault(str(topic_partition(TOPIC, key).topic), []).append(replicas)
        topics = [NewTopic(name, len(each), replica_assignment=each) for name, each in assignments.items()]
        for created in admin.create_topics(topics).values():
            created.result(30)
        cluster.wait_until_whole(START_TIMEOUT_S)

    def _break_and_heal(self, cluster: Cluster, acks: str) -> None:
        history = self._history("nemesis")
        nemesis = Nemesis(cluster, history)
        clients = [self._start_client(number, cluster.bootstrap, acks) for number in range(len(CLIENT_KINDS))]
        try:
            self._wait_through_faults(nemesis)
            nemesis.end_all()
            self._wait_until_whole(cluster, nemesis)
            self._wait_until_all_write(nemesis, clients)
            for client in clients:
                client.send_signal(signal.SIGTERM)
            self._wait_for_clients(clients)
        finally:
            for client in clients:
                client.kill()
                client.wait()
            self.verdict.restarts = nemesis.restarts
            history.close()

    def _start_client(self, number: int, bootstrap: str, acks: str) -> subprocess.Popen[bytes]:
        transactional, subscribes = CLIENT_KINDS[number]
        transactional = transactional and self._with_transactions
        name = f"client{number}"
        settings = ClientSettings(
            client=number,
            clients=len(CLIENT_KINDS),
            seed=self.verdict.seed,
            bootstrap=bootstrap,
            topic=TOPIC,
            keys=KEYS,
            transactional=transactional,
            subscribes=subscribes,
            acks="all" if transactional else acks,
            history=str(self._history_file(name)),
        )
        command = ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "tests.fault.cluster.client"]
        with (self._directory / f"{name}.log").open("ab") as log:
            return subprocess.Popen([*command, settings.to_json()], stdout=log, stderr=subprocess.STDOUT)

    def _wait_through_faults(self, nemesis: Nemesis) -> None:
        steps = [(fault.at_s, 1, fault) for fault in self._faults]
        steps += [(fault.at_s + fault.duration_s, 0, fault) for fault in self._faults]
        begun = time.monotonic()
        for at_s, begins, fault in sorted(steps):
            self._wait(nemesis, begun + at_s - time.monotonic())
            if begins:
                nemesis.begin(fault)
            else:
                nemesis.end(fault)
        self._wait(nemesis, begun + self.verdict.seconds - time.monotonic())

    def _wait(self, nemesis: Nemesis, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            nemesis.start_what_has_ended()
            time.sleep(min(left, STEP_S))

    def _wait_for_clients(self, clients: Sequence[subprocess.Popen[bytes]]) -> None:
        for number, client in enumerate(clients):
            code = client.wait(2 * STUCK_S)
            if code != 0 and "Timeout (" in (self._directory / f"client{number}.log").read_text():
                self.verdict.stuck.append(number)
            elif code != 0:
                self.verdict.failures.append(f"client {number} ended with code {code}: see client{number}.log")
        # A client whose library does not come back writes nothing, whatever the brokers do.
        silent = [number for number in self._silent if number not in self.verdict.stuck]
        if silent:
            self.verdict.failures.append(f"{WRITE_TIMEOUT_S} s after the last fault nothing is written by {silent}")

    def _wait_until_whole(self, cluster: Cluster, nemesis: Nemesis) -> None:
        healed = time.monotonic()
        while not cluster.is_whole():
            if time.monotonic() - healed > WHOLE_TIMEOUT_S:
                self.verdict.failures.append(f"not whole {WHOLE_TIMEOUT_S} s after the last fault: {cluster.missing()}")
                return
            self._wait(nemesis, STEP_S)
        self.verdict.whole_after_s = round(time.monotonic() - healed, 1)

    def _wait_until_all_write(self, nemesis: Nemesis, clients: Sequence[subprocess.Popen[bytes]]) -> None:
        """Once nothing is broken any more, what each client sends is acknowledged, in its transactions too."""
        healed_ns = time.monotonic_ns()
        silent = [number for number, client in enumerate(clients) if client.poll() is None]
        while silent := [number for number in silent if not self._has_written(number, healed_ns)]:
            if time.monotonic_ns() - healed_ns > WRITE_TIMEOUT_S * 1e9:
                self._silent = silent
                return
            self._wait(nemesis, 1.0)

    def _has_written(self, number: int, since_ns: int) -> bool:
        # What is being written while it is read may end in the middle of a line.
        lines = self._history_file(f"client{number}").read_text().split("\n")[:-1]
        written = (op for op in map(json.loads, lines) if op["type"] == "ok" and op["time_ns"] > since_ns)
        return any(micro[0] == "send" for op in written for micro in op.get("micros", ()))

    def _read_everything(self, bootstrap: str) -> None:
        """Fresh consumers read every key from its beginning until nothing that was acknowledged is left."""
        targets: dict[int, int] = {}
        for op in operations(merged(self._history_files)):
            for key, sends in op.sends().items() if op.type == "ok" else ():
                targets[key] = max(targets.get(key, -1), *(send.offset or 0 for send in sends))
        history = self._history("final")
        process = 1_000_000
        deadline = time.monotonic() + FINAL_READS_TIMEOUT_S
        while not _read_all(bootstrap, targets, history, process):
            process += 1
            if time.monotonic() > deadline:
                self.verdict.failures.append("the last reads did not get to all that was acknowledged")
                break
        history.close()

    def _compare_replicas(self, cluster: Cluster) -> None:
        """Readers see what leaders have; what followers have must be the same, batch by batch."""
        deadline = time.monotonic() + SAME_TIMEOUT_S
        while differences := cluster.differences(TOPIC):
            if time.monotonic() > deadline:
                self.verdict.failures.append(f"the replicas of {', '.join(differences)} differ")
                return
            time.sleep(STEP_S)

    def _judge(self) -> None:
        lines = merged(self._history_files)
        with (self._directory / "history.jsonl").open("w") as file:
            file.writelines(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        ops = operations(lines)
        verdict = self.verdict
        verdict.operations = dict(sorted(Counter(f"{op.f} {op.type}" for op in ops).items()))
        anomalies = check(ops)
        verdict.anomalies = {name: len(cases) for name, cases in sorted(anomalies.items())}
        (self._directory / "anomalies.json").write_text(json.dumps(anomalies, indent=1))
        verdict.failures += [
            f"{name} ({len(cases)}): {json.dumps(cases[:SHOWN_ANOMALIES])}"
            for name, cases in sorted(forbidden(anomalies).items())
        ]
        if _acknowledged(ops) < LEAST_ACKNOWLEDGED:
            verdict.failures.append(f"only {_acknowledged(ops)} sends were acknowledged, which proves nothing")
        for host in BROKERS:
            if "Traceback (most recent call last)" in (self._directory / f"{host}.log").read_text(errors="replace"):
                verdict.failures.append(f"{host} has raised what nobody handles: see {host}.log")

    def _history(self, name: str) -> HistoryWriter:
        return HistoryWriter(self._history_file(name))

    def _history_file(self, name: str) -> Path:
        path = self._directory / f"{name}.jsonl"
        path.touch()
        if path not in self._history_files:
            self._history_files.append(path)
        return path


def _acknowledged(ops: Sequence[Op]) -> int:
    return sum(len(sends) for op in ops if op.type == "ok" for sends in op.sends().values())


def _read_all(bootstrap: str, targets: Mapping[int, int], history: HistoryWriter, process: int) -> bool:
    """Whether one fresh consumer has got to what is wanted of each key, and then to where nothing more comes."""
    consumer = Consumer(consumer_settings(bootstrap, "final"))
    consumer.assign([topic_partition(TOPIC, key) for key in range(KEYS)])
    left = dict(targets)
    quiet = 0
    deadline = time.monotonic() + READER_TIMEOUT_S
    while (left or quiet < 3) and time.monotonic() < deadline:
        op = history.invoke(process, READ_ALL, [Poll({})])
        poll = polled(consumer, timeout_s=0.5)
        history.complete(process, op, "ok", READ_ALL, [poll])
        for key, records in poll.records.items():
            if records[-1][0] >= left.get(key, 0):
                left.pop(key, None)
        quiet = 0 if poll.records else quiet + 1
    consumer.close()
    return not left


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fault.cluster.run", description=__doc__.split("\n")[0])
    parser.add_argument("--brokers", choices=sorted(BROKER_COMMANDS), default="kpy")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--faults", default=",".join(ALL_KINDS), help="kinds of faults, by comma")
    parser.add_argument("--plan", type=Path, help="a plan.json to replay, perhaps with less in it")
    parser.add_argument("--unsafe", choices=sorted(UNSAFE), help="a fixed plan that must lose acknowledged writes")
    parser.add_argument(
        "--transactions", action=argparse.BooleanOptionalAction, default=True, help="whether some clients use them"
    )
    parser.add_argument("--directory", type=Path, help="where everything is kept")
    return parser.parse_args(words)


def planned(given: argparse.Namespace) -> Sequence[Fault]:
    """The faults that the arguments ask for."""
    if given.unsafe:
        return UNSAFE[given.unsafe].faults
    if given.plan:
        return [Fault(**{**each, "hosts": tuple(each["hosts"])}) for each in json.loads(given.plan.read_text())]
    return plan(given.seed, given.seconds, given.faults.split(","))


def main(words: Sequence[str] | None = None) -> int:
    given = arguments(words)
    # An end in good order removes the namespaces.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    directory = given.directory or Path(tempfile.mkdtemp(prefix="kpy-cluster-"))
    directory.mkdir(parents=True, exist_ok=True)
    unsafe = UNSAFE[given.unsafe] if given.unsafe else None
    faults = planned(given)
    seconds = max(fault.at_s + fault.duration_s for fault in faults) if unsafe else given.seconds
    for fault in faults:
        jump = f" by {fault.clock_jump_s} s" if fault.clock_jump_s else ""
        print(f"{fault.at_s:7.1f} s  {fault.kind}{jump} {' '.join(fault.hosts)} for {fault.duration_s:.1f} s")
    sys.stdout.flush()
    run = Run(given.brokers, given.seed, faults, seconds, directory, given.transactions)
    is_good = False
    try:
        verdict = run.run(unsafe.acks if unsafe else "all", unsafe.settings if unsafe else {})
        print(json.dumps(asdict(verdict), indent=1))
        is_good = not verdict.failures
    finally:
        if given.directory or not is_good:
            print(f"everything is in {directory}")
        else:
            shutil.rmtree(directory)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
