"""What transactions are told of the broker's configuration, apart from the machine, which a start does not need."""

from dataclasses import dataclass

TV_2 = 2
"""The level of the feature transaction.version from which every end of a transaction raises the epoch (KIP-890)."""


@dataclass(frozen=True, slots=True)
class TransactionConfig:
    """The broker keys that transactions obey; each field is named after its key."""

    transaction_max_timeout_ms: int = 900_000
    transactional_id_expiration_ms: int = 604_800_000
    transaction_abort_timed_out_transaction_cleanup_interval_ms: int = 10_000
    transaction_remove_expired_transaction_cleanup_interval_ms: int = 3_600_000
    transaction_version: int = TV_2
    """The level of the feature of that name that this cluster works with: 0 or 2."""
