"""A cluster that makes no mistake, as a list in memory, and the histories of clients that use it.

Producers send by themselves or in transactions that overlap, consumers read what is committed below the last stable
offset, an outcome may stay unknown, and a client whose outcome is unknown goes on as another process.
"""

from dataclasses import dataclass, field
from random import Random

from tests.fault.cluster.history import READ_ALL, Micro, Op, Poll, Send

KEYS = 3
CLIENTS = 4
STEPS = 80
OPEN, COMMITTED, ABORTED = "open", "committed", "aborted"


@dataclass
class Transaction:
    """A state that all its records share."""

    state: str = OPEN


@dataclass
class Client:
    """One producer and one consumer; an operation that it is in the middle of is a list of micros."""

    process: int
    positions: dict[int, int] = field(default_factory=dict[int, int])
    before: dict[int, int] = field(default_factory=dict[int, int])
    micros: list[Micro] = field(default_factory=list[Micro])
    transaction: Transaction | None = None
    invoked_ns: int = 0


class Model:
    """The logs of all keys; `random` decides what happens."""

    def __init__(self, random: Random) -> None:
        self.ops: list[Op] = []
        self._random = random
        # A control record has no value.
        self._logs: list[list[tuple[int | None, Transaction]]] = [[] for _ in range(KEYS)]
        self._clients = [Client(process) for process in range(CLIENTS)]
        self._processes = CLIENTS
        self._values = 0
        self._now = 0

    def run(self) -> list[Op]:
        for _ in range(STEPS):
            self._now += 1
            client = self._random.choice(self._clients)
            if client.transaction is None:
                self._begin(client)
            elif len(client.micros) < 4 and self._random.random() < 0.7:
                self._step(client)
            else:
                self._finish(client)
        for client in self._clients:
            self._now += 1
            if client.transaction is not None:
                self._finish(client)
        self._read_everything()
        return self.ops

    def _begin(self, client: Client) -> None:
        client.invoked_ns = self._now
        what = self._random.choice(["send", "send", "poll", "poll", "assign", "txn", "txn"])
        if what == "assign":
            keys = self._random.sample(range(KEYS), self._random.randint(1, KEYS))
            client.positions = {key: client.positions.get(key, 0) for key in keys}
            self._record(client, "ok", "assign", keys=keys)
        elif what == "poll":
            self._record(client, "ok", "poll", (self._poll(client),))
        elif what == "send":
            self._send_alone(client)
        else:
            client.transaction, client.micros, client.before = Transaction(), [], dict(client.positions)

    def _step(self, client: Client) -> None:
        assert client.transaction is not None
        if self._random.random() < 0.5:
            client.micros.append(self._poll(client))
        else:
            client.micros.append(self._append(client.transaction))

    def _finish(self, client: Client) -> None:
        assert client.transaction is not None
        type_ = self._random.choice(["ok", "ok", "ok", "fail", "info"])
        committed = type_ == "ok" or (type_ == "info" and self._random.random() < 0.5)
        client.transaction.state = COMMITTED if committed else ABORTED
        for key in {micro.key for micro in client.micros if isinstance(micro, Send)}:
            self._logs[key].append((None, client.transaction))
        micros = client.micros
        if type_ == "info":
            micros = [Send(each.key, each.value) if isinstance(each, Send) else each for each in micros]
        if type_ != "ok":
            client.positions = client.before
        client.transaction = None
        self._record(client, type_, "txn", tuple(micros))

    def _send_alone(self, client: Client) -> None:
        if self._random.random() < 0.8:
            self._record(client, "ok", "send", (self._append(Transaction(COMMITTED)),))
            return
        lost = Transaction(COMMITTED if self._random.random() < 0.5 else ABORTED)
        sent = self._append(lost)
        self._record(client, "info", "send", (Send(sent.key, sent.value),))

    def _append(self, transaction: Transaction) -> Send:
        self._values += 1
        key = self._random.randrange(KEYS)
        self._logs[key].append((self._values, transaction))
        return Send(key, self._values, len(self._logs[key]) - 1)

    def _poll(self, client: Client) -> Poll:
        records: dict[int, list[tuple[int, int]]] = {}
        for key, position in client.positions.items():
            for offset in range(position, min(len(self._logs[key]), position + self._random.randint(1, 9))):
                value, transaction = self._logs[key][offset]
                if transaction.state == OPEN:
                    break
                client.positions[key] = offset + 1
                if value is not None and transaction.state == COMMITTED:
                    records.setdefault(key, []).append((offset, value))
        return Poll(records)

    def _record(
        self, client: Client, type_: str, f: str, micros: tuple[Micro, ...] = (), keys: list[int] | None = None
    ) -> None:
        times = client.invoked_ns, self._now
        self.ops.append(Op(client.process, type_, f, micros, frozenset(keys or ()), frozenset(), *times))
        if type_ == "info":
            client.process, self._processes = self._processes, self._processes + 1
            client.positions = {}

    def _read_everything(self) -> None:
        self._now += 1
        reader = Client(self._processes, dict.fromkeys(range(KEYS), 0), invoked_ns=self._now)
        while any(position < len(self._logs[key]) for key, position in reader.positions.items()):
            self._record(reader, "ok", READ_ALL, (self._poll(reader),))
