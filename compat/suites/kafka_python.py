"""kafka-python's own integration tests, from its source distribution.

They drive a broker that runs already, at KAFKA_URI. The distribution leaves out test/__init__.py and test/service.py,
which starts brokers of Apache Kafka; what the tests need of it, for a broker that they did not start, is in
kafka_python_service.py.
"""

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from xml.etree import ElementTree

from compat.suites.expectations import Outcome, Suite
from compat.suites.logged import run_logged

HERE = Path(__file__).parent
VERSION = "3.0.12"
RUN_TIMEOUT_S = 300.0
TEST_TIMEOUT_S = 30


def prepare(build_dir: Path) -> Path:
    """The unpacked source distribution, which is downloaded once."""
    source = build_dir / f"kafka_python-{VERSION}"
    if not (source / "test" / "__init__.py").exists():
        requirements = HERE / "kafka_python.requirements"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", ":all:", "--require-hashes", "-r", str(requirements), "-d", str(build_dir)]
        subprocess.run(command, check=True, timeout=RUN_TIMEOUT_S)
        with tarfile.open(build_dir / f"{source.name}.tar.gz") as archive:
            archive.extractall(build_dir, filter="data")
        (source / "test" / "__init__.py").touch()
    shutil.copy(HERE / "kafka_python_service.py", source / "test" / "service.py")
    return source


def run(source: Path, bootstrap: str, report: Path) -> dict[str, Outcome]:
    """Test -> how it ended. What the tests printed goes to a file beside `report`."""
    command = [sys.executable, "-m", "pytest", "test/integration", "-q", "-p", "no:cacheprovider", "-o", "addopts="]
    command += ["--timeout", str(TEST_TIMEOUT_S), "-o", "log_level=ERROR", f"--junit-xml={report}"]
    # The directory of Apache Kafka's scripts has to exist, though none is run.
    environment = {"KAFKA_URI": f"kafka://{bootstrap}", "KAFKA_VERSION": "3.9.1", "KAFKA_ROOT": str(source)}
    run_logged(command, report.with_suffix(".log"), source, environment, RUN_TIMEOUT_S)
    outcomes: dict[str, Outcome] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').removeprefix('test.integration.')}::{case.get('name')}"
        outcomes[name] = "pass" if all(child.tag in ("properties", "system-out") for child in case) else "fail"
    return outcomes


SUITE = Suite(
    "kafka-python",
    # What the suite's own server.properties say, as far as its tests depend on it; they assign replicas to broker 0.
    {"broker.id": "0", "num.partitions": "4", "group.min.session.timeout.ms": "100"},
    prepare,
    run,
)
