"""What several kinds of unit tests need."""

import importlib.util
from typing import Any

import pytest

from compat.harness import require_tool
from protocol import native


@pytest.fixture(scope="session")
def accelerator(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """kpy's accelerator, compiled for the tests, whether or not kpy itself runs with it."""
    require_tool("cc")
    path = tmp_path_factory.mktemp("native") / "_native.so"
    native.compile_to(path, "-Werror")
    spec = importlib.util.spec_from_file_location("_native", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
