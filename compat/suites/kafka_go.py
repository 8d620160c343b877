"""kafka-go's own tests, from its module: those of the package kafka, with a broker and without.

They know one address, localhost:9092, so that port must be free. Each is a process of its own, since one that panics
would take the others with it.
"""

from pathlib import Path

from compat.harness import BrokerProcess, running
from compat.suites.brokers import KPY_WHERE_SET
from compat.suites.expectations import Outcome
from compat.suites.go_modules import build_tests, copy_of, tests_in
from compat.suites.logged import run_logged

MODULE = "github.com/segmentio/kafka-go"
PORT = 9_092
TEST_TIMEOUT_S = 60.0
SETTINGS = {"listeners": f"PLAINTEXT://localhost:{PORT}", "message.max.bytes": "200000000"}


def prepare(build_dir: Path) -> Path:
    """The source, with its tests built."""
    source = copy_of(MODULE, build_dir)
    build_tests(source)
    return source


def run(source: Path, work_dir: Path, report: Path) -> dict[str, Outcome]:
    """Test -> how it ended. The broker has its data and its log in `work_dir`."""
    log = report.with_suffix(".log")
    broker = BrokerProcess(work_dir / "broker", SETTINGS, KPY_WHERE_SET)
    broker.port = PORT
    outcomes: dict[str, Outcome] = {}
    with running(broker):
        for name in tests_in(source.glob("*_test.go")):
            command = [str(source / "tests"), "-test.v", f"-test.timeout={TEST_TIMEOUT_S:.0f}s", f"-test.run=^{name}$"]
            exit_code = run_logged(command, log, source, {"KAFKA_VERSION": "3.9.1"}, 2 * TEST_TIMEOUT_S)
            passed = exit_code == 0 and f"--- PASS: {name} " in log.read_text(errors="replace")
            outcomes[name] = "pass" if passed else "fail"
    return outcomes
