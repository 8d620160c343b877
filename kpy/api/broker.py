"""What handlers work with: the parts of a running broker, put together once by server.py."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kpy.api.fetch_sessions import FetchSessions
from kpy.config import BrokerConfig
from kpy.group_coordinator import GroupCoordinator
from kpy.metadata.cluster import Cluster
from kpy.replica.manager import ReplicaManager
from kpy.replica.membership import Membership
from kpy.transaction_coordinator import TransactionCoordinator

if TYPE_CHECKING:
    # Not at run time: the codec of Metadata is imported when it is first asked for, and OpenSSL if there is need.
    from kpy.api.metadata_views import View, ViewKey
    from kpy.tls_context import TlsContexts


@dataclass(slots=True)
class Broker:
    """`now_ms` is the wall clock in milliseconds since 1970."""

    config: BrokerConfig
    cluster: Cluster
    replicas: ReplicaManager
    groups: GroupCoordinator
    transactions: TransactionCoordinator
    fetch_sessions: FetchSessions
    now_ms: Callable[[], int]
    rng: random.Random
    membership: Membership | None = None
    """None for a single broker, which no controller speaks to."""
    tls: "TlsContexts | None" = None
    """None without a listener of security protocol SSL."""
    metadata_views: "dict[ViewKey, View]" = field(default_factory=dict["ViewKey", "View"])
