"""A network of hosts inside this machine: each has a network namespace of its own, and a switch joins them.

The switch is a bridge in one more namespace, so nothing is seen or changed outside. What it forwards is filtered by
nftables there, by pairs of sender and receiver: links are cut in one direction or both, and packets vanish as they do
when a cable is pulled. Addresses are of 192.0.2.0/24 (RFC 5737), which no real host has.
"""

import ctypes
import os
import re
import subprocess
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

NAMESPACES = Path("/run/netns")
TOOLS = ("ip", "nft")
CLONE_NEWNET = 0x40000000

# The whole table is replaced at once, so there is no moment between two states of the network.
RULES = """
table bridge faults
delete table bridge faults
table bridge faults {{
    set cut {{ type ipv4_addr . ipv4_addr; {elements} }}
    chain forward {{ type filter hook forward priority 0; policy accept; ip saddr . ip daddr @cut drop; }}
}}
"""

Link = tuple[str, str]


class Network:
    """Hosts by name, each with one address; all namespaces are removed by `close`."""

    def __init__(self, hosts: Sequence[str]) -> None:
        remove_abandoned()
        self.hosts = tuple(hosts)
        self._prefix = f"kpy-{os.getpid()}-"
        self._switch = self._prefix + "switch"
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        _run("ip", "netns", "add", self._switch)
        _run("ip", "-n", self._switch, "link", "add", "switch", "type", "bridge")
        _run("ip", "-n", self._switch, "link", "set", "switch", "up")
        for number, host in enumerate(self.hosts):
            namespace, port = self._prefix + host, f"port{number}"
            _run("ip", "netns", "add", namespace)
            peer = ("type", "veth", "peer", "name", "eth0", "netns", namespace)
            _run("ip", "-n", self._switch, "link", "add", port, *peer)
            _run("ip", "-n", self._switch, "link", "set", port, "master", "switch", "up")
            _run("ip", "-n", namespace, "address", "add", f"{self.address(host)}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _run("ip", "-n", namespace, "link", "set", device, "up")

    def address(self, host: str) -> str:
        return f"192.0.2.{10 + self.hosts.index(host)}"

    def command(self, host: str, command: Sequence[str]) -> list[str]:
        """The command line that runs a command on a host, in place of itself: it keeps the process id."""
        return ["ip", "netns", "exec", self._prefix + host, *command]

    def enter(self, host: str) -> None:
        """This thread, and the threads and processes that it starts from now on, are on that host."""
        libc = ctypes.CDLL(None, use_errno=True)
        with (NAMESPACES / (self._prefix + host)).open() as namespace:
            if libc.setns(namespace.fileno(), CLONE_NEWNET) != 0:
                error = ctypes.get_errno()
                raise OSError(error, os.strerror(error))

    def cut(self, links: Collection[Link]) -> None:
        """From now on nothing goes from the first to the second host of each pair, and everything else does."""
        pairs = ", ".join(f"{self.address(sender)} . {self.address(receiver)}" for sender, receiver in sorted(links))
        rules = RULES.format(elements=f"elements = {{ {pairs} }}" if pairs else "")
        _run("ip", "netns", "exec", self._switch, "nft", "-f", "-", stdin=rules)

    def close(self) -> None:
        _remove(name for name in _namespaces() if name.startswith(self._prefix))


def both_ways(some: Collection[str], others: Collection[str]) -> set[Link]:
    """The links between two sides, in both directions."""
    return {link for one in some for other in others for link in ((one, other), (other, one))}


def remove_abandoned() -> None:
    """Removes what runs have left that were killed."""
    _remove(
        name
        for name in _namespaces()
        if (match := re.fullmatch(r"kpy-(\d+)-\w+", name)) and not Path("/proc", match[1]).exists()
    )


def _namespaces() -> list[str]:
    return sorted(path.name for path in NAMESPACES.glob("kpy-*"))


def _remove(names: Iterable[str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)


def _run(*command: str, stdin: str = "") -> None:
    result = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise OSError(f"{' '.join(command)}: {result.stderr.strip()}")
