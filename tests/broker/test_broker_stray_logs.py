"""Logs that the metadata does not know: set aside with a line in the log, and never deleted."""

import json
import logging
from pathlib import Path

import pytest
from raw_client import Connect, batch, run_with_broker

from kpy.__main__ import main


def fill(data_dir: Path) -> None:
    async def test(connect: Connect) -> None:
        async with await connect() as client:
            await client.create_topic("t")
            await client.produce("t", batch(b"kept"))

    run_with_broker(data_dir, test)


def strays(data_dir: Path) -> list[Path]:
    return list(data_dir.glob("*-stray"))


def test_directory_without_its_topic_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path)
    (tmp_path / "t-0").rename(tmp_path / "gone-3")

    async def test(connect: Connect) -> None:
        async with await connect() as client:
            assert (await client.produce("t", batch(b"anew"))).base_offset == 0
            await client.create_topic("gone", partitions=4)

    with caplog.at_level(logging.WARNING):
        run_with_broker(tmp_path, test)
    (stray,) = strays(tmp_path)
    assert stray.name.startswith("gone-3.")
    assert b"kept" in (stray / f"{0:020d}.log").read_bytes()
    assert "gone-3 is set aside" in caplog.text


def test_log_with_another_topic_id_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path)
    metadata = tmp_path / "t-0" / "partition.metadata"
    metadata.write_text("version: 0\ntopic_id: AQIDBAUGBwgJCgsMDQ4PEA")

    async def test(connect: Connect) -> None:
        async with await connect() as client:
            assert (await client.produce("t", batch(b"anew"))).base_offset == 0

    with caplog.at_level(logging.WARNING):
        run_with_broker(tmp_path, test)
    (stray,) = strays(tmp_path)
    assert b"kept" in (stray / f"{0:020d}.log").read_bytes()
    assert "t-0 is set aside" in caplog.text
    assert "by its topic id" in caplog.text


def findings(data_dir: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    main(["check-data", "--json", str(data_dir)])
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return [f"{each['path']}: {each['what']}" for each in found if each.get("severity") in ("error", "warning")]


def test_the_check_of_a_data_directory_names_every_flipped_bit_of_a_topic_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path)
    path = tmp_path / "t-0" / "partition.metadata"
    sound = path.read_bytes()
    names = sorted(tmp_path.iterdir())
    capsys.readouterr()
    assert findings(tmp_path, capsys) == []
    valid = 0
    for position in range(len(sound) - 22, len(sound)):
        for bit in range(8):
            flipped = bytearray(sound)
            flipped[position] ^= 1 << bit
            path.write_bytes(flipped)
            found = findings(tmp_path, capsys)
            # The last of the 22 characters has four bits that are none of the id's.
            assert [each for each in found if each.startswith(str(path))] or position == len(sound) - 1
            valid += "the broker's metadata has" in "".join(found)
    assert valid > 22
    assert sorted(tmp_path.iterdir()) == names


def test_the_check_of_a_data_directory_names_damaged_metadata(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill(tmp_path)
    metadata = tmp_path / "kpy-metadata.sqlite"
    metadata.write_bytes(b"damaged" * 1000)
    capsys.readouterr()
    (found,) = findings(tmp_path, capsys)
    assert found.startswith(f"{metadata}: cannot be read")
