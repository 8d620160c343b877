"""Groups of rows, by how their rows' names begin: for `make bench ROWS=latency,produce`, and for the picture."""

from collections.abc import Callable

GROUPS: dict[str, tuple[str, ...]] = {
    "start": ("start",),
    "memory": ("PSS", "RSS", "idle", "descriptors"),
    "produce": ("Produce",),
    "fetch": ("empty Fetch", "fan-out"),
    "metadata": ("Metadata", "ApiVersions", "create"),
    "groups": ("OffsetCommit", "10 members", "100 members", "1000 members", "one of"),
    "transactions": ("transactions",),
    "latency": ("end to end",),
    "librdkafka": ("librdkafka",),
    "java": ("Java",),
    "history": ("history", "compaction"),
    "cluster": ("cluster",),
}
"""In the order in which the picture shows them."""


def in_groups(names: str) -> Callable[[str], bool]:
    """Whether a row is in one of these groups, with commas between. Raises ValueError for an unknown one."""
    asked = [name for name in names.split(",") if name]
    if unknown := sorted(set(asked) - GROUPS.keys()):
        raise ValueError(f"there is no group {unknown[0]!r} of rows; there are {', '.join(GROUPS)}")
    beginnings = tuple(beginning for name in asked for beginning in GROUPS[name])
    return lambda row: row.startswith(beginnings)
