"""The broker's loggers as configs: resource type BROKER_LOGGER of DescribeConfigs and IncrementalAlterConfigs
(KIP-412).

Loggers are those of Python's logging package, levels go by Log4j's names. A change lasts until the broker stops.
"""

import logging

from kpy.api.config_resources import Operation, to_operation
from kpy.errors import ApiError, ErrorCode
from kpy.wire.incremental_alter_configs import AlterableConfig

ROOT = "root"
TRACE = 5
"""Python has no such level. Below DEBUG, so that everything is logged."""

LEVELS: dict[str, int] = {
    "DEBUG": logging.DEBUG,
    "ERROR": logging.ERROR,
    "FATAL": logging.CRITICAL,
    "INFO": logging.INFO,
    "TRACE": TRACE,
    "WARN": logging.WARNING,
}


def levels() -> dict[str, str]:
    """The level in force, by logger, the root logger first."""
    names = [name for name, logger in logging.root.manager.loggerDict.items() if isinstance(logger, logging.Logger)]
    return {name: _level_name(_logger(name).getEffectiveLevel()) for name in (ROOT, *sorted(names))}


def alter_levels(changes: list[AlterableConfig], *, validate_only: bool) -> None:
    """Carries out all changes, or none. Raises ApiError."""
    for change in changes:
        _check(change)
    if not validate_only:
        for change in changes:
            level = logging.NOTSET if change.config_operation == Operation.DELETE else LEVELS[change.value or ""]
            _logger(change.name).setLevel(level)


def _check(change: AlterableConfig) -> None:
    operation = to_operation(change.config_operation)
    if operation not in (Operation.SET, Operation.DELETE):
        raise ApiError(
            ErrorCode.INVALID_REQUEST, f"{operation.name} operation is not allowed for the BROKER_LOGGER resource"
        )
    if change.name != ROOT and not isinstance(logging.root.manager.loggerDict.get(change.name), logging.Logger):
        raise ApiError(ErrorCode.INVALID_CONFIG, f"Logger {change.name} does not exist!")
    if operation is Operation.DELETE:
        if change.name == ROOT:
            raise ApiError(ErrorCode.INVALID_REQUEST, "Removing the log level of the root logger is not allowed")
    elif change.value not in LEVELS:
        raise ApiError(
            ErrorCode.INVALID_CONFIG,
            f"Cannot set the log level of {change.name} to {change.value} as it is not a supported log level."
            f" Valid log levels are {', '.join(LEVELS)}",
        )


def _logger(name: str) -> logging.Logger:
    return logging.getLogger(None if name == ROOT else name)


def _level_name(level: int) -> str:
    """The most verbose of Log4j's levels that lets the same messages through."""
    return min((name for name in LEVELS if LEVELS[name] >= level), key=LEVELS.__getitem__, default="FATAL")
