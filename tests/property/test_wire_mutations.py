"""Whatever bytes come, a decoder answers with a message or with WireError."""

import gzip
import importlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kpy.errors import WireError
from protocol import generate

FRAMES = Path(__file__).parents[1] / "golden" / "frames-4.3.1.tsv.gz"
MUTATIONS_PER_FRAME = 25
SEEDS = range(4)

INTERESTING = [
    b"\x00",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\xff",
    b"\xff" * 4 + b"\x0f",
]


def flip(frame: bytearray, rng: random.Random) -> None:
    frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)


def truncate(frame: bytearray, rng: random.Random) -> None:
    del frame[rng.randrange(len(frame)) :]


def overwrite(frame: bytearray, rng: random.Random) -> None:
    at, value = rng.randrange(len(frame)), rng.choice(INTERESTING)
    frame[at : at + len(value)] = value


def insert(frame: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(frame))
    frame[at:at] = rng.choice(INTERESTING)


def remove(frame: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(frame))
    del frame[at : at + rng.randrange(1, 8)]


MUTATIONS: list[Callable[[bytearray, random.Random], None]] = [flip, truncate, overwrite, insert, remove]


def readers() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for declaration in generate.declaration_modules():
        module = importlib.import_module(f"kpy.wire.{generate.short_name(declaration)}")
        for name, message in generate.messages_in(declaration).items():
            found[name] = getattr(module, f"{generate.names_of(name, message).word.upper()}_READERS")
    return found


@pytest.mark.parametrize("seed", SEEDS)
def test_mutated_frames_decode_or_raise_wire_error(seed: int) -> None:
    rng = random.Random(seed)
    tables = readers()
    refused = accepted = 0
    lines = gzip.decompress(FRAMES.read_bytes()).decode().splitlines()
    for line in lines[seed :: len(SEEDS)]:
        name, version, _, data, _ = line.split("\t")
        if name not in tables or not data:
            continue
        for _ in range(MUTATIONS_PER_FRAME):
            frame = bytearray.fromhex(data)
            for _ in range(rng.randrange(1, 4)):
                if frame:
                    rng.choice(MUTATIONS)(frame, rng)
            try:
                tables[name][int(version)](memoryview(frame), 0, len(frame))
                accepted += 1
            except WireError:
                refused += 1
    assert refused > 1000
    assert accepted > 100
