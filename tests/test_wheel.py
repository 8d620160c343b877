"""What is installed: one top-level package, one command, and nothing that only development needs."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from compat.harness import require_tool
from hot_modules import HOT_MODULES

ROOT = Path(__file__).parent.parent


def build(directory: Path, *, path: str = os.environ["PATH"], native: str | None = None) -> tuple[zipfile.ZipFile, str]:
    """The wheel, and what was said while it was built. `native` is what KPY_NATIVE is set to."""
    environment = {name: value for name, value in os.environ.items() if name not in ("KPY_NATIVE", "CC")}
    asked = {"KPY_NATIVE": native} if native else {}
    run = subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--verbose", "--disable-pip-version-check", "--no-cache-dir"),
            *("--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(ROOT)),
        ],
        env=environment | {"PATH": path} | asked,
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise BuildError(run.stdout + run.stderr)
    [wheel_path] = directory.glob("kpy_broker-*.whl")
    return zipfile.ZipFile(wheel_path), run.stdout + run.stderr


class BuildError(Exception):
    """The wheel could not be built; what pip said of it."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    return build(tmp_path_factory.mktemp("wheel"), native="0")[0]


def packages(wheel: zipfile.ZipFile) -> set[str]:
    """What lies at its top level."""
    top = {name.split("/")[0] for name in wheel.namelist()}
    return {name for name in top if not name.endswith(".dist-info")}


def test_kpy_is_the_only_package_at_the_top_level(wheel: zipfile.ZipFile) -> None:
    assert packages(wheel) == {"kpy"}


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


def is_pure(wheel: zipfile.ZipFile) -> bool:
    """Whether it says so and is so."""
    is_for_all = str(wheel.filename).endswith("-py3-none-any.whl")
    assert is_for_all == (not [name for name in wheel.namelist() if name.endswith(".so")])
    return is_for_all


def test_a_wheel_with_nothing_compiled_is_pure_python(wheel: zipfile.ZipFile) -> None:
    assert is_pure(wheel)


@pytest.mark.timeout(900)
def test_a_wheel_is_compiled_and_runs_so_where_a_compiler_is(tmp_path: Path) -> None:
    require_tool("cc")
    built, _ = build(tmp_path / "wheel")
    assert not is_pure(built)
    assert packages(built) == {"kpy"}
    compiled = {name.split(".")[0] for name in built.namelist() if name.endswith(".so")}
    assert compiled == {"kpy/_native", "kpy/hot__mypyc", *(path.removesuffix(".py") for path in HOT_MODULES)}
    built.extractall(tmp_path / "installed")
    script = "from kpy.wire.produce import REQUEST_READERS; print(type(REQUEST_READERS[9]))"
    for asked, kind in (("", "<class 'kpy._native.Reader'>"), ("0", "<class 'function'>")):
        environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed"), "KPY_NATIVE": asked}
        command = [sys.executable, "-c", script]
        run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == kind


def test_a_wheel_is_pure_python_and_says_why_where_no_compiler_is(tmp_path: Path) -> None:
    built, said = build(tmp_path / "wheel", path=str(tmp_path))
    assert is_pure(built)
    assert [line.strip() for line in said.splitlines() if "accelerator" in line] == [
        "kpy is built without its accelerator: there is no C compiler"
    ]


def test_an_accelerator_that_must_be_there_fails_the_build_where_no_compiler_is(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="there is no C compiler"):
        build(tmp_path / "wheel", path=str(tmp_path), native="1")
