"""Workers copy a topic in transactions while they and the broker are killed: every record is there once, in order.

Java's 4.3.1 speaks transaction version 2 (KIP-890), where each transaction has an epoch of its own; the other two what
came before.

    make exactly-once CHAOS_MESSAGES=100000 CHAOS_KILLS=100 CHAOS_SEED=7 ARGS="-k librdkafka"
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from compat.exactly_once.pipeline_chaos import Command, run_chaos
from compat.harness import require_tool
from compat.java.kafka_tools import TOOL_TIMEOUT_S, classpath, java_with

HERE = Path(__file__).parent
MESSAGES = int(os.environ.get("CHAOS_MESSAGES", "10000"))
KILLS = int(os.environ.get("CHAOS_KILLS", "12"))
SEED = int(os.environ.get("CHAOS_SEED", "1"))

pytestmark = pytest.mark.timeout(240 + 20 * KILLS)


def librdkafka() -> Command:
    return lambda arguments: [sys.executable, str(HERE / "librdkafka_worker.py"), *arguments]


def java_client(version: str, classes: Path) -> Command:
    """Compiled once: a worker that is started anew should be back before the next one is killed."""
    jars = classpath(version)
    compiler = [require_tool("javac"), "-cp", jars, "-d", str(classes), str(HERE / "PipelineWorker.java")]
    subprocess.run(compiler, check=True, timeout=TOOL_TIMEOUT_S)
    return lambda arguments: java_with(f"{classes}{os.pathsep}{jars}", "PipelineWorker", *arguments)


@pytest.mark.parametrize("client", ["librdkafka", "java-3.9.1", "java-4.3.1"])
def test_a_pipeline_copies_every_record_exactly_once_through_kills_of_workers_and_broker(
    client: str, tmp_path: Path
) -> None:
    kind, _, version = client.partition("-")
    command = java_client(version, tmp_path / "classes") if kind == "java" else librdkafka()
    history = run_chaos(command, client, tmp_path, seed=SEED, messages=MESSAGES, kills=KILLS)
    print(history)
