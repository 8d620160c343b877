"""Imports trio without what it imports for other programs, which took a fifth of the time, and a process of its own.

The modules named here are loaded when something of them is first used: they are as good as imported. (LazyLoader of
importlib loads them when they are imported a second time, which trio does.) And the library of POSIX threads, by which
trio gives threads their names, is looked for by running /sbin/ldconfig, though it has the same name wherever glibc is.
"""

import importlib
import os
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

LATER: Final = frozenset({"hmac", "idna", "shutil", "ssl", "subprocess", "tempfile"})
"""What trio, and ctypes for it, import and do not use before they are asked for TLS, names of hosts or processes."""

_loading = threading.RLock()


class _LaterModule(ModuleType):
    """A module that is loaded when it is first asked for something."""

    def __getattr__(self, name: str) -> Any:
        with _loading:
            spec = self.__spec__
            if spec is not None and isinstance(spec.loader, _LaterLoader):
                loader = spec.loader.loader
                spec.loader = self.__loader__ = loader
                loader.exec_module(self)
                self.__class__ = ModuleType  # pyright: ignore[reportAttributeAccessIssue]  # It is only that, from now on.
        return ModuleType.__getattribute__(self, name)  # No super(): it is of another class now.


class _LaterLoader:
    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _LaterModule


class _LaterFinder:
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in LATER:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            # Not derived from Loader, since importlib.abc would bring half of what is left out here.
            spec.loader = _LaterLoader(spec.loader)  # pyright: ignore[reportAttributeAccessIssue]
        return spec


@contextmanager
def _loaded_later() -> Generator[None]:
    finder = _LaterFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


@contextmanager
def _threads_library_known() -> Generator[None]:
    import ctypes.util

    found = ctypes.util.find_library

    def find_library(name: str) -> str | None:
        return "libpthread.so.0" if name == "pthread" and _has_glibc() else found(name)

    ctypes.util.find_library = find_library
    try:
        yield
    finally:
        ctypes.util.find_library = found


def _has_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (AttributeError, OSError, ValueError):
        return False


def import_trio() -> None:
    """Imports trio, and does nothing where that has been done."""
    if "trio" not in sys.modules:
        with _loaded_later(), _threads_library_known():
            importlib.import_module("trio")
