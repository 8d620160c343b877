"""The accelerator, if it has been compiled: messages and records read and written in C (see protocol/native.py)."""

import importlib
from typing import Any


def _compiled() -> Any:
    try:
        return importlib.import_module("kpy._native")
    except ModuleNotFoundError:
        return None


NATIVE: Any = _compiled()
"""The module, or None: then Python does the work."""
