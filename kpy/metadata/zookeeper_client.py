"""How kazoo, ZooKeeper's client, is set up. It is imported only where a cluster is on ZooKeeper: an extra brings it."""

import importlib
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from kpy.metadata.zookeeper_config import LOGIN_CONFIG_KEY, ZookeeperConfig

RETRY_DELAY_S = 0.1
MAX_RETRY_DELAY_S = 1.0


def new_client(config: ZookeeperConfig, keep_connected: Callable[[Callable[[], None]], None]) -> Any:
    """A KazooClient that has not been started. `keep_connected` runs in the thread for the connection, and is handed
    what kazoo would run there.
    """
    return importlib.import_module("kazoo.client").KazooClient(
        hosts=config.hosts,
        timeout=config.session_timeout_ms / 1000,
        connection_retry={"max_tries": -1, "delay": RETRY_DELAY_S, "max_delay": MAX_RETRY_DELAY_S},
        logger=_quiet_logger(),
        handler=_handler(keep_connected),
        sasl_options=_sasl_options(config),
        use_ssl=config.tls,
        certfile=config.certificate_file,
        keyfile=config.certificate_file,
        keyfile_password=config.key_password,
        ca=config.trusted_file,
        check_hostname=config.check_hostname,
    )


def submit(client: Any, request: Any) -> Any:
    """Hands over a request that kazoo has no method for, as its transactions do. Returns what will be the answer."""
    answer = client.handler.async_result()
    client._call(request, answer)
    return answer


def lost_errors() -> tuple[type[Exception], ...]:
    """What a request raises whose answer will not come."""
    known: Any = importlib.import_module("kazoo.exceptions")
    return (
        known.ConnectionLoss,
        known.ConnectionClosedError,
        known.SessionExpiredError,
        known.OperationTimeoutError,
        known.AuthFailedError,
        known.SessionClosedRequireSaslError,
    )


def why_refused(config: ZookeeperConfig, error: Exception | None = None) -> str:
    """What it means that a connection has ended in an error, or that kazoo does not try on and has no error for it."""
    known: Any = importlib.import_module("kazoo.exceptions")
    server = f"ZooKeeper at {config.hosts}"
    if error is not None and not isinstance(error, known.AuthFailedError | known.SessionClosedRequireSaslError):
        return f"The connection to {server} has failed: {type(error).__name__}: {error}."
    if config.login is None:
        return f"{server} demands that clients authenticate by SASL ({LOGIN_CONFIG_KEY})."
    return (
        f"{server} has not authenticated {config.login.user!r} by SASL ({LOGIN_CONFIG_KEY}):"
        " the password is wrong, or the server has no SASL."
    )


def acl_of(config: ZookeeperConfig, path: str) -> Any:
    """The ACL of a new node: Apache Kafka's (ZkData.defaultAcls)."""
    security: Any = importlib.import_module("kazoo.security")
    if not config.set_acl or path in config.open_paths:
        return security.OPEN_ACL_UNSAFE
    if any(path == above or path.startswith(f"{above}/") for above in config.secret_paths):
        return security.CREATOR_ALL_ACL
    return [*security.CREATOR_ALL_ACL, *security.READ_ACL_UNSAFE]


def _handler(keep_connected: Callable[[Callable[[], None]], None]) -> Any:
    """kazoo's threads: one for the connection, and others that hand on what it has received."""
    handler: Any = importlib.import_module("kazoo.handlers.threading").SequentialThreadingHandler()
    connection: Any = importlib.import_module("kazoo.protocol.connection").ConnectionHandler
    spawn = handler.spawn

    def spawn_kept(run: Callable[[], None]) -> Any:
        is_connection = isinstance(getattr(run, "__self__", None), connection)
        return spawn(partial(keep_connected, run) if is_connection else run)

    handler.spawn = spawn_kept
    return handler


def _sasl_options(config: ZookeeperConfig) -> dict[str, Any] | None:
    """For kazoo, which would send text as UTF-8, where DIGEST-MD5 is of Latin-1 unless both sides say otherwise."""
    if config.login is None:
        return None
    return {
        "mechanism": "DIGEST-MD5",
        "username": config.login.user.encode("latin-1"),
        "password": config.login.password.encode("latin-1"),
    }


def _quiet_logger() -> logging.Logger:
    """kazoo tells of each attempt to connect. The store tells when the connection goes and comes."""
    logger = logging.getLogger("kpy.metadata.kazoo")
    logger.setLevel(logging.CRITICAL)
    return logger
