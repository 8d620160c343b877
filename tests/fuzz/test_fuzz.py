"""Hostile bytes: a million damaged frames where CI=true, fewer elsewhere; and inputs that were of interest before."""

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from coverage_guided import decode_records
from mutations import BYTES_PER_BYTE, damaged, outcome, run_all, targets

from kpy.errors import WireError
from kpy.ids import ZERO_ID
from kpy.net.connection import Connection
from kpy.wire.layouts import Layouts
from kpy.wire.primitives import Message
from protocol import generate

FRAMES = 1_000_000 if os.environ.get("CI") == "true" else 50_000
SEED = 20_240_917
INPUTS = Path(__file__).with_name("inputs")
ELEMENTS = 500


@pytest.mark.timeout(900)
def test_damaged_frames_are_messages_or_wire_errors_in_bounded_time_and_memory() -> None:
    tally = run_all(SEED, FRAMES)
    assert tally.accepted + tally.refused == FRAMES
    assert tally.accepted > FRAMES / 10
    assert tally.refused > FRAMES / 10


@pytest.mark.parametrize("path", sorted(INPUTS.glob("wire/*")), ids=lambda path: path.name)
def test_frames_of_earlier_findings_are_decoded_or_refused(path: Path) -> None:
    name, version, _ = path.name.split("-", 2)
    [read] = {target.read for target in targets() if target.name == f"{name} v{version}"}
    outcome(read, bytearray(path.read_bytes()))


@pytest.mark.parametrize("path", sorted(INPUTS.glob("records/*")), ids=lambda path: path.name)
def test_records_of_earlier_findings_are_read_or_refused(path: Path) -> None:
    decode_records(path.read_bytes())


# Memory


def modules() -> Iterator[tuple[str, Any, list[str]]]:
    """Every codec, with the names of its messages."""
    for declaration in generate.declaration_modules():
        name = generate.short_name(declaration)
        messages = [name for name in generate.messages_in(declaration) if not name.endswith("Header")]
        if messages:
            yield name, __import__(f"kpy.wire.{name}", fromlist=["LAYOUTS"]), messages


ZEROS = {"s": "", "y": b"", "r": b"", "u": ZERO_ID, "z": False, "d": 0.0}


def smallest(codec: Any, reference: str) -> Message:
    """A struct with as few bytes as it can have in this layout."""
    layout = codec.LAYOUTS.by_version[reference]
    message = getattr(codec, layout.name)()
    for name, form in zip(message.__slots__, layout.forms, strict=True):
        if form.tag >= 0 or form.code == "-":
            continue
        if form.is_array:
            setattr(message, name, None if form.is_nullable else [])
        elif form.code == "T":
            setattr(message, name, None if form.is_nullable else smallest(codec, form.struct))
        elif form.code in "syr":
            setattr(message, name, None if form.is_nullable else ZEROS[form.code])
    return message


def crowded(codec: Any, reference: str) -> Iterator[Message]:
    """This struct, every time with another array in it or below it full of the smallest elements."""
    layouts: Layouts = codec.LAYOUTS
    for name, form in zip(smallest(codec, reference).__slots__, layouts.by_version[reference].forms, strict=True):
        if form.is_array:
            message = smallest(codec, reference)
            element = smallest(codec, form.struct) if form.struct else ZEROS.get(form.code, 0)
            setattr(message, name, [element] * ELEMENTS)
            yield message
        if form.struct:
            for inner in crowded(codec, form.struct):
                message = smallest(codec, reference)
                setattr(message, name, [inner] if form.is_array else inner)
                yield message


@pytest.mark.parametrize(
    ("codec", "messages"), [pytest.param(codec, names, id=name) for name, codec, names in modules()]
)
def test_a_crowd_of_the_smallest_elements_takes_little_memory(codec: Any, messages: list[str]) -> None:
    for name in messages:
        table = name.removeprefix(generate.short_name(codec))
        word = {"Request": "REQUEST", "Response": "RESPONSE"}.get(name[-7:] if name.endswith("Request") else name[-8:])
        table = word or generate.snake(name).upper()
        readers, writers = getattr(codec, f"{table}_READERS"), getattr(codec, f"{table}_WRITERS")
        for version in {readers.index(reader) for reader in readers if reader}:
            for message in crowded(codec, f"{name}.{version}"):
                chunks: list[bytes] = []
                writers[version](message, chunks)
                frame = memoryview(b"".join(chunks))
                tracemalloc.start()
                readers[version](frame, 0, len(frame))
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                assert peak <= BYTES_PER_BYTE * len(frame), f"{name} v{version}: {peak} for {len(frame)}"


# Whole or byte by byte


def outcomes(stream: bytes, piece: int) -> list[str]:
    """What comes of these requests when so many bytes arrive at a time, up to the one that ends the connection."""
    found: list[str] = []
    by_name = {target.name: target.read for target in targets()}

    def dispatch(buf: memoryview, start: int, end: int) -> None:
        # The first two bytes choose the reader, as the header would.
        names = sorted(by_name)
        read = by_name[names[int.from_bytes(buf[start : start + 2]) % len(names)]]
        found.append(repr(read(buf, start + 8, end)[0]))

    connection = Connection(dispatch, 100_000, memoryview(bytearray(64)), lambda: None)
    try:
        for at in range(0, len(stream), piece):
            data = stream[at : at + piece]
            while data:
                room = connection.buffer()[: len(data)]
                room[:] = data[: len(room)]
                connection.received(len(room))
                data = data[len(room) :]
    except WireError:
        found.append("WireError")
    return found


def test_damaged_requests_have_the_same_outcome_whole_and_byte_by_byte() -> None:
    frames = targets()
    names = sorted({target.name for target in frames})
    kinds: set[bool] = set()
    for number in range(0, 40_000, 97):
        target, frame = damaged(frames, SEED, number)
        body = names.index(target.name).to_bytes(2) + bytes(6) + frame
        stream = (len(body).to_bytes(4) + body) * 2
        whole = outcomes(stream, len(stream))
        assert whole == outcomes(stream, 1)
        kinds.add(isinstance(outcome(target.read, frame), str))
    assert kinds == {True, False}


def test_a_size_that_is_only_declared_takes_no_memory() -> None:
    connection = Connection(lambda *_: None, 100 << 20, memoryview(bytearray(64)), lambda: None)
    tracemalloc.start()
    for byte in (100 << 20).to_bytes(4) + bytes(1000):
        connection.buffer()[0] = byte
        connection.received(1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000
