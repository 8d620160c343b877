"""One event being handled: what the clock says, what the configuration allows, and the effects gathered so far."""

import random
from dataclasses import dataclass

from kpy.machine import Effects
from kpy.timers import Timers

DEFAULT_RETENTION_MS = 7 * 24 * 60 * 60 * 1000

NEW_MEMBER_JOIN_TIMEOUT_MS = 5 * 60 * 1000
"""How long a member that never got an answer may stay in a rebalance: its client may be gone unnoticed."""

MAX_MEMBER_ID_PREFIX = 1_000
"""How many characters of a client or instance id a member id starts with: it must fit a string of the wire."""

MAX_PENDING_MEMBERS = 10_000
"""How many ids one group may have given out to members that have not joined with them. Kafka sets no bound."""

MAX_GROUPS = 1_000_000
"""How many groups one partition of __consumer_offsets may hold. Kafka sets no bound."""

TimerKey = tuple[str, str, str]
"""What is due, in which group, and for a session whose it is."""


@dataclass(frozen=True, slots=True)
class GroupConfig:
    """The broker keys that groups obey; each field is named after its key."""

    group_min_session_timeout_ms: int = 6_000
    group_max_session_timeout_ms: int = 1_800_000
    group_initial_rebalance_delay_ms: int = 0
    group_max_size: int = 2_147_483_647
    offset_metadata_max_bytes: int = 4_096
    offsets_retention_ms: int = DEFAULT_RETENTION_MS
    offsets_retention_check_interval_ms: int = 600_000


class Turn:
    """Passed down to whatever handles the event. Only timers, soft state and `effects` change during a turn."""

    __slots__ = ("config", "effects", "now_ms", "rng", "timers")

    def __init__(self, now_ms: int, config: GroupConfig, rng: random.Random, timers: Timers[TimerKey]) -> None:
        self.now_ms = now_ms
        self.config = config
        self.rng = rng
        self.timers = timers
        self.effects = Effects()

    def new_member_id(self, prefix: str) -> str:
        """A fresh id that starts with the client's id, or with the instance id of a static member."""
        import uuid

        return f"{prefix[:MAX_MEMBER_ID_PREFIX]}-{uuid.UUID(int=self.rng.getrandbits(128), version=4)}"
