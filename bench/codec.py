"""`python -m bench.codec`: kpy's codec beside kio's and kafka-python's, on the same bytes, in one process and one run.

kpy is measured twice, with its accelerator (see protocol/native.py) and without. Each library decodes the frame that
kpy encoded and has to encode that again, byte for byte, before anything is measured. Libraries take turns, and the best
of the rounds counts: what else runs on the machine can only make a round slower. Every library returns what it always
returns; all of them make an object of every struct and a value of every field.

Reading the records in a batch is not the codec's work, and a table of its own: there aiokafka's reader takes part.

The others are no requirements of kpy: `pip install kio kafka-python aiokafka`. Those that are missing are left out.
"""

import argparse
import gc
import importlib
import io
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

from bench.codec_messages import BATCH, RECORDS_PER_BATCH, Case, cases
from kpy.native import NATIVE
from kpy.records.batch import HEADER_SIZE, iter_records, read_header
from kpy.records.batch import _read_records as read_records_in_python

LIBRARIES = ("kio", "kafka-python", "aiokafka")
KAFKA_PYTHON_MODULES = {
    "metadata": "kafka.protocol.metadata",
    "produce": "kafka.protocol.producer",
    "fetch": "kafka.protocol.consumer",
    "join_group": "kafka.protocol.consumer",
    "offset_fetch": "kafka.protocol.consumer",
}
SAMPLE_SECONDS = 0.02
IMPORTS = ("kpy.wire", "kpy.wire.apis", "kpy.wire.heartbeat", "kpy.wire.produce", "kpy.wire.fetch", "kpy.wire.metadata")
IMPORT_ROUNDS = 10


class Contender(NamedTuple):
    """One library's way to decode and encode one message."""

    name: str
    decode: Callable[[], Any]
    encode: Callable[[], Any]
    encoded: Callable[[], bytes]
    """What it encodes, as bytes."""


def kpy_contenders(case: Case, frame: memoryview) -> Iterator[Contender]:
    module = importlib.import_module(f"kpy.wire.{case.api}")
    word = "REQUEST" if case.is_request else "RESPONSE"
    reader = getattr(module, f"{word}_READERS")[case.version]
    writer = getattr(module, f"{word}_WRITERS")[case.version]
    pairs = (
        [("kpy", reader, writer), ("kpy, Python", reader.python, writer.python)]
        if NATIVE
        else [("kpy", reader, writer)]
    )
    for name, read, write in pairs:
        message = read(frame, 0, len(frame))[0]

        def encode(write: Any = write, message: Any = message) -> list[Any]:
            chunks: list[Any] = []
            write(message, chunks)
            return chunks

        yield Contender(name, partial(read, frame, 0, len(frame)), encode, lambda encode=encode: b"".join(encode()))


def kio_contender(case: Case, frame: bytes) -> Contender:
    serial = importlib.import_module("kio.serial")
    kind = "request" if case.is_request else "response"
    module = importlib.import_module(f"kio.schema.{case.api}.v{case.version}.{kind}")
    type_ = getattr(module, type(case.message).__name__)
    read, write = serial.entity_reader(type_), serial.entity_writer(type_)
    message = read(frame, 0)[0]

    def encode() -> io.BytesIO:
        out = io.BytesIO()
        write(out, message)
        return out

    return Contender("kio", partial(read, frame, 0), encode, lambda: encode().getvalue())


def kafka_python_contender(case: Case, frame: bytes) -> Contender:
    type_ = getattr(importlib.import_module(KAFKA_PYTHON_MODULES[case.api]), type(case.message).__name__)
    decode = partial(type_.decode, memoryview(frame), version=case.version)
    message = decode()
    # Decoding leaves this attribute out, and encoding wants it.
    message._header = None
    encode = partial(message.encode, version=case.version)
    return Contender("kafka-python", decode, encode, lambda: bytes(encode()))


def contenders(case: Case, installed: list[str]) -> list[Contender]:
    """Everyone who takes part in this row. Raises ValueError for one who does not encode what it decoded."""
    module = importlib.import_module(f"kpy.wire.{case.api}")
    encode = module.encode_request if case.is_request else module.encode_response
    frame = b"".join(encode(case.message, case.version))
    found = list(kpy_contenders(case, memoryview(frame)))
    if "kio" in installed:
        found.append(kio_contender(case, frame))
    if "kafka-python" in installed:
        found.append(kafka_python_contender(case, frame))
    for each in found:
        if each.encoded() != frame:
            raise ValueError(f"{each.name} does not encode what it decoded: {case.title}")
    return found


# Records --------------------------------------------------------------------------------------------------------------


def record_readers(installed: list[str]) -> list[tuple[str, Callable[[], Any]]]:
    """Who reads all records of one batch, and how. Everyone checks the CRC as it always does, or does not."""
    batch = memoryview(BATCH)
    found: list[tuple[str, Callable[[], Any]]] = [("kpy", lambda: list(iter_records(batch)))]
    if NATIVE:
        header, data = read_header(batch), BATCH[HEADER_SIZE:]
        found.append(("kpy, Python", lambda: list(read_records_in_python(data, header))))
    if "kio" in installed:
        read_batch = importlib.import_module("kio.records.readers").read_batch
        found.append(("kio", lambda: read_batch(BATCH, 0)))
    if "kafka-python" in installed:
        memory_records = importlib.import_module("kafka.record").MemoryRecords
        found.append(("kafka-python", lambda: [(r.key, r.value) for r in memory_records(BATCH).next_batch()]))
    if "aiokafka" in installed:
        aio_records = importlib.import_module("aiokafka.record.memory_records").MemoryRecords
        found.append(("aiokafka", lambda: [(r.key, r.value) for r in aio_records(BATCH).next_batch()]))
    return found


# Measuring ------------------------------------------------------------------------------------------------------------


def calls_for(work: Callable[[], Any]) -> int:
    """How many calls take about a sample's time."""
    calls = 1
    while True:
        started = time.perf_counter()
        for _ in range(calls):
            work()
        taken = time.perf_counter() - started
        if taken > SAMPLE_SECONDS / 4:
            return max(1, round(calls * SAMPLE_SECONDS / taken))
        calls *= 4


def best_times_us(works: list[Callable[[], Any]], rounds: int) -> list[float]:
    """Microseconds that one call of each takes, in its best round."""
    calls = [calls_for(work) for work in works]
    best = [float("inf")] * len(works)
    for _ in range(rounds):
        for i, (work, count) in enumerate(zip(works, calls, strict=True)):
            gc.collect()
            started = time.perf_counter()
            for _ in range(count):
                work()
            best[i] = min(best[i], (time.perf_counter() - started) / count * 1e6)
    return best


def import_times_ms() -> dict[str, float]:
    """What importing a module takes in a fresh interpreter, the second time and later, best of some."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as bytecode:
        environment = os.environ | {"PYTHONPYCACHEPREFIX": bytecode, "PYTHONDONTWRITEBYTECODE": ""}
        for name in IMPORTS:
            script = f"import time; started = time.perf_counter(); import {name}; print(time.perf_counter() - started)"
            command = [sys.executable, "-c", script]
            runs = [
                subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                for _ in range(IMPORT_ROUNDS)
            ]
            found[name] = min(float(run.stdout) for run in runs[1:]) * 1e3
    return found


# Printing -------------------------------------------------------------------------------------------------------------


def shown(us: float) -> str:
    return f"{us:,.0f}" if us >= 100 else f"{us:.1f}" if us >= 10 else f"{us:.2f}"


def print_head(what: str, columns: list[str]) -> None:
    print(f"| {what}, microseconds | {' | '.join(columns)} | times the next |")
    print(f"|---|{'---:|' * (len(columns) + 1)}")


def print_row(title: str, times: dict[str, float], columns: list[str]) -> None:
    others = [time for name, time in times.items() if not name.startswith("kpy")]
    factor = f"{min(others) / times['kpy']:.1f}" if others else "-"
    cells = [shown(times[name]) if name in times else "-" for name in columns]
    print(f"| {title} | {' | '.join(cells)} | {factor} |", flush=True)


def print_tables(pattern: str, rounds: int, installed: list[str]) -> None:
    columns = ["kpy", *(["kpy, Python"] if NATIVE else [])]
    columns += [name for name in ("kio", "kafka-python") if name in installed]
    rows = [(case.title, contenders(case, installed)) for case in cases() if pattern in case.title]
    for verb in ("decode", "encode"):
        print_head(verb, columns)
        for title, found in rows:
            works = [each.decode if verb == "decode" else each.encode for each in found]
            times = best_times_us(works, rounds)
            print_row(title, dict(zip((each.name for each in found), times, strict=True)), columns)
        print()
    if pattern in "records":
        readers = record_readers(installed)
        columns = [name for name, _ in readers]
        print_head("read", columns)
        times = best_times_us([read for _, read in readers], rounds)
        print_row(f"{RECORDS_PER_BATCH} records", dict(zip(columns, times, strict=True)), columns)
        print()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.codec", description="Measures kpy's codec beside others.")
    parser.add_argument("--rows", default="", metavar="TEXT", help="only rows whose title has this in it")
    parser.add_argument("--rounds", type=int, default=9, help="of which the best counts (default: 9)")
    options = parser.parse_args()
    installed: list[str] = []
    for name in LIBRARIES:
        try:
            print(f"{name} {version(name)}")
            installed.append(name)
        except PackageNotFoundError:
            print(f"{name} is not installed: pip install {name}")
    print(f"{platform.python_implementation()} {platform.python_version()}; kpy's accelerator is ", end="")
    print("compiled\n" if NATIVE else "not compiled: python -m protocol.native\n")
    print_tables(options.rows, options.rounds, installed)
    for name, ms in import_times_ms().items():
        print(f"import {name}: {ms:.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
