"""Warming a broker up: what a JVM runs often it compiles, and that takes its time."""

import itertools
import math
import time
from collections.abc import Callable

from bench.brokers import BrokerProcess
from bench.requests import fetch_request, one_topic_metadata_request, produce_request, send_requests
from bench.rows import librdkafka_round_trip
from bench.tls import round_trip_over_tls
from bench.work import Bench, Scale

WARM_UP_SCALE = Scale(warm_up_s=0.0, requests_s=2.0, megabytes=300, latency_s=0, history_megabytes=0)
WARM_UP_LIMIT_S = 90.0
WARM_UP_ROUND_TRIPS = 3
STEADY = 0.9
"""A broker is warm when a pass of requests costs it at least this share of what the best one before did."""


def warm_up(bench: Bench, broker: BrokerProcess) -> None:
    """Does each kind of work until it gets no cheaper, and shows nobody the results.

    A JVM compiles what it runs often: on two cores Apache Kafka takes about 45 s of load until a request costs a
    twentieth of what the first ones did.
    """
    warm_up_with_requests(bench, broker)
    bench = bench._replace(scale=WARM_UP_SCALE)
    for _, size in itertools.product(range(WARM_UP_ROUND_TRIPS), (100, 1000)):
        librdkafka_round_trip(bench, broker, size, ())


def warm_up_over_tls(bench: Bench, broker: BrokerProcess) -> None:
    """As often as without TLS: a JVM has ciphers to compile too."""
    bench = bench._replace(scale=WARM_UP_SCALE)
    for _, size in itertools.product(range(WARM_UP_ROUND_TRIPS), (100, 1000)):
        round_trip_over_tls(size, bench, broker)


def warm_up_with_requests(bench: Bench, broker: BrokerProcess) -> None:
    """Small ones of each kind, until they get no cheaper."""
    bench = bench._replace(scale=WARM_UP_SCALE)
    loads = (
        (produce_request, 1, 1),
        (produce_request, 50, 5),
        (fetch_request, 50, 5),
        (one_topic_metadata_request, 50, 5),
    )
    until_no_cheaper(lambda: sum(send_requests(bench, broker, *load)[1] for load in loads), WARM_UP_LIMIT_S)


def until_no_cheaper(cpu_us: Callable[[], float], limit_s: float) -> None:
    """Does a pass of work again and again, which returns what it cost, until it is steady or the time is over."""
    deadline = time.monotonic() + limit_s
    best_us = math.inf
    while time.monotonic() < deadline:
        now_us = cpu_us()
        if now_us >= STEADY * best_us:
            break
        best_us = now_us
