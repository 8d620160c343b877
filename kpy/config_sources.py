"""Where settings come from: a server.properties file, the environment, the command line.

Later sources win: file, then environment, then flags. Each setting remembers its origin, so that an error can name it.
"""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from kpy.config_types import ConfigError


class Setting(NamedTuple):
    """A key's text and where it was set, in words for the operator ("server.properties:12", "KAFKA_LISTENERS")."""

    text: str
    origin: str


def read_properties_file(path: Path) -> dict[str, Setting]:
    """The settings of a server.properties file. Raises ConfigError if it cannot be read."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigError("--config", str(path), f"cannot be read: {error.strerror}") from error
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        # Java reads these files as Latin-1, so one with such a comment is no reason to stop.
        text = raw.decode("latin-1")
    return {key: Setting(value, f"{path}:{line}") for key, value, line in parse_properties(text, str(path))}


_COMMENT: Final = ("#", "!")
_BLANK: Final = " \t\f"
_KEY_AND_VALUE: Final = re.compile(r"((?:\\.|[^\\=: \t\f])*)[ \t\f]*[=:]?[ \t\f]*(.*)", re.DOTALL)
_ESCAPE: Final = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_CONTROLS: Final = {"t": "\t", "n": "\n", "r": "\r", "f": "\f"}


def parse_properties(text: str, name: str = "") -> Iterator[tuple[str, str, int]]:
    """Yields (key, value, line number) by the rules of java.util.Properties. Raises ConfigError for a bad escape."""
    for line, number in _logical_lines(text):
        match = _KEY_AND_VALUE.fullmatch(line)
        assert match is not None, "every line has a key and a value, which may be empty"
        yield _unescape(match[1], name, number), _unescape(match[2], name, number), number


def _logical_lines(text: str) -> Iterator[tuple[str, int]]:
    """Lines without comments, joined where one ends in an odd number of backslashes; with the first one's number."""
    joined: list[str] = []
    start = 0
    # Not str.splitlines(): that also splits at form feeds and at Unicode's separators.
    for number, natural in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        line = natural.lstrip(_BLANK)
        if not joined:
            if not line or line.startswith(_COMMENT):
                continue
            start = number
        backslashes = len(line) - len(line.rstrip("\\"))
        if backslashes % 2:
            joined.append(line[:-1])
            continue
        yield "".join(joined) + line, start
        joined.clear()
    if joined:
        yield "".join(joined), start


def _unescape(text: str, name: str, line: int) -> str:
    def replacement(match: re.Match[str]) -> str:
        escape = match[1]
        if escape == "u":
            raise ConfigError("\\u", text, "four hexadecimal digits must follow", f"{name}:{line}")
        return chr(int(escape[1:], 16)) if len(escape) == 5 else _CONTROLS.get(escape, escape)

    return _ESCAPE.sub(replacement, text) if "\\" in text else text


# Variables of the container image that start with the prefix but are no configs (KafkaDockerWrapper).
_NOT_CONFIGS: Final = frozenset(
    {
        "KAFKA_VERSION",
        "KAFKA_HEAP_OPTS",
        "KAFKA_LOG4J_OPTS",
        "KAFKA_OPTS",
        "KAFKA_JMX_OPTS",
        "KAFKA_JVM_PERFORMANCE_OPTS",
        "KAFKA_GC_LOG_OPTS",
        "KAFKA_LOG4J_ROOT_LOGLEVEL",
        "KAFKA_LOG4J_LOGGERS",
        "KAFKA_TOOLS_LOG4J_LOGLEVEL",
        "KAFKA_JMX_HOSTNAME",
    }
)


def from_environment(environ: Mapping[str, str]) -> dict[str, Setting]:
    """KAFKA_* variables, by the rule of the apache/kafka image, and the CLUSTER_ID it takes beside them.

    After the prefix, one underscore is a dot, two are an underscore and three are a dash. The image appends each as a
    line to server.properties, so the value is read as one. KAFKA_CFG_*, an image of the past's prefix, counts less.
    """
    settings: dict[str, Setting] = {}
    if environ.get("CLUSTER_ID"):
        settings["cluster.id"] = Setting(environ["CLUSTER_ID"], "CLUSTER_ID")
    names = [name for name in environ if name.startswith("KAFKA_") and name not in _NOT_CONFIGS]
    for name in sorted(names, key=lambda name: (not name.startswith("KAFKA_CFG_"), name)):
        words = name.removeprefix("KAFKA_CFG_").replace("KAFKA_", "").lower()
        key = words.replace("_", ".").replace("...", "-").replace("..", "_")
        for line_key, value, _ in parse_properties(f"{key}={environ[name]}", name):
            settings[line_key] = Setting(value, name)
    return settings


def from_assignments(assignments: Iterable[str], flag: str) -> dict[str, Setting]:
    """What `--set key=value` says. Raises ConfigError for one without a key or an equals sign."""
    settings: dict[str, Setting] = {}
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key.strip():
            raise ConfigError(flag, assignment, "must be key=value")
        settings[key.strip()] = Setting(value, flag)
    return settings


def default_data_dir(environ: Mapping[str, str], home: Path, platform: str = sys.platform) -> Path:
    """Where data lies when nobody says: the place of the platform for what a program must keep (XDG; Apple's guide)."""
    if platform == "darwin":
        return home / "Library" / "Application Support" / "kpy"
    state = environ.get("XDG_STATE_HOME", "")
    # The XDG specification has relative paths ignored.
    return (Path(state) if state.startswith("/") else home / ".local" / "state") / "kpy"
