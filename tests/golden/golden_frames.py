"""The golden frames: read from the checked-in files, and written anew by Apache Kafka where there is a JDK.

`python -m tests.golden.golden_frames` replaces the checked-in files.
"""

import functools
import gzip
import json
import subprocess
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

from compat.java import kafka_tools

HERE = Path(__file__).parent
PROGRAM = HERE / "GoldenFrames.java"
WRITTEN = HERE / "target"
TIMEOUT_S = 300.0

RELEASES = ("3.9.1", "4.3.1")

_COMMON = "org.apache.kafka.common.message"
_GROUP = "org.apache.kafka.coordinator.group.generated"
_TRANSACTION = "org.apache.kafka.coordinator.transaction.generated"
CLASSES = (
    *(f"{_COMMON}.{name}Data" for name in ("RequestHeader", "ResponseHeader")),
    *(f"{_COMMON}.ConsumerProtocol{name}" for name in ("Subscription", "Assignment")),
    f"{_COMMON}.LeaderChangeMessage",
)
"""Messages that are neither requests nor responses."""

RECORDS = (
    *(f"{_GROUP}.{name}{part}" for name in ("OffsetCommit", "GroupMetadata") for part in ("Key", "Value")),
    *(
        f"{_GROUP}.ConsumerGroup{name}{part}"
        for name in (
            *("Metadata", "PartitionMetadata", "MemberMetadata"),
            *("TargetAssignmentMetadata", "TargetAssignmentMember", "CurrentMemberAssignment"),
        )
        for part in ("Key", "Value")
    ),
    *(f"{_TRANSACTION}.TransactionLog{part}" for part in ("Key", "Value")),
)
"""What coordinators write into their topics. 4.x has another way of numbering them, and the same bytes."""


class Frame(NamedTuple):
    """One message that Apache Kafka serialised."""

    release: str
    version: int
    variant: str
    """full, sparse or unknown; see GoldenFrames.java."""
    data: bytes
    json: Any


def checked_in(release: str) -> str:
    """The frames of a release as they are in the repository: a line for each."""
    return gzip.decompress((HERE / f"frames-{release}.tsv.gz").read_bytes()).decode()


def written_by_kafka(release: str) -> str:
    """The same from Apache Kafka itself, once for each change of the program. Needs a JDK and Maven."""
    cached = WRITTEN / f"frames-{release}.tsv"
    newest = max(PROGRAM.stat().st_mtime, Path(__file__).stat().st_mtime)
    if not cached.exists() or cached.stat().st_mtime < newest:
        classes = [*CLASSES, *(RECORDS if release == "3.9.1" else ())]
        command = kafka_tools.java(release, str(PROGRAM), *classes)
        result = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        assert result.returncode == 0, result.stderr
        WRITTEN.mkdir(exist_ok=True)
        cached.write_text(result.stdout)
    return cached.read_text()


@functools.cache
def frames() -> dict[str, list[Frame]]:
    """All checked-in frames, by message."""
    found: dict[str, list[Frame]] = defaultdict(list)
    for release in RELEASES:
        for line in checked_in(release).splitlines():
            message, version, variant, data, value = line.split("\t")
            found[message].append(Frame(release, int(version), variant, bytes.fromhex(data), json.loads(value)))
    return found


def main() -> None:
    for release in RELEASES:
        # Without a time in the header, the same frames make the same file.
        data = gzip.compress(written_by_kafka(release).encode(), 9, mtime=0)
        (HERE / f"frames-{release}.tsv.gz").write_bytes(data)
        print(f"frames-{release}.tsv.gz: {len(data):,} bytes")


if __name__ == "__main__":
    main()
