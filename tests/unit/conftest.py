"""What several kinds of unit tests need."""

import importlib.util
from collections.abc import Callable
from typing import Any

import pytest

from compat.harness import require_tool
from protocol import native


@pytest.fixture(scope="session")
def compiled_accelerator(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Compiles kpy's accelerator with these options of the compiler, and loads it beside others."""
    require_tool("cc")

    def compile_it(*options: str) -> Any:
        path = tmp_path_factory.mktemp("native") / "_native.so"
        native.compile_to(path, "-Werror", *options)
        spec = importlib.util.spec_from_file_location("_native", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return compile_it


@pytest.fixture(scope="session")
def accelerator(compiled_accelerator: Callable[..., Any]) -> Any:
    """kpy's accelerator, compiled for the tests, whether or not kpy itself runs with it."""
    return compiled_accelerator()
