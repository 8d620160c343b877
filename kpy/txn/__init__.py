"""PURE: transactions, one shard a partition of __transaction_state."""
