"""What is installed: one top-level package, one command, and nothing that only development needs."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    directory = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-build-isolation", "--wheel-dir", str(directory), str(ROOT)),
        ],
        check=True,
    )
    [path] = directory.glob("kpy_broker-*.whl")
    return zipfile.ZipFile(path)


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
