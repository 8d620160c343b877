"""`kpy start` from the arguments to the exit code, around a server that only pretends to serve."""

import errno
import gc
import io
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import trio

import kpy.server
from kpy.__main__ import main
from kpy.config import BrokerConfig
from kpy.errors import StorageError

Started = Callable[[list[tuple[str, str, int]]], None]
Serve = Callable[[BrokerConfig], Awaitable[None]]


@pytest.fixture(autouse=True)
def logging_is_left_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in list(os.environ):
        if name.startswith("KAFKA_") or name == "CLUSTER_ID":
            monkeypatch.delenv(name)
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    root.handlers.clear()
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture(autouse=True)
def signals_are_not_ignored() -> Iterator[None]:
    """A shell has what it starts in the background ignore SIGINT, and a server leaves ignored what it finds ignored."""
    handlers = {
        signal.SIGINT: signal.default_int_handler,
        signal.SIGTERM: signal.SIG_DFL,
        signal.SIGHUP: signal.SIG_DFL,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def garbage_of_other_tests_is_collected_again() -> Iterator[None]:
    yield
    gc.unfreeze()


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., int]:
    """Runs `kpy start` around a function that is called once the server has started; returns the exit code."""

    def run(once_started: Serve, *arguments: str) -> int:
        async def serve(config: BrokerConfig, *, started: Started) -> None:
            started([("PLAINTEXT", "localhost", 39092)])
            await once_started(config)

        monkeypatch.setattr(kpy.server, "serve", serve)
        data = [] if "--ephemeral" in arguments else ["--data-dir", str(tmp_path)]
        return main(["start", *data, *arguments])

    return run


def stop_with(number: signal.Signals) -> Serve:
    async def once_started(_config: BrokerConfig) -> None:
        os.kill(os.getpid(), number)
        await trio.sleep_forever()

    return once_started


def fail_with(error: BaseException) -> Serve:
    async def once_started(_config: BrokerConfig) -> None:
        raise error

    return once_started


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_stops_the_server_and_says_how_by_the_exit_code(
    run: Callable[..., int], number: signal.Signals, code: int, capsys: pytest.CaptureFixture[str]
):
    before = signal.getsignal(number)
    assert run(stop_with(number)) == code
    assert f"[KafkaServer id=1] shut down completed after {number.name}" in capsys.readouterr().err
    assert signal.getsignal(number) is before


def test_what_is_there_when_the_server_has_started_is_no_concern_of_the_garbage_collector(run: Callable[..., int]):
    left: list[int] = []

    async def count_then_terminate(_config: BrokerConfig) -> None:
        left.append(len(gc.get_objects()))
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()

    before = len(gc.get_objects())
    assert run(count_then_terminate) == 0
    assert left[0] < before / 10


def test_a_signal_that_is_ignored_stays_ignored(run: Callable[..., int]):
    async def hang_up_then_terminate(_config: BrokerConfig) -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()

    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run(hang_up_then_terminate) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_banner_shows_where_to_connect_and_what_to_try(
    run: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run(stop_with(signal.SIGTERM))
    shown = capsys.readouterr()
    assert "is ready on localhost:39092\n" in shown.out
    assert f"Data: {tmp_path}\n" in shown.out
    assert "echo hello | kcat -b localhost:39092 -P -t greetings" in shown.out
    assert "[KafkaServer id=1] started" in shown.err


def test_json_output_is_json_lines_and_no_banner(run: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    run(stop_with(signal.SIGTERM), "--log-format", "json")
    shown = capsys.readouterr()
    assert shown.out == ""
    messages = [json.loads(line)["message"] for line in shown.err.splitlines()]
    assert "[KafkaServer id=1] started" in messages


def test_quiet_shows_nothing_when_all_is_well(run: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    run(stop_with(signal.SIGTERM), "--quiet")
    assert capsys.readouterr() == ("", "")


def test_warnings_of_the_configuration_are_logged(run: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    run(stop_with(signal.SIGTERM), "--quiet", "--set", "num.partiton=2")
    assert "WARNING kpy.server: unknown key num.partiton" in capsys.readouterr().err


def test_ephemeral_data_is_gone_after_the_stop(
    run: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def write_then_stop(config: BrokerConfig) -> None:
        [data] = config.data_dirs
        assert data.parent == tmp_path
        (data / "some.log").write_text("x")
        await stop_with(signal.SIGINT)(config)

    assert run(write_then_stop, "--ephemeral") == 130
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_configuration_is_one_line_and_2(run: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    assert run(stop_with(signal.SIGTERM), "--set", "log.segment.bytes=5") == 2
    assert capsys.readouterr() == ("", "kpy: error: log.segment.bytes=5: value must be at least 14 (--set)\n")


def test_a_storage_error_is_one_line_and_1(run: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    grouped = ExceptionGroup("nursery", [ExceptionGroup("nursery", [StorageError("/data is locked")])])
    assert run(fail_with(grouped), "--quiet") == 1
    assert capsys.readouterr().err == "kpy: error: /data is locked\n"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.EADDRINUSE, "Address already in use"), "localhost:9092 is in use, perhaps by another broker"),
        (OSError(errno.EACCES, "Permission denied"), "cannot listen on localhost:9092: Permission denied"),
        (OSError(errno.EADDRNOTAVAIL, "Cannot assign"), "cannot listen on localhost:9092: Cannot assign"),
        (socket.gaierror(-2, "Name or service not known"), "localhost:9092: the host is unknown"),
        (PermissionError(errno.EACCES, "Permission denied", "/data"), "/data: Permission denied"),
    ],
)
def test_an_address_or_directory_that_cannot_be_had_is_one_line_and_1(
    error: OSError, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    async def serve(config: BrokerConfig, *, started: Started) -> None:
        raise error

    monkeypatch.setattr(kpy.server, "serve", serve)
    assert main(["start", "--data-dir", str(tmp_path)]) == 1
    shown = capsys.readouterr().err
    assert said in shown
    assert shown.count("\n") == 1


def test_an_unexpected_failure_keeps_its_traceback(run: Callable[..., int]):
    with pytest.raises(ZeroDivisionError):
        run(fail_with(ZeroDivisionError()))
    with pytest.raises(OSError, match="Bad file descriptor"):
        run(fail_with(OSError(errno.EBADF, "Bad file descriptor")))
    with pytest.raises(ExceptionGroup):
        run(fail_with(ExceptionGroup("two", [StorageError("a"), StorageError("b")])))


STUBBORN = """
import signal, sys
import kpy.server
from kpy.__main__ import main

async def serve(config, *, started):
    started([("PLAINTEXT", "localhost", 1)])
    print(config.data_dirs[0], flush=True)
    while True:  # like the recovery of a large log: the event loop does not run
        signal.pause()

kpy.server.serve = serve
sys.exit(main(["start", "--ephemeral", "--quiet"]))
"""


def test_a_second_signal_ends_a_busy_process_at_once_and_still_removes_ephemeral_data():
    with subprocess.Popen([sys.executable, "-c", STUBBORN], stdout=subprocess.PIPE, text=True) as process:
        assert isinstance(process.stdout, io.TextIOBase)
        data = Path(process.stdout.readline().strip())
        assert data.is_dir()
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) in (130, 143)
    assert not data.exists()


def test_a_system_without_epoll_is_told_so(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def never(config: BrokerConfig) -> None:
        pytest.fail("it must not start")

    monkeypatch.delattr(select, "epoll")
    assert run(never) == 1
    assert "epoll" in capsys.readouterr().err


def test_a_certificate_that_cannot_be_used_is_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("listeners=SSL://localhost:0", "security.inter.broker.protocol=SSL", "ssl.keystore.type=PEM")
    location = "ssl.keystore.location=/no/such.pem"
    sets = [argument for setting in (*settings, location) for argument in ("--set", setting)]
    assert main(["start", "--data-dir", str(tmp_path), *sets]) == 2
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert last_line == f"kpy: error: {location}: cannot be read: No such file or directory (--set)"


def test_the_banner_shows_the_listener_that_needs_no_certificate(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async def serve(config: BrokerConfig, *, started: Started) -> None:
        started([("SSL", "localhost", 9093), *extra])
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()

    monkeypatch.setattr(kpy.server, "serve", serve)
    arguments = ["start", "--data-dir", str(tmp_path), "--set", "listeners=SSL://:9093,PLAINTEXT://:9092"]
    extra = [("PLAINTEXT", "localhost", 9092)]
    assert main(arguments) == 0
    assert "kcat -b localhost:9092 -P" in capsys.readouterr().out
    extra = []
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "kcat -b localhost:9093 -X security.protocol=SSL -X ssl.ca.location=ca.pem -P" in shown
    assert 'security_protocol="SSL", ssl_cafile="ca.pem"' in shown
