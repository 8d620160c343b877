"""Fetch (1): positions, limits, sessions, isolation, epochs, and the answers to what cannot be fetched."""

from compat.differential.scenario import Answer, Ask, Saved, Scenario, Taken
from compat.differential.steps import (
    FETCH,
    create,
    fetch,
    fetch_position,
    fetch_request,
    fetch_topic,
    produce,
    values,
)
from kpy.records.compression import Codec
from kpy.wire.fetch import FetchRequest, FetchTopic, ForgottenTopic

VERSIONS_WITH_SESSIONS = (7, 11, 12, 13, 17)
BATCHES = [produce(values("a", "b", "c")), produce(values("d" * 100)), produce(values("e", "f", codec=Codec.GZIP))]


def limited(max_bytes: int, partition_max_bytes: int, offset: int = 0) -> Ask:
    position = fetch_position(offset, max_bytes=partition_max_bytes)
    return Ask(fetch_request(fetch_topic(position), max_bytes=max_bytes))


def session(session_id: int | Saved, epoch: int, *positions: object, forget: bool = False) -> Ask:
    topics = [fetch_topic(*positions)] if positions else []  # type: ignore[arg-type]
    request = fetch_request(*topics, session_epoch=epoch)
    request.session_id = session_id  # type: ignore[assignment]
    if forget:
        request.forgotten_topics_data = [ForgottenTopic("{t}", Saved("t_id"), [1])]  # type: ignore[arg-type]
    return Ask(request, save={"session": "session_id"} if epoch == 0 else {})


SESSION = Saved("session")
UNKNOWN_TOPIC = FetchTopic("{nothing}", b"\7" * 16, [fetch_position(0)])

SCENARIOS = [
    Scenario("fetch: every offset", FETCH, [create(), *BATCHES, *(fetch(offset) for offset in range(-2, 9))]),
    Scenario(
        "fetch: limits",
        FETCH,
        [
            create(),
            *BATCHES,
            *(limited(1 << 20, size) for size in (0, 1, 60, 93, 94, 200, 300)),
            *(limited(size, 1 << 20) for size in (0, 1, 93, 94, 200, 300)),
            limited(200, 1 << 20, offset=3),
            limited(1, 1, offset=3),
        ],
    ),
    Scenario("fetch: negative limits", FETCH, [create(), *BATCHES, limited(1 << 20, -1), limited(-1, 1 << 20)]),
    Scenario(
        "fetch: limits over partitions",
        FETCH,
        [
            create("t", 3),
            *(produce(values("a", "b", "c"), partition=index) for index in range(3)),
            *(
                Ask(fetch_request(fetch_topic(*map(fetch_position, (0, 0, 0), order)), max_bytes=size))
                for size in (1, 94, 150, 1 << 20)
                for order in ((0, 1, 2), (2, 0, 1))
            ),
        ],
    ),
    Scenario(
        "fetch: unknown topics and partitions",
        FETCH,
        [
            create("t", 2),
            produce(values("a")),
            Ask(fetch_request(fetch_topic(*(fetch_position(0, partition) for partition in (0, 1, 2, -1))))),
            Ask(fetch_request(UNKNOWN_TOPIC)),
            Ask(fetch_request(fetch_topic(fetch_position(0)), UNKNOWN_TOPIC)),
            Ask(fetch_request(FetchTopic("", bytes(16), [fetch_position(0)]))),
        ],
    ),
    Scenario("fetch: no topics", FETCH, [Ask(fetch_request())]),
    Scenario(
        "fetch: read_committed", FETCH, [create(), *BATCHES, fetch(0, isolation_level=1), fetch(6, isolation_level=1)]
    ),
    Scenario("fetch: unknown isolation level", FETCH, [create(), *BATCHES, fetch(0, isolation_level=7)]),
    Scenario(
        "fetch: errors and read_committed", FETCH, [create(), fetch(1, isolation_level=1), fetch(0, isolation_level=1)]
    ),
    Scenario(
        "fetch: leader epochs",
        FETCH,
        [
            create(),
            *BATCHES,
            *(
                Ask(fetch_request(fetch_topic(fetch_position(0, current_leader_epoch=epoch))))
                for epoch in (-1, 0, 1, 99, -2)
            ),
        ],
    ),
    Scenario(
        "fetch: last fetched epochs",
        FETCH,
        [
            create(),
            *BATCHES,
            *(
                Ask(fetch_request(fetch_topic(fetch_position(offset, last_fetched_epoch=epoch))))
                for epoch in (0, 1, -2)
                for offset in (0, 5, 6, 7)
            ),
        ],
    ),
    Scenario(
        "fetch: the same partition twice",
        FETCH,
        [create(), *BATCHES, Ask(fetch_request(fetch_topic(fetch_position(0), fetch_position(3))))],
    ),
    Scenario(
        "fetch: log start offsets of a consumer",
        FETCH,
        [create(), *BATCHES, Ask(fetch_request(fetch_topic(fetch_position(0, log_start_offset=5))))],
    ),
    Scenario(
        "fetch: no down-conversion",
        FETCH,
        [create("t", message_downconversion_enable="false"), *BATCHES, fetch(0), fetch(6), fetch(9)],
    ),
    Scenario(
        "fetch: zstd",
        FETCH,
        [create(), produce(values("a", "b", codec=Codec.ZSTD)), fetch(0), fetch(2)],
    ),
    Scenario(
        "fetch: zstd by the topic",
        FETCH,
        [create("t", compression_type="zstd"), produce(values("a", "b")), fetch(0), fetch(2)],
    ),
    Scenario(
        "fetch: sessions",
        FETCH,
        [
            create("t", 2),
            produce(values("a")),
            session(0, 0, fetch_position(0), fetch_position(0, 1)),
            session(SESSION, 1, fetch_position(1)),
            session(SESSION, 2),
            produce(values("b"), partition=1),
            session(SESSION, 3),
            session(SESSION, 4, fetch_position(1, 1)),
            produce(values("c")),
            session(SESSION, 5, fetch_position(9)),
            session(SESSION, 6),
            session(SESSION, 7, fetch_position(2), forget=True),
            produce(values("d"), partition=1),
            session(SESSION, 8),
            session(SESSION, 8),
            session(SESSION, 11),
            session(SESSION, 9),
            session(SESSION, -1, fetch_position(0)),
            session(SESSION, 10),
        ],
        VERSIONS_WITH_SESSIONS,
    ),
    Scenario(
        "fetch: wrong sessions",
        FETCH,
        [
            create(),
            produce(values("a")),
            session(12345, 1, fetch_position(0)),
            session(12345, 0, fetch_position(0)),
            session(0, 1, fetch_position(0)),
            session(0, 5, fetch_position(0)),
            session(0, -1, fetch_position(0)),
            session(12345, -1, fetch_position(0)),
            session(-1, 0, fetch_position(0)),
            session(0, -2, fetch_position(0)),
            Ask(fetch_request(session_epoch=0), save={"session": "session_id"}),
        ],
        VERSIONS_WITH_SESSIONS,
    ),
    Scenario(
        "fetch: sessions with and without topic ids",
        FETCH,
        [
            create(),
            Ask(fetch_request(fetch_topic(fetch_position(0)), session_epoch=0), 12, save={"session": "session_id"}),
            session(SESSION, 1),
        ],
        (12, 13, 17),
    ),
    Scenario(
        "fetch: unknown topics in sessions",
        FETCH,
        [
            create(),
            Ask(
                fetch_request(fetch_topic(fetch_position(0)), UNKNOWN_TOPIC, session_epoch=0),
                save={"session": "session_id"},
            ),
            session(SESSION, 1),
            produce(values("a")),
            session(SESSION, 2),
        ],
        VERSIONS_WITH_SESSIONS,
    ),
    Scenario(
        "fetch: waits until a produce",
        FETCH,
        [
            create(),
            Ask(fetch_request(fetch_topic(fetch_position(0)), max_wait_ms=5000, min_bytes=1), taken=Taken.LATER),
            Ask(produce(values("a")).request, connection="producer"),
            Answer("main"),
        ],
    ),
    Scenario(
        "fetch: waits in vain",
        FETCH,
        [
            create(),
            produce(values("a")),
            Ask(fetch_request(fetch_topic(fetch_position(0)), max_wait_ms=20, min_bytes=100_000)),
        ],
    ),
    Scenario(
        "fetch: does not wait for errors",
        FETCH,
        [create(), Ask(fetch_request(fetch_topic(fetch_position(5)), max_wait_ms=9000, min_bytes=1))],
    ),
    Scenario(
        "fetch: of another replica",
        FETCH,
        [create(), Ask(FetchRequest(replica_id=-2, max_wait_ms=0, topics=[fetch_topic(fetch_position(0))]))],
        range(15),
    ),
]
