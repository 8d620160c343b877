"""`kpy config print`: the configuration a broker would start with, as a server.properties file that says why."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from kpy.cli.arguments import Options, broker_config
from kpy.config import BrokerConfig, has_effect
from kpy.config_keys import BROKER_KEYS, find
from kpy.config_types import ConfigError, Type, to_text


def print_config(options: Options) -> int:
    """Prints and returns the exit code."""
    try:
        config = broker_config(options, os.environ, Path.home(), None)
    except ConfigError as error:
        print(f"kpy: error: {error}", file=sys.stderr)
        return 2
    for warning in config.warnings:
        print(f"kpy: warning: {warning}", file=sys.stderr)
    print("\n\n".join(_entries(config, every=options.every_key)))
    return 0


def _entries(config: BrokerConfig, *, every: bool) -> Iterator[str]:
    """Each key's lines: the origin of its value, what it is for where every key is shown, and the value."""
    for name in sorted(config.values):
        value, key = config.values[name], find(name)
        differs = name in BROKER_KEYS and config.defaults[name] != BROKER_KEYS[name].default
        if not every and not differs and name not in config.origins:
            continue
        lines = [f"# {key.doc}"] if every and key else []
        origin = config.origins.get(name, "kpy's default" if differs else "default")
        if differs and name not in config.origins:
            origin += f"; Apache Kafka's is {to_text(BROKER_KEYS[name].default)}"
        lines.append(f"# {origin}{'' if has_effect(name) else '; without effect in kpy'}")
        hidden = value is not None and (key is None or key.type is Type.PASSWORD)
        lines.append(f"#{name}=" if value is None else f"{name}={'[hidden]' if hidden else to_text(value)}")
        yield "\n".join(lines)
