"""The arguments of `kpy`, and the configuration that they, the environment and a file make together."""

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import kpy
from kpy import config_sources, listeners
from kpy.config import BrokerConfig, Setting
from kpy.config_types import ConfigError
from kpy.native import how_it_runs

if TYPE_CHECKING:
    from kpy.cli.bench_works import Load

_DESCRIPTION: Final = "A Kafka-compatible broker. Start it with: kpy start"

_START: Final = """\
Start a broker. Without arguments it listens on localhost:9092 and keeps its data in
~/.local/state/kpy (macOS: ~/Library/Application Support/kpy)."""

_START_EXAMPLES: Final = """\
examples:
  kpy start                                   one broker for this machine
  kpy start --ephemeral --listen localhost:0  for a test: a free port, nothing kept
  kpy start --data-dir ./data --set num.partitions=3
  kpy start --listen 0.0.0.0:9092 --advertise broker.example.com:9092
  kpy start server.properties                 a file made for Apache Kafka

Settings are read from the file, then from KAFKA_* variables by the rule of the apache/kafka
image (KAFKA_NUM_PARTITIONS=3), then from flags; the last one wins. `kpy config print` takes
the same arguments and shows what they come to.

Ctrl-C or SIGTERM stops cleanly, a second one at once. Exit code: 0 stopped by SIGTERM, 130
by Ctrl-C, 1 the broker failed, 2 wrong arguments or configuration."""

_MIN_SECONDS: Final = 0.1
_MAX_SECONDS: Final = 3600.0
_RECORD_BYTES_LIMIT: Final = 900_000
"""A record has to fit into the 1 MB that brokers take by default."""

_LOG_FORMATS: Final = ("human", "json")
_LOG_LEVELS: Final = ("debug", "info", "warning", "error")

_CONFIG_PRINT: Final = """\
Show the configuration a broker would start with, and where each value comes from. The output
is a server.properties file: what is set, and where kpy's defaults differ from Apache Kafka's."""


_DECODE: Final = """\
Show the requests and responses in hex text, a file of frames or a network capture, with the names of
APIs, fields and error codes. What the input is shows in its first bytes."""

_DECODE_EXAMPLES: Final = """\
examples:
  tcpdump -i lo -w - port 9092 | kpy decode -
  kpy decode capture.pcapng --records
  kpy decode --hex frame.txt                  plain hex, xxd or hexdump -C; the size in front may be missing
  kpy decode --request Metadata 12 response.bin

Frames of a capture are matched to their connection, and so responses to their requests. Elsewhere a
frame that answers none of the requests before it is taken for a request, unless --request says to
what it is the response (repeat it for several, in order; the last one stands for all that follow).

Exit code: 0 everything was decoded, 1 not everything, 2 wrong arguments."""

_PROXY: Final = """\
Stand between clients and a Kafka broker, and show what they say to each other as it happens."""

_PROXY_EXAMPLES: Final = """\
examples:
  kpy proxy --listen localhost:19092 --upstream localhost:9092
  kpy proxy --listen 0.0.0.0:19092 --upstream broker.example.com:9092 --records

Clients learn from the brokers where to connect, and would go there past the proxy. So addresses in the
answers (Metadata, FindCoordinator, DescribeCluster, Produce, Fetch and their like) are replaced by ones
of this proxy, which opens a port of its own for every further broker that it sees. What is shown is
what the brokers said. TLS is passed on unread, and then so are the addresses.

Ctrl-C ends it."""

_DUMP_LOG: Final = """\
Show what is in the files of a log: batches and records of segments, entries of indexes, snapshots and
checkpoints. Give files, or partitions' directories."""

_DUMP_LOG_EXAMPLES: Final = """\
examples:
  kpy dump-log data/orders-0                            every file of a partition
  kpy dump-log --records data/orders-0/00000000000000000000.log
  kpy dump-log --records data/__consumer_offsets-3      commits and groups, decoded
  kpy dump-log --records --json data/orders-0/*.log | jq 'select(.type == "record") | .value'
  kpy dump-log --verify data/orders-0                   only what is wrong

Only reads, in bounded memory, and may be used while a broker writes. With --verify every CRC, offset,
count and index entry is compared instead of shown, and the records of each batch are read.

Exit code: 0 all is well, 1 something is damaged or cannot be read, 2 wrong arguments."""

_CHECK_DATA: Final = """\
Read data directories, kpy's or Apache Kafka's, from end to end and say what is wrong with them: a line
for each finding, with the byte it is at, what it means and what happens at the next start."""

_CHECK_DATA_EXAMPLES: Final = """\
examples:
  kpy check-data ~/.local/state/kpy
  kpy check-data /disk1/kafka /disk2/kafka              all directories of one broker
  kpy check-data --json data | jq 'select(.severity == "error")'
  kpy check-data --repair data                          with the broker stopped

An error is damage to records, or what keeps a broker from starting. A warning is damage to what is made
from the records, a note is no damage. --repair makes anew from the records what warnings are about:
indexes, transaction indexes, producer snapshots, leader epochs, checkpoints. It never touches records.
While a broker runs only looking is allowed, and what it is writing may look unfinished.

Exit code: 0 nothing is wrong (any more), 1 something is, 2 wrong arguments."""

_BENCH: Final = """\
Measure a Kafka broker, kpy or any other, from here: requests a second, throughput, and the time from a
producer to its consumer."""

_BENCH_EXAMPLES: Final = """\
examples:
  kpy bench                                             all rows, of localhost:9092
  kpy bench --bootstrap broker.example.com:9092 --rows produce,latency --acks all --replication-factor 3
  kpy bench --rows produce --load 1x1 --load 50x5 --seconds 10
  kpy bench --json | jq 'select(.type == "figure") | {name, value, unit}'

It makes a topic of one partition and deletes it at the end, also after Ctrl-C; what was deleted stays on
the broker's disk for file.delete.delay.ms. With --topic it writes into one that exists, and leaves it.

The client is Python on one core. A row that it could not go faster in says so: then the broker can do
more than the figure. Compare figures of one machine and one day only. PLAINTEXT listeners only.

Exit code: 0 all rows were measured, 1 not all, 2 wrong arguments, 130 Ctrl-C."""

_FORMATS: Final = (
    ("hex", "the input is hex text"),
    ("frames", "the input is frames with their sizes in front"),
    ("pcap", "the input is a network capture, pcap or pcapng"),
)


class Options(argparse.Namespace):
    """What the command line said."""

    command: str
    # Of every command.
    file: Path | None
    config: Path | None
    data_dir: Path | None
    ephemeral: bool
    listen: str | None
    advertise: str | None
    assignments: list[str]
    # Of `start`.
    log_format: str
    log_level: str
    quiet: bool
    # Of `config print`.
    every_key: bool
    # Of `decode` and `proxy`.
    input: str
    input_format: str | None
    requests: list[list[str]]
    upstream: str
    show_records: bool
    color: str
    # Of `dump-log` and `check-data`.
    paths: list[str]
    as_json: bool
    # Of `dump-log`.
    verify: bool
    decoder: str | None
    max_characters: int
    # Of `check-data`.
    repair: bool
    # Of `bench`.
    bootstrap: str
    rows: str
    loads: "list[Load]"
    seconds: float
    acks: str
    record_bytes: int
    records_per_s: int
    max_megabytes: int
    replication_factor: int
    topic: str | None


def parse(arguments: Sequence[str] | None = None) -> Options:
    """The options of the process's arguments, or of these. Ends the process for --help, --version and wrong usage."""
    if arguments is None:
        arguments = sys.argv[1:]
    parser = argparse.ArgumentParser("kpy", description=_DESCRIPTION, formatter_class=_Formatter, allow_abbrev=False)
    commands = parser.add_subparsers(metavar="command", required=True)

    # A start needs none of the others, and together they take as long as its whole configuration.
    named = arguments[0] if arguments and arguments[0] in _COMMANDS else None
    if named is None:
        parser.add_argument("--version", action="version", version=f"kpy {kpy.__version__}, {how_it_runs()}")
    for name, add in _COMMANDS.items():
        if named in (None, name):
            add(commands.add_parser)
    options = parser.parse_args(arguments, Options())
    if options.command in ("start", "config print") and options.file and options.config:
        parser.error("give one configuration file, not two")
    return options


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """As wide as the terminal, without asking shutil, as argparse does for each argument: that brings compressors."""

    def __init__(self, prog: str, **options: Any) -> None:
        super().__init__(prog, **{"width": _terminal_columns() - 2, **options})


def _terminal_columns() -> int:
    """$COLUMNS, or what the terminal says; 80 where there is neither."""
    columns = os.environ.get("COLUMNS", "")
    if columns.isdecimal() and int(columns):
        return int(columns)
    try:
        return os.get_terminal_size(sys.__stdout__.fileno()).columns or 80 if sys.__stdout__ else 80
    except (OSError, ValueError):
        return 80


def _add_command(
    add_parser: Callable[..., argparse.ArgumentParser], name: str, summary: str, description: str, epilog: str = ""
) -> argparse.ArgumentParser:
    return add_parser(
        name,
        help=summary,
        description=description,
        epilog=epilog,
        formatter_class=_Formatter,
        allow_abbrev=False,
    )


def _add_start(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    start = _add_command(add_parser, "start", "start a broker", _START, _START_EXAMPLES)
    start.set_defaults(command="start")
    _add_settings(start)
    logs = start.add_argument_group("output")
    logs.add_argument("--log-format", choices=_LOG_FORMATS, default="human", help="how events look (default: human)")
    logs.add_argument("--log-level", choices=_LOG_LEVELS, default="info", help="the least of them (default: info)")
    logs.add_argument("--quiet", action="store_true", help="no banner, and nothing below a warning")


def _add_config(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    config = _add_command(add_parser, "config", "look at the configuration", "Look at a configuration.")
    actions = config.add_subparsers(metavar="command", required=True)
    show = _add_command(actions.add_parser, "print", "show it", _CONFIG_PRINT)
    show.set_defaults(command="config print")
    _add_settings(show)
    show.add_argument("--all", action="store_true", dest="every_key", help="every key, with what it is for")


def _add_decode(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    decode = _add_command(add_parser, "decode", "show captured requests and responses", _DECODE, _DECODE_EXAMPLES)
    decode.set_defaults(command="decode")
    decode.add_argument(
        "input", nargs="?", default="-", metavar="FILE", help="what to read (default: -, which is stdin)"
    )
    formats = decode.add_mutually_exclusive_group()
    for name, meaning in _FORMATS:
        formats.add_argument(f"--{name}", action="store_const", const=name, dest="input_format", help=meaning)
    decode.add_argument(
        "--request",
        nargs=2,
        action="append",
        default=[],
        dest="requests",
        metavar=("API", "VERSION"),
        help="the frames are responses to this request, by key or name",
    )
    _add_output(decode)


def _add_proxy(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    proxy = _add_command(add_parser, "proxy", "show what a client and a broker say", _PROXY, _PROXY_EXAMPLES)
    proxy.set_defaults(command="proxy")
    proxy.add_argument("--listen", required=True, metavar="HOST:PORT", help="where clients connect; port 0 finds one")
    proxy.add_argument("--upstream", required=True, metavar="HOST:PORT", help="the broker")
    _add_output(proxy)


def _add_dump_log(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    dump = _add_command(add_parser, "dump-log", "show the files of a log", _DUMP_LOG, _DUMP_LOG_EXAMPLES)
    dump.set_defaults(command="dump-log")
    dump.add_argument("paths", nargs="+", metavar="FILE", help="a file of a log, or a partition's directory")
    dump.add_argument("--verify", action="store_true", help="say what is wrong, instead of showing what is there")
    for name, what in (("offsets", "__consumer_offsets"), ("transactions", "__transaction_state")):
        help_ = f"decode the records as those of {what}, whatever the directory's name"
        dump.add_argument(f"--{name}", action="store_const", const=what, dest="decoder", help=help_)
    dump.add_argument(
        "--max-characters",
        type=_count,
        default=400,
        metavar="N",
        help="how much of a key or value is shown; 0 for all (default: 400)",
    )
    dump.add_argument("--json", action="store_true", dest="as_json", help="a JSON object a line")
    _add_output(dump)


def _add_check_data(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    check = _add_command(add_parser, "check-data", "check data directories", _CHECK_DATA, _CHECK_DATA_EXAMPLES)
    check.set_defaults(command="check-data")
    check.add_argument("paths", nargs="+", metavar="DIR", help="a data directory (one of log.dirs)")
    check.add_argument("--repair", action="store_true", help="make anew what can be made from the records")
    check.add_argument("--json", action="store_true", dest="as_json", help="a JSON object a line")
    _add_color(check)


def _add_bench(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    bench = _add_command(add_parser, "bench", "measure a broker", _BENCH, _BENCH_EXAMPLES)
    bench.set_defaults(command="bench")
    bench.add_argument(
        "--bootstrap", default="localhost:9092", metavar="HOST:PORT", help="a broker (default: localhost:9092)"
    )
    groups = "produce, fetch, metadata, throughput, latency"
    bench.add_argument("--rows", default="", metavar="NAMES", help=f"with commas between: {groups} (default: all)")
    bench.add_argument(
        "--load",
        type=_load,
        action="append",
        default=[],
        dest="loads",
        metavar="CxN",
        help="C connections with N requests in flight each; may be repeated (default: 1x1, 1x5, 10x5)",
    )
    bench.add_argument("--seconds", type=_seconds, default=3.0, metavar="S", help="of each row (default: 3)")
    bench.add_argument("--acks", choices=("1", "all"), default="1", help="of producers (default: 1)")
    numbers = (
        ("--record-bytes", 1000, "values of the throughput rows; others have 100 bytes", _RECORD_BYTES_LIMIT),
        ("--records-per-s", 500, "pace of the latency rows", 10_000),
        ("--max-mb", 1000, "what the throughput row writes at most", 1_000_000),
        ("--replication-factor", 1, "of the topic", 1000),
    )
    names = {"--max-mb": "max_megabytes"}
    for flag, default, what, limit in numbers:
        help_ = f"{what} (default: {default})"
        type_ = partial(_between, 1, limit)
        name = names.get(flag, flag.removeprefix("--").replace("-", "_"))
        bench.add_argument(flag, type=type_, default=default, dest=name, metavar="N", help=help_)
    bench.add_argument("--topic", metavar="NAME", help="one that exists: records are added to it, nothing is deleted")
    bench.add_argument("--json", action="store_true", dest="as_json", help="a JSON object a line")


_COMMANDS: Final[Mapping[str, Callable[[Callable[..., argparse.ArgumentParser]], None]]] = {
    "start": _add_start,
    "config": _add_config,
    "decode": _add_decode,
    "proxy": _add_proxy,
    "dump-log": _add_dump_log,
    "check-data": _add_check_data,
    "bench": _add_bench,
}
"""How each adds itself to the parser, in the order in which they are shown."""


def _load(text: str) -> "Load":
    from kpy.cli.bench import load

    return load(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not _MIN_SECONDS <= seconds <= _MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"{text!r} is not between {_MIN_SECONDS} and {_MAX_SECONDS}")
    return seconds


def _between(least: int, most: int, text: str) -> int:
    if not text.isdecimal() or not least <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between {least} and {most}")
    return int(text)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return int(text)


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--records", action="store_true", dest="show_records", help="show the records in batches too")
    _add_color(parser)


def _add_color(parser: argparse.ArgumentParser) -> None:
    colors = ("auto", "always", "never")
    parser.add_argument("--color", choices=colors, default="auto", help="default: on terminals, unless NO_COLOR is set")


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", nargs="?", type=Path, metavar="server.properties", help="a configuration file")
    group = parser.add_argument_group("configuration")
    group.add_argument("--config", type=Path, metavar="FILE", help="the same, as a flag")
    data = group.add_mutually_exclusive_group()
    data.add_argument("--data-dir", type=Path, metavar="DIR", help="keep data here (log.dirs)")
    data.add_argument("--ephemeral", action="store_true", help="keep nothing: data in $TMPDIR, removed at the end")
    group.add_argument(
        "--listen", metavar="HOST:PORT", help="listen here, without TLS (listeners); port 0 is any free one"
    )
    group.add_argument("--advertise", metavar="HOST:PORT", help="where clients connect, if it is not where kpy listens")
    group.add_argument(
        *("--set", "--override"),
        action="append",
        default=[],
        dest="assignments",
        metavar="KEY=VALUE",
        help="set any broker key; may be repeated",
    )


def broker_config(options: Options, environ: Mapping[str, str], home: Path, ephemeral_dir: Path | None) -> BrokerConfig:
    """The configuration that file, environment and flags make together. Raises ConfigError."""
    path = options.config or options.file
    settings = config_sources.read_properties_file(path) if path else {}
    settings |= config_sources.from_environment(environ)
    settings |= config_sources.from_assignments(options.assignments, "--set")
    if options.listen is not None:
        settings["listeners"] = Setting(listeners.from_flag("--listen", options.listen), "--listen")
    if options.advertise is not None:
        settings["advertised.listeners"] = Setting(listeners.from_flag("--advertise", options.advertise), "--advertise")
    if options.data_dir is not None:
        settings["log.dirs"] = Setting(_directory(options.data_dir), "--data-dir")
    if ephemeral_dir is not None:
        settings["log.dirs"] = Setting(str(ephemeral_dir), "--ephemeral")
    return BrokerConfig(settings, {"log.dir": str(config_sources.default_data_dir(environ, home))})


def _directory(path: Path) -> str:
    if "," in str(path):
        raise ConfigError("--data-dir", str(path), "must not contain a comma, which separates directories in log.dirs")
    return str(path.absolute())
