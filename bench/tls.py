"""Works over TLS: what the librdkafka rows do, on a listener of security protocol SSL with the same certificate."""

from collections.abc import Mapping
from functools import partial

from bench.brokers import BrokerProcess
from bench.rows import librdkafka_round_trip
from bench.work import Bench, Row, Work
from compat.certificates import Certificates, make_certificates


def certificates(bench: Bench) -> Certificates:
    """Those of one run."""
    directory = bench.home / "certificates"
    return Certificates.in_directory(directory) if directory.exists() else make_certificates(directory)


def broker_settings(bench: Bench) -> Mapping[str, str]:
    """What gives a broker of any kind the listener; Apache Kafka reads PEM files as well."""
    return certificates(bench).of_broker()


def round_trip_over_tls(size: int, bench: Bench, broker: BrokerProcess) -> tuple[float, ...]:
    """Produces and consumes the same records: MB/s each, then the broker's CPU seconds per GB each."""
    client = (
        f"bootstrap.servers=127.0.0.1:{broker.ssl_port}",
        "security.protocol=SSL",
        f"ssl.ca.location={certificates(bench).ca}",
    )
    return librdkafka_round_trip(bench, broker, size, (), client)


def _work(size: int) -> Work:
    name = f"{size} B, none"
    rows = (
        Row(f"TLS produce, {name}", "MB/s", "higher"),
        Row(f"TLS consume, {name}", "MB/s", "higher"),
        Row(f"TLS produce, {name}: broker CPU", "s/GB", "lower"),
        Row(f"TLS consume, {name}: broker CPU", "s/GB", "lower"),
    )
    return Work(rows, partial(round_trip_over_tls, size), in_quick=False, over_tls=True)


TLS_WORKS: tuple[Work, ...] = (_work(100), _work(1000))
