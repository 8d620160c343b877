"""Atheris on the decoders: `python -m tests.fuzz.coverage_guided wire` or `records`, then any options of libFuzzer.

It learns from the branches that an input takes, so it finds what `mutations` does not stumble over. Inputs that reach
something new are kept in build/fuzz/<target>, beside the seeds: golden frames, and record batches of every kind. What
it finds is written to build/fuzz/ as crash-..., and belongs into tests/fuzz/inputs/ once it is understood: records as
they are, frames without the two bytes that choose a reader, under its name (HeartbeatRequest-4-what-it-is).

Atheris has wheels for few platforms, so it is no requirement of the tests: `pip install atheris`.
"""

import gzip
import hashlib
import importlib
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from kpy.errors import ApiError, WireError
from protocol import generate

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "fuzz"
GOLDEN = ROOT / "tests" / "golden"
MAX_BYTES = 4096
MAX_DECOMPRESSED_BYTES = 1024 * 1024


# The wire -------------------------------------------------------------------------------------------------------------


def readers() -> list[Any]:
    """Every reader. The first two bytes of an input choose one."""
    found: list[Any] = []
    for declaration in generate.declaration_modules():
        module = importlib.import_module(f"kpy.wire.{generate.short_name(declaration)}")
        for name, message in generate.messages_in(declaration).items():
            table = getattr(module, f"{generate.names_of(name, message).word.upper()}_READERS")
            found += [getattr(table[version], "python", table[version]) for version in message.all_versions]
    return found


def decode_wire(data: bytes) -> None:
    """One input: a reader, and what it is to read. Only WireError may come of it."""
    table = _readers()
    read = table[int.from_bytes(data[:2]) % len(table)]
    try:
        read(memoryview(data), min(2, len(data)), len(data))
    except WireError:
        return


_cached_readers: list[Any] = []


def _readers() -> list[Any]:
    if not _cached_readers:
        _cached_readers.extend(readers())
    return _cached_readers


def wire_seeds() -> Iterator[bytes]:
    """The golden frames, behind the number of their reader."""
    index: dict[tuple[str, str], int] = {}
    for declaration in generate.declaration_modules():
        for name, message in generate.messages_in(declaration).items():
            for version in message.all_versions:
                index[name, str(version)] = len(index)
    for path in sorted(GOLDEN.glob("frames-*.tsv.gz")):
        for line in gzip.decompress(path.read_bytes()).decode().splitlines():
            name, version, _, data, _ = line.split("\t")
            if (name, version) in index and len(data) // 2 < MAX_BYTES:
                yield index[name, version].to_bytes(2) + bytes.fromhex(data)


# Records --------------------------------------------------------------------------------------------------------------


def decode_records(data: bytes) -> None:
    """One input: batches or a message set, as a producer could send them. Only ApiError may come of it."""
    from kpy.records import batch, legacy
    from kpy.records.validate import ProduceRules, validate_produced

    view, honest = memoryview(data), memoryview(sealed(data))
    rules = ProduceRules(
        max_message_bytes=MAX_DECOMPRESSED_BYTES,
        compacted=True,
        timestamp_type="CreateTime",
        timestamp_before_max_ms=2**63 - 1,
        timestamp_after_max_ms=2**63 - 1,
        compression_type="uncompressed",
        segment_bytes=MAX_DECOMPRESSED_BYTES,
    )
    for attempt in (
        lambda: [list(batch.iter_records(each, MAX_DECOMPRESSED_BYTES)) for _, each in batch.iter_batches(view)],
        lambda: [batch.check_crc(each) for _, each in batch.iter_batches(view)],
        lambda: legacy.down_convert(view, 1),
        lambda: list(legacy.iter_messages(honest, MAX_DECOMPRESSED_BYTES)),
        lambda: validate_produced(honest, rules, 9, 0),
        lambda: validate_produced(honest, rules, 2, 0),
    ):
        try:
            attempt()
        except ApiError:
            continue


def sealed(data: bytes) -> bytes:
    """The input as one batch or message with the right length and CRC, which no fuzzer finds by chance."""
    from kpy.records.batch import ATTRIBUTES_POSITION, CRC_POSITION, HEADER_SIZE, LOG_OVERHEAD, MAGIC_POSITION, crc32c

    if len(data) < HEADER_SIZE:
        return data
    sized = bytearray(data)
    struct.pack_into(">i", sized, 8, len(data) - LOG_OVERHEAD)
    if data[MAGIC_POSITION] >= 2:
        struct.pack_into(">I", sized, CRC_POSITION, crc32c(bytes(sized[ATTRIBUTES_POSITION:])))
    else:
        struct.pack_into(">I", sized, LOG_OVERHEAD, zlib.crc32(sized[MAGIC_POSITION:]))
    return bytes(sized)


def record_seeds() -> Iterator[bytes]:
    """Batches of every codec and kind, and message sets."""
    from kpy.records.batch import NewRecord, build_batch
    from kpy.records.compression import Codec
    from kpy.records.legacy import down_convert

    records = [NewRecord(1000 + i, None if i == 1 else b"key", b"v" * i, (("h", None), ("i", b"x"))) for i in range(4)]
    for codec in Codec:
        plain = build_batch(records, codec=codec)
        yield plain
        yield plain + build_batch(records, codec=codec, producer_id=1, producer_epoch=0, base_sequence=0)
        if codec is not Codec.ZSTD:
            yield from (down_convert(plain, magic) for magic in (0, 1))
    yield build_batch([NewRecord(0, b"\0\0\0\1", b"\0\0\0\0\0\5")], producer_id=1, control=True, transactional=True)


TARGETS: dict[str, tuple[Callable[[bytes], None], Callable[[], Iterator[bytes]], str]] = {
    "wire": (decode_wire, wire_seeds, "kpy.wire"),
    "records": (decode_records, record_seeds, "kpy.records"),
}


def main() -> None:
    name, options = sys.argv[1] if len(sys.argv) > 1 else "", sys.argv[2:]
    if name not in TARGETS:
        sys.exit(f"usage: python -m tests.fuzz.coverage_guided {'|'.join(TARGETS)} [options of libFuzzer]")
    try:
        import atheris
    except ModuleNotFoundError:
        sys.exit("Atheris is not installed: pip install atheris")
    decode, seeds, package = TARGETS[name]
    corpus = WORK / name
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in seeds():
        (corpus / hashlib.sha1(seed).hexdigest()).write_bytes(seed)
    # What was imported without instrumentation is imported again.
    for module in [each for each in sys.modules if each.startswith(f"{package}.")]:
        del sys.modules[module]
    with atheris.instrument_imports(include=[package]):
        if name == "wire":
            _cached_readers.extend(readers())
        else:
            importlib.import_module("kpy.records.validate")
    arguments = [sys.argv[0], str(corpus), f"-artifact_prefix={WORK}/", f"-max_len={MAX_BYTES}", "-timeout=1", *options]
    atheris.Setup(arguments, decode)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
