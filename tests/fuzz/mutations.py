"""Damaged frames by the million, all from a seed: `python -m tests.fuzz.mutations --frames 10000000`.

Every golden frame of Apache Kafka (tests/golden), of every API and version, is damaged in one to three places and
decoded. The only outcomes allowed are a message and a WireError, within SLOW_SECONDS and in memory that is bounded by
the frame's size. Where the accelerator is compiled, its outcome and Python's must be the same.

Each worker takes the frames with its own remainder, so that a failure is found again by its seed and number alone.
"""

import argparse
import gc
import gzip
import importlib
import multiprocessing
import os
import random
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

from kpy.errors import WireError
from kpy.wire.primitives import Message
from protocol import generate

GOLDEN = Path(__file__).parents[1] / "golden"

SLOW_SECONDS = 0.05
SLOW_TRIES = 3
"""What else runs on the machine may take the time once, but hardly so many times in a row."""

MEASURED_EVERY = 2000
"""Memory is measured for one frame in so many; what a message holds is counted for every frame that decodes."""

BYTES_PER_BYTE = 120
"""The most memory that a byte on the wire may take: an empty struct of one byte is an object of some slots."""
ALLOWANCE_BYTES = 16 * 1024
"""What decoding takes anyway: frames, exceptions and their texts."""

INTERESTING = [
    b"\x00",
    b"\x01",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff\xff",
    b"\x7f\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\x00\x00\x00",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\xed\xa0\x80",
]
"""The edges of lengths, counts and varints; and a surrogate, which is not UTF-8."""


def flip(frame: bytearray, rng: random.Random) -> None:
    frame[int(rng.random() * len(frame))] ^= 1 << int(rng.random() * 8)


def set_byte(frame: bytearray, rng: random.Random) -> None:
    frame[int(rng.random() * len(frame))] = int(rng.random() * 256)


def truncate(frame: bytearray, rng: random.Random) -> None:
    del frame[int(rng.random() * len(frame)) :]


def overwrite(frame: bytearray, rng: random.Random) -> None:
    at, value = int(rng.random() * len(frame)), INTERESTING[int(rng.random() * len(INTERESTING))]
    frame[at : at + len(value)] = value


def insert(frame: bytearray, rng: random.Random) -> None:
    at = int(rng.random() * len(frame))
    frame[at:at] = INTERESTING[int(rng.random() * len(INTERESTING))]


def remove(frame: bytearray, rng: random.Random) -> None:
    at = int(rng.random() * len(frame))
    del frame[at : at + 1 + int(rng.random() * 8)]


def repeat(frame: bytearray, rng: random.Random) -> None:
    at = int(rng.random() * len(frame))
    frame[at:at] = frame[at : at + 1 + int(rng.random() * 16)]


MUTATIONS: list[Callable[[bytearray, random.Random], None]] = [
    *(flip, set_byte, truncate, overwrite, insert, remove, repeat),
]


class Target(NamedTuple):
    """One golden frame and what reads it."""

    name: str
    read: Callable[[memoryview, int, int], tuple[Message, int]]
    write: Callable[[Message, list[Any]], None]
    frame: bytes


def targets() -> list[Target]:
    """Every declared message in every version, but for those that have no bytes to damage."""
    tables: dict[str, Any] = {}
    for declaration in generate.declaration_modules():
        module = importlib.import_module(f"kpy.wire.{generate.short_name(declaration)}")
        for name, message in generate.messages_in(declaration).items():
            table = generate.names_of(name, message).word.upper()
            tables[name] = getattr(module, f"{table}_READERS"), getattr(module, f"{table}_WRITERS")
    found: list[Target] = []
    for path in sorted(GOLDEN.glob("frames-*.tsv.gz")):
        for line in gzip.decompress(path.read_bytes()).decode().splitlines():
            name, version, _, data, _ = line.split("\t")
            readers, writers = tables.get(name, ((), ()))
            if data and int(version) < len(readers) and (read := readers[int(version)]):
                found.append(Target(f"{name} v{version}", read, writers[int(version)], bytes.fromhex(data)))
    return found


class Tally(NamedTuple):
    """What came of some frames."""

    accepted: int
    refused: int
    slowest_seconds: float
    most_bytes_per_byte: float

    def __add__(self, other: "Tally") -> "Tally":  # type: ignore[override]  # Not a tuple's.
        return Tally(
            self.accepted + other.accepted,
            self.refused + other.refused,
            max(self.slowest_seconds, other.slowest_seconds),
            max(self.most_bytes_per_byte, other.most_bytes_per_byte),
        )


class FindingError(Exception):
    """A frame that was treated otherwise than allowed."""


def damaged(frames: list[Target], seed: int, number: int) -> tuple[Target, bytearray]:
    """The frame of this number."""
    rng = random.Random(seed * 0x9E3779B97F4A7C15 + number)
    target = frames[number % len(frames)]
    frame = bytearray(target.frame)
    for _ in range(1 + int(rng.random() * 3)):
        if frame:
            MUTATIONS[int(rng.random() * len(MUTATIONS))](frame, rng)
    return target, frame


def outcome(read: Callable[..., tuple[Message, int]], frame: bytearray) -> Message | str:
    """The message, or the text of the WireError."""
    try:
        return read(memoryview(frame), 0, len(frame))[0]
    except WireError as error:
        return str(error)


def elements(message: Message) -> int:
    """How many elements the arrays in a message have, all together."""
    count = 0
    for name in message.__slots__:
        value: Any = getattr(message, name)
        if type(value) is list:
            count += len(value)
            if value and isinstance(value[0], Message):
                count += sum(map(elements, value))
        elif isinstance(value, Message):
            count += elements(value)
    return count


def try_frame(target: Target, frame: bytearray) -> tuple[bool, float]:
    """Decodes a frame: whether it is one, and how long that took. Raises FindingError."""
    started = time.perf_counter()
    try:
        found = outcome(target.read, frame)
    except Exception as error:  # Whatever else is raised is what is being looked for.
        raise FindingError(f"{type(error).__name__}: {error}") from error
    taken = time.perf_counter() - started
    if isinstance(found, str):
        return False, taken
    if elements(found) > len(frame):
        raise FindingError(f"{elements(found)} elements out of {len(frame)} bytes")
    return True, taken


def check_memory(target: Target, frame: bytearray) -> float:
    """Decodes a frame while memory is traced, and returns what it took by the size of the frame."""
    tracemalloc.start()
    outcome(target.read, frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if peak > BYTES_PER_BYTE * len(frame) + ALLOWANCE_BYTES:
        raise FindingError(f"{peak} bytes of memory for a frame of {len(frame)}")
    return max(0, peak - ALLOWANCE_BYTES) / max(1, len(frame))


def same_outcome(target: Target, frame: bytearray) -> None:
    """Compares the accelerator with Python, in reading and in writing what was read. Raises FindingError."""
    read, write = cast(Any, target.read), cast(Any, target.write)
    native, plain = outcome(read, frame), outcome(read.python, frame)
    # Not a number is not equal to itself.
    if repr(native) != repr(plain) or (native != plain and "nan" not in repr(plain)):
        raise FindingError(f"{native!r} in C, {plain!r} in Python")
    if isinstance(native, Message):
        written: list[list[Any]] = [[], []]
        for each, chunks in zip((write, write.python), written, strict=True):
            try:
                each(native, chunks)
            except WireError as error:
                chunks.append(str(error))
        if written[0] != written[1]:
            raise FindingError(f"{native!r} is written as {written[0]} in C, {written[1]} in Python")


def run(seed: int, numbers: range) -> Tally:
    """Tries the frames of these numbers. Raises FindingError, which says how to see it again."""
    frames = targets()
    accepted = refused = 0
    slowest = most_memory = 0.0
    for number in numbers:
        target, frame = damaged(frames, seed, number)
        try:
            is_message, taken = try_frame(target, frame)
            if taken > SLOW_SECONDS:
                taken = min(try_frame(target, frame)[1] for _ in range(SLOW_TRIES))
                if taken > SLOW_SECONDS:
                    raise FindingError(f"it takes {taken:.3f} s")
            if number % MEASURED_EVERY == numbers.start % MEASURED_EVERY:
                most_memory = max(most_memory, check_memory(target, frame))
            if hasattr(target.read, "python"):
                same_outcome(target, frame)
        except FindingError as finding:
            raise FindingError(f"{target.name}, seed {seed}, frame {number}: {finding}: {frame.hex()}") from finding
        accepted += is_message
        refused += not is_message
        slowest = max(slowest, taken)
    return Tally(accepted, refused, slowest, most_memory)


def shares(count: int, workers: int, first: int = 0) -> Iterator[range]:
    """The numbers of each worker."""
    for worker in range(workers):
        yield range(first + worker, first + count, workers)


def run_all(seed: int, count: int, workers: int | None = None) -> Tally:
    """Tries so many frames on all cores."""
    workers = workers or len(os.sched_getaffinity(0))
    # Their address space is not what matters here, and a fresh interpreter has no threads of a test runner.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        tallies = pool.starmap(run, [(seed, numbers) for numbers in shares(count, workers)])
    total = Tally(0, 0, 0.0, 0.0)
    for tally in tallies:
        total += tally
    return total


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.mutations", description="Decodes damaged frames.")
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    gc.freeze()
    started = time.monotonic()
    try:
        tally = run_all(options.seed, options.frames)
    except FindingError as finding:
        print(finding, file=sys.stderr)
        return 1
    print(
        f"{options.frames:,} damaged frames in {time.monotonic() - started:.0f} s: {tally.accepted:,} messages, "
        f"{tally.refused:,} WireErrors; slowest {tally.slowest_seconds * 1e3:.1f} ms, "
        f"most memory {tally.most_bytes_per_byte:.0f} bytes a byte"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
