"""Faults are planned before a run, and a network of hosts loses exactly the packets that it is told to lose."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing

import pytest

from compat.harness import require_root, require_tool, unavailable
from tests.fault.cluster.faults import ALL_KINDS, plan
from tests.fault.cluster.network import NAMESPACES, TOOLS, Network, both_ways

# Says each datagram that it hears on its host.
HEAR = """
import socket, sys
heard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
heard.bind((sys.argv[1], 7))
print("ready", flush=True)
while True:
    print(heard.recv(100).decode(), flush=True)
"""
TELL = """
import socket, sys
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(sys.argv[2].encode(), (sys.argv[1], 7))
"""


@pytest.fixture
def network() -> Iterator[Network]:
    require_root("A network of hosts")
    for tool in TOOLS:
        require_tool(tool)
    try:
        network = Network(["a", "b"])
    except OSError as refused:
        unavailable(f"network namespaces cannot be made here: {refused}")
    with closing(network):
        yield network


class Listener:
    """A process on a host that hears datagrams."""

    def __init__(self, network: Network, host: str) -> None:
        self._network = network
        self._host = host
        command = network.command(host, [sys.executable, "-c", HEAR, network.address(host)])
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.next() == "ready"

    def tell(self, sender: str, what: str) -> None:
        words = [sys.executable, "-c", TELL, self._network.address(self._host), what]
        subprocess.run(self._network.command(sender, words), check=True, timeout=30)

    def next(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def close(self) -> None:
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


def test_what_is_cut_one_way_is_heard_the_other_way_and_again_when_it_is_mended(network: Network) -> None:
    with closing(Listener(network, "a")) as a, closing(Listener(network, "b")) as b:
        network.cut({("a", "b")})
        b.tell("a", "lost")
        a.tell("b", "back")
        assert a.next() == "back"
        network.cut(())
        b.tell("a", "there")
        assert b.next() == "there"


def test_nothing_is_left_of_a_network(network: Network) -> None:
    mine = f"kpy-{os.getpid()}-*"
    assert len(list(NAMESPACES.glob(mine))) == 3
    network.close()
    assert not list(NAMESPACES.glob(mine))


def test_links_are_cut_both_ways() -> None:
    assert both_ways(["a"], ["b", "c"]) == {("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")}


def test_a_plan_is_the_same_for_the_same_seed_and_covers_every_kind() -> None:
    assert plan(1, 600) == plan(1, 600) != plan(2, 600)
    assert {fault.kind for fault in plan(1, 600)} == set(ALL_KINDS)
    assert all(fault.at_s + fault.duration_s <= 600 for fault in plan(1, 600))
