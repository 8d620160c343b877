"""What a start costs that no clock need tell: the modules that are imported before the first answer, the system calls
for each partition that is there, and the memory that a partition takes.

start_modules.txt and start_system_calls.txt hold what was agreed on. Only kpy's own modules are named one by one, and
of others the packages: which modules these consist of is theirs to know, and another with each version of Python.
"""

import gc
import re
import sys
import tracemalloc
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import trio

from compat.harness import BACKENDS, Backend, BrokerProcess, require_tool, running, wait_until
from kpy.config import BrokerConfig
from kpy.server import now_ms, opened
from kpy.wire.create_topics import CreatableTopic, CreateTopicsRequest
from kpy.wire.produce import PartitionProduceData, ProduceRequest, TopicProduceData
from tests.broker.raw_client import frame
from tests.guard.hot_path import CREATE_TOPICS, CREATE_TOPICS_VERSION, SETTINGS, check, one_record
from tests.guard.test_guard_system_calls import Client

AGREED_MODULES = Path(__file__).with_name("start_modules.txt")
AGREED_CALLS = Path(__file__).with_name("start_system_calls.txt")
TOPIC = "standing"
PARTITIONS = 20
MANY_PARTITIONS = 100
MAX_BYTES_A_PARTITION = 6_000
"""5,500 with CPython 3.11."""
NOT_NEEDED = {"_ssl", "_hashlib", "_posixsubprocess", "_lzma", "concurrent.futures", "uuid"}
"""What ssl, hashlib, subprocess and shutil consist of, which trio imports, and what no start of kpy needs."""

KINDS: Mapping[str, str] = {
    **dict.fromkeys(("open", "openat"), "open a file or directory"),
    **dict.fromkeys(("pread64", "read"), "read"),
    **dict.fromkeys(("stat", "lstat", "fstat", "newfstatat", "statx"), "ask for a size or whether there is one"),
    **dict.fromkeys(("getdents", "getdents64"), "list a directory"),
    **dict.fromkeys(("fsync", "fdatasync"), "sync"),
    **dict.fromkeys(("pwritev", "pwritev2", "pwrite64", "ftruncate"), "write"),
    **dict.fromkeys(("rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir"), "change a name"),
    "close": "close",
    "lseek": "seek",
}
"""What system calls do; their names depend on the architecture and the C library."""

MODULES_HEAD = """\
# The modules that `kpy start` has imported when it first answers. Rewritten by: REWRITE=1 pytest tests/guard
"""
CALLS_HEAD = """\
# The system calls of a start for one partition with one record. Rewritten by: REWRITE=1 pytest tests/guard
"""


def started_by(work_dir: Path, *prefix: str, options: tuple[str, ...] = ()) -> BrokerProcess:
    """A broker that is started by these, and by Python with these options."""

    def command(port: int, data_dir: Path, settings: Mapping[str, str]) -> list[str]:
        python, *arguments = BACKENDS["kpy"].command(port, data_dir, settings)
        return [*prefix, python, *options, *arguments]

    return BrokerProcess(work_dir, SETTINGS, Backend(command, frozenset({0})))


def test_a_start_imports_what_was_agreed_on(tmp_path: Path) -> None:
    with running(started_by(tmp_path, options=("-X", "importtime"))) as broker:
        log = broker.log_text()
    imported = set(re.findall(r"^import time: .*\| +([\w.]+)$", log, re.MULTILINE))
    assert not imported & NOT_NEEDED
    own = {name for name in imported if name.partition(".")[0] == "kpy"} - {"kpy._native"}
    others = {name.partition(".")[0] for name in imported - own} - {"kpy"} - sys.stdlib_module_names
    # Python looks for more than there is, and an environment may bring some of its own.
    packages = {name for name in others if not name.startswith("_") and find_spec(name) is not None}
    check(AGREED_MODULES, "\n".join([MODULES_HEAD, *sorted(own), "", *sorted(packages)]) + "\n")


def fill(port: int) -> None:
    """Makes the topic, with a record in each partition."""
    client = Client(port)
    topics = [CreatableTopic(TOPIC, PARTITIONS, 1, [])]
    client.exchange(frame(CREATE_TOPICS, CreateTopicsRequest(topics, 1000), CREATE_TOPICS_VERSION))
    data = [PartitionProduceData(index, one_record(100)) for index in range(PARTITIONS)]
    client.exchange(frame(0, ProduceRequest(None, 1, 10_000, [TopicProduceData(TOPIC, partition_data=data)]), 9))
    client.close()


def calls_for_a_partition(trace: str) -> str:
    """Until the first connection. That all partitions cause the same number of calls is part of what is agreed on."""
    accepted = re.search(r"^\d+ +accept4?\(.*\) = \d", trace, re.MULTILINE)
    assert accepted is not None
    calls = re.findall(rf"^\d+ +(\w+)\(.*/{TOPIC}-\d", trace[: accepted.start()], re.MULTILINE)
    kinds = Counter(KINDS.get(name, name) for name in calls)
    return "".join(f"    {kinds[kind] / PARTITIONS:>6g}  {kind}\n" for kind in sorted(kinds))


def test_a_start_makes_the_system_calls_for_a_partition_that_were_agreed_on(tmp_path: Path) -> None:
    trace_file = tmp_path / "trace"
    strace = [require_tool("strace"), "-D", "-f", "-qq", "-y", "-s", "0", "-o", str(trace_file)]
    broker = started_by(tmp_path, *strace, "-e", "trace=%file,%desc,%network")
    sections = [CALLS_HEAD]

    def start(how: str) -> None:
        trace_file.unlink(missing_ok=True)
        broker.start()
        wait_until(lambda: " accept" in trace_file.read_text(), "strace has written down the first connection")
        sections.append(f"## {how}\n{calls_for_a_partition(trace_file.read_text())}")

    with running(BrokerProcess(tmp_path, SETTINGS, BACKENDS["kpy"])) as untraced:
        fill(untraced.port)
        untraced.stop()
    start("after a clean stop")
    broker.kill()
    start("after SIGKILL, nothing written since the stop before")
    broker.stop()
    check(AGREED_CALLS, "\n".join(sections))


async def bytes_with(partitions: int, data_dir: Path) -> int:
    """What a broker that has been opened anew keeps allocated."""
    config = BrokerConfig.of({"listeners": "PLAINTEXT://127.0.0.1:0", "log.dirs": str(data_dir), **SETTINGS})
    async with opened(config, now_ms) as broker:
        cluster = broker.broker.cluster
        await cluster.register({"PLAINTEXT": ("127.0.0.1", 9092)}, {"PLAINTEXT": "PLAINTEXT"}, None, patience_ms=0)
        await cluster.create_internal_topic(TOPIC, partitions, 1, {})
    gc.collect()
    tracemalloc.start()
    async with opened(config, now_ms) as broker:
        gc.collect()
        assert len(broker.log_dirs.logs) == partitions
        allocated = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return allocated


def test_a_partition_without_clients_takes_little_memory(tmp_path: Path) -> None:
    trio.run(bytes_with, 1, tmp_path / "warm")  # What is made once stays.
    few = trio.run(bytes_with, 1, tmp_path / "few")
    many = trio.run(bytes_with, 1 + MANY_PARTITIONS, tmp_path / "many")
    assert (many - few) / MANY_PARTITIONS < MAX_BYTES_A_PARTITION
