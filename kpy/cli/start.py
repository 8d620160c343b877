"""`kpy start`: one broker, from its configuration to its exit code.

Everything that can be wrong with the configuration is found before trio and the server are imported, so that mistakes
are told at once; but what is wrong with the certificates that it names is found by the server, which reads them.
"""

import errno
import gc
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Any, Final, cast

from kpy import log_output
from kpy.cli.arguments import Options, broker_config
from kpy.cli.banner import banner
from kpy.config import BrokerConfig
from kpy.config_types import ConfigError
from kpy.errors import StorageError
from kpy.metadata.store import StoreUnavailable

Addresses = list[tuple[str, str, int]]
"""Where clients reach the broker: (listener name, host, port)."""

FAILED: Final = 1
MISCONFIGURED: Final = 2

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

logger = logging.getLogger("kpy.server")


def start(options: Options) -> int:
    """Runs a broker until it is told to stop or fails, and returns the exit code."""
    if not hasattr(select, "epoll"):
        print(f"kpy: error: the broker waits for its sockets by epoll, which {sys.platform} lacks", file=sys.stderr)
        return FAILED
    with ExitStack() as cleanups:
        ephemeral_dir = None
        if options.ephemeral:
            import tempfile

            # On disk and not in /dev/shm: containers give that 64 MB, and without fsync the page cache is as fast.
            ephemeral_dir = Path(cleanups.enter_context(tempfile.TemporaryDirectory(prefix="kpy-")))
        try:
            config = broker_config(options, os.environ, Path.home(), ephemeral_dir)
        except ConfigError as error:
            print(f"kpy: error: {error}", file=sys.stderr)
            return MISCONFIGURED
        log_output.set_up(options.log_format, "warning" if options.quiet else options.log_level, sys.stderr)
        for warning in config.warnings:
            logger.warning("%s", warning)
        return _run(config, ephemeral_dir, show_banner=not options.quiet and options.log_format == "human")


def _run(config: BrokerConfig, ephemeral_dir: Path | None, *, show_banner: bool) -> int:
    is_ready = False

    def on_started(addresses: Addresses) -> None:
        nonlocal is_ready
        is_ready = True
        # Logs and metadata stay as long as the modules, which are frozen already. Otherwise the garbage collector looks
        # through all of it every few seconds or minutes, and all clients wait for 20 ms and more.
        gc.freeze()
        for name, host, port in addresses:
            logger.info("listener %s is reached at %s:%d", name, host, port)
        # Container tooling waits for this line of Apache Kafka.
        logger.info("[KafkaServer id=%d] started", config.broker_id)
        if show_banner:
            # The banner shows how to send something to the first: that is easiest without certificates.
            by_ease = sorted(addresses, key=lambda address: config.security_protocols[address[0]] == "SSL")
            reached_at = [f"{host}:{port}" for _, host, port in by_ease]
            by_ssl = config.security_protocols[by_ease[0][0]] == "SSL"
            shown = banner(reached_at, config.data_dirs, ephemeral=ephemeral_dir is not None, by_ssl=by_ssl)
            print(shown, flush=True)

    try:
        stopped_by = _serve_until_signal(config, on_started, ephemeral_dir)
    except ConfigError as error:
        print(f"kpy: error: {error}", file=sys.stderr)
        return MISCONFIGURED
    except (OSError, StorageError, StoreUnavailable, BaseExceptionGroup) as error:
        reason = _reason(config, _only(error), is_ready)
        if reason is None:
            raise
        print(f"kpy: error: {reason}", file=sys.stderr)
        return FAILED
    logger.info("[KafkaServer id=%d] shut down completed after %s", config.broker_id, stopped_by.name)
    # SIGTERM is how a service is stopped: it did what it was asked to. Ctrl-C and a closed terminal interrupt it.
    return 0 if stopped_by is signal.SIGTERM else 128 + stopped_by


def _serve_until_signal(
    config: BrokerConfig, on_started: Callable[[Addresses], None], ephemeral_dir: Path | None
) -> signal.Signals:
    """Serves until the first signal, then stops cleanly and returns it. A second signal ends the process at once."""
    serve = _import_serve()
    import trio

    received: list[signal.Signals] = []

    async def main() -> None:
        token = trio.lowlevel.current_trio_token()
        with trio.CancelScope() as serving:

            def on_signal(number: int, _frame: FrameType | None) -> None:
                # A handler and not trio's receiver: it also runs while the recovery of a large log keeps trio waiting.
                received.append(signal.Signals(number))
                if len(received) > 1:
                    _leave_at_once(received[-1], ephemeral_dir)
                token.run_sync_soon(serving.cancel)

            # Whoever started this with a signal ignored, as nohup does, wants it ignored.
            wanted = [number for number in _STOP_SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            previous = {number: signal.signal(number, on_signal) for number in wanted}
            try:
                await serve(config, started=on_started)
            finally:
                for number, handler in previous.items():
                    signal.signal(number, handler)

    try:
        trio.run(main)
    finally:
        gc.unfreeze()
    return received[0]


def _import_serve() -> Callable[..., Coroutine[Any, Any, None]]:
    """`serve` of kpy/server.py. Nothing of what it imports is ever garbage: to look for some meanwhile would take a
    fifteenth of the time, and later, with each full collection, 10 ms in which no client is served.
    """
    from kpy.trio_import import import_trio

    gc.disable()
    try:
        import_trio()
        from kpy.server import serve
    finally:
        gc.enable()
    gc.freeze()
    return serve


def _leave_at_once(number: signal.Signals, ephemeral_dir: Path | None) -> None:
    if ephemeral_dir is not None:
        import shutil

        shutil.rmtree(ephemeral_dir, ignore_errors=True)
    os._exit(128 + number)


def _only(error: BaseException) -> BaseException:
    """The exception in groups of one, as trio's nurseries make them; otherwise the error itself."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("BaseExceptionGroup[BaseException]", error)
    return _only(group.exceptions[0]) if len(group.exceptions) == 1 else group


def _reason(config: BrokerConfig, error: BaseException, is_ready: bool) -> str | None:
    """What to tell the operator about an expected failure, in one line; None for one that needs its traceback."""
    if isinstance(error, StorageError | StoreUnavailable):
        return str(error)
    if not isinstance(error, OSError) or is_ready:
        return None
    addresses = ", ".join(f"{endpoint.host}:{endpoint.port}" for endpoint in config.endpoints)
    elsewhere = "listen elsewhere with --listen host:port, where port 0 finds a free one"
    if error.errno == errno.EADDRINUSE:
        return f"{addresses} is in use, perhaps by another broker; {elsewhere}"
    if isinstance(error, socket.gaierror):
        return f"cannot listen on {addresses}: the host is unknown; {elsewhere}"
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if error.errno in (errno.EADDRNOTAVAIL, errno.EACCES):
        return f"cannot listen on {addresses}: {error.strerror}; {elsewhere}"
    return None
