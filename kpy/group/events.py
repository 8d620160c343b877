"""What a group shard is told besides requests and time (kpy/machine.py)."""

from typing import NamedTuple

from kpy.machine import Request, Tick


class TopicsDeleted(NamedTuple):
    """These topics are gone, and with them whatever was committed for them."""

    names: frozenset[str]


Event = Request | Tick | TopicsDeleted
