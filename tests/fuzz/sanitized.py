"""The accelerator under AddressSanitizer and UndefinedBehaviorSanitizer: `python -m tests.fuzz.sanitized`.

It is the only C that reads what clients send. Here it is compiled so that each access outside of an object, each use
after its end and each overflow ends the process, and reads the damaged frames of `mutations`, and record batches that
are damaged in the same ways: as the record reader does, and as compaction does. Python's own memory comes from malloc
meanwhile, because the sanitizer does not see into its pools.
"""

import argparse
import importlib.machinery
import importlib.util
import os
import random
import subprocess
import sys
from pathlib import Path

from protocol import native

ROOT = Path(__file__).parents[2]
TARGET = ROOT / "build" / "fuzz" / "sanitized" / "_native.so"
OPTIONS = ("-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")
RUNTIMES = ("libasan.so", "libubsan.so")
SETTINGS = {
    "KPY_NATIVE": "1",
    # Python keeps much until its end, and gives back none of it.
    "ASAN_OPTIONS": "detect_leaks=0",
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "PYTHONMALLOC": "malloc",
}
RECORDS_A_FRAME = 3
"""How many damaged batches are read for each damaged frame."""


def runtime(name: str) -> str:
    """The file of a sanitizer, which must be loaded before anything else. Raises NativeError without it."""
    command = [*native.compiler(), f"-print-file-name={name}"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(path).is_absolute():
        raise native.NativeError(f"{command[0]} has no {name}")
    return path


def run_sanitized(frames: int, seed: int) -> subprocess.CompletedProcess[str]:
    """Compiles, and reads so many frames in a process of its own. Raises NativeError if that cannot be tried here."""
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    preloaded = ":".join(map(runtime, RUNTIMES))
    native.compile_only(TARGET, *OPTIONS)
    command = [sys.executable, "-m", "tests.fuzz.sanitized", "--inside", f"--frames={frames}", f"--seed={seed}"]
    environment = os.environ | SETTINGS | {"LD_PRELOAD": preloaded}
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)


def load(target: Path = TARGET) -> None:
    """Puts the module where kpy looks for it first."""
    loader = importlib.machinery.ExtensionFileLoader("kpy._native", str(target))
    spec = importlib.util.spec_from_file_location("kpy._native", target, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    sys.modules["kpy._native"] = module


def read_all(frames: int, seed: int) -> None:
    """Inside of the process. Whatever is found ends it."""
    load()
    from kpy.errors import ApiError
    from kpy.native import NATIVE
    from kpy.records.batch import ATTRIBUTES_POSITION, CRC_POSITION, HEADER_SIZE, crc32c, read_header
    from kpy.storage.log_config import LONG_MAX
    from kpy.storage.offset_map import OffsetMap
    from tests.fuzz.coverage_guided import decode_records, record_seeds
    from tests.fuzz.mutations import MUTATIONS, damaged, same_outcome, targets, try_frame

    assert NATIVE is sys.modules["kpy._native"]
    found = targets()
    accepted = 0
    for number in range(frames):
        target, frame = damaged(found, seed, number)
        accepted += try_frame(target, frame)[0]
        if hasattr(target.read, "python"):
            same_outcome(target, frame)
    rng = random.Random(seed)
    seeds = list(record_seeds())
    refused = in_runs = 0
    for _ in range(RECORDS_A_FRAME * frames):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(4)):
            if data:
                rng.choice(MUTATIONS)(data, rng)
        decode_records(bytes(data))
        if len(data) < HEADER_SIZE:
            continue
        header, records = read_header(data), bytes(data[HEADER_SIZE:])
        # So small that it is full at times. Runs are compacted as if their CRC were right, since nearly none is.
        offsets = OffsetMap(rng.choice((100, 10_000)))
        data[CRC_POSITION:ATTRIBUTES_POSITION] = crc32c(bytes(data[ATTRIBUTES_POSITION : header.size_bytes])).to_bytes(
            4
        )
        run = memoryview(data * 2)
        offsets.put_run(run, header.base_offset, 0)
        offsets.latest_offset = rng.randrange(8)
        in_runs += offsets.keep_run(run, header.base_offset, LONG_MAX, 0, 0).read_records
        try:
            offsets.put(records, header.records_count, header.base_offset, 0)
            offsets.staying(records, header.records_count, header.base_offset, rng.randrange(8), True)
        except ApiError:
            refused += 1
    print(f"{accepted} messages, {frames - accepted} WireErrors; {refused} batches that compaction refuses")
    print(f"{in_runs} records in runs of batches")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.sanitized", description="Looks for errors of memory.")
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        read_all(options.frames, options.seed)
        return
    done = run_sanitized(options.frames, options.seed)
    print(done.stdout + done.stderr, end="")
    sys.exit(done.returncode)


if __name__ == "__main__":
    main()
