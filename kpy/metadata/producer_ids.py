"""The producer ids that this broker may give out: blocks of the cluster's, one at a time (Kafka class
RPCProducerIdManager).

The controller takes them from the store, other brokers from the controller (AllocateProducerIds). What is left of a
block when the broker stops is never used.
"""

from collections.abc import Awaitable, Callable
from typing import Final

import trio

from kpy.errors import ApiError, ErrorCode
from kpy.metadata import znodes
from kpy.metadata.store import BadVersion, MetadataStore

BLOCK_SIZE: Final = 1000
MAX_PRODUCER_ID: Final = 2**63 - 1


class ProducerIds:
    def __init__(self, store: MetadataStore, broker_id: int) -> None:
        self._store = store
        self._lock = trio.Lock()
        self._block = range(0)
        self.next_block: Callable[[], Awaitable[range]] = lambda: self.allocate(broker_id)
        """Where this broker's blocks come from. Raises ApiError."""

    def __len__(self) -> int:
        """How many there are to `take`."""
        return len(self._block)

    def take(self) -> int:
        """An id that no producer of this cluster has or ever had.

        Raises ApiError COORDINATOR_LOAD_IN_PROGRESS when the block is used up, until `ensure` has got another one.
        """
        if not self._block:
            raise ApiError(ErrorCode.COORDINATOR_LOAD_IN_PROGRESS, "The next block of producer ids is on its way.")
        producer_id, self._block = self._block[0], self._block[1:]
        return producer_id

    async def ensure(self) -> None:
        """Have an id to `take`. Raises ApiError if there is none to be had."""
        async with self._lock:
            if not self._block:
                self._block = await self.next_block()

    async def next(self) -> int:
        """As `take`, but waits for a block."""
        async with self._lock:
            if not self._block:
                self._block = await self.next_block()
            return self.take()

    async def allocate(self, broker_id: int) -> range:
        """The next block of the cluster, which nobody but this broker gets."""
        path = znodes.PRODUCER_ID_BLOCK
        while True:
            node = await self._store.get(path)
            first = 0
            if node.data is not None:
                first = znodes.understood(path, znodes.decode_producer_id_block, node.data).last + 1
            last = first + BLOCK_SIZE - 1
            if last > MAX_PRODUCER_ID:
                raise ApiError(ErrorCode.UNKNOWN_SERVER_ERROR, "All producer ids have been given out.")
            block = znodes.encode_producer_id_block(znodes.ProducerIdBlock(broker_id, first, last))
            try:
                await self._store.set(path, block, node.version)
            except BadVersion:
                continue  # Another broker took this block; the next one is free, or the one after.
            return range(first, last + 1)
