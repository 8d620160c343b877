"""What a person sees when the broker is ready: where it is, where the data lies, and how to send a first message."""

from collections.abc import Sequence
from pathlib import Path

import kpy


def banner(addresses: Sequence[str], data_dirs: Sequence[Path], *, ephemeral: bool) -> str:
    """The lines after the start. `addresses` are where clients connect, as host:port; the first is shown in use."""
    address = addresses[0]
    where = ", ".join(str(path) for path in data_dirs)
    return f"""\
kpy {kpy.__version__} is ready on {", ".join(addresses)}
Data: {where}{" (removed when kpy stops)" if ephemeral else ""}

Send and read a first message from another terminal:
  echo hello | kcat -b {address} -P -t greetings
  kcat -b {address} -C -t greetings -e
or from Python, with kafka-python installed:
  from kafka import KafkaProducer
  KafkaProducer(bootstrap_servers="{address}").send("greetings", b"hello").get(timeout=10)

Ctrl-C stops it."""
