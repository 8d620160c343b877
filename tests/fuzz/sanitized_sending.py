"""The accelerator's sender under ThreadSanitizer, or AddressSanitizer: `python -m tests.fuzz.sanitized_sending`.

It is the only C of kpy that runs beside Python. Here every access of its thread and of the event loop to the same
memory without an order between them ends the process; or every use of bytes that are given back. Sockets are full,
read from or gone by chance meanwhile, and what arrives is compared with what was handed over.
"""

import argparse
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

from protocol import native
from tests.fuzz.sanitized import ROOT, SETTINGS, load, runtime

SANITIZERS = ("thread", "address")
SETTINGS_OF_THREADS = {"TSAN_OPTIONS": "halt_on_error=1:exitcode=66"}
CONNECTIONS = 12
PIECE_BYTES = 16 * 1024


def target(sanitizer: str) -> Path:
    return ROOT / "build" / "fuzz" / f"sanitized-{sanitizer}" / "_native.so"


def run_sanitized(sanitizer: str, rounds: int, seed: int) -> subprocess.CompletedProcess[str]:
    """Compiles, and sends for so many rounds in a process of its own. Raises NativeError if that cannot be tried."""
    path = target(sanitizer)
    path.parent.mkdir(parents=True, exist_ok=True)
    preloaded = runtime("libtsan.so" if sanitizer == "thread" else "libasan.so")
    native.compile_only(path, "-g", "-O1", "-fno-omit-frame-pointer", f"-fsanitize={sanitizer}")
    options = (f"--sanitizer={sanitizer}", f"--rounds={rounds}", f"--seed={seed}")
    command = [sys.executable, "-m", "tests.fuzz.sanitized_sending", "--inside", *options]
    environment = os.environ | SETTINGS | SETTINGS_OF_THREADS | {"LD_PRELOAD": preloaded}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)


class Connection:
    """What one socket was given and has passed on. Bytes that come back are handed over again."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * PIECE_BYTES)
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.fd = self.ours.fileno()
        self.number = 0
        self.outgoing = bytearray()
        self.said = bytearray()
        self.heard = bytearray()

    def hear(self, limit: int) -> None:
        try:
            self.heard += self.theirs.recv(limit)
        except BlockingIOError:
            return

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


def send_all(rounds: int, seed: int) -> None:
    """Inside of the process. Whatever is found ends it."""
    from kpy.native import NATIVE

    rng = random.Random(seed)
    sender = NATIVE.Sender()
    connections: dict[int, Connection] = {}
    heard = cut_short = gone = 0

    def take_back() -> None:
        nonlocal cut_short, gone
        while (found := sender.take_back()) is not None:
            fd, data, sent, error = found
            cut_short += 1
            connection = connections[fd]
            connection.outgoing[:0] = data[sent:]
            if error:
                gone += 1
                connection.close()
                del connections[fd]

    for _ in range(rounds):
        while len(connections) < CONNECTIONS:
            made = Connection()
            connections[made.fd] = made
        for connection in list(connections.values()):
            piece = rng.randbytes(rng.randrange(1, PIECE_BYTES))
            connection.said += piece
            connection.outgoing += piece
            sender.wait(connection.number)
            take_back()
            if connection.fd in connections:
                data = bytes(connection.outgoing[:PIECE_BYTES])
                connection.number = sender.hand_over(connection.fd, data)
                if connection.number:
                    del connection.outgoing[: len(data)]
        sender.publish()
        for connection in connections.values():
            if rng.random() < 0.6:
                connection.hear(rng.randrange(1, 8 * PIECE_BYTES))
        if rng.random() < 0.02:
            rng.choice(list(connections.values())).theirs.shutdown(socket.SHUT_RDWR)
        for connection in connections.values():
            assert connection.said.startswith(connection.heard)
            heard += len(connection.heard)
            del connection.said[: len(connection.heard)]
            connection.heard.clear()
    sender.close()
    print(f"{heard} bytes arrived, {cut_short} pieces were cut short, {gone} of them by peers that were gone")
    assert heard > 0
    assert cut_short > gone > 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.sanitized_sending", description="Looks for races.")
    parser.add_argument("--sanitizer", choices=SANITIZERS, default="thread")
    parser.add_argument("--rounds", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        load(target(options.sanitizer))
        send_all(options.rounds, options.seed)
        return
    done = run_sanitized(options.sanitizer, options.rounds, options.seed)
    print(done.stdout + done.stderr, end="")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
