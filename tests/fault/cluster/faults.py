"""What befalls a cluster: a plan drawn from a seed before the run begins, and how each fault is begun and ended.

| fault | what it does to the hosts it names |
|---|---|
| kill | kill -9, and start again at the end |
| pause | SIGSTOP past the session, and SIGCONT: a leader that does not know that it is none any more |
| isolate | a broker hears and is heard by nobody |
| isolate-from-cluster | the same, but clients reach it: its session expires while it goes on being written to |
| isolate-from-brokers | a broker has its session and its clients, and no other broker |
| halves | one broker with ZooKeeper on one side, two brokers on the other |
| ring | two brokers do not reach each other, and everybody else does |
| one-way-out, one-way-in | what a broker says to brokers and ZooKeeper is lost, or what they say to it |
| zookeeper-cut | a broker does not reach ZooKeeper, and its session expires |
| zookeeper-kill, zookeeper-pause | ZooKeeper is away for all |
| clock | a broker's wall clock jumps by up to an hour |

A host may be `controller`: whoever that is when the fault begins.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import NamedTuple

from tests.fault.cluster.history import NEMESIS, HistoryWriter
from tests.fault.cluster.network import Link, both_ways
from tests.fault.cluster.servers import BROKERS, CLIENTS, SESSION_TIMEOUT_S, ZOOKEEPER, Cluster

CONTROLLER = "controller"
FIRST_S = 3.0
SHORT_S = (1.0, SESSION_TIMEOUT_S)
PAST_THE_SESSION_S = (SESSION_TIMEOUT_S + 2, SESSION_TIMEOUT_S + 8)
BETWEEN_S = (1.0, 6.0)
OVERLAPS = 1 / 4
MAX_CLOCK_JUMP_S = 3600


class Fault(NamedTuple):
    """A fault of the plan, in seconds since the clients began."""

    kind: str
    at_s: float
    duration_s: float
    hosts: tuple[str, ...]
    clock_jump_s: int = 0


def _others(hosts: Sequence[str]) -> list[str]:
    return [host for host in BROKERS if host not in hosts]


# The links that each kind of partition cuts around the hosts that it names.
CUTS: Mapping[str, Callable[[Sequence[str]], set[Link]]] = {
    "isolate": lambda hosts: both_ways(hosts, [*_others(hosts), ZOOKEEPER, CLIENTS]),
    "isolate-from-cluster": lambda hosts: both_ways(hosts, [*_others(hosts), ZOOKEEPER]),
    "isolate-from-brokers": lambda hosts: both_ways(hosts, _others(hosts)),
    "halves": lambda hosts: both_ways([*hosts, ZOOKEEPER], _others(hosts)),
    "ring": lambda hosts: both_ways(hosts, _others(hosts)[:1]),
    "one-way-out": lambda hosts: {(host, to) for host in hosts for to in [*_others(hosts), ZOOKEEPER]},
    "one-way-in": lambda hosts: {(of, host) for host in hosts for of in [*_others(hosts), ZOOKEEPER]},
    "zookeeper-cut": lambda hosts: both_ways(hosts, [ZOOKEEPER]),
}
ALL_KINDS = ("kill", "pause", *CUTS, "zookeeper-kill", "zookeeper-pause", "clock")


def plan(seed: int, seconds: float, kinds: Sequence[str] = ALL_KINDS) -> list[Fault]:
    """Faults for so many seconds: each kind comes once before any comes again."""
    random = Random(f"faults {seed}")
    faults: list[Fault] = []
    deck: list[str] = []
    at_s = FIRST_S
    while True:
        if not deck:
            deck = random.sample(list(kinds), len(kinds))
        fault = _draw(deck.pop(), at_s, random)
        if fault.at_s + fault.duration_s > seconds:
            return faults
        faults.append(fault)
        if random.random() < OVERLAPS:
            at_s += fault.duration_s * random.random()
        else:
            at_s += fault.duration_s + random.uniform(*BETWEEN_S)


def _draw(kind: str, at_s: float, random: Random) -> Fault:
    duration_s = random.uniform(*random.choice([SHORT_S, PAST_THE_SESSION_S]))
    hosts: tuple[str, ...] = (random.choice([*BROKERS, CONTROLLER]),)
    jump_s = 0
    match kind:
        case "kill":
            hosts = random.choice([hosts, tuple(random.sample(BROKERS, 2)), BROKERS])
        case "pause":
            duration_s = random.uniform(*PAST_THE_SESSION_S)
        case "zookeeper-kill" | "zookeeper-pause":
            hosts = (ZOOKEEPER,)
        case "clock":
            jump_s = random.randint(-MAX_CLOCK_JUMP_S, MAX_CLOCK_JUMP_S)
        case _:
            pass
    return Fault(kind, round(at_s, 3), round(duration_s, 3), hosts, jump_s)


class Nemesis:
    """Begins and ends faults, and starts what has ended by itself again, as whoever runs a server does."""

    def __init__(self, cluster: Cluster, history: HistoryWriter) -> None:
        self._cluster = cluster
        self._history = history
        self._hosts: dict[Fault, tuple[str, ...]] = {}
        self._cuts: dict[Fault, set[Link]] = {}
        self.restarts = 0

    def begin(self, fault: Fault) -> None:
        controller = self._cluster.controller() if CONTROLLER in fault.hosts else None
        hosts = tuple(controller or BROKERS[0] if host == CONTROLLER else host for host in fault.hosts)
        self._hosts[fault] = hosts
        self._tell("begin", fault, hosts)
        if fault.kind in CUTS:
            self._cuts[fault] = CUTS[fault.kind](hosts)
            self._cut()
        for host in hosts:
            match fault.kind:
                case "kill" | "zookeeper-kill":
                    self._cluster.servers[host].kill()
                case "pause" | "zookeeper-pause":
                    self._cluster.servers[host].pause()
                case "clock":
                    self._cluster.set_clock(host, fault.clock_jump_s)
                case _:
                    pass

    def end(self, fault: Fault) -> None:
        hosts = self._hosts.pop(fault)
        self._tell("end", fault, hosts)
        if self._cuts.pop(fault, None) is not None:
            self._cut()
        for host in hosts:
            match fault.kind:
                case "kill" | "zookeeper-kill":
                    self._cluster.servers[host].start()
                case "pause" | "zookeeper-pause":
                    self._cluster.servers[host].resume()
                case "clock":
                    self._cluster.set_clock(host, 0)
                case _:
                    pass

    def end_all(self) -> None:
        for fault in list(self._hosts):
            self.end(fault)

    def start_what_has_ended(self) -> None:
        for host, server in self._cluster.servers.items():
            if server.has_ended:
                self.restarts += 1
                self._history.invoke(NEMESIS, "restart", hosts=[host])
                server.start()

    def _cut(self) -> None:
        self._cluster.network.cut(set().union(*self._cuts.values()))

    def _tell(self, what: str, fault: Fault, hosts: Sequence[str]) -> None:
        self._history.invoke(NEMESIS, f"{what} {fault.kind}", hosts=hosts, clock_jump_s=fault.clock_jump_s)
