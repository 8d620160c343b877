"""The accelerator, if it has been compiled: messages and records read and written in C (see protocol/native.py), and a
thread that sends (see net/sender.py).

With KPY_NATIVE=0 in its environment kpy runs without it, whether or not it is there. Whether hot modules are compiled,
too (see hot_modules.py), is settled when kpy is installed.
"""

import importlib
import os
from typing import Any, Final

INTERFACE: Final = 5
"""What native.h calls KPY_INTERFACE. Beside a checkout there may lie what was compiled from older sources."""


def _compiled() -> Any:
    if os.environ.get("KPY_NATIVE") == "0":
        return None
    try:
        found = importlib.import_module("kpy._native")
    except ModuleNotFoundError:
        return None
    return found if getattr(found, "INTERFACE", None) == INTERFACE else None


NATIVE: Any = _compiled()
"""The module, or None: then Python does the work."""


def how_it_runs() -> str:
    """For people: what of this kpy is C."""
    import importlib.util

    parts = [
        *(["the accelerator in C"] if NATIVE else []),
        *(["compiled modules"] if importlib.util.find_spec("kpy.hot__mypyc") else []),
    ]
    return f"with {' and '.join(parts)}" if parts else "in Python alone"
