"""Every difference between kpy and Apache Kafka 3.9.1 that is meant, with its reason.

A deviation that no longer shows in a scenario that it names exactly fails that scenario, so this list does not age.
"""

from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from compat.differential.runner import Difference


class Of:
    """Equals every value of some types."""

    def __init__(self, *types: type) -> None:
        self._types = types

    def __eq__(self, other: object) -> bool:
        return isinstance(other, self._types)

    def __hash__(self) -> int:
        return hash(self._types)

    def __repr__(self) -> str:
        return f"Of{self._types}"


TEXT = Of(str)
ANYTHING = Of(object)


class Deviation(NamedTuple):
    """`scenario` and `path` are patterns with *; the two values are compared as they are shown."""

    scenario: str
    path: str
    ours: Any
    theirs: Any
    reason: str

    def covers(self, difference: Difference) -> bool:
        return (
            fnmatchcase(difference.scenario, self.scenario)
            and fnmatchcase(difference.path, self.path)
            and self.ours == difference.ours
            and self.theirs == difference.theirs
        )


NO_ID = bytes(16)
UNEXPECTED = "Apache Kafka meets an exception that it does not expect."

# Words. kpy says what is wrong where Apache Kafka says nothing or points to its log, and both in words of their own.
WORDS = (
    Deviation("produce: *", "*.error_message", TEXT, None, "kpy says what is wrong with a batch."),
    Deviation("produce: *", "*error_message", TEXT, TEXT, "The same reason, in other words."),
    Deviation("find coordinator: key types", "*error_message", TEXT, TEXT, "kpy says what is wrong with the type."),
    Deviation(
        "describe configs: unknown types", "*.error_message", TEXT, TEXT, "kpy says what is wrong with the type."
    ),
    Deviation("*alter configs: wrong *", "*.error_message", TEXT, TEXT, "The same reason, in other words."),
    Deviation("*alter configs: wrong *", "*.error_message", TEXT, None, "kpy says what is wrong with the request."),
)

PRODUCE = (
    Deviation("produce: *", "*.log_start_offset", 0, -1, "No client reads it beside these errors."),
    *(
        Deviation(
            f"produce: {name}",
            "*.error_code",
            87,
            0,
            "Apache Kafka takes a message set that holds nothing for a success, and so loses records silently.",
        )
        for name in ("no bytes", "a truncated batch", "a header only", "half a header", "message set of *")
    ),
    Deviation(
        "produce: magic 1 on a batch", "*.error_code", 76, 2, "Garbage, of which each finds another fault first."
    ),
    Deviation("produce: unknown codec 5", "*.error_code", 76, -1, UNEXPECTED),
    Deviation(
        "produce: trusted: *",
        "*.error_code",
        0,
        Of(int),
        "By design: kpy believes a batch whose CRC is right, and does not decompress and walk through its records.",
    ),
    Deviation("produce: trusted: *", "*.base_offset", 0, -1, "The same."),
    Deviation(
        "produce: message sets to LogAppendTime",
        "*.base_timestamp",
        "<now>",
        Of(int),
        "Of such a batch no reader uses the base timestamp: every record has the largest one.",
    ),
    Deviation("produce: message sets to LogAppendTime", "*.batch_length", Of(int), Of(int), "Deltas to another base."),
    Deviation(
        "produce: no partitions", "responses", Of(list), [], "Apache Kafka leaves out topics without partitions."
    ),
    *(
        Deviation(name, "responses*", ANYTHING, ANYTHING, "Apache Kafka keeps the last of what comes twice, kpy all.")
        for name in ("produce: the same topic twice", "produce: the same partition twice")
    ),
)

FETCH = (
    Deviation("*", "responses.*.partitions.*.records", [], None, "As in Apache Kafka 4: some clients expect no null."),
    Deviation(
        "*", "responses.*.partitions.*.aborted_transactions", None, [], "Beside an error; Kafka has either form."
    ),
    Deviation(
        "fetch: the same partition twice", "*.partitions", Of(list), Of(list), "Apache Kafka reads the last only."
    ),
    *(
        Deviation(
            scenario,
            "responses.0.partitions.0.*",
            ANYTHING,
            ANYTHING,
            "kpy sends no zstd to clients that cannot know it (KIP-110), whatever the topic's configuration.",
        )
        for scenario in ("fetch: zstd", "produce: every codec")
    ),
    Deviation("fetch: negative limits", "*", ANYTHING, ANYTHING, UNEXPECTED + " kpy takes them for 0."),
    *(
        Deviation(scenario, "*", ANYTHING, ANYTHING, UNEXPECTED + " kpy takes other levels for 0.")
        for scenario in ("fetch: unknown isolation level", "list offsets: isolation level 9")
    ),
    *(
        Deviation(
            scenario,
            "*.old_style_offsets",
            Of(list),
            Of(list),
            "In version 0 kpy goes by the times of records, Apache Kafka by those of files, which a copy changes.",
        )
        for scenario in ("list offsets: times", "list offsets: times out of order")
    ),
)

TOPICS = (
    *(
        Deviation(scenario, path, ours, theirs, "A created topic is there at once; nobody has to ask again.")
        for scenario in (
            "metadata: automatic creation",
            "metadata: automatic creation of several",
            "metadata: authorized operations",
        )
        for path, ours, theirs in (("topics.*.error_code", 0, 5), ("topics.*.partitions", Of(list), []))
    ),
    *(
        Deviation(scenario, "topics.*.topic_id", TEXT, NO_ID, "The same.")
        for scenario in ("metadata: automatic creation", "metadata: automatic creation of several")
    ),
    *(
        Deviation(scenario, path, ours, theirs, UNEXPECTED + " It is a null name without an id.")
        for scenario in ("metadata: by id", "metadata: null name")
        for path, ours, theirs in (
            ("brokers", Of(list), []),
            ("controller_id", 1, -1),
            ("topics.*.error_code", Of(int), -1),
            ("topics.*.name", None, ""),
        )
    ),
    Deviation("create topics: wrong assignments", "*.error_code", 39, -1, UNEXPECTED + " It is a negative partition."),
    Deviation("create topics: wrong assignments", "*.error_message", TEXT, None, "kpy says what is wrong."),
    Deviation("create topics: wrong assignments", "*.error_message", TEXT, TEXT, "A map, as each language writes it."),
    Deviation(
        "create topics: wrong brokers in assignments",
        "topics.*",
        ANYTHING,
        ANYTHING,
        "With ZooKeeper Apache Kafka creates topics on brokers that do not exist; kpy refuses them, as KRaft does.",
    ),
    Deviation("delete topics: by id", "*.error_code", 100, 29, "An id of zeros is unknown, not forbidden."),
    Deviation("create partitions: wrong names", "*.error_code", 3, -1, UNEXPECTED),
    Deviation("create partitions: wrong names", "*.error_message", TEXT, None, "kpy says what is wrong."),
)

CONFIGS = (
    Deviation(
        "describe configs: *", "*.is_default", True, False, "Apache Kafka forgets to fill this in, in version 0."
    ),
    Deviation(
        "describe configs: broker", "*.synonyms.*.value", "1", "-1", "Default of broker.id: kpy generates no ids."
    ),
    Deviation("incremental alter configs: wrong changes", "*.error_code", Of(int), -1, UNEXPECTED),
)

GROUPS = (
    Deviation(
        "find coordinator: key types", "*.error_code", 42, 15, "kpy has no share groups, not just at the moment."
    ),
    Deviation(
        "offset commit: wrong ones", "*.partitions", Of(list), Of(list), "kpy answers twice what is named twice."
    ),
    Deviation(
        "offset commit: wrong ones", "topics", Of(list), [], "Apache Kafka leaves out topics without partitions."
    ),
    Deviation("offset fetch", "*topics", Of(list), [], "The same."),
    Deviation("offset fetch", "*.partitions", Of(list), Of(list), "kpy answers twice what is named twice."),
)

TRANSACTIONS = (
    Deviation(
        "transactions: fenced by init",
        "*producer_epoch",
        3,
        2,
        "Transaction version 2, as Apache Kafka 4: an abort by the coordinator raises the epoch by two (KIP-890).",
    ),
)

CONNECTIONS = (
    Deviation("api versions", "api_keys", Of(list), Of(list), "kpy serves versions of 4.x, and fewer APIs."),
    *(
        Deviation("api versions", path, Of(list), [], "kpy works with transaction.version 2, as Apache Kafka 4.")
        for path in ("supported_features", "finalized_features")
    ),
    Deviation("connection: array of -5", "", TEXT, Of(bytes), "Only -1 is null; other negative lengths are damage."),
    Deviation("connection: client id not in utf-8", "", TEXT, Of(bytes), "A client id that is no text is damage."),
)

DEVIATIONS = (*WORDS, *PRODUCE, *FETCH, *TOPICS, *CONFIGS, *GROUPS, *TRANSACTIONS, *CONNECTIONS)
