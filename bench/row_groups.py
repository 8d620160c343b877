"""Groups of rows, by how their rows' names begin: for `make bench ROWS=latency,produce`, and for the picture.

"growth" is asked for in the same way and holds rows of other groups too: all of which curves.py makes one curve.
"""

from collections.abc import Callable

from bench.curves import CURVES

GROUPS: dict[str, tuple[str, ...]] = {
    "start": ("start",),
    "memory": ("PSS", "RSS", "idle CPU", "descriptors"),
    "connections": ("idle connections",),
    "produce": ("Produce",),
    "fetch": ("empty Fetch", "fan-out"),
    "metadata": ("Metadata", "ApiVersions", "create"),
    "groups": ("OffsetCommit", "10 members", "100 members", "1000 members", "one of"),
    "transactions": ("transactions",),
    "latency": ("end to end",),
    "librdkafka": ("librdkafka",),
    "tls": ("TLS",),
    "java": ("Java",),
    "history": ("history", "compaction"),
    "growth": ("growth",),
    "cluster": ("cluster",),
}
"""In the order in which the picture shows them."""
CURVES_ROWS = frozenset(name for curve in CURVES for name in curve.names)


def in_groups(names: str) -> Callable[[str], bool]:
    """Whether a row is in one of these groups, with commas between. Raises ValueError for an unknown one."""
    asked = [name for name in names.split(",") if name]
    if unknown := sorted(set(asked) - GROUPS.keys()):
        raise ValueError(f"there is no group {unknown[0]!r} of rows; there are {', '.join(GROUPS)}")
    beginnings = tuple(beginning for name in asked for beginning in GROUPS[name])
    return lambda row: row.startswith(beginnings) or ("growth" in asked and row in CURVES_ROWS)
