"""What the benchmark runs: kpy, compiled as an install of it, two C programs and Apache Kafka's Java tools.

Everything built or resolved lies in target/, which git ignores; a second run needs neither a compiler nor Maven nor the
network.
"""

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
TARGET = HERE / "target"
RESOLVE_TIMEOUT_S = 300.0
PROGRAM_TIMEOUT_S = 120.0
COMPILE_TIMEOUT_S = 600.0

# What kafka-run-class.sh gives every JVM, and the heap that the start scripts of the performance tools ask for.
JVM_PERFORMANCE_FLAGS = (
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-XX:MaxInlineLevel=15",
    "-Djava.awt.headless=true",
)
TOOL_HEAP_FLAGS = ("-Xmx512M",)


class NotInstalledError(Exception):
    """Something that a row needs is not on this machine; the row is left out and says so."""


class WorkFailedError(Exception):
    """A broker or a program did not do what a row asks for."""


def require(name: str) -> str:
    """The path of a command. Raises NotInstalledError."""
    path = shutil.which(name)
    if path is None:
        raise NotInstalledError(f"{name} is not installed")
    return path


def run(
    command: Sequence[str], timeout_s: float = PROGRAM_TIMEOUT_S, environment: Mapping[str, str] | None = None
) -> str:
    """Runs a program to its end and returns what it printed. Raises WorkFailedError with its complaint."""
    name = Path(command[0]).name
    try:
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired:
        raise WorkFailedError(f"{name} was not done within {timeout_s:.0f} s") from None
    if result.returncode != 0:
        complaint = (result.stderr or result.stdout).strip()
        raise WorkFailedError(f"{name} ended in {result.returncode}: {complaint[-2000:]}")
    return result.stdout


class Talk:
    """With a program that prints a line and waits for one."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def hear(self, timeout_s: float = PROGRAM_TIMEOUT_S) -> str:
        """Its next line. Raises WorkFailedError with its complaint if it ends instead, or is ended for its silence."""
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        patience = threading.Timer(timeout_s, self._process.kill)
        patience.start()
        try:
            line = self._process.stdout.readline()
        finally:
            patience.cancel()
        if not line:
            complaint = self._process.stderr.read().strip()
            raise WorkFailedError(f"{self._name} ended in {self._process.wait()}: {complaint[-2000:]}")
        return line

    def say(self) -> None:
        """An empty line."""
        assert self._process.stdin is not None
        try:
            os.write(self._process.stdin.fileno(), b"\n")
        except BrokenPipeError:
            raise WorkFailedError(f"{self._name} has ended before it was told to go on") from None

    @property
    def _name(self) -> str:
        assert isinstance(self._process.args, list)
        return Path(self._process.args[0]).name


@contextmanager
def talking(command: list[str]) -> Generator[Talk]:
    """With a program that runs while this is entered, and no longer."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Talk(process)
        finally:
            process.kill()


@functools.cache
def installed_kpy() -> str:
    """A directory with the package kpy as installing it gives it, by KPY_NATIVE, made anew when kpy has changed.

    The checkout is not what users run: there, hot modules are not compiled. Raises WorkFailedError.
    """
    asked = os.environ.get("KPY_NATIVE", "")
    directory = ROOT / "build" / f"installed{asked}"
    made_of = directory / "made-of"
    sources = (ROOT / "hot_modules.py", *sorted(ROOT.glob("protocol/native*")), *sorted(ROOT.glob("kpy/**/*.py")))
    digest = hashlib.sha256(sys.version.encode())
    for source in sources:
        digest.update(source.read_bytes())
    if not made_of.exists() or made_of.read_text() != digest.hexdigest():
        made_of.unlink(missing_ok=True)
        print("compiling kpy", file=sys.stderr)
        run([sys.executable, str(ROOT / "hot_modules.py"), str(directory)], COMPILE_TIMEOUT_S)
        made_of.write_text(digest.hexdigest())
    return str(directory)


@functools.cache
def loadgen() -> str:
    """The generator of small requests. Raises NotInstalledError without a compiler."""
    return _compiled(HERE / "loadgen.c", [])


@functools.cache
def rdload() -> str:
    """The load through the librdkafka in the confluent-kafka wheel. Raises NotInstalledError without either."""
    wheel = find_spec("confluent_kafka")
    if wheel is None or wheel.origin is None:
        raise NotInstalledError("confluent-kafka, whose librdkafka is used, is not installed")
    bundled = Path(wheel.origin).parent.with_name("confluent_kafka.libs").resolve()
    library = next(bundled.glob("librdkafka-*.so*"), None)
    if library is None:
        raise NotInstalledError(f"the confluent-kafka wheel has no librdkafka in {bundled}")
    # The wheel's other libraries have names of their own, which the loader finds and the linker need not.
    options = [str(library), f"-Wl,-rpath,{bundled}", "-Wl,--allow-shlib-undefined", "-pthread"]
    return _compiled(HERE / "rdload.c", options)


def _compiled(source: Path, options: list[str]) -> str:
    program = TARGET / source.stem
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        compiler = require("gcc")
        TARGET.mkdir(exist_ok=True)
        run([compiler, "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(source), *options])
    return str(program)


class Java:
    """Runs classes of Apache Kafka: `class_path` if given, else what Maven resolves for kafka.xml."""

    def __init__(self, class_path: str | None, log4j_properties: Path) -> None:
        self._class_path = class_path
        self._log4j_properties = log4j_properties

    def command(self, flags: Sequence[str], main_class: str, *arguments: str) -> list[str]:
        return [require("java"), *flags, "-cp", self.class_path(), main_class, *arguments]

    def tool(self, main_class: str, *arguments: str) -> str:
        """Runs a tool as its own start script would. Raises WorkFailedError."""
        log4j = f"-Dlog4j.configuration=file:{self._log4j_properties}"
        return run(self.command([*TOOL_HEAP_FLAGS, *JVM_PERFORMANCE_FLAGS, log4j], main_class, *arguments))

    def class_path(self) -> str:
        """Raises NotInstalledError without Maven, WorkFailedError when it finds no jars."""
        if self._class_path is None:
            self._class_path = _resolved(HERE / "kafka.xml", TARGET / "kafka.classpath")
        return self._class_path


def _resolved(pom: Path, resolved: Path) -> str:
    is_current = resolved.exists() and resolved.stat().st_mtime >= pom.stat().st_mtime
    if not is_current or not all(Path(jar).exists() for jar in resolved.read_text().split(os.pathsep)):
        TARGET.mkdir(exist_ok=True)
        command = [require("mvn"), "-q", "-B", "-f", str(pom), "dependency:build-classpath"]
        run([*command, f"-Dmdep.outputFile={resolved}"], RESOLVE_TIMEOUT_S)
    return resolved.read_text()
