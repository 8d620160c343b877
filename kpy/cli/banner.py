"""What a person sees when the broker is ready: where it is, where the data lies, and how to send a first message."""

from collections.abc import Sequence
from pathlib import Path

import kpy


def banner(addresses: Sequence[str], data_dirs: Sequence[Path], *, ephemeral: bool, by_ssl: bool = False) -> str:
    """The lines after the start. `addresses` are where clients connect, as host:port; the first is shown in use.

    With `by_ssl` that one is of security protocol SSL, and ca.pem stands for what vouches for its certificate.
    """
    address = addresses[0]
    kcat, python = "", ""
    if by_ssl:
        kcat, python = (
            " -X security.protocol=SSL -X ssl.ca.location=ca.pem",
            ', security_protocol="SSL", ssl_cafile="ca.pem"',
        )
    where = ", ".join(str(path) for path in data_dirs)
    return f"""\
kpy {kpy.__version__} is ready on {", ".join(addresses)}
Data: {where}{" (removed when kpy stops)" if ephemeral else ""}

Send and read a first message from another terminal:
  echo hello | kcat -b {address}{kcat} -P -t greetings
  kcat -b {address}{kcat} -C -t greetings -e
or from Python, with kafka-python installed:
  from kafka import KafkaProducer
  KafkaProducer(bootstrap_servers="{address}"{python}).send("greetings", b"hello").get(timeout=10)

Ctrl-C stops it."""
