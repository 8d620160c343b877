"""What is installed: one top-level package, one command, and nothing that only development needs."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from compat.harness import require_tool

ROOT = Path(__file__).parent.parent


def build(source: Path, directory: Path, **environment: str) -> zipfile.ZipFile:
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(source)),
        ],
        env={name: value for name, value in os.environ.items() if name != "KPY_NATIVE"} | environment,
        check=True,
    )
    [path] = directory.glob("kpy_broker-*.whl")
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return build(ROOT, tmp_path_factory.mktemp("wheel"))


def test_kpy_is_the_only_package_at_the_top_level(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"kpy"}


def test_the_command_is_kpy(wheel: zipfile.ZipFile) -> None:
    [entry_points] = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    assert wheel.read(entry_points).decode().split() == ["[console_scripts]", "kpy", "=", "kpy.__main__:main"]


def test_it_is_typed_and_licensed(wheel: zipfile.ZipFile) -> None:
    names = wheel.namelist()
    assert "kpy/py.typed" in names
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def test_running_needs_neither_development_nor_zookeeper_packages(wheel: zipfile.ZipFile) -> None:
    [metadata] = [name for name in wheel.namelist() if name.endswith("METADATA")]
    required = [
        line.split()[1].split(">")[0]
        for line in wheel.read(metadata).decode().splitlines()
        if line.startswith("Requires-Dist:") and "extra ==" not in line
    ]
    assert sorted(required) == ["cramjam", "fastcrc", "trio", "zstandard"]


def test_a_plain_wheel_is_pure_python(wheel: zipfile.ZipFile) -> None:
    assert str(wheel.filename).endswith("-py3-none-any.whl")
    assert not [name for name in wheel.namelist() if name.endswith(".so")]


def test_a_wheel_with_the_accelerator_runs_with_it(tmp_path: Path) -> None:
    require_tool("cc")
    # A copy, so that the codecs of the other tests stay what they are.
    source = tmp_path / "source"
    kept = shutil.ignore_patterns(".*", "__pycache__", "*.so", "target", "build", "node_modules")
    shutil.copytree(ROOT, source, ignore=kept)
    built = build(source, tmp_path / "wheel", KPY_NATIVE="1")
    assert "none-any" not in str(built.filename)
    built.extractall(tmp_path / "installed")
    script = "from kpy.wire.produce import REQUEST_READERS; print(type(REQUEST_READERS[9]))"
    command = [sys.executable, "-c", script]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "<class 'kpy._native.Reader'>"
