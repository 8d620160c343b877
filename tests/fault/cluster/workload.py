"""What a client does next, drawn from a seed: the same seed gives the same series of actions.

The mix is Jepsen's: sends and polls in equal parts, alone or up to four in a transaction, now and then other keys to
read, now and then a crash. Values are numbered for each client and never given twice.
"""

from random import Random
from typing import NamedTuple

from tests.fault.cluster.history import Micro, Poll, Send

MAX_MICROS = 4
MAX_BURST = 5
CHANGES_KEYS = 1 / 64
FROM_BEGINNING = 1 / 8
ABORTS = 1 / 10
CRASHES = 1 / 500


class Assign(NamedTuple):
    """Read these keys from now on: where this client was last, or from the beginning."""

    keys: frozenset[int]
    from_beginning: bool


class Burst(NamedTuple):
    """Sends that are all in flight at once."""

    sends: tuple[Send, ...]


class PollOnce(NamedTuple):
    """A poll by itself."""


class Transaction(NamedTuple):
    """Sends and polls in one transaction, which may be undone at its end."""

    micros: tuple[Micro, ...]
    aborts: bool


class Crash(NamedTuple):
    """Producer and consumer are thrown away; a transactional client is in the middle of these sends."""

    sends: tuple[Send, ...]


Action = Assign | Burst | PollOnce | Transaction | Crash


class Workload:
    """The actions of one of `clients` clients that share `keys` keys."""

    def __init__(self, seed: int, client: int, clients: int, keys: int, transactional: bool) -> None:
        self._random = Random(f"{seed} {client}")
        self._client = client
        self._clients = clients
        self._keys = keys
        self._transactional = transactional
        self._values = 0
        self._has_keys = False

    def pause_s(self, mean_s: float) -> float:
        """How long to wait before the next action."""
        return self._random.expovariate(1 / mean_s)

    def next(self) -> Action:
        """A process that has begun anew has no keys to read until it is told."""
        if not self._has_keys or self._random.random() < CHANGES_KEYS:
            self._has_keys = True
            count = self._random.randint(1, self._keys)
            keys = frozenset(self._random.sample(range(self._keys), count))
            return Assign(keys, self._random.random() < FROM_BEGINNING)
        if self._random.random() < CRASHES:
            return Crash(self._sends(2) if self._transactional else ())
        if self._transactional:
            micros = [self._micro() for _ in range(self._random.randint(1, MAX_MICROS))]
            return Transaction(tuple(micros), self._random.random() < ABORTS)
        if self._random.random() < 0.5:
            return PollOnce()
        return Burst(self._sends(self._random.randint(1, MAX_BURST)))

    def begins_anew(self) -> None:
        """The client goes on as another process."""
        self._has_keys = False

    def _micro(self) -> Micro:
        return self._sends(1)[0] if self._random.random() < 0.5 else Poll({})

    def _sends(self, count: int) -> tuple[Send, ...]:
        sends: list[Send] = []
        for _ in range(count):
            sends.append(Send(self._random.randrange(self._keys), self._values * self._clients + self._client))
            self._values += 1
        return tuple(sends)
